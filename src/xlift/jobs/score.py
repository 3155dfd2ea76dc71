"""Scoring a cell, and collecting runs into a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from xlift.artifacts import fingerprint, holds, manifest_of
from xlift.columns import COUNT, NUMBER, TEXT, TRUTH, Column, in_columns
from xlift.contrasts.gains import SCORE_KEY, SCORES
from xlift.errors import UserError
from xlift.metrics import score_predictions
from xlift.tables import publish_table, read_table

REALISED = ("steps", "examples", "tokens", "padded_tokens", "flops", "batch_size")
"""What a score row tells of the intermediate run."""
FLOATS = {"flops"}
RUN_FACTS = (
    "conventional_flops",
    "job_steps",
    "job_flops",
    "seconds",
    "seconds_to_first_step",
    "seconds_job",
    "peak_memory_mib",
    "device",
    "dtype",
    "platform",
    "final_loss",
)
RUNS = (
    Column("kind", TEXT, "`trunk`, `intermediate` or `target`."),
    Column("target", TEXT, "Target task; null of an intermediate run or a trunk's segment."),
    Column("intermediate", TEXT, "Intermediate task; `none` for the baseline's target runs."),
    Column("arm", TEXT, "As in scores.parquet."),
    Column("budget", NUMBER, "As in scores.parquet; of a trunk's segment the budget that branches off at its end."),
    Column("seed", COUNT, "Seed."),
    Column("steps", COUNT, "Optimiser steps since the run's first, those of a trunk before it counted."),
    Column("examples", COUNT, "Training examples of these steps, repetitions counted."),
    Column("tokens", COUNT, "Their tokens without padding."),
    Column("padded_tokens", COUNT, "Their token positions, padding counted."),
    Column("flops", NUMBER, "Their floating-point operations that were run, forward and backward."),
    Column("batch_size", COUNT, "Examples an optimiser step."),
    Column("conventional_flops", NUMBER, "6 N D (Kaplan et al., 2020): encoder weights without embeddings x tokens."),
    Column("job_steps", COUNT, "Steps without those that a trunk had made before."),
    Column("job_flops", NUMBER, "Operations of these."),
    Column("seconds", NUMBER, "Seconds inside the training loop, without a trunk's before."),
    Column("seconds_to_first_step", NUMBER, "Seconds from the process' start to its first step; null: it made none."),
    Column("seconds_job", NUMBER, "Seconds from the process' start to its publishing the run."),
    Column("peak_memory_mib", NUMBER, "Most memory, MiB: of the GPU where there is one, else of the process."),
    Column("device", TEXT, "Name of the GPU or processor."),
    Column("dtype", TEXT, "`bf16` or `fp32`: what matrix products were computed in."),
    Column("platform", TEXT, "System, machine and number of processors."),
    Column("final_loss", NUMBER, "Loss of the last step."),
    Column("dev_metric", TEXT, "Metric of English dev; null of a trunk's segment, as the next three."),
    Column("dev_score", NUMBER, "English dev score in points; of a mixture the mean over its tasks."),
    Column("dev_floor", NUMBER, "Score in points of the best answer that ignores the input."),
    Column("collapsed", TRUTH, "Whether the dev score is no more than the floor; false of a trunk's segment."),
    Column("versions", TEXT, "Versions of Python and of the libraries that decide results, as JSON."),
)
"""runs.parquet; facts of a run are those of its manifest with the same name."""


def score_cell(
    specification: dict[str, Any], predictions: str, intermediate: str | None, target: str | None, scores: str
) -> None:
    """Write a cell's scores, one row a language and metric. Manifests: None for baseline and untrained targets."""
    if not holds(Path(predictions), specification["predictions"]):
        raise UserError(
            f"{predictions}: holds predictions made with other settings than this study's, or is damaged; "
            "delete it and run the workflow again"
        )
    frame = read_table(Path(predictions))
    before = None if intermediate is None else manifest_of(Path(intermediate), specification["before"])
    after = None if target is None else manifest_of(Path(target), specification["after"])
    realised = before_target(specification, before, after)
    metrics = specification["metrics"]
    try:
        rows = pl.concat(score_predictions(frame, metric) for metric in metrics)
    except UserError as error:
        raise UserError(f"{predictions}: {error}") from None
    table = rows.select(
        study=pl.lit(specification["study"]),
        target=pl.lit(specification["target"]),
        intermediate=pl.lit(specification["intermediate"]),
        arm=pl.lit(specification["arm"]),
        budget=pl.lit(specification["budget"], dtype=pl.Float64),
        seed=pl.lit(specification["seed"], dtype=pl.Int64),
        language="language",
        metric="metric",
        is_primary=pl.col("metric") == metrics[0],
        score="score",
        n=pl.col("n").cast(pl.Int64),
        **{name: pl.lit(realised[name], dtype=pl.Float64 if name in FLOATS else pl.Int64) for name in REALISED},
        collapsed=pl.lit(any(facts["dev"]["collapsed"] for facts in (before, after) if facts is not None)),
        shared_data=pl.lit(specification["shared_data"]),
    ).sort(SCORE_KEY)
    publish_table(Path(scores), in_columns(table, SCORES), fingerprint=fingerprint(specification))


def before_target(
    specification: dict[str, Any], intermediate: dict[str, Any] | None, target: dict[str, Any] | None
) -> dict[str, Any]:
    """What was spent before or beside the target's own training: `REALISED`, all 0 for the baseline.

    The control `extra_target` spends it within the target's run: its extra steps, and the same share of the run's rest
    (whose tokens differ from step to step, so that this is an expectation and not a count).
    """
    if intermediate is not None:
        return {name: intermediate[name] for name in REALISED}
    extra = specification["extra_steps"]
    if extra == 0:
        return dict.fromkeys(REALISED, 0)
    if target is None:
        raise ValueError("extra steps on a target that is not trained")
    # Of a run in stages they are the last one's.
    spent_on = target["parts"][-1] if "stages" in target["specification"] else target
    share = extra / spent_on["steps"]
    spent = {name: spent_on[name] * share for name in REALISED if name != "batch_size"}
    whole = {name: round(value) for name, value in spent.items() if name not in FLOATS}
    return {**spent, **whole, "batch_size": target["batch_size"]}


def collect_runs(specification: dict[str, Any], manifests: dict[str, Sequence[str]], runs: str) -> None:
    """One table of all training runs: `manifests` by kind, each with its place in the grid in `specification`."""
    rows = [
        _run_row(place, manifest_of(Path(path), place[-1]))
        for kind in ("trunks", "intermediates", "targets")
        for place, path in zip(specification[kind], manifests[kind], strict=True)
    ]
    table = in_columns(pl.DataFrame(rows, infer_schema_length=None), RUNS)
    publish_table(Path(runs), table.sort("kind", "target", "intermediate", "arm", "budget", "seed"))


def _run_row(place: Sequence[Any], facts: dict[str, Any]) -> dict[str, Any]:
    target, intermediate, arm, budget, seed, _ = place
    dev = facts["dev"] or dict.fromkeys(("metric", "score", "floor", "collapsed"))  # none of a trunk's segment
    return {
        "kind": facts["specification"]["kind"],
        "target": target,
        "intermediate": intermediate,
        "arm": arm,
        "budget": float(budget),
        "seed": seed,
        **{name: facts[name] for name in (*REALISED, *RUN_FACTS)},
        "dev_metric": dev["metric"],
        "dev_score": dev["score"],
        "dev_floor": dev["floor"],
        "collapsed": bool(dev["collapsed"]),
        "versions": json.dumps(facts["versions"], sort_keys=True),
    }
