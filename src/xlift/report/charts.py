"""The report's charts as Vega-Lite specs. They have no colours but name the styles and ranges of a theme."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Literal

import altair as alt
import polars as pl

from xlift.languages import STRATA
from xlift.report.inputs import (
    GROUPS,
    ReportInputs,
    contrast_rows,
    default_target,
    gain_by_cell,
    group_of,
    ordered_languages,
    slopes,
    targets_shown,
)
from xlift.report.tables import budget_label, interval, number

SHAPES = ["circle", "square", "triangle-up", "diamond"]
Spec = dict[str, Any]
"""A Vega-Lite spec."""
Schema = dict[str, type[pl.DataType]]


def frame(rows: list[dict[str, Any]], schema: Schema) -> pl.DataFrame:
    """Rows as a table with these columns and no others, empty or not."""
    return pl.DataFrame([{name: row.get(name) for name in schema} for row in rows], schema=schema, orient="row")


def as_spec(layers: list[alt.Chart], height: int, target: str | None = None) -> Spec:
    """Layers as a spec as wide as its container; `target` gives it the parameter of that name and its first
    value.

    Altair checks the spec against Vega-Lite's schema here.
    """
    chart: Any = alt.layer(*layers).properties(width="container", height=height)
    if target is not None:
        chart = chart.add_params(alt.param(name="target", value=target))
    with alt.data_transformers.enable("default", max_rows=None):
        spec: Spec = chart.to_dict()
    spec.pop("config", None)  # Altair's own theme; ours comes when the figure is drawn
    spec["autosize"] = {"type": "fit-x", "contains": "padding"}
    return spec


def signed(value: float | None) -> str:
    return number(value, 2, signed=True)


def stratum_rows(inputs: ReportInputs) -> list[dict[str, Any]]:
    """The gain_<stratum> contrasts by budget, in the order of strata and budgets; `budget` as a number."""
    rows = [
        {**row, "stratum": name, "budget": float(row["where"]["budget"])}
        for name in STRATA
        for row in contrast_rows(inputs.contrasts, f"gain_{name}", ["budget"])
    ]
    return sorted(rows, key=lambda row: (STRATA.index(row["stratum"]), row["budget"]))


def stratum_caption(inputs: ReportInputs) -> str:
    """What the main figure shows, and what it lacks: intervals, or estimates that a missing cell prevents."""
    rows = stratum_rows(inputs)
    bounded = any(row["ci_low"] is not None for row in rows)
    intervals = f"with {inputs.confidence} intervals" if bounded else "without intervals (the table says why)"
    caption = f"Mean over targets, intermediate tasks and seeds, {intervals}; n languages. Zero: no change."
    found = {(row["stratum"], row["budget"]) for row in rows if row["estimate"] is not None}
    budgets = sorted({*inputs.budgets, *(row["budget"] for row in rows)})
    absent = [f"{name} {budget_label(b)}" for name in STRATA for b in budgets if (name, b) not in found]
    return caption + (f" No estimate for: {', '.join(absent)}." if absent else "")


def stratum_spec(inputs: ReportInputs) -> Spec | None:
    """Gain against budget by stratum, from the gain_<stratum> contrasts; None where none has an estimate."""
    rows = stratum_rows(inputs)
    labels = {
        row["stratum"]: f"{row['stratum']} (n = {row['n_languages']})"
        for row in sorted(rows, key=lambda row: row["n_languages"])
        if row["estimate"] is not None
    }
    if not labels:
        return None
    # A budget without an estimate stays as a row: it breaks the line and keeps its place on the axis.
    rows = [row for row in rows if row["stratum"] in labels]
    for row in rows:
        # Strata stand side by side at a budget, so that their intervals do not hide one another.
        row["x"] = math.log2(row["budget"]) + 0.05 * (STRATA.index(row["stratum"]) - 1.5)
        row["shown"], row["series"] = budget_label(row["budget"]), labels[row["stratum"]]
        row["text"] = f"{signed(row['estimate'])} {interval(row)}"
    schema: Schema = {"series": pl.String, "shown": pl.String, "text": pl.String}
    schema |= dict.fromkeys(("x", "estimate", "ci_low", "ci_high"), pl.Float64)
    # The whole range is always declared, so that an absent stratum moves no other's colour; the legend lists
    # what is there.
    domain = [labels.get(name, name) for name in STRATA]
    budgets = sorted({*inputs.budgets, *(row["budget"] for row in rows)})
    ticks = [math.log2(budget) for budget in budgets]
    names = json.dumps([budget_label(budget) for budget in budgets])
    label = f"{names}[indexof({json.dumps(ticks)}, datum.value)]"
    margin = 0.3 if len(ticks) > 1 else 1.0
    x = alt.X("x:Q", title="budget, × reference steps (log scale)")
    x = x.axis(values=ticks, labelExpr=label, grid=False).scale(
        domain=[ticks[0] - margin, ticks[-1] + margin], nice=False
    )
    listed = [labels[name] for name in STRATA if name in labels]
    legend = alt.Legend(orient="top", title=None, columns=2, symbolSize=90, labelLimit=220, values=listed)
    colour = alt.Color("series:N", scale=alt.Scale(domain=domain, range="category"), legend=legend)
    shape = alt.Shape("series:N", scale=alt.Scale(domain=domain, range=SHAPES), legend=legend)
    tooltip = [alt.Tooltip("series:N", title="stratum"), alt.Tooltip("shown:N", title="budget")]
    tooltip.append(alt.Tooltip("text:N", title="gain, points"))
    unit, bounded = "gain over no intermediate task, points", any(row["ci_low"] is not None for row in rows)
    base = alt.Chart(frame(rows, schema)).encode(x=x, color=colour, tooltip=tooltip)
    bars = base.mark_rule(strokeWidth=2, opacity=0.75).encode(y=alt.Y("ci_low:Q", title=unit), y2="ci_high:Q")
    bars = bars.transform_filter("isValid(datum.ci_low) && isValid(datum.ci_high)")
    lines = base.mark_line(strokeWidth=2).encode(y=alt.Y("estimate:Q", title=unit))
    points = base.mark_point(filled=True, size=90, opacity=1).encode(y=alt.Y("estimate:Q", title=unit), shape=shape)
    layers = [zero_line(y=alt.Y("zero:Q", title=unit)), lines, *([bars] if bounded else []), points]
    return as_spec(layers, 340)


def zero_line(**channel: alt.X | alt.Y) -> alt.Chart:
    """The line of no effect."""
    rule: alt.Chart = alt.Chart(pl.DataFrame({"zero": [0.0]})).mark_rule(style="zero").encode(**channel)
    return rule


def note_spec(note: str) -> Spec:
    """A chart that is only a sentence, for the files of a figure without anything to draw."""
    said = alt.Chart(pl.DataFrame({"note": [note]})).mark_text(style="note", align="left", fontSize=13)
    return as_spec([said.encode(x=alt.value(0), y=alt.value(20), text="note:N")], 40)


def heat_spec(inputs: ReportInputs) -> Spec | None:
    """Mean gain over seeds by language and (intermediate task, budget); the parameter `target` chooses the
    target.

    Languages stand by stratum, then by size; a missing mean is a dash without colour.
    """
    gains = gain_by_cell(inputs).rows(named=True)
    known = sorted(abs(row["gain"]) for row in gains if row["gain"] is not None)
    if not known:
        return None
    # One outlier would leave every other cell pale, so that colours saturate at the 98th percentile.
    limit = round(max(known[min(len(known) - 1, int(0.98 * len(known)))], 0.01), 3)
    names, domain = {}, []
    groups: dict[str, list[str]] = {group: [] for group in GROUPS}
    for iso2 in ordered_languages(inputs):
        language = inputs.languages[iso2]
        size = inputs.resource.sizes.get(iso2)
        names[iso2] = f"{language.name} ({iso2})" + ("" if size is None else f" · {size:.4g}")
        groups[group_of(inputs, iso2)].append(names[iso2])
    headings = [group.upper() for group in GROUPS if groups[group]]
    for group in GROUPS:
        domain += [group.upper(), *groups[group]] if groups[group] else []
    columns = [f"{name}|{budget_label(budget)}" for name in inputs.intermediates for budget in inputs.budgets]
    numbers = len(columns) <= 12
    # One row a language with its gains in a list: a row a cell would be most of a large study's page.
    found = {(row["target"], row["language"], row["intermediate"], row["budget"]): row["gain"] for row in gains}
    rows = []
    for target, iso2 in dict.fromkeys((row["target"], row["language"]) for row in gains):
        cells_here = [found[target, iso2, name, budget] for name in inputs.intermediates for budget in inputs.budgets]
        row = {"target": target, "row": names[iso2], "gain": [g if g is None else round(g, 3) for g in cells_here]}
        rows.append(row | ({"text": [number(gain, 1, signed=True) for gain in cells_here]} if numbers else {}))
    bold = alt.condition(f"indexof({json.dumps(headings)}, datum.value) >= 0", alt.value(700), alt.value(400))
    y = alt.Y("row:N", sort=None, title=None).scale(domain=domain)
    y = y.axis(ticks=False, domain=False, labelLimit=230, labelFontSize=11, labelFontWeight=bold)
    x = alt.X("column:N", sort=None, title=None).scale(domain=columns)
    x = x.axis(
        orient="top",
        labelAngle=0,
        ticks=False,
        domain=False,
        labelExpr="split(datum.label, '|')[1]",
        labelFontSize=11,
    )
    chart = alt.Chart(alt.NamedData(name="gains")).transform_filter("datum.target === target")
    chart = chart.transform_calculate(column=json.dumps(columns, ensure_ascii=False))
    chart = chart.transform_flatten(["column", "gain", "text"] if numbers else ["column", "gain"]).encode(x=x, y=y)
    legend = alt.Legend(title="gain, points", orient="bottom", format="+.1f", gradientLength=180)
    colour = alt.Color("gain:Q", legend=legend).scale(
        range="diverging", domain=[-limit, limit], domainMid=0, clamp=True, nice=False, interpolate="lab"
    )
    tooltip = [
        alt.Tooltip("row:N", title="language"),
        alt.Tooltip("after:N", title="after"),
        alt.Tooltip("gain:Q", title="mean gain, points", format="+.2f"),
    ]
    known_only, strong = "isValid(datum.gain)", f"abs(datum.gain) > {0.55 * limit}"
    cells = chart.transform_calculate(after="replace(datum.column, '|', ' ')")
    cells = cells.mark_rect(aria=False).encode(color=colour, tooltip=tooltip).transform_filter(known_only)
    dashes = chart.mark_text(text="–", style="note", aria=False).transform_filter(f"!{known_only}")
    heads = pl.DataFrame(
        {
            "column": [f"{n}|{budget_label(inputs.budgets[0])}" for n in inputs.intermediates],
            "name": inputs.intermediates,
        }
    )
    left = alt.X("column:N", sort=None, bandPosition=0, title=None)
    heading = alt.Chart(heads).mark_text(
        align="left", baseline="bottom", dx=2, fontWeight=600, style="name", aria=False
    )
    layers = [cells, dashes, heading.encode(x=left, y=alt.value(-22), text="name:N")]
    if numbers:
        for style, test in (("value", f"!({strong})"), ("value-strong", strong)):
            values = chart.mark_text(style=style, aria=False).encode(text="text:N")
            layers.append(values.transform_filter(f"{known_only} && {test}"))
    spec = as_spec(layers, 17 * len(domain), target=default_target(inputs))
    return {**spec, "datasets": {**spec["datasets"], "gains": rows}}  # by name: every layer would have its own copy


SLOPE_WIDTHS, SLOPE_HEIGHT = (600.0, 880.0), 460
"""Sizes of the slope figure's plot in pixels: names do not overlap at the smallest and the largest width."""
ANCHORS: Mapping[str, tuple[Literal["left", "center", "right"], int, int]] = {
    "right": ("left", 8, 4), "left": ("right", -8, 4), "top": ("center", 0, -8), "bottom": ("center", 0, 16),
}  # fmt: skip
"""Where a name can stand: how it is aligned, and the offset of its baseline from the dot in pixels."""
Box = tuple[float, float, float, float]


def place_names(points: list[tuple[float, float, str]]) -> list[str]:
    """For points (x, y, name), x and y as shares of the plot, the side of each name, or "" where it would
    overlap.

    Greedy from left to right: the first of ANCHORS whose box is free of dots and of names placed before.
    """
    taken: dict[float, list[Box]] = {}
    for width in SLOPE_WIDTHS:
        dots = [(x * width, y * SLOPE_HEIGHT) for x, y, _ in points]
        taken[width] = [(x - 5, y - 5, x + 5, y + 5) for x, y in dots]
    sides = [""] * len(points)
    for index in sorted(range(len(points)), key=lambda k: points[k]):
        x, y, name = points[index]
        for side in ANCHORS:
            boxes = {width: _name_box(x * width, y * SLOPE_HEIGHT, name, side) for width in SLOPE_WIDTHS}
            if all(_is_free(box, taken[width], width) for width, box in boxes.items()):
                sides[index] = side
                for width, box in boxes.items():
                    taken[width].append(box)
                break
    return sides


def _name_box(x: float, y: float, name: str, side: str) -> Box:
    align, dx, dy = ANCHORS[side]
    length = 6.0 * len(name)
    left = x + dx - {"left": 0.0, "center": length / 2, "right": length}[align]
    return left, y + dy - 10, left + length, y + dy + 2


def _is_free(box: Box, taken: list[Box], width: float) -> bool:
    inside = box[0] >= 0 and box[2] <= width and box[1] >= -12 and box[3] <= SLOPE_HEIGHT + 12
    return inside and all(box[2] < b[0] or b[2] < box[0] or box[3] < b[1] or b[3] < box[1] for b in taken)


def _slope_rows(inputs: ReportInputs) -> list[dict[str, Any]]:
    """A row a dot of the slope figure; `x` is the resource level, for unseen languages a place left of all."""
    found = [row for row in slopes(inputs).rows(named=True) if row["slope"] is not None]
    rows = []
    for row in found:
        language, group = inputs.languages[row["language"]], group_of(inputs, row["language"])
        if group == "source":
            continue
        size = inputs.resource.sizes.get(row["language"])
        shown = "not in pretraining" if size is None else f"{size:.4g}"
        x = None if size is None else size if inputs.resource.measure.is_class else math.log2(size)
        rows.append({**row, "group": group, "name": language.name, "shown": shown, "x": x, "seen": x is not None})
    return rows


def _place_rows(rows: list[dict[str, Any]]) -> tuple[float, float, list[float]]:
    """Fill in `x` of unseen languages and `side` of every name; returns the x domain and its ticks."""
    logs = [row["x"] for row in rows if row["seen"]]
    lowest, highest = (math.floor(min(logs)), math.ceil(max(logs))) if logs else (0, 0)
    ticks = [float(t) for t in range(lowest, highest + 1) if logs and (t % 2 == 0 or highest - lowest < 5)]
    left, right = lowest - 0.5, highest + 0.5
    if len(logs) < len(rows):
        left, ticks = lowest - 2.8, [lowest - 1.5, *ticks]
    for row in rows:
        row["x"] = row["x"] if row["seen"] else lowest - 1.5
    for target in sorted({row["target"] for row in rows}):
        here = [row for row in rows if row["target"] == target]
        bottom, top = min(0.0, *(row["slope"] for row in here)), max(0.0, *(row["slope"] for row in here))
        height = max(top - bottom, 1e-9) * 1.1  # the axis ends at round numbers, a little further out
        places = [((row["x"] - left) / (right - left), (top - row["slope"]) / height, row["name"]) for row in here]
        for row, side in zip(here, place_names(places), strict=True):
            row["side"] = side
    return left, right, ticks


def slope_spec(inputs: ReportInputs) -> Spec | None:
    """Gain per doubling against the resource level, a dot a language but English; unseen ones at the left."""
    rows = _slope_rows(inputs)
    if not rows:
        return None
    left, right, ticks = _place_rows(rows)
    schema: Schema = dict.fromkeys(("target", "name", "group", "shown", "side"), pl.String)
    schema |= {"seen": pl.Boolean, "x": pl.Float64, "slope": pl.Float64}
    unseen = ticks[0] if not all(row["seen"] for row in rows) else left
    measure = inputs.resource.measure
    value = "datum.value" if measure.is_class else "pow(2, datum.value)"
    label = f"datum.value <= {unseen} ? 'unseen' : format({value}, '.3~r')"
    x = alt.X("x:Q", title=measure.unit if measure.is_class else f"{measure.unit} (log scale)").axis(
        values=ticks, labelExpr=label, grid=False
    )
    x = x.scale(domain=[left, right], nice=False)
    y = alt.Y("slope:Q", title="gain per doubling of budget, points")
    groups = {row["group"] for row in rows}
    legend = alt.Legend(orient="top", title=None, symbolSize=80, values=[g for g in STRATA if g in groups])
    tooltip = [alt.Tooltip("name:N", title="language"), alt.Tooltip("shown:N", title=measure.unit)]
    tooltip.append(alt.Tooltip("slope:Q", title="per doubling", format="+.3f"))
    for row in rows:
        row["slope"] = round(row["slope"], 4)
    chart = alt.Chart(frame(rows, schema)).transform_filter("datum.target === target")
    dots = chart.mark_point(filled=True, size=55, opacity=0.9).encode(
        x=x,
        y=y.scale(zero=True),
        color=alt.Color("group:N", scale=alt.Scale(domain=list(STRATA), range="category"), legend=legend),
        shape=alt.Shape("group:N", scale=alt.Scale(domain=list(STRATA), range=SHAPES), legend=legend),
        tooltip=tooltip,
    )
    trend = chart.transform_filter("datum.seen").transform_regression("x", "slope").mark_line(style="trend")
    layers = [zero_line(y=alt.Y("zero:Q", title="gain per doubling of budget, points")), trend.encode(x=x, y=y), dots]
    for side in sorted({row["side"] for row in rows} & set(ANCHORS)):
        align, dx, dy = ANCHORS[side]
        names = chart.transform_filter(f"datum.side === '{side}'")
        names = names.mark_text(align=align, baseline="alphabetic", dx=dx, dy=dy, style="name", aria=False)
        layers.append(names.encode(x=x, y=y, text="name:N"))
    drawn = {row["target"] for row in rows}
    blank = [target for target in targets_shown(inputs) if target not in drawn]
    if blank:
        why = alt.Chart(
            pl.DataFrame({"target": blank, "why": ["no language has every cell here: no slope"] * len(blank)})
        )
        why = why.transform_filter("datum.target === target").mark_text(style="note", align="left")
        layers.append(why.encode(x=alt.value(12), y=alt.value(24), text="why:N"))
    return as_spec(layers, SLOPE_HEIGHT, target=default_target(inputs))
