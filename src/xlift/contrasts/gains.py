"""Gains: the score of a cell minus the baseline's at the same target, language, seed and metric."""

from __future__ import annotations

import polars as pl

from xlift.catalog.task import NONE
from xlift.columns import COUNT, NUMBER, TEXT, TRUTH, Column
from xlift.errors import UserError

CELL = ("target", "intermediate", "arm", "budget", "seed")
SCORE_KEY = ("study", "target", "intermediate", "arm", "budget", "seed", "language", "metric")
BASELINE_KEY = ("study", "target", "language", "seed", "metric")
SCORES = (
    Column("study", TEXT, "Name of the study."),
    Column("target", TEXT, "Target task that is scored."),
    Column("intermediate", TEXT, "Intermediate task; `none` for the baseline."),
    Column("arm", TEXT, "`main`, or in what way the intermediate run differs from it (docs/budgets.md)."),
    Column("budget", NUMBER, "Intermediate budget as a multiple of the task's reference examples; 0 for the baseline."),
    Column("seed", COUNT, "Seed of the run."),
    Column("language", TEXT, "Language that is scored, ISO 639-1."),
    Column("metric", TEXT, "Name of the metric (docs/predictions.md)."),
    Column("is_primary", TRUTH, "Whether it is the target's primary metric, the one that is analysed."),
    Column("score", NUMBER, "Score in points, 0 to 100."),
    Column("n", COUNT, "Examples the score is of; sentences in tagging."),
    Column("steps", COUNT, "Optimiser steps of the intermediate run as realised; 0 for the baseline."),
    Column("examples", COUNT, "Its training examples, repetitions counted."),
    Column("tokens", COUNT, "Its tokens without padding."),
    Column("padded_tokens", COUNT, "Its token positions, padding counted."),
    Column("flops", NUMBER, "Its floating-point operations that were run, forward and backward."),
    Column("batch_size", COUNT, "Its examples an optimiser step."),
    Column("collapsed", TRUTH, "Whether the intermediate or the target run stayed at its floor on English dev."),
    Column("shared_data", TRUTH, "Whether intermediate and target task are trained on the same English examples."),
)
"""scores.parquet."""
GAINS = (
    *SCORES,
    Column("gain", NUMBER, "Score minus the baseline's, in points."),
    Column("baseline_score", NUMBER, "The baseline's score at the same target, language, seed and metric."),
)
FERTILITY = Column(
    "fertility",
    NUMBER,
    "Tokens a character relative to English, geometric mean over the targets; null where no target has the language's "
    "own text.",
)
"""Column of gains.parquet that gains have where the scores were given it."""
SCORE_COLUMNS = tuple(column.name for column in SCORES)
GAIN_COLUMNS = tuple(column.name for column in GAINS)


def compute_gains(scores: pl.DataFrame) -> pl.DataFrame:
    """Gains of every scored row that has its baseline.

    Args:
        scores: one row a (cell, language, metric), `SCORE_COLUMNS`; scores in points, 0 to 100.

    Returns:
        The rows with an intermediate task, the same columns plus `gain` (points) and `baseline_score`,
        sorted by key. `collapsed` is true where the run or its baseline collapsed: either one distorts the
        gain. A row whose baseline is missing is not there; `completeness` lists such cells.

    Raises:
        UserError: a column is missing, a score is null, NaN or outside 0..100, or a key occurs twice.
    """
    _check_scores(scores)
    is_baseline = pl.col("intermediate") == NONE
    baseline = scores.filter(is_baseline).select(*BASELINE_KEY, baseline_score="score", baseline_collapsed="collapsed")
    _check_unique(baseline, BASELINE_KEY, "the baseline")
    return (
        scores.filter(~is_baseline)
        .join(baseline, on=list(BASELINE_KEY), how="inner")
        .with_columns(
            gain=pl.col("score") - pl.col("baseline_score"),
            collapsed=pl.col("collapsed") | pl.col("baseline_collapsed"),
        )
        .select(*GAIN_COLUMNS, *({FERTILITY.name} & set(scores.columns)))
        .sort(SCORE_KEY)
    )


def completeness(expected: pl.DataFrame, scores: pl.DataFrame) -> pl.DataFrame:
    """What of the planned grid has been scored.

    Args:
        expected: one row a cell: target, intermediate, arm, budget, seed (baselines too, as intermediate `none`).
        scores: as for `compute_gains`.

    Returns:
        The expected cells sorted, with `present` (bool), `n_languages` (scored languages, i64) and
        `n_languages_with_baseline` (those of them whose baseline at the same target and seed is scored,
        i64; for a baseline cell the same as `n_languages`). A cell gives gains for the latter only.

    Raises:
        UserError: a column is missing, or a cell is expected twice.
    """
    _check_columns(expected, CELL, "the expected cells")
    _check_columns(scores, (*CELL, "language"), "the scores")
    types = (pl.col("budget").cast(pl.Float64), pl.col("seed").cast(pl.Int64))
    cells = expected.select(CELL).with_columns(*types)
    _check_unique(cells, CELL, "the expected cells")
    scored = scores.select(*CELL, "language").with_columns(*types).unique()
    with_baseline = scored.filter(pl.col("intermediate") == NONE).select(
        "target", "seed", "language", has_baseline=pl.lit(True)
    )
    counts = (
        scored.join(with_baseline.unique(), on=["target", "seed", "language"], how="left")
        .group_by(CELL)
        .agg(
            n_languages=pl.len().cast(pl.Int64),
            n_languages_with_baseline=pl.col("has_baseline").fill_null(False).sum().cast(pl.Int64),
        )
    )
    return (
        cells.join(counts, on=list(CELL), how="left")
        .with_columns(pl.col("n_languages", "n_languages_with_baseline").fill_null(0))
        .select(*CELL, (pl.col("n_languages") > 0).alias("present"), "n_languages", "n_languages_with_baseline")
        .sort(CELL)
    )


def _check_scores(scores: pl.DataFrame) -> None:
    _check_columns(scores, SCORE_COLUMNS, "the scores")
    score = pl.col("score").cast(pl.Float64)
    bad = scores.filter(score.is_null() | score.is_nan() | (score < 0) | (score > 100))
    if bad.height:
        row = bad.sort(SCORE_KEY).row(0, named=True)
        raise UserError(
            f"scores: the score at {_key_text(row, SCORE_KEY)} is {row['score']}, not a number from "
            "0 to 100: score that cell again."
        )
    _check_unique(scores, SCORE_KEY, "the scores")


def _check_columns(table: pl.DataFrame, columns: tuple[str, ...], where: str) -> None:
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise UserError(f"{where}: column {', '.join(missing)} is missing: write the table again.")


def _check_unique(table: pl.DataFrame, key: tuple[str, ...], where: str) -> None:
    repeated = table.group_by(key).len().filter(pl.col("len") > 1)
    if repeated.height:
        row = repeated.sort(key).row(0, named=True)
        raise UserError(f"{where}: {row['len']} rows at {_key_text(row, key)}, where there is room for one: keep one.")


def _key_text(row: dict[str, object], key: tuple[str, ...]) -> str:
    return ", ".join(f"{name}={row[name]}" for name in key)
