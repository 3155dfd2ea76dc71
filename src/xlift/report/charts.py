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
)
from xlift.report.tables import budget_label, interval, number, scope_title

SHAPES = ["circle", "square", "triangle-up", "diamond"]
Spec = dict[str, Any]
"""A Vega-Lite spec."""
Schema = dict[str, type[pl.DataType]]


def _frame(rows: list[dict[str, Any]], schema: Schema) -> pl.DataFrame:
    """Rows as a table with these columns and no others, empty or not."""
    return pl.DataFrame(
        [{name: row.get(name) for name in schema} for row in rows], schema=schema, orient="row"
    )


def _spec(layers: list[alt.Chart], height: int, title: str | None = None, target: str | None = None) -> Spec:
    """Layers as a spec as wide as its container; `target` gives it the parameter of that name and its first
    value.

    Altair checks the spec against Vega-Lite's schema here.
    """
    chart: Any = alt.layer(*layers).properties(width="container", height=height)
    if title is not None:
        chart = chart.properties(title=title)
    if target is not None:
        chart = chart.add_params(alt.param(name="target", value=target))
    with alt.data_transformers.enable("default", max_rows=None):
        spec: Spec = chart.to_dict()
    spec.pop("config", None)  # Altair's own theme; ours comes when the figure is drawn
    spec["autosize"] = {"type": "fit-x", "contains": "padding"}
    return spec


def _signed(value: float) -> str:
    return number(value, 2, signed=True)


def stratum_spec(inputs: ReportInputs, title: str | None = None) -> Spec | None:
    """Gain against budget by stratum, from the gain_<stratum> contrasts; None where none has an estimate."""
    rows, labels = [], {}
    for place, name in enumerate(STRATA):
        for row in contrast_rows(inputs.contrasts, f"gain_{name}", ["budget"]):
            if row["estimate"] is None:
                continue
            budget = float(row["where"]["budget"])
            labels[name] = f"{name} ({row['n_languages']} languages)"
            # Strata stand side by side at a budget, so that their intervals do not hide one another.
            beside = math.log2(budget) + 0.05 * (place - 1.5)
            shown = {"shown": budget_label(budget), "text": f"{_signed(row['estimate'])} {interval(row)}"}
            rows.append({**row, **shown, "stratum": name, "x": beside, "log": math.log2(budget)})
    if not rows:
        return None
    for row in rows:
        row["series"] = labels[row["stratum"]]
    schema: Schema = {"series": pl.String, "shown": pl.String, "text": pl.String}
    schema |= dict.fromkeys(("x", "estimate", "ci_low", "ci_high"), pl.Float64)
    # The whole range is always declared, so that an absent stratum moves no other's colour; the legend lists
    # what is there.
    domain = [labels.get(name, name) for name in STRATA]
    logs = sorted({row["log"]: row["shown"] for row in rows}.items())
    ticks = [log for log, _ in logs]
    label = f"{json.dumps([shown for _, shown in logs])}[indexof({json.dumps(ticks)}, datum.value)]"
    margin = 0.3 if len(ticks) > 1 else 1.0
    x = alt.X("x:Q", title="budget (multiple of the reference steps, log scale)")
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
    base = alt.Chart(_frame(rows, schema)).encode(x=x, color=colour, tooltip=tooltip)
    bars = base.mark_rule(strokeWidth=2, opacity=0.75).encode(y=alt.Y("ci_low:Q", title=unit), y2="ci_high:Q")
    bars = bars.transform_filter("isValid(datum.ci_low) && isValid(datum.ci_high)")
    lines = base.mark_line(strokeWidth=2).encode(y=alt.Y("estimate:Q", title=unit))
    points = base.mark_point(filled=True, size=90, opacity=1).encode(
        y=alt.Y("estimate:Q", title=unit), shape=shape
    )
    layers = [_zero(y=alt.Y("zero:Q", title=unit)), lines, *([bars] if bounded else []), points]
    return _spec(layers, 340, title=title)


def _zero(**channel: alt.X | alt.Y) -> alt.Chart:
    """The line of no effect."""
    rule: alt.Chart = alt.Chart(pl.DataFrame({"zero": [0.0]})).mark_rule(style="zero").encode(**channel)
    return rule


def forest_spec(rows: list[dict[str, Any]], unit: str) -> Spec | None:
    """A forest plot of contrasts, one row each, first row on top; None without an estimate.

    A contrast without an interval is a hollow point that says so; one without an estimate is only text.
    """
    shown = []
    for row in rows:
        bounded = row["ci_low"] is not None and row["ci_high"] is not None
        note = interval(row) if row["estimate"] is None or not bounded else ""
        text = f"{_signed(row['estimate'])} {interval(row)}" if row["estimate"] is not None else interval(row)
        extra = {"where": scope_title(row["scope"]), "remark": note, "text": text, "bounded": bounded}
        shown.append({**row, **extra, "at": row["estimate"] or 0.0})
    if all(row["estimate"] is None for row in shown):
        return None
    schema: Schema = {name: pl.String for name in ("where", "remark", "text")} | {"bounded": pl.Boolean}
    schema |= dict.fromkeys(("at", "estimate", "ci_low", "ci_high"), pl.Float64)
    order = list(dict.fromkeys(row["where"] for row in shown))
    y = (
        alt.Y("where:N", sort=None, title=None)
        .scale(domain=order)
        .axis(labelLimit=190, ticks=False, domain=False, grid=True)
    )
    tooltip = [alt.Tooltip("where:N", title="scope"), alt.Tooltip("text:N", title=unit)]
    base = alt.Chart(_frame(shown, schema)).encode(y=y, tooltip=tooltip)
    bars = base.mark_rule(strokeWidth=2.5, style="estimate").encode(
        x=alt.X("ci_low:Q", title=unit), x2="ci_high:Q"
    )
    points = base.mark_point(filled=True, size=90, opacity=1, style="estimate").encode(
        x=alt.X("estimate:Q", title=unit)
    )
    hollow = base.mark_point(filled=False, size=80, opacity=1, style="estimate").encode(
        x=alt.X("estimate:Q", title=unit)
    )
    remarks = base.mark_text(align="left", dx=9, style="note").encode(
        x=alt.X("at:Q", title=unit), text="remark:N"
    )
    layers = [_zero(x=alt.X("zero:Q", title=unit))]
    # A layer without rows would leave the browser a warning about its extent.
    if any(row["bounded"] for row in shown):
        layers += [layer.transform_filter("datum.bounded") for layer in (bars, points)]
    if any(row["estimate"] is not None and not row["bounded"] for row in shown):
        layers.append(hollow.transform_filter("!datum.bounded && isValid(datum.estimate)"))
    if any(row["remark"] for row in shown):
        layers.append(remarks.transform_filter("datum.remark != ''"))
    return _spec(layers, 26 * len(order) + 20)


def heat_spec(inputs: ReportInputs) -> Spec | None:
    """Mean gain over seeds by language and (intermediate task, budget); the parameter `target` chooses the
    target.

    Languages stand by stratum, then by GiB; a missing mean is a dash without colour.
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
        size = "" if language.cc100_gib is None else f" · {language.cc100_gib:g}"
        names[iso2] = f"{language.name} ({iso2}){size}"
        groups[group_of(inputs, iso2)].append(names[iso2])
    headings = [group.upper() for group in GROUPS if groups[group]]
    for group in GROUPS:
        domain += [group.upper(), *groups[group]] if groups[group] else []
    columns = [f"{name}|{budget_label(budget)}" for name in inputs.intermediates for budget in inputs.budgets]
    numbers = len(columns) <= 12
    rows = []
    for row in gains:
        gain = None if row["gain"] is None else round(row["gain"], 3)
        place = {
            "row": names[row["language"]],
            "column": f"{row['intermediate']}|{budget_label(row['budget'])}",
        }
        text = number(gain, 1, signed=True) if numbers else None
        rows.append({"target": row["target"], **place, "gain": gain, "text": text})
    schema: Schema = {"target": pl.String, "row": pl.String, "column": pl.String, "gain": pl.Float64}
    if numbers:
        schema["text"] = pl.String
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
    chart = alt.Chart(_frame(rows, schema)).transform_filter("datum.target === target").encode(x=x, y=y)
    legend = alt.Legend(title="gain, points", orient="bottom", format="+.1f", gradientLength=180)
    colour = alt.Color("gain:Q", legend=legend).scale(
        range="diverging", domain=[-limit, limit], domainMid=0, clamp=True, nice=False, interpolate="lab"
    )
    tooltip = [
        alt.Tooltip("row:N", title="language"),
        alt.Tooltip("gain:Q", title="mean gain, points", format="+.2f"),
    ]
    known_only, strong = "isValid(datum.gain)", f"abs(datum.gain) > {0.55 * limit}"
    cells = chart.mark_rect(aria=False).encode(color=colour, tooltip=tooltip).transform_filter(known_only)
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
    return _spec(layers, 17 * len(domain), target=default_target(inputs))


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
    inside = box[0] >= 0 and box[2] <= width and box[1] >= 0 and box[3] <= SLOPE_HEIGHT
    return inside and all(box[2] < b[0] or b[2] < box[0] or box[3] < b[1] or b[3] < box[1] for b in taken)


def slope_spec(inputs: ReportInputs) -> Spec | None:
    """Gain per doubling against GiB of CC-100, a dot a language but English; unseen ones at the left."""
    table = [row for row in slopes(inputs).rows(named=True) if row["slope"] is not None]
    table = [row | {"group": group_of(inputs, row["language"])} for row in table]
    table = [row for row in table if row["group"] != "source"]
    if not table:
        return None
    sizes = {
        row["language"]: inputs.languages[row["language"]].cc100_gib
        for row in table
        if row["group"] != "unseen"
    }
    logs = [math.log2(size) for size in sizes.values() if size]
    lowest, highest = (math.floor(min(logs)), math.ceil(max(logs))) if logs else (0, 0)
    rows = []
    for row in table:
        size = sizes.get(row["language"])
        place = {"x": math.log2(size) if size else lowest - 1.5, "seen": bool(size)}
        shown = "not in pretraining" if not size else f"{size:g}"
        language = inputs.languages[row["language"]]
        rows.append({**row, **place, "slope": round(row["slope"], 4), "name": language.name, "shown": shown})
    span = (lowest - 2.8 if any(not row["seen"] for row in rows) else lowest - 0.5, highest + 0.5)
    for target in sorted({row["target"] for row in rows}):
        here = [row for row in rows if row["target"] == target]
        bottom, top = min(0.0, *(row["slope"] for row in here)), max(0.0, *(row["slope"] for row in here))
        across, down = span[1] - span[0], max(top - bottom, 1e-9)
        places = [((row["x"] - span[0]) / across, (top - row["slope"]) / down, row["name"]) for row in here]
        for row, side in zip(here, place_names(places), strict=True):
            row["side"] = side
    schema: Schema = {name: pl.String for name in ("target", "name", "group", "shown", "side")} | {
        "seen": pl.Boolean
    }
    schema |= dict.fromkeys(("x", "slope"), pl.Float64)
    unseen = any(not row["seen"] for row in rows)
    ticks = [lowest - 1.5] * unseen + [
        float(t) for t in range(lowest, highest + 1) if t % 2 == 0 or highest - lowest < 5
    ]
    label = f"datum.value < {lowest} ? 'unseen' : format(pow(2, datum.value), '.3~r')"
    x = alt.X("x:Q", title="GiB of CC-100 (log scale)").axis(values=ticks, labelExpr=label, grid=False)
    x = x.scale(domain=list(span), nice=False)
    unit = "gain per doubling of budget, points"
    legend = alt.Legend(
        orient="top",
        title=None,
        symbolSize=80,
        values=[g for g in STRATA if any(r["group"] == g for r in rows)],
    )
    tooltip = [alt.Tooltip("name:N", title="language"), alt.Tooltip("shown:N", title="GiB of CC-100")]
    tooltip.append(alt.Tooltip("slope:Q", title="per doubling", format="+.3f"))
    chart = alt.Chart(_frame(rows, schema)).transform_filter("datum.target === target")
    dots = chart.mark_point(filled=True, size=55, opacity=0.9).encode(
        x=x,
        y=alt.Y("slope:Q", title=unit).scale(zero=True),
        color=alt.Color("group:N", scale=alt.Scale(domain=list(STRATA), range="category"), legend=legend),
        shape=alt.Shape("group:N", scale=alt.Scale(domain=list(STRATA), range=SHAPES), legend=legend),
        tooltip=tooltip,
    )
    trend = chart.transform_filter("datum.seen").transform_regression("x", "slope").mark_line(style="trend")
    layers = [_zero(y=alt.Y("zero:Q", title=unit)), trend.encode(x=x, y=alt.Y("slope:Q", title=unit)), dots]
    for side, (align, dx, dy) in ANCHORS.items():
        if not any(row["side"] == side for row in rows):
            continue
        names = chart.transform_filter(f"datum.side === '{side}'").mark_text(
            align=align, dx=dx, dy=dy, style="name", aria=False
        )
        layers.append(names.encode(x=x, y=alt.Y("slope:Q", title=unit), text="name:N"))
    return _spec(layers, SLOPE_HEIGHT, target=default_target(inputs))


def forest_rows(inputs: ReportInputs, estimand: str) -> list[dict[str, Any]]:
    """The rows of a forest plot: all cells, then each target and intermediate task.

    A contrast at a budget is shown for all cells at every budget, and by target at the largest one.
    """
    contrasts = inputs.contrasts
    if estimand.endswith("per_doubling"):
        return [
            row
            for keys in ([], ["target"], ["intermediate"])
            for row in contrast_rows(contrasts, estimand, keys)
        ]
    overall = sorted(
        contrast_rows(contrasts, estimand, ["budget"]), key=lambda row: float(row["where"]["budget"])
    )
    largest = {row["where"]["budget"] for row in overall[-1:]}
    parts = [
        row
        for key in ("target", "intermediate")
        for row in contrast_rows(contrasts, estimand, ["budget", key])
    ]
    return overall + [row for row in parts if row["where"]["budget"] in largest]
