"""The tables of what ran and what did not: completeness of the grid, collapsed runs, each run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from xlift.catalog.task import MAIN, NONE
from xlift.report.inputs import ReportInputs, expected_pairs
from xlift.report.tables import DASH, Cell, Row, Table, budget_label, numbers, numeric_cell, of_kind

MOST_RUN_ROWS = 500
"""Above this many runs the page lists groups of runs only; the tables beside it list each."""


def completeness_table(inputs: ReportInputs) -> Table:
    """The grid: for each target, complete seeds over expected seeds at every intermediate task and budget."""
    grid = inputs.completeness.with_columns(
        (pl.col("present") & (pl.col("languages") >= pl.col("expected_languages"))).alias("complete")
    )
    columns = grid.select("intermediate", "budget").unique().rows()
    order = {name: place for place, name in enumerate([NONE, *inputs.intermediates])}
    columns.sort(key=lambda column: (order.get(column[0], len(order)), column))
    keys = ["target", "intermediate", "budget"]
    counts = grid.group_by(keys).agg(pl.col("complete").sum(), pl.len().alias("seeds"))
    found = {row[:3]: row[3:] for row in counts.iter_rows()}
    rows = []
    for target in inputs.targets:
        cells = [Cell(target)]
        for name, budget in columns:
            complete, seeds = found.get((target, name, budget), (0, 0))
            state = "absent" if not complete else "whole" if complete == seeds else "part"
            cells.append(Cell(f"{complete}/{seeds}", complete, f"state {state}") if seeds else Cell(DASH))
        rows.append(Row(tuple(cells)))
    labels = tuple("no intermediate" if name == NONE else f"{name} {budget_label(budget)}" for name, budget in columns)
    return Table(
        "Complete cells over expected cells (one a seed)",
        ("target", *labels),
        ("text", *of_kind("count", len(labels))),
        tuple(rows),
    )


def missing_cells(inputs: ReportInputs) -> list[str]:
    """Each incomplete cell by name, with the languages it lacks where they are known."""
    primary = inputs.scores.filter(pl.col("is_primary"))
    keys = ["target", "intermediate", "budget", "seed"]
    scored = {row[:4]: set(row[4]) for row in primary.group_by(keys).agg("language").iter_rows()}
    expected: dict[str, set[str]] = {}
    for target, language in expected_pairs(inputs).iter_rows():
        expected.setdefault(target, set()).add(language)
    names = []
    for cell in inputs.completeness.sort(keys).iter_rows(named=True):
        if cell["present"] and cell["languages"] >= cell["expected_languages"]:
            continue
        name = cell_title(cell)
        if not cell["present"]:
            names.append(f"{name}: no scores")
            continue
        lacking = sorted(expected.get(cell["target"], set()) - scored.get(tuple(cell[key] for key in keys), set()))
        detail = f" (missing: {', '.join(lacking)})" if lacking else ""
        names.append(f"{name}: {cell['languages']} of {cell['expected_languages']} languages{detail}")
    return names


def cell_title(cell: Mapping[str, Any]) -> str:
    """A cell or run in words: target, intermediate task and budget, arm unless the main one, seed."""
    start = (
        "no intermediate task"
        if cell["intermediate"] == NONE
        else f"{cell['intermediate']} {budget_label(cell['budget'])}"
    )
    arm = "" if cell.get("arm", MAIN) == MAIN else f" ({cell['arm']})"
    return f"{cell['target'] + ', ' if cell['target'] else ''}{start}{arm}, seed {cell['seed']}"


def collapsed_table(runs: pl.DataFrame) -> Table:
    """The runs whose English dev score is at the floor."""
    keys = ["kind", "target", "intermediate", "budget", "seed"]
    rows = tuple(
        Row(
            (
                Cell(f"{row['kind']}: {cell_title(row)}"),
                Cell(row["dev_metric"] or DASH),
                numeric_cell(row["dev_score"], 1),
                numeric_cell(row["dev_floor"], 1),
                numeric_cell(row["final_loss"], 3),
            )
        )
        for row in runs.filter(pl.col("collapsed")).sort(keys).iter_rows(named=True)
    )
    columns = ("run", "dev metric", "English dev score", "floor", "final loss")
    return Table("Collapsed runs", columns, ("text", "text", *numbers(3)), rows)


RUN_COLUMNS = (
    *("steps", "examples", "tokens", "padded tokens", "PFLOPs", "seconds", "first step, s"),
    *("peak memory, MiB", "device", "dtype"),
)


def _cost(row: Mapping[str, Any]) -> tuple[Cell, ...]:
    """The cells of RUN_COLUMNS, in its order."""
    flops = row["flops"]
    return (
        *(numeric_cell(row[name], 0) for name in ("steps", "examples", "tokens", "padded_tokens")),
        numeric_cell(None if flops is None else flops / 1e15, 3),
        numeric_cell(row["seconds"], 1),
        numeric_cell(row["seconds_to_first_step"], 1),
        numeric_cell(row["peak_memory_mib"], 0),
        Cell(row["device"] or DASH),
        Cell(row["dtype"] or DASH),
    )


def run_groups_table(runs: pl.DataFrame) -> Table:
    """Runs by kind, target, intermediate task, arm and budget: how many, mean cost of one, largest memory."""
    means = ("steps", "examples", "tokens", "padded_tokens", "flops", "seconds", "seconds_to_first_step")
    keys = ["kind", "target", "intermediate", "arm", "budget"]
    groups = (
        runs.sort(*keys, "seed")
        .group_by(keys, maintain_order=True)
        .agg(
            pl.len().alias("runs"),
            *(pl.col(name).mean() for name in means),
            pl.col("peak_memory_mib").max(),
            *(pl.col(name).drop_nulls().unique().sort().str.join(", ") for name in ("device", "dtype")),
        )
    )
    rows = tuple(
        Row(
            (
                Cell(row["kind"]),
                Cell(row["target"] or DASH),
                Cell(row["intermediate"]),
                Cell(row["arm"]),
                Cell(budget_label(row["budget"]), row["budget"]),
                numeric_cell(row["runs"], 0),
                *_cost(row),
            )
        )
        for row in groups.sort(keys).iter_rows(named=True)
    )
    columns = ("kind", "target", "intermediate", "arm", "budget", "runs", *RUN_COLUMNS)
    return Table("Mean cost of a run", columns, ("text", "text", "text", "text", *numbers(10), "text", "text"), rows)


def run_table(runs: pl.DataFrame) -> Table:
    """One row a run."""
    rows = tuple(
        Row(
            (
                Cell(f"{row['kind']}: {cell_title(row)}"),
                Cell(row["dev_metric"] or DASH),
                numeric_cell(row["dev_score"], 1),
                Cell("collapsed" if row["collapsed"] else ""),
                *_cost(row),
            )
        )
        for row in runs.sort("kind", "target", "intermediate", "arm", "budget", "seed").iter_rows(named=True)
    )
    columns = ("run", "dev metric", "dev score", "state", *RUN_COLUMNS)
    return Table("Every run", columns, ("text", "text", "number", "text", *numbers(8), "text", "text"), rows)
