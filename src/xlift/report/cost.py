"""Compute used by the training runs: hours by device, operations, tokens; energy only where it was measured."""

from __future__ import annotations

import math
import re

import polars as pl

from xlift.report.tables import DASH, Cell, Row, Table, number, numbers, numeric_cell

_GPU = re.compile(r"(NVIDIA|Tesla|GeForce|Quadro|TITAN|AMD Instinct|AMD Radeon)\b")
"""How CUDA and ROCm name their devices; a processor with graphics inside begins with the processor's name."""
GPU, PROCESSOR = "GPU", "processor"


def device_kind(device: str) -> str:
    """Whether a device, by its model name, is a GPU; each run held one."""
    return GPU if _GPU.match(device) else PROCESSOR


def total(values: pl.Series) -> float | None:
    """The sum; None where a run lacks the value, or there is no run."""
    known = values.to_list()
    return math.fsum(known) if known and all(value is not None for value in known) else None


def _hours(runs: pl.DataFrame) -> float | None:
    """Hours that jobs held their device: of a job that was stopped and went on, at least its training steps."""
    held = total(runs.select(pl.max_horizontal("seconds", "seconds_job")).to_series())
    return None if held is None else held / 3600


def _operations(runs: pl.DataFrame) -> float | None:
    """Operations in units of 10^15, those of a trunk that several budgets share counted once."""
    flops = total(runs["job_flops"])
    return None if flops is None else flops / 1e15


def _tokens(runs: pl.DataFrame) -> float | None:
    """Million tokens; None where budgets share steps, for then a run's tokens are also another's."""
    if (runs["job_steps"] != runs["steps"]).any():
        return None
    tokens = total(runs["tokens"])
    return None if tokens is None else tokens / 1e6


def compute_table(runs: pl.DataFrame) -> Table:
    """Hours, operations and tokens by device."""
    rows = []
    for device in runs["device"].unique().sort():
        here = runs.filter(pl.col("device") == device)
        rows.append(
            Row(
                (
                    Cell(device),
                    Cell(device_kind(device)),
                    numeric_cell(here.height, 0),
                    numeric_cell(_hours(here), 2),
                    numeric_cell(_operations(here), 3),
                    numeric_cell(_tokens(here), 2),
                    Cell("not measured"),
                )
            )
        )
    columns = ("device", "kind", "runs", "hours", "PFLOPs", "million tokens", "energy")
    return Table("Compute used by training, by device", columns, ("text", "text", *numbers(4), "text"), tuple(rows))


def hours_by_kind(runs: pl.DataFrame) -> dict[str, float | None]:
    """Hours by kind of device, GPUs first; only kinds that were used."""
    kinds = {device: device_kind(device) for device in runs["device"].unique().sort()}
    kind = pl.col("device").replace_strict(kinds, return_dtype=pl.String)
    return {name: _hours(runs.filter(kind == name)) for name in (GPU, PROCESSOR) if name in kinds.values()}


def run_totals(runs: pl.DataFrame) -> list[tuple[str, str]]:
    """Numbers over all training runs; a total over runs of which some lack the value is a dash."""
    peak = max((row[0] for row in runs.select("peak_memory_mib").drop_nulls().iter_rows()), default=None)
    return [
        ("runs", number(runs.height, 0)),
        ("collapsed", number(runs.filter("collapsed").height, 0)),
        *((f"{kind}-hours", number(hours, 2)) for kind, hours in hours_by_kind(runs).items()),
        ("PFLOPs", number(_operations(runs), 1) if runs.height else DASH),
        ("million tokens", number(_tokens(runs), 2)),
        ("energy", "not measured"),
        ("largest peak memory, MiB", number(peak, 0)),
    ]
