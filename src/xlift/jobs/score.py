"""Scoring cells and collecting scores and runs into tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from xlift.artifacts import fingerprint, holds, publishing, read_manifest
from xlift.contrasts.gains import SCORE_KEY
from xlift.errors import UserError
from xlift.metrics import score_predictions

REALISED = ("steps", "examples", "tokens", "padded_tokens", "flops", "batch_size")
"""What a score row tells of the intermediate run."""
RUN_FACTS = (
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
    manifests = [read_manifest(Path(path).parent) for path in (intermediate, target) if path is not None]
    first = read_manifest(Path(intermediate).parent) if intermediate is not None else None
    metrics = specification["metrics"]
    rows = pl.concat(score_predictions(frame, metric) for metric in metrics)
    floats = {"flops"}
    table = rows.select(
        study=pl.lit(specification["study"]),
        target=pl.lit(specification["target"]),
        intermediate=pl.lit(specification["intermediate"]),
        budget=pl.lit(specification["budget"], dtype=pl.Float64),
        seed=pl.lit(specification["seed"], dtype=pl.Int64),
        language="language",
        metric="metric",
        is_primary=pl.col("metric") == metrics[0],
        score="score",
        n=pl.col("n").cast(pl.Int64),
        **{
            name: pl.lit(first[name] if first else 0, dtype=pl.Float64 if name in floats else pl.Int64)
            for name in REALISED
        },
        collapsed=pl.lit(any(manifest["dev"]["collapsed"] for manifest in manifests)),
    ).sort(SCORE_KEY)
    with publishing(Path(scores)) as temporary:
        table.write_parquet(temporary, metadata={"fingerprint": fingerprint(specification)})


def read_table(path: Path) -> pl.DataFrame:
    """A parquet table; `UserError` where the file is missing or damaged."""
    try:
        return pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{path}: is not a whole parquet file ({reason}); delete it and run the workflow again"
        ) from None


def collect_scores(cells: Sequence[str], scores: str) -> None:
    """One table of all cells' scores."""
    table = pl.concat([read_table(Path(cell)) for cell in cells]).sort(SCORE_KEY)
    if table.select(SCORE_KEY).is_duplicated().any():
        raise UserError(f"{scores}: two score files hold the same cell; delete results of an older study of this name")
    with publishing(Path(scores)) as temporary:
        table.write_parquet(temporary)


def collect_runs(manifests: Sequence[str], runs: str) -> None:
    """One table of all training runs, from their manifests' paths."""
    rows = [_run_row(Path(path)) for path in manifests]
    table = pl.DataFrame(rows, infer_schema_length=None).with_columns(pl.col("target").cast(pl.String))
    with publishing(Path(runs)) as temporary:
        table.sort("kind", "target", "intermediate", "budget", "seed").write_parquet(temporary)


def _run_row(manifest: Path) -> dict[str, Any]:
    facts = read_manifest(manifest.parent)
    specification, dev = facts["specification"], facts["dev"]
    intermediate, budget, seed = manifest.parent.parts[-3:]
    return {
        "kind": specification["kind"],
        "target": specification["task"] if specification["kind"] == "target" else None,
        "intermediate": intermediate,
        "budget": float(budget.removeprefix("x")),
        "seed": int(seed.removeprefix("seed")),
        **{name: facts[name] for name in (*REALISED, *RUN_FACTS)},
        "dev_metric": dev["metric"],
        "dev_score": dev["score"],
        "dev_floor": dev["floor"],
        "collapsed": dev["collapsed"],
        "versions": json.dumps(facts["versions"], sort_keys=True),
    }
