"""The page's tables: text for people and exact values for downloads; those by language and by stratum."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from xlift.catalog.task import NONE
from xlift.languages import SOURCE_LANGUAGE, STRATA
from xlift.report.inputs import (
    ALL_TARGETS,
    GROUPS,
    ReportInputs,
    contrast_rows,
    expected_pairs,
    gain_by_budget,
    gain_by_cell,
    group_of,
    ordered_languages,
    parse_scope,
    slopes,
    targets_shown,
)

DASH = "–"

ESTIMANDS: Mapping[str, str] = {
    "beta_per_doubling": "gain per doubling of budget, for one SD more resource (β)",
    "low_minus_high": "low − high: difference in gain",
    "low_minus_high_per_doubling": "low − high: difference in gain per doubling of budget",
    "unseen_minus_rest_per_doubling": "unseen − rest: difference in gain per doubling of budget",
    **{f"gain_{name}": f"gain, {name} languages" for name in (*STRATA, "all")},
}


Kind = Literal["text", "count", "number", "interval", "language"]
"""What a column holds: words; a share such as 2/3; a number; an interval; a language."""
Value = str | float | None


@dataclass(frozen=True)
class Cell:
    """One table cell: its text, what it sorts by (the text if None), a CSS class, and what a download has of it.

    `parts` are the values of a cell that is more than one column of a download: an interval's ends, a language's code
    and name.
    """

    text: str
    sort: float | None = None
    css: str = ""
    parts: tuple[Value, ...] = ()


@dataclass(frozen=True)
class Row:
    """One table row; `target` ties it to the page's choice of target, `group` to the choice of stratum."""

    cells: tuple[Cell, ...]
    target: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Table:
    """A table of the page; the first column heads its row."""

    caption: str
    columns: tuple[str, ...]
    kinds: tuple[Kind, ...]
    rows: tuple[Row, ...]

    def __post_init__(self) -> None:
        widths = {len(self.columns), len(self.kinds), *(len(row.cells) for row in self.rows)}
        if len(widths) > 1:
            raise ValueError(f"table '{self.caption}': rows and header differ in width: {sorted(widths)}")

    @property
    def numeric(self) -> tuple[bool, ...]:
        """Which columns are aligned right."""
        return tuple(kind not in ("text", "language") for kind in self.kinds)

    @property
    def headings(self) -> tuple[tuple[str, ...], ...]:
        """The names of each column's columns in a download."""
        return tuple(
            (f"{name} low", f"{name} high")
            if kind == "interval"
            else (f"{name} code", name)
            if kind == "language"
            else (name,)
            for name, kind in zip(self.columns, self.kinds, strict=True)
        )

    @property
    def data(self) -> pl.DataFrame:
        """The table for machines: exact numbers, an interval as two columns, a language as code and name."""
        types = [
            pl.Float64 if kind in ("number", "interval") else pl.String
            for kind, names in zip(self.kinds, self.headings, strict=True)
            for _ in names
        ]
        names = [name for part in self.headings for name in part]
        rows = [
            [value for cell, kind in zip(row.cells, self.kinds, strict=True) for value in cell_values(cell, kind)]
            for row in self.rows
        ]
        return pl.DataFrame(rows, schema=dict(zip(names, types, strict=True)), orient="row")


def of_kind(kind: Kind, count: int) -> tuple[Kind, ...]:
    """The kinds of so many columns that hold the same."""
    return (kind,) * count


def numbers(count: int) -> tuple[Kind, ...]:
    """The kinds of so many columns of numbers."""
    return of_kind("number", count)


def cell_values(cell: Cell, kind: Kind) -> tuple[Value, ...]:
    """What a download has of a cell."""
    if kind in ("interval", "language"):
        return cell.parts
    return (cell.sort,) if kind == "number" else (cell.text,)


def number(value: float | None, digits: int = 2, signed: bool = False) -> str:
    """A number for people: true minus sign, thousands separated, "–" for null or NaN."""
    if value is None or not math.isfinite(value):
        return DASH
    text = f"{value:+,.{digits}f}" if signed else f"{value:,.{digits}f}"
    if not any(character in "123456789" for character in text):
        text = text.lstrip("+-")  # a rounded zero has no sign
    return text.replace("-", "−")


def numeric_cell(value: float | None, digits: int = 2, signed: bool = False, css: str = "") -> Cell:
    """A cell that shows a rounded number and sorts by the exact one."""
    return Cell(number(value, digits, signed), kept(value), css)


def kept(value: float | None) -> float | None:
    """A value as the page and downloads keep it: eight significant digits, which no score has; None for NaN."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.8g}")


def interval_cell(row: Mapping[str, Any]) -> Cell:
    """The interval of a contrast; it sorts by its lower end."""
    low, high = kept(row["ci_low"]), kept(row["ci_high"])
    return Cell(interval(row), low, parts=(low, high))


def p_cell(p: float | None) -> Cell:
    """A p value."""
    return Cell(p_value(p), kept(p))


def language_cell(inputs: ReportInputs, iso2: str) -> Cell:
    """A language by name and code."""
    name = inputs.languages[iso2].name
    return Cell(f"{name} ({iso2})", parts=(iso2, name))


def group_cell(group: str) -> Cell:
    """A stratum, or the source; it sorts in the order of strata."""
    return Cell(group, GROUPS.index(group), f"group {group}")


def budget_label(budget: float) -> str:
    """×0.25, ×1, ×4; the baseline's budget is no budget."""
    return f"×{budget:g}" if budget else DASH


def p_value(p: float | None) -> str:
    """p as text, with "–" where there is none (fewer than three seeds)."""
    if p is None or not math.isfinite(p):
        return DASH
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def interval(row: Mapping[str, Any]) -> str:
    """The interval of a contrast in words; a null one says why as far as the row knows."""
    if row["estimate"] is None:
        return "no estimate"
    if row["ci_low"] is None or row["ci_high"] is None:
        return "no interval"
    return f"[{number(row['ci_low'], signed=True)}, {number(row['ci_high'], signed=True)}]"


def target_title(target: str) -> str:
    """How a target is called on the page."""
    return target if target != ALL_TARGETS else "all targets (mean)"


def _lookup(frame: pl.DataFrame, keys: Sequence[str], value: str) -> dict[tuple[Any, ...], float | None]:
    return {row[:-1]: row[-1] for row in frame.select(*keys, value).iter_rows()}


def _language_order(inputs: ReportInputs, target: str) -> list[str]:
    pairs = expected_pairs(inputs)
    here = set(pairs["language"] if target == ALL_TARGETS else pairs.filter(pl.col("target") == target)["language"])
    return [iso2 for iso2 in ordered_languages(inputs) if iso2 in here]


def language_table(inputs: ReportInputs) -> Table:
    """Per target and language: stratum, size, test examples, baseline score, gain by budget, per doubling."""
    gains = _lookup(gain_by_budget(inputs), ["target", "language", "budget"], "gain")
    slope = _lookup(slopes(inputs), ["target", "language"], "slope")
    primary = inputs.scores.filter(pl.col("is_primary"))
    counts = _lookup(primary.group_by("target", "language").agg(pl.col("n").max()), ["target", "language"], "n")
    seeds = len(inputs.study["seeds"])
    baseline = _lookup(
        primary.filter(pl.col("intermediate") == NONE)
        .sort("target", "language", "seed")
        .group_by("target", "language", maintain_order=True)
        .agg(pl.when(pl.col("seed").n_unique() == seeds).then(pl.col("score").mean()).alias("score")),
        ["target", "language"],
        "score",
    )
    pairs = set(expected_pairs(inputs).iter_rows())
    for iso2 in _language_order(inputs, ALL_TARGETS):
        scores = [baseline.get((target, iso2)) for target in inputs.targets]
        known = [score for score in scores if score is not None]
        baseline[ALL_TARGETS, iso2] = sum(known) / len(known) if len(known) == len(scores) and known else None
        counts[ALL_TARGETS, iso2] = sum(counts.get((t, iso2)) or 0 for t in inputs.targets if (t, iso2) in pairs)
    rows = []
    for target in targets_shown(inputs):
        for iso2 in _language_order(inputs, target):
            group = group_of(inputs, iso2)
            cells = [
                language_cell(inputs, iso2),
                Cell(target_title(target), css="which"),
                group_cell(group),
                numeric_cell(inputs.resource.sizes.get(iso2), 1),
                numeric_cell(counts.get((target, iso2)), 0),
                numeric_cell(baseline.get((target, iso2)), 1),
                *(numeric_cell(gains.get((target, iso2, b)), 2, signed=True) for b in inputs.budgets),
                numeric_cell(slope.get((target, iso2)), 2, signed=True),
            ]
            rows.append(Row(tuple(cells), target, group))
    columns = ("language", "target", "stratum", inputs.resource.measure.unit, "test examples", "baseline score")
    budgets = tuple(f"gain {budget_label(b)}" for b in inputs.budgets)
    return Table(
        "Gain by language",
        (*columns, *budgets, "per doubling"),
        ("language", "text", "text", *numbers(len(budgets) + 4)),
        tuple(rows),
    )


def slope_table(inputs: ReportInputs) -> Table:
    """The numbers of the slope figure: gain per doubling by target and language, with the language's size."""
    slope = _lookup(slopes(inputs), ["target", "language"], "slope")
    rows = [
        Row(
            (
                language_cell(inputs, iso2),
                Cell(target_title(target), css="which"),
                group_cell(group_of(inputs, iso2)),
                numeric_cell(inputs.resource.sizes.get(iso2), 1),
                numeric_cell(slope.get((target, iso2)), 3, signed=True),
            ),
            target,
        )
        for target in targets_shown(inputs)
        for iso2 in _language_order(inputs, target)
        if iso2 != SOURCE_LANGUAGE
    ]
    return Table(
        "Gain per doubling of budget, in points",
        ("language", "target", "stratum", inputs.resource.measure.unit, "per doubling"),
        ("language", "text", "text", "number", "number"),
        tuple(rows),
    )


def heat_table(inputs: ReportInputs) -> Table:
    """The numbers of the heat map: mean gain over seeds by language and (intermediate task, budget)."""
    gains = _lookup(gain_by_cell(inputs), ["target", "language", "intermediate", "budget"], "gain")
    columns = [(name, budget) for name in inputs.intermediates for budget in inputs.budgets]
    rows = [
        Row(
            (
                language_cell(inputs, iso2),
                Cell(target_title(target), css="which"),
                *(numeric_cell(gains.get((target, iso2, name, b)), 2, signed=True) for name, b in columns),
            ),
            target,
        )
        for target in targets_shown(inputs)
        for iso2 in _language_order(inputs, target)
    ]
    labels = tuple(f"{name} {budget_label(budget)}" for name, budget in columns)
    return Table(
        "Mean gain in points",
        ("language", "target", *labels),
        ("language", "text", *numbers(len(labels))),
        tuple(rows),
    )


def strata_table(inputs: ReportInputs) -> Table:
    """The numbers of the main figure: gain by stratum and budget with its interval."""
    rows = []
    for name in STRATA:
        for row in sorted(contrast_rows(inputs.contrasts, f"gain_{name}", ["budget"]), key=budget_of):
            budget = budget_of(row)
            rows.append(
                Row(
                    (
                        group_cell(name),
                        Cell(budget_label(budget), budget),
                        *_estimate(row),
                    )
                )
            )
    return Table(
        "Gain by stratum and budget, in points",
        ("stratum", "budget", "gain", "interval", "languages", "runs", "note"),
        ("text", "number", "number", "interval", "number", "number", "text"),
        tuple(rows),
    )


def budget_of(row: Mapping[str, Any]) -> float:
    """The budget of a contrast's scope."""
    return float(row["where"]["budget"])


def _estimate(row: Mapping[str, Any]) -> tuple[Cell, ...]:
    """Estimate, interval, numbers of languages and runs, note."""
    return (
        numeric_cell(row["estimate"], 2, signed=True),
        interval_cell(row),
        numeric_cell(row["n_languages"], 0),
        numeric_cell(row["n_runs"], 0),
        Cell(row["note"] or ""),
    )


def estimand_title(estimand: str) -> str:
    """An estimand in words."""
    return ESTIMANDS.get(estimand, estimand.replace("_", " "))


def scope_title(scope: str) -> str:
    """ "budget=1;target=xnli" -> "×1, target xnli"; no part -> "all cells"."""
    parsed = parse_scope(scope).items()
    parts = [budget_label(float(v)) if k == "budget" else f"{k.replace('_', ' ')} {v}".strip() for k, v in parsed]
    return ", ".join(parts) or ("all cells" if scope in ("", "all") else scope)
