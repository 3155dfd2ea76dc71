"""The contrasts as tables: the primary ones, the same by other methods and on other scales, and sensitivity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from xlift.analysis import CONFIRMATORY
from xlift.contrasts.rows import CLUSTERED, POINTS
from xlift.report.inputs import ReportInputs, contrast_rows, parse_scope
from xlift.report.tables import (
    DASH,
    Cell,
    Kind,
    Row,
    Table,
    budget_label,
    budget_of,
    estimand_title,
    interval,
    interval_cell,
    number,
    numeric_cell,
    p_cell,
    p_value,
    scope_title,
)

_MAPS = ({"target"}, {"intermediate"}, {"budget"}, {"budget", "target"})
"""What scopes of the primary table name; larger maps are in contrasts.parquet."""
_COLUMNS: Mapping[str, Kind] = {
    "estimand": "text", "scope": "text", "scale": "text", "method": "text", "estimate": "number",
    "interval": "interval", "p": "number", "p adjusted": "number", "languages": "number", "runs": "number",
    "note": "text",
}  # fmt: skip
"""Columns of a table of contrasts, and what they hold."""


def contrast_table(contrasts: pl.DataFrame) -> Table:
    """The contrasts in points by the primary method: over all cells, by target, by intermediate task, by budget."""
    primary = _primary(contrasts)
    shown = [row for row in primary if _keys(row) in (set(), *_MAPS)]
    more = sum(len(_keys(row)) == 2 and _keys(row) not in _MAPS for row in primary)
    rest = f"; contrasts.parquet has {more:,} more, by two parts of the grid at once" if more else ""
    return _table(f"Contrasts in points, two-way clustered{rest}", shown, without=("scale", "method"))


def method_table(contrasts: pl.DataFrame) -> Table:
    """The tested contrasts over all cells, on every scale and by every method."""
    rows = [
        row
        for estimand in CONFIRMATORY
        for row in contrasts.filter((pl.col("estimand") == estimand) & (pl.col("scope") == "all")).iter_rows(named=True)
    ]
    return _table("The same contrasts on every scale, by every method", rows, without=("scope", "p adjusted"))


def sensitivity_table(contrasts: pl.DataFrame) -> Table:
    """What the primary contrasts become when something is otherwise, in points, after what they are."""
    primary = _primary(contrasts)
    rows = [
        row
        for estimand in CONFIRMATORY
        for row in primary
        if row["estimand"] == estimand and (row["scope"] == "all" or _is_sensitivity(row))
    ]
    has_any = any(_is_sensitivity(row) for row in rows)
    caption = "Sensitivity: the contrasts in points when something is otherwise, without adjustment of p"
    return _table(caption, rows if has_any else [], without=("scale", "method", "p adjusted"))


def forest_table(caption: str, rows: Sequence[Mapping[str, Any]], by_method: bool = False) -> Table:
    """The rows of a forest plot of one estimand in points."""
    without = ("estimand", "scale", "p adjusted") if by_method else ("estimand", "scale", "method")
    return _table(caption, rows, without)


def _table(caption: str, rows: Sequence[Mapping[str, Any]], without: Sequence[str]) -> Table:
    names = [name for name in _COLUMNS if name not in without]
    cells = [{name: cell for name, cell in zip(_COLUMNS, _cells(row), strict=True) if name in names} for row in rows]
    kinds = tuple(_COLUMNS[name] for name in names)
    return Table(caption, tuple(names), kinds, tuple(Row(tuple(row[name] for name in names)) for row in cells))


def _cells(row: Mapping[str, Any]) -> tuple[Cell, ...]:
    """A contrast's cells in the order of `_COLUMNS`."""
    return (
        Cell(estimand_title(row["estimand"])),
        Cell(scope_title(row["scope"])),
        Cell(row["scale"].replace("_", " ")),
        Cell(row["method"]),
        numeric_cell(row["estimate"], 3, signed=True),
        interval_cell(row),
        p_cell(row["p"]),
        p_cell(row["p_adjusted"]),
        numeric_cell(row["n_languages"], 0),
        numeric_cell(row["n_runs"], 0),
        Cell(row["note"] or "", css="said"),
    )


def _primary(contrasts: pl.DataFrame) -> list[dict[str, Any]]:
    wanted = (pl.col("scale") == POINTS) & (pl.col("method") == CLUSTERED)
    return list(contrasts.filter(wanted).iter_rows(named=True))


def _keys(row: Mapping[str, Any]) -> set[str]:
    return set(parse_scope(row["scope"]))


def _is_sensitivity(row: Mapping[str, Any]) -> bool:
    return bool(_keys(row) - {"target", "intermediate", "budget"})


def headlines(inputs: ReportInputs) -> list[dict[str, str]]:
    """The few numbers beside the answer: label, value, interval and p as text."""
    wanted: tuple[tuple[str, list[str]], ...] = (
        ("beta_per_doubling", []),
        ("low_minus_high_per_doubling", []),
        ("low_minus_high", ["budget"]),
        ("unseen_minus_rest_per_doubling", []),
    )
    found = []
    for estimand, keys in wanted:
        rows = contrast_rows(inputs.contrasts, estimand, keys)
        if not rows:
            continue
        row = max(rows, key=budget_of) if keys else rows[0]
        place = f" at {budget_label(budget_of(row))}" if keys else ""
        adjusted = row["p_adjusted"] is not None
        p = p_value(row["p_adjusted"] if adjusted else row["p"])
        relation = p if p.startswith("<") else f"= {p}"
        name = "p (adjusted)" if adjusted else "p"
        found.append(
            {
                "label": estimand_title(estimand) + place,
                "value": number(row["estimate"], signed=True),
                "interval": interval(row),
                "p": "" if p == DASH else f"{name} {relation}",
                "note": row["note"] or "",
            }
        )
    return found
