"""The gains of a study as arrays, and which of the planned ones are absent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from xlift.catalog import CATALOG
from xlift.contrasts.clustered import FloatArray, IntArray, pair_codes
from xlift.contrasts.rows import METHODS, POINTS
from xlift.contrasts.scales import LOGIT, SCALES, BoolArray, parts_on
from xlift.errors import UserError
from xlift.languages import SOURCE_LANGUAGE, Language
from xlift.resource import Measure, Resource, measure_of, resource_levels

__all__ = ["BoolArray", "ContrastSettings", "GainTable", "Scope"]

_KEY = ("target", "intermediate", "budget", "seed", "language")
NO_GAINS = {
    "target": pl.String, "intermediate": pl.String, "budget": pl.Float64, "seed": pl.Int64, "language": pl.String,
    "is_primary": pl.Boolean, "gain": pl.Float64, "score": pl.Float64, "baseline_score": pl.Float64, "n": pl.Int64,
    "steps": pl.Int64, "collapsed": pl.Boolean,
}  # fmt: skip
"""The columns that a gains table has to have, with their types."""
_NEEDED = tuple(NO_GAINS)


@dataclass(frozen=True)
class ContrastSettings:
    """How the contrasts are made.

    resource, low_below, high_from, pretraining, own_sizes: as for `resource_levels`. confidence: level of the
    intervals. smallest_effect: of interest, points per doubling per standard deviation of the resource.
    bootstrap_draws, permutations: how many. scales, methods, sensitivity: what is computed. chance: chance level
    by target, as a share. shared_trunk: the budgets of a seed are checkpoints of one long run, which is then the
    run cluster.
    """

    low_below: float | None = None
    high_from: float | None = None
    confidence: float = 0.95
    shared_trunk: bool = False
    resource: str = "cc100"
    pretraining: str = "xlmr"
    own_sizes: Mapping[str, float | None] | None = None
    smallest_effect: float = 0.2
    bootstrap_draws: int = 2000
    permutations: int = 2000
    scales: tuple[str, ...] = SCALES
    methods: tuple[str, ...] = METHODS
    sensitivity: bool = True
    chance: Mapping[str, float] = field(default_factory=lambda: {name: task.chance for name, task in CATALOG.items()})

    @property
    def measure(self) -> Measure:
        """The resource measure with its bounds."""
        return measure_of(self.resource, self.low_below, self.high_from)

    def levels(self, languages: Mapping[str, Language]) -> Resource:
        """The resource levels these settings give the languages."""
        return resource_levels(
            languages.values(), self.resource, self.low_below, self.high_from, self.pretraining, self.own_sizes
        )


@dataclass(frozen=True)
class Scope:
    """A part of the grid: every target, intermediate task and budget, or only those given by code."""

    name: str
    target: int | None = None
    intermediate: int | None = None
    budget: int | None = None

    @property
    def kind(self) -> tuple[str, ...]:
        """What the parts of the name are of, without which: ("budget", "target")."""
        return tuple(part.split("=")[0] for part in self.name.split(";"))


@dataclass(frozen=True)
class Absent:
    """Planned gains that are not there, by the table's codes. [absent gains]"""

    target: IntArray
    intermediate: IntArray
    budget: IntArray
    language: IntArray
    cell: IntArray  # (target, intermediate, budget, seed), in codes of its own


@dataclass(frozen=True)
class GainTable:
    """Primary gains without English, as arrays in key order; codes index the sorted names.

    Names are those of the planned gains too, whether or not there is a row of them. `treated - baseline` is the gain on
    `scale`, NaN where that is not defined. [rows] unless said otherwise.
    """

    targets: list[str]
    intermediates: list[str]
    budgets: list[float]
    languages: list[str]
    strata: npt.NDArray[np.str_]  # [languages]
    resource: FloatArray  # [languages], z, NaN where unseen
    target: IntArray
    intermediate: IntArray
    budget: IntArray
    seed: IntArray
    language: IntArray
    score: FloatArray  # points
    baseline_score: FloatArray  # points
    n: FloatArray  # items of the test set
    chance: FloatArray  # chance level as a share; NaN where the settings have none
    scale: str
    treated: FloatArray
    baseline: FloatArray
    x: FloatArray  # log2 of the realised steps
    collapsed: BoolArray
    run: IntArray  # run cluster: the intermediate checkpoint, or the trunk that the budgets of a seed share
    cell: IntArray  # (target, intermediate, budget, seed)
    absent: Absent
    settings: ContrastSettings
    gone: str = ""  # why gains are NaN that are defined: what was left out of them

    @classmethod
    def read(
        cls,
        gains: pl.DataFrame,
        planned: pl.DataFrame,
        languages: Mapping[str, Language],
        settings: ContrastSettings,
    ) -> GainTable:
        """Check and encode a gains table, in points; see `estimate_contrasts` for the arguments and errors."""
        rows = cls.rows_of(gains)
        lost = _absent(rows, planned)
        names = {key: pl.concat([rows[key], lost[key]]).unique().sort().to_list() for key in _KEY}
        names["seed"] = rows["seed"].unique().sort().to_list()  # draws are made among the seeds that are there
        unknown = [name for name in names["language"] if name not in languages]
        if unknown:
            raise UserError(f"gains: language {', '.join(unknown)} is not in the language table: add a line for it.")
        codes = {key: _coded(rows[key], values) for key, values in names.items()}
        trunk = pair_codes(codes["intermediate"], codes["seed"])
        checkpoint = pair_codes(trunk, codes["budget"])
        levels = settings.levels(languages)
        without = [name for name in names["language"] if name not in levels.strata]
        if without:
            raise UserError(f"{settings.resource}: lacks {', '.join(without)}: add a line for each.")
        chance = np.array([settings.chance.get(name, np.nan) for name in names["target"]], dtype=np.float64)
        table = cls(
            targets=names["target"],
            intermediates=names["intermediate"],
            budgets=names["budget"],
            languages=names["language"],
            strata=np.array([levels.strata[name] for name in names["language"]], dtype=str),
            resource=np.array([levels.z.get(name, np.nan) for name in names["language"]], dtype=np.float64),
            target=codes["target"],
            intermediate=codes["intermediate"],
            budget=codes["budget"],
            seed=codes["seed"],
            language=codes["language"],
            score=rows["score"].cast(pl.Float64).to_numpy(),
            baseline_score=rows["baseline_score"].cast(pl.Float64).to_numpy(),
            n=rows["n"].cast(pl.Float64).to_numpy(),
            chance=chance[codes["target"]],
            scale=POINTS,
            treated=np.zeros(rows.height),
            baseline=np.zeros(rows.height),
            x=np.log2(rows["steps"].cast(pl.Float64).to_numpy()),
            collapsed=rows["collapsed"].to_numpy().astype(bool),
            run=trunk if settings.shared_trunk else checkpoint,
            cell=pair_codes(checkpoint, codes["target"]),
            absent=Absent(
                **{key: _coded(lost[key], names[key]) for key in ("target", "intermediate", "budget", "language")},
                cell=lost.select(pl.struct(_KEY[:-1]).rank("dense")).to_series().to_numpy().astype(np.int64),
            ),
            settings=settings,
        )
        return table.on(POINTS)

    @staticmethod
    def rows_of(gains: pl.DataFrame) -> pl.DataFrame:
        """The rows of a gains table that a `GainTable` has, checked, in its order."""
        return _checked(gains).sort(_KEY)

    def by_resource(self, levels: Resource) -> GainTable:
        """The same gains with the resource levels of another measure."""
        return replace(
            self,
            strata=np.array([levels.strata[name] for name in self.languages], dtype=str),
            resource=np.array([levels.z.get(name, np.nan) for name in self.languages], dtype=np.float64),
        )

    def on(self, scale: str) -> GainTable:
        """The same gains on another scale. `UserError` where the log-odds of a target have no chance level."""
        if scale == LOGIT and np.isnan(self.chance).any():
            absent = self.targets[int(self.target[np.isnan(self.chance)][0])]
            raise UserError(f"gains: target {absent} has no chance level in the catalog: add one for its log-odds.")
        if not self.target.size:
            return replace(self, scale=scale)
        group = pair_codes(self.target, self.language)
        parts = parts_on(scale, self.score, self.baseline_score, self.n, self.chance, group, self.seed)
        return replace(self, scale=scale, treated=parts[0], baseline=parts[1])

    @property
    def defined(self) -> BoolArray:
        """Rows whose gain is defined on the scale. [rows]"""
        return np.isfinite(self.treated)

    def planned(self, key: Literal["target", "intermediate", "budget"]) -> IntArray:
        """Codes of every planned gain, those that are there first."""
        parts: tuple[IntArray, IntArray] = getattr(self, key), getattr(self.absent, key)
        return np.concatenate(parts)

    def inside(self, scope: Scope) -> BoolArray:
        """Rows of a scope. [rows]"""
        return _inside(self, scope, self.target.size)

    def absent_inside(self, scope: Scope, wanted_languages: BoolArray) -> tuple[int, int]:
        """How many planned gains of a scope, in languages of interest, are absent, and of how many cells."""
        absent = self.absent
        missing = _inside(absent, scope, absent.target.size) & wanted_languages[absent.language]
        return int(np.count_nonzero(missing)), np.unique(absent.cell[missing]).size


def _inside(codes: GainTable | Absent, scope: Scope, size: int) -> BoolArray:
    keep = np.ones(size, dtype=bool)
    limits = ((codes.target, scope.target), (codes.intermediate, scope.intermediate), (codes.budget, scope.budget))
    for own, wanted in limits:
        if wanted is not None:
            keep &= own == wanted
    return keep


def _absent(rows: pl.DataFrame, planned: pl.DataFrame) -> pl.DataFrame:
    """Keys of the planned gains, without English, that are in no row."""
    missing = [name for name in _KEY if name not in planned.columns]
    if missing:
        raise ValueError(f"planned gains have no column {', '.join(missing)}")
    keys = planned.filter(pl.col("language") != SOURCE_LANGUAGE).select(
        pl.col(key).cast(rows.schema[key]) for key in _KEY
    )
    return keys.unique().join(rows, on=_KEY, how="anti").sort(_KEY)


def _coded(values: pl.Series, names: list[Any]) -> IntArray:
    """Places of values among sorted names that hold them all."""
    return np.searchsorted(np.array(names), values.to_numpy()).astype(np.int64) if names else np.zeros(0, np.int64)


def _checked(gains: pl.DataFrame) -> pl.DataFrame:
    """The primary rows without English, after checks."""
    missing = [name for name in _NEEDED if name not in gains.columns]
    if missing:
        raise UserError(f"gains: column {', '.join(missing)} is missing: compute the gains again.")
    rows = gains.filter(pl.col("is_primary") & (pl.col("language") != SOURCE_LANGUAGE))
    difference = pl.col("score") - pl.col("baseline_score") - pl.col("gain")
    outside = pl.any_horizontal(~pl.col(name).is_between(0, 100) for name in ("score", "baseline_score"))
    checks = (
        ("an empty value", pl.any_horizontal(pl.col(_NEEDED).is_null()), "score that cell again"),
        ("two primary rows", pl.struct(_KEY).is_duplicated(), "mark one metric of a target as primary"),
        ("no positive number of steps", pl.col("steps") <= 0, "train that intermediate run again"),
        ("no positive number of items", pl.col("n") <= 0, "score that cell again"),
        ("a score outside 0 to 100", outside, "score that cell again"),
        ("a gain that is not score - baseline_score", ~(difference.abs() < 1e-6), "compute the gains again"),
    )
    for problem, is_bad, remedy in checks:
        bad = rows.filter(is_bad)
        if bad.height:
            key = ", ".join(f"{name}={value}" for name, value in zip(_KEY, bad.select(_KEY).row(0), strict=True))
            raise UserError(f"gains: {problem} at {key}: {remedy}.")
    return rows
