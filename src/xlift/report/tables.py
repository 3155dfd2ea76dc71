"""What the page shows as numbers: text for numbers, and the tables of languages and contrasts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from xlift.catalog.task import NONE
from xlift.languages import STRATA
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


@dataclass(frozen=True)
class Cell:
    """One table cell: its text, what it sorts by (the text if None) and a CSS class."""

    text: str
    sort: float | None = None
    css: str = ""


@dataclass(frozen=True)
class Row:
    """One table row; `target` ties it to the page's choice of target."""

    cells: tuple[Cell, ...]
    target: str | None = None


@dataclass(frozen=True)
class Table:
    """A table of the page; `numeric` says which columns are aligned right. The first column heads its row."""

    caption: str
    columns: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[Row, ...]

    def __post_init__(self) -> None:
        widths = {len(self.columns), len(self.numeric), *(len(row.cells) for row in self.rows)}
        if len(widths) > 1:
            raise ValueError(f"table '{self.caption}': rows and header differ in width: {sorted(widths)}")


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
    finite = value is not None and math.isfinite(value)
    return Cell(number(value, digits, signed), float(value) if finite and value is not None else None, css)


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
            language = inputs.languages[iso2]
            group = group_of(inputs, iso2)
            cells = [
                Cell(f"{language.name} ({iso2})"),
                Cell(target_title(target), css="which"),
                Cell(group, GROUPS.index(group), f"group {group}"),
                numeric_cell(inputs.resource.sizes.get(iso2), 1),
                numeric_cell(counts.get((target, iso2)), 0),
                numeric_cell(baseline.get((target, iso2)), 1),
                *(numeric_cell(gains.get((target, iso2, b)), 2, signed=True) for b in inputs.budgets),
                numeric_cell(slope.get((target, iso2)), 2, signed=True),
            ]
            rows.append(Row(tuple(cells), target))
    columns = ("language", "target", "stratum", inputs.resource.measure.unit, "test examples", "baseline score")
    budgets = tuple(f"gain {budget_label(b)}" for b in inputs.budgets)
    numeric = (False, False, False, *[True] * (len(budgets) + 4))
    return Table("Gain by language", (*columns, *budgets, "per doubling"), numeric, tuple(rows))


def heat_table(inputs: ReportInputs) -> Table:
    """The numbers of the heat map: mean gain over seeds by language and (intermediate task, budget)."""
    gains = _lookup(gain_by_cell(inputs), ["target", "language", "intermediate", "budget"], "gain")
    columns = [(name, budget) for name in inputs.intermediates for budget in inputs.budgets]
    rows = [
        Row(
            (
                Cell(f"{inputs.languages[iso2].name} ({iso2})"),
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
        (False, False, *[True] * len(labels)),
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
                        Cell(name, STRATA.index(name), f"group {name}"),
                        Cell(budget_label(budget), budget),
                        *_estimate(row),
                    )
                )
            )
    return Table(
        "Gain by stratum and budget, in points",
        ("stratum", "budget", "gain", "interval", "languages", "runs", "note"),
        (False, True, True, True, True, True, False),
        tuple(rows),
    )


def budget_of(row: Mapping[str, Any]) -> float:
    """The budget of a contrast's scope."""
    return float(row["where"]["budget"])


def _estimate(row: Mapping[str, Any]) -> tuple[Cell, ...]:
    """Estimate, interval, numbers of languages and runs, note."""
    return (
        numeric_cell(row["estimate"], 2, signed=True),
        Cell(interval(row), row["ci_low"]),
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
