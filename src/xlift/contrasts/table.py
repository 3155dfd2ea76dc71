"""The gains of a study as arrays, and what a complete grid of them would hold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from xlift.contrasts.clustered import FloatArray, IntArray, pair_codes, split_parts
from xlift.errors import UserError
from xlift.languages import SOURCE_LANGUAGE, Language, standardised_resource, stratum

BoolArray = npt.NDArray[np.bool_]

_KEY = ("target", "intermediate", "budget", "seed", "language")
_NEEDED = (*_KEY, "is_primary", "gain", "score", "baseline_score", "steps", "collapsed")


@dataclass(frozen=True)
class ContrastSettings:
    """Strata by GiB of CC-100 (`low` below `low_below`, `high` from `high_from`), level of the intervals.

    `shared_trunk`: the budgets of a seed are checkpoints of one long run, which is then the run cluster.
    """

    low_below: float = 2.0
    high_from: float = 20.0
    confidence: float = 0.95
    shared_trunk: bool = False


@dataclass(frozen=True)
class Scope:
    """A part of the grid: every target, intermediate task and budget, or only those given by code."""

    name: str
    target: int | None = None
    intermediate: int | None = None
    budget: int | None = None


@dataclass(frozen=True)
class GainTable:
    """Primary gains without English as arrays in key order; codes index the sorted names."""

    targets: list[str]
    intermediates: list[str]
    budgets: list[float]
    strata: npt.NDArray[np.str_]  # [languages]
    resource: FloatArray  # [languages], z of log2 size, NaN where unseen
    target: IntArray
    intermediate: IntArray
    budget: IntArray
    seed: IntArray
    language: IntArray
    treated: FloatArray
    baseline: FloatArray
    x: FloatArray  # log2 of the realised steps
    collapsed: BoolArray
    run: IntArray  # run cluster: the intermediate checkpoint, or the trunk that the budgets of a seed share
    cell: IntArray  # (target, intermediate, budget, seed)
    settings: ContrastSettings

    @classmethod
    def read(cls, gains: pl.DataFrame, languages: dict[str, Language], settings: ContrastSettings) -> GainTable:
        """Check and encode a gains table; see `estimate_contrasts` for the errors."""
        rows = _checked(gains).sort(_KEY)
        names = {key: rows[key].unique().sort().to_list() for key in _KEY}
        unknown = [name for name in names["language"] if name not in languages]
        if unknown:
            raise UserError(f"gains: language {', '.join(unknown)} is not in the language table: add a line for it.")
        codes = {
            key: np.searchsorted(np.array(values), rows[key].to_numpy()).astype(np.int64)
            if values
            else np.zeros(0, int)
            for key, values in names.items()
        }
        trunk = pair_codes(codes["intermediate"], codes["seed"])
        checkpoint = pair_codes(trunk, codes["budget"])
        resource = standardised_resource(languages.values())
        strata = [stratum(languages[name], settings.low_below, settings.high_from) for name in names["language"]]
        treated, baseline = np.zeros(0), np.zeros(0)
        if rows.height:
            treated, baseline = split_parts(
                rows["score"].cast(pl.Float64).to_numpy(),
                rows["baseline_score"].cast(pl.Float64).to_numpy(),
                pair_codes(codes["target"], codes["language"]),
                codes["seed"],
            )
        return cls(
            targets=names["target"],
            intermediates=names["intermediate"],
            budgets=names["budget"],
            strata=np.array(strata, dtype=str),
            resource=np.array([resource.get(name, np.nan) for name in names["language"]], dtype=np.float64),
            target=codes["target"],
            intermediate=codes["intermediate"],
            budget=codes["budget"],
            seed=codes["seed"],
            language=codes["language"],
            treated=treated,
            baseline=baseline,
            x=np.log2(rows["steps"].cast(pl.Float64).to_numpy()),
            collapsed=rows["collapsed"].to_numpy().astype(bool),
            run=trunk if settings.shared_trunk else checkpoint,
            cell=pair_codes(checkpoint, codes["target"]),
            settings=settings,
        )

    def inside(self, scope: Scope) -> BoolArray:
        """Rows of a scope. [rows]"""
        keep = np.ones(self.target.size, dtype=bool)
        for codes, wanted in self._limits(scope):
            if wanted is not None:
                keep &= codes == wanted
        return keep

    def missing_rows(self, scope: Scope, wanted_languages: BoolArray, present: int) -> int:
        """How many rows a complete grid would have besides those present.

        The grid is every (target, intermediate) pair of the table, at the budgets that its intermediate task
        has with any target, with every seed of the table and every language that its target has anywhere.
        """
        seeds = np.unique(self.seed).size
        n_languages = np.zeros((len(self.targets), wanted_languages.size), dtype=bool)
        n_languages[self.target, self.language] = True
        has_budget = np.zeros((len(self.intermediates), len(self.budgets)), dtype=bool)
        has_budget[self.intermediate, self.budget] = True
        if scope.budget is not None:
            has_budget[:, np.arange(len(self.budgets)) != scope.budget] = False
        has_pair = np.zeros((len(self.targets), len(self.intermediates)), dtype=bool)
        has_pair[self.target, self.intermediate] = True
        per_target = (n_languages & wanted_languages).sum(axis=1)
        expected = has_pair * per_target[:, None] * has_budget.sum(axis=1)[None, :] * seeds
        if scope.target is not None:
            expected = expected[[scope.target]]
        if scope.intermediate is not None:
            expected = expected[:, [scope.intermediate]]
        return int(expected.sum()) - present

    def _limits(self, scope: Scope) -> tuple[tuple[IntArray, int | None], ...]:
        return (
            (self.target, scope.target),
            (self.intermediate, scope.intermediate),
            (self.budget, scope.budget),
        )


def _checked(gains: pl.DataFrame) -> pl.DataFrame:
    """The primary rows without English, after checks."""
    missing = [name for name in _NEEDED if name not in gains.columns]
    if missing:
        raise UserError(f"gains: column {', '.join(missing)} is missing: compute the gains again.")
    rows = gains.filter(pl.col("is_primary") & (pl.col("language") != SOURCE_LANGUAGE))
    difference = pl.col("score") - pl.col("baseline_score") - pl.col("gain")
    checks = (
        ("an empty value", pl.any_horizontal(pl.col(_NEEDED).is_null()), "score that cell again"),
        ("two primary rows", pl.struct(_KEY).is_duplicated(), "mark one metric of a target as primary"),
        ("no positive number of steps", pl.col("steps") <= 0, "train that intermediate run again"),
        ("a gain that is not score - baseline_score", ~(difference.abs() < 1e-6), "compute the gains again"),
    )
    for problem, is_bad, remedy in checks:
        bad = rows.filter(is_bad)
        if bad.height:
            key = ", ".join(f"{name}={value}" for name, value in zip(_KEY, bad.select(_KEY).row(0), strict=True))
            raise UserError(f"gains: {problem} at {key}: {remedy}.")
    return rows
