"""The forest plots: contrasts over all cells, by target and by intermediate task; and one contrast by every method."""

from __future__ import annotations

from typing import Any

import altair as alt
import polars as pl

from xlift.contrasts.rows import BETA, METHODS, POINTS
from xlift.report.charts import SHAPES, Schema, Spec, as_spec, frame, signed, zero_line
from xlift.report.inputs import ReportInputs, contrast_rows, parse_scope
from xlift.report.tables import interval, scope_title

ROOM = 12
"""Pixels between the ends of an interval and those of the axis, so that none looks cut."""


def forest_spec(rows: list[dict[str, Any]], unit: str) -> Spec | None:
    """A forest plot of contrasts, one row each, first row on top; None without an estimate.

    A contrast without an interval is a hollow point that says so; one without an estimate is only text.
    """
    shown = []
    for row in rows:
        bounded = row["ci_low"] is not None and row["ci_high"] is not None
        note = interval(row) if row["estimate"] is None or not bounded else ""
        text = f"{signed(row['estimate'])} {interval(row)}" if row["estimate"] is not None else interval(row)
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
    base = alt.Chart(frame(shown, schema)).encode(y=y, tooltip=tooltip)
    bars = base.mark_rule(strokeWidth=2.5, style="estimate").encode(
        x=alt.X("ci_low:Q", title=unit).scale(padding=ROOM), x2="ci_high:Q"
    )
    points = base.mark_point(filled=True, size=90, opacity=1, style="estimate").encode(
        x=alt.X("estimate:Q", title=unit)
    )
    hollow = base.mark_point(filled=False, size=80, opacity=1, style="estimate").encode(
        x=alt.X("estimate:Q", title=unit)
    )
    remarks = base.mark_text(dy=15, style="note").encode(x=alt.X("at:Q", title=unit).scale(padding=36), text="remark:N")
    layers = [zero_line(x=alt.X("zero:Q", title=unit))]
    # A layer without rows would leave the browser a warning about its extent.
    if any(row["bounded"] for row in shown):
        layers += [layer.transform_filter("datum.bounded") for layer in (bars, points)]
    if any(row["estimate"] is not None and not row["bounded"] for row in shown):
        layers.append(hollow.transform_filter("!datum.bounded && isValid(datum.estimate)"))
    remarked = any(row["remark"] for row in shown)
    if remarked:
        layers.append(remarks.transform_filter("datum.remark != ''"))
    return as_spec(layers, (38 if remarked else 26) * len(order) + 20)


def forest_rows(inputs: ReportInputs, estimand: str) -> list[dict[str, Any]]:
    """The rows of a forest plot: all cells, then each target and intermediate task.

    A contrast at a budget is shown for all cells at every budget, and by target at the largest one.
    """
    contrasts = inputs.contrasts
    if estimand.endswith("per_doubling"):
        return [row for keys in ([], ["target"], ["intermediate"]) for row in contrast_rows(contrasts, estimand, keys)]
    overall = sorted(contrast_rows(contrasts, estimand, ["budget"]), key=lambda row: float(row["where"]["budget"]))
    largest = {row["where"]["budget"] for row in overall[-1:]}
    parts = [row for key in ("target", "intermediate") for row in contrast_rows(contrasts, estimand, ["budget", key])]
    return overall + [row for row in parts if row["where"]["budget"] in largest]


def method_rows(inputs: ReportInputs) -> list[dict[str, Any]]:
    """β over all cells and by target, in points, by every method: method after method within a scope."""
    rows = inputs.contrasts.filter(
        (pl.col("estimand") == BETA) & (pl.col("scale") == POINTS) & pl.col("method").is_in(METHODS)
    )
    scopes = ["all", *(f"target={target}" for target in inputs.targets)]
    found = [row | {"where": parse_scope(row["scope"])} for row in rows.iter_rows(named=True) if row["scope"] in scopes]
    return sorted(found, key=lambda row: (scopes.index(row["scope"]), METHODS.index(row["method"])))


def method_spec(rows: list[dict[str, Any]]) -> Spec | None:
    """The rows of `method_rows` as a forest plot, the methods of a scope one under the other; None without estimate.

    A method without an interval (permutation has none) is a point alone.
    """
    shown = [
        {**row, "where": scope_title(row["scope"]), "text": f"{signed(row['estimate'])} {interval(row)}"}
        for row in rows
        if row["estimate"] is not None
    ]
    if not shown:
        return None
    schema: Schema = dict.fromkeys(("where", "method", "text"), pl.String)
    schema |= dict.fromkeys(("estimate", "ci_low", "ci_high"), pl.Float64)
    order = list(dict.fromkeys(row["where"] for row in shown))
    present = [name for name in METHODS if name in {row["method"] for row in shown}]
    unit = "β, points per doubling and SD of resource"
    y = alt.Y("where:N", sort=None, title=None).scale(domain=order, paddingInner=0.25)
    y = y.axis(labelLimit=190, ticks=False, domain=False)
    legend = alt.Legend(orient="top", title=None, columns=2, symbolSize=80, values=present)
    # Every method is always declared, so that an absent one moves no other's colour.
    colour = alt.Color("method:N", legend=legend).scale(domain=list(METHODS), range="ordinal")
    shape = alt.Shape("method:N", legend=legend).scale(domain=list(METHODS), range=SHAPES)
    tooltip = [alt.Tooltip("where:N", title="scope"), alt.Tooltip("method:N"), alt.Tooltip("text:N", title="β")]
    base = alt.Chart(frame(shown, schema)).encode(
        y=y, yOffset=alt.YOffset("method:N").scale(domain=present), color=colour, tooltip=tooltip
    )
    layers = [zero_line(x=alt.X("zero:Q", title=unit))]
    if any(row["ci_low"] is not None for row in shown):
        bars = base.mark_rule(strokeWidth=2).encode(x=alt.X("ci_low:Q", title=unit).scale(padding=ROOM), x2="ci_high:Q")
        layers.append(bars.transform_filter("isValid(datum.ci_low)"))
    points = base.mark_point(filled=True, size=60, opacity=1)
    layers.append(points.encode(x=alt.X("estimate:Q", title=unit), shape=shape))
    return as_spec(layers, (13 * len(present) + 8) * len(order))
