"""Two studies with finished results, side by side: settings, means of cells that both have, headline contrasts.

Nothing here is tested for significance: two studies are two samples of runs, and their runs are pairs only where seed
and everything they depend on are the same, in which case they differ at most by the machine. What both have is
compared, and what only one has is counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from xlift.analysis import CONFIRMATORY, PLAN, analysis_settings, plan_changes, plan_sentence
from xlift.artifacts import canonical_json, holds
from xlift.contrasts.answer import counted, signed
from xlift.contrasts.gains import compute_gains
from xlift.contrasts.rows import CLUSTERED, POINTS
from xlift.errors import UserError
from xlift.grid import Grid, place, plan_specification
from xlift.languages import SOURCE_LANGUAGE
from xlift.planning.text import table
from xlift.tables import read_table

SIDES = ("first", "second")
KEY = ("target", "intermediate", "arm", "budget", "metric", "language")
"""What a score is of, but for the seed; the metric is the primary one."""
CELL = KEY[:-2]
UNSET = None
"""Stands for a setting that a study does not have."""
OF_ONE_MEASURE = (
    "version",
    "resource",
    "low_below",
    "high_from",
    "pretraining",
    "own_sizes",
    "confidence",
    "shared_trunk",
)
"""Parts of a plan without which two contrasts are not of the same quantity, with intervals of the same kind."""
SCOPE = ("intermediates", "budgets", "targets", "languages")
"""Parts of a plan that say what a contrast is taken over."""


@dataclass(frozen=True)
class Side:
    """One of the two: its grid, the folder of its results, and its tables."""

    grid: Grid
    results: Path
    scores: pl.DataFrame
    contrasts: pl.DataFrame

    @classmethod
    def read(cls, grid: Grid, file: str, root: Path) -> Side:
        """Scores and contrasts of the study in `file`; UserError where they are not there or are of other settings."""
        results = root / grid.study.study
        for name in ("scores.parquet", "contrasts.parquet"):
            if not (results / name).exists():
                raise UserError(f"{results / name}: is not there yet; run the workflow on {file} first")
        if not holds(results / "scores.parquet", grid.scores_stamp.fingerprint):
            raise UserError(
                f"{results / 'scores.parquet'}: was made with other settings than those of {file}, or is damaged; "
                "run the workflow again"
            )
        return cls(grid, results, read_table(results / "scores.parquet"), read_table(results / "contrasts.parquet"))

    @property
    def name(self) -> str:
        """The study's name."""
        return self.grid.study.study


@dataclass(frozen=True)
class Difference:
    """A setting that is not the same; None: the study has no such setting."""

    setting: str
    first: Any
    second: Any


@dataclass(frozen=True)
class Comparison:
    """Two studies compared; `difference` is always the second's minus the first's, in points.

    cells: a row a `KEY` that both have scores of: mean, number of seeds and steps on each side, and the differences of
    score and gain (null of baselines). only_first, only_second: number of keys that one side alone has. same_runs,
    shared_runs: of the cells with the same place and seed in both grids, how many depend on the very same things.
    """

    names: tuple[str, str]
    settings: list[Difference]
    cells: pl.DataFrame
    only_first: int
    only_second: int
    same_runs: int
    shared_runs: int
    contrasts: pl.DataFrame
    comparable: str
    plans: tuple[str, str]

    def as_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {
            "studies": dict(zip(SIDES, self.names, strict=True)),
            "settings": [asdict(difference) for difference in self.settings],
            "cells": self.cells.to_dicts(),
            "keys_only_in": {"first": self.only_first, "second": self.only_second},
            "runs": {"in_both": self.shared_runs, "of_the_same_settings": self.same_runs},
            "contrasts": self.contrasts.to_dicts(),
            "comparable": self.comparable,
            "plans": dict(zip(SIDES, self.plans, strict=True)),
        }


def compare(first: Grid, second: Grid, files: tuple[str, str], root: Path) -> Comparison:
    """Compare two studies whose results are under `root`; `files` are what errors call them.

    Raises:
        UserError: they have one name and so one folder; results of one are missing or of other settings; no target,
            intermediate, arm, budget, metric and language that both have.
    """
    if first.study.study == second.study.study:
        raise UserError(
            f"{files[0]} and {files[1]}: are both named {first.study.study}, so that there is one folder of "
            "results for both; give one another name"
        )
    sides = Side.read(first, files[0], root), Side.read(second, files[1], root)
    cells, only_first, only_second = shared_cells(sides[0].scores, sides[1].scores)
    if cells.is_empty():
        raise UserError(
            f"{files[0]} and {files[1]}: have no target, intermediate task, arm, budget, metric and language in "
            "common; compare studies whose grids overlap"
        )
    here, there = (run_fingerprints(side.grid) for side in sides)
    shared = here.keys() & there.keys()
    plans = [plan_specification(side.grid) for side in sides]
    return Comparison(
        names=(sides[0].name, sides[1].name),
        settings=setting_differences(flat_settings(first), flat_settings(second)),
        cells=cells,
        only_first=only_first,
        only_second=only_second,
        same_runs=sum(here[key] == there[key] for key in shared),
        shared_runs=len(shared),
        contrasts=headline(sides[0].contrasts, sides[1].contrasts),
        comparable=comparability(*plans),
        plans=(plan_sentence(sides[0].results / PLAN, plans[0]), plan_sentence(sides[1].results / PLAN, plans[1])),
    )


def flat_settings(grid: Grid) -> dict[str, Any]:
    """A study's settings, defaults and recipes resolved, by dotted key; without its name."""
    study = grid.study
    settings = study.model_dump(mode="json", exclude={"study"})
    settings["budgets"] = [entry.text for entry in study.budgets]
    analysis = analysis_settings(study)
    settings["contrasts"] |= {name: analysis[name] for name in settings["contrasts"] if name in analysis}
    settings["recipes"] = {
        task: {**asdict(recipe), "learning_rate": grid.learning_rate(task)} for task, recipe in grid.recipes.items()
    }
    return dict(_flat(settings))


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, entry in value.items():
        if isinstance(entry, Mapping):
            yield from _flat(entry, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", list(entry) if isinstance(entry, tuple) else entry


def setting_differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Difference]:
    """What differs, by key. Of tasks that one study alone has, their names tell, and not every setting of theirs."""
    tasks = [{key.split(".")[1] for key in side if key.startswith("recipes.")} for side in (first, second)]
    alone = tuple(f"recipes.{task}." for task in tasks[0] ^ tasks[1])
    return [
        Difference(key, first.get(key, UNSET), second.get(key, UNSET))
        for key in sorted({*first, *second})
        if not key.startswith(alone) and first.get(key, UNSET) != second.get(key, UNSET)
    ]


def shared_cells(first: pl.DataFrame, second: pl.DataFrame) -> tuple[pl.DataFrame, int, int]:
    """Means over seeds of primary scores and gains by `KEY`, side by side, of the keys that both have.

    Returns them, and how many keys the first and the second have alone. The second's mean minus the first's is
    `score_difference`; `gain_difference` likewise, null where a side has no gain.
    """
    means = [_means(scores, side) for scores, side in zip((first, second), SIDES, strict=True)]
    both = means[0].join(means[1], on=list(KEY), how="inner")
    cells = both.with_columns(
        score_difference=pl.col("score_second") - pl.col("score_first"),
        gain_difference=pl.col("gain_second") - pl.col("gain_first"),
    ).sort(KEY)
    return cells, means[0].height - both.height, means[1].height - both.height


def _means(scores: pl.DataFrame, side: str) -> pl.DataFrame:
    """By `KEY`, named after the side: mean score and gain (points), mean steps before the target, number of seeds."""
    primary = scores.filter("is_primary")
    gains = compute_gains(primary).select(*KEY, "seed", "gain")
    of_side = {
        **{f"{name}_{side}": pl.col(name).mean() for name in ("score", "gain", "steps")},
        f"seeds_{side}": pl.col("seed").n_unique().cast(pl.Int64),
    }
    return primary.join(gains, on=[*KEY, "seed"], how="left").group_by(KEY).agg(**of_side)


def run_fingerprints(grid: Grid) -> dict[tuple[Any, ...], str]:
    """By place in the grid, seed included, the fingerprint of all that a cell's predictions depend on."""
    return {place(cell.target, cell.intermediate): grid.stamp("predict", cell).fingerprint for cell in grid.cells}


def headline(first: pl.DataFrame, second: pl.DataFrame) -> pl.DataFrame:
    """The confirmatory contrasts with interval and sizes, side by side; null where a study has no such row."""
    columns = ("estimate", "ci_low", "ci_high", "n_languages", "n_runs", "note")
    found = pl.DataFrame({"estimand": CONFIRMATORY})
    for contrasts, side in zip((first, second), SIDES, strict=True):
        here = contrasts.filter(scope="all", scale=POINTS, method=CLUSTERED)
        renamed = here.select("estimand", **{f"{name}_{side}": name for name in columns})
        found = found.join(renamed, on="estimand", how="left", maintain_order="left")
    return found


def comparability(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    """Whether two plans' contrasts are of the same quantity, in a sentence."""
    of = [
        "; ".join(plan_changes(*({name: plan.get(name) for name in names} for plan in (first, second))))
        for names in (OF_ONE_MEASURE, SCOPE, ("seeds",))
    ]
    if of[0]:
        return f"Not comparable: the contrasts are of different quantities ({of[0]})."
    seeds = f"; seeds differ ({of[2]})" if of[2] else ""
    if of[1]:
        return f"The same estimands and strata, but over different tasks, budgets or languages ({of[1]}){seeds}."
    return f"Comparable: the same estimands and strata, over the same tasks, budgets and languages{seeds}."


def text_of(comparison: Comparison, confidence: tuple[float, float]) -> str:
    """A comparison for a terminal: means over languages but English. `confidence`: levels of the two's intervals."""
    first, second = comparison.names
    lines = [f"Second minus first: {second} minus {first}, in points.", ""]
    if comparison.settings:
        rows = [(each.setting, _shown(each.first), _shown(each.second)) for each in comparison.settings]
        lines += [*table([("setting", first, second), *rows]), ""]
    else:
        lines += ["All settings but the name are the same.", ""]
    lines += [*table([SUMMARY_HEAD, *summary_rows(comparison.cells)], left=3), ""]
    lines += [
        f"{counted(comparison.cells.height, 'mean')} of a target, intermediate task, arm, budget and language in both; "
        f"{first} alone has {comparison.only_first} more, {second} alone {comparison.only_second}.",
        *_steps_sentence(comparison.cells),
        _runs_sentence(comparison),
        "",
        *table([("contrast", first, second), *_contrast_rows(comparison.contrasts, confidence)]),
        "",
        comparison.comparable,
        *(f"{name}: {said}" for name, said in zip(comparison.names, comparison.plans, strict=True)),
    ]
    return "\n".join(lines)


SUMMARY_HEAD = ("target", "intermediate", "arm", "budget", "languages", "score", "lowest", "highest", "gain")


def summary_rows(cells: pl.DataFrame) -> list[tuple[str, ...]]:
    """By cell: number of languages but English, mean, lowest and highest difference of score, mean one of gain."""
    rows = (
        cells.filter(pl.col("language") != SOURCE_LANGUAGE)
        .group_by(CELL)
        .agg(
            pl.len(),
            pl.col("score_difference").mean().alias("mean"),
            pl.col("score_difference").min().alias("lowest"),
            pl.col("score_difference").max().alias("highest"),
            pl.col("gain_difference").mean().alias("gain"),
        )
        .sort(CELL)
    )
    return [
        (target, intermediate, arm, f"{budget:g}", str(count), *map(signed, numbers))
        for target, intermediate, arm, budget, count, *numbers in rows.iter_rows()
    ]


def _steps_sentence(cells: pl.DataFrame) -> list[str]:
    other = cells.filter(pl.col("steps_first") != pl.col("steps_second")).select(CELL).unique().height
    whole = cells.select(CELL).unique().height
    return [f"In {other} of {whole} cells the same budget is another number of steps in each study."] if other else []


def _runs_sentence(comparison: Comparison) -> str:
    same, shared = comparison.same_runs, comparison.shared_runs
    if not shared:
        return "No seed is in both, so no runs are pairs; no test is made of the differences."
    if same == shared:
        return f"All {shared} cells of the same seed are of the same settings: they differ at most by the machine."
    return (
        f"{same} of {shared} cells of the same seed are of the same settings; the others are not pairs of runs, so no "
        "test is made of the differences."
    )


def _contrast_rows(contrasts: pl.DataFrame, confidence: Sequence[float]) -> list[tuple[str, ...]]:
    return [
        (row["estimand"], *(_estimate(row, side, level) for side, level in zip(SIDES, confidence, strict=True)))
        for row in contrasts.iter_rows(named=True)
    ]


def _estimate(row: Mapping[str, Any], side: str, confidence: float) -> str:
    estimate, low, high = (row[f"{name}_{side}"] for name in ("estimate", "ci_low", "ci_high"))
    if estimate is None:
        return row[f"note_{side}"] or "-"
    interval = "no interval" if low is None else f"{100 * confidence:g}% {signed(low)} to {signed(high)}"
    return f"{signed(estimate)} ({interval})"


def _shown(value: Any) -> str:
    return "-" if value is UNSET else value if isinstance(value, str) else canonical_json(value)
