"""Scoring a cell, and collecting runs into a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from xlift.artifacts import fingerprint, holds, manifest_of
from xlift.contrasts.gains import SCORE_KEY
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
    publish_table(Path(scores), table, fingerprint=fingerprint(specification))


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
    table = pl.DataFrame(rows, infer_schema_length=None).with_columns(pl.col("target").cast(pl.String))
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
