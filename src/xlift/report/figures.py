"""The report's figures: Altair charts without colours of their own, a light and a dark theme, static copies.

A chart names styles and colour ranges; the theme (a Vega config) gives them colours, so one spec serves
light, dark and print. Palette: Okabe and Ito (2008), lightened for dark; strata also differ in shape.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import vl_convert

from xlift.artifacts import publish_json, publish_text, publishing
from xlift.contrasts.rows import LOW_HIGH, LOW_HIGH_LEVEL
from xlift.report.charts import (
    SLOPE_WIDTHS,
    Spec,
    heat_spec,
    note_spec,
    slope_spec,
    stratum_caption,
    stratum_spec,
)
from xlift.report.forest import forest_rows, forest_spec, method_rows, method_spec
from xlift.report.inputs import ReportInputs, default_target
from xlift.report.tables import target_title

# vl-convert carries Liberation Sans: text is measured, and PNGs are drawn, the same on every machine.
STATIC_FONT = "'Liberation Sans', Arial, Helvetica, sans-serif"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif"


FOREST_CAPTION = "Right of zero, low-resource languages gain more; left of it, high-resource ones do."


@dataclass(frozen=True)
class Text:
    """A figure's words: title, caption, description for those who do not see it, what is said where it is absent."""

    title: str
    caption: str
    description: str
    absent: str


STRATA_FIGURE = "strata"
TEXTS: Mapping[str, Text] = {
    STRATA_FIGURE: Text(
        "Gain against budget by stratum",
        "",  # depends on the study: stratum_caption
        "Line chart of gain in points against budget, one line a resource stratum. A table below has the numbers.",
        "No gain by stratum was estimated, so there is nothing to draw.",
    ),
    "forest-budget": Text(
        "Low − high: difference in gain",
        FOREST_CAPTION,
        "Forest plot of the low minus high difference in gain, with intervals. A table below has the numbers.",
        "No difference in gain between low- and high-resource languages was estimated.",
    ),
    "forest-doubling": Text(
        "Low − high: difference in gain per doubling of budget",
        FOREST_CAPTION,
        "Forest plot of the low minus high difference in gain per doubling. A table below has the numbers.",
        "No difference in gain per doubling of budget was estimated.",
    ),
    "forest-methods": Text(
        "β by target and method",
        "The primary estimand: points per doubling of budget for one standard deviation more resource, over all cells "
        "and by target. Left of zero, low-resource languages gain more. The clustered method decides, by plan; where "
        "others differ from it, their assumptions matter. Permutation has a p value and no interval.",
        "Forest plot of the primary estimand over all cells and by target, one mark a method. "
        "A table below has the numbers.",
        "The primary estimand was not estimated.",
    ),
    "heat": Text(
        "Gain by language, intermediate task and budget",
        "Mean over seeds; behind a language's name stands its size. A dash is a mean that is missing "
        "because a cell is; it is never taken over the rest. Colours saturate at the 98th percentile.",
        "Heat map of gain: languages in rows by stratum, intermediate tasks and budgets in columns. "
        "A table below has the numbers.",
        "No language has a complete mean gain, so there is no map.",
    ),
    "slope": Text(
        "Gain per doubling against pretraining text",
        "Least-squares slope of gain on log2 budget, mean over intermediate tasks and seeds. The dashed line "
        "is fitted to the dots for the eye; its test is β above. Names that would overlap are left out: "
        "point at a dot, or see the table.",
        "Scatter plot of gain per doubling of budget against pretraining text, a dot a language. "
        "A table below has the numbers.",
        "No language has a gain at two budgets or more, so there is no slope to show.",
    ),
}
BY_TARGET = frozenset({"heat", "slope"})
"""Figures that show one target at a time."""


@dataclass(frozen=True)
class Figure:
    """One figure: the Vega-Lite spec drawn in the browser, None where there is nothing to draw; and its words.

    `min_width` in CSS pixels: below it the figure scrolls in its own box. `width` in CSS pixels of its static copies.
    """

    key: str
    text: Text
    spec: Spec | None
    min_width: int
    width: int

    @functools.cached_property
    def static(self) -> str:
        """The SVG that the page shows without scripts and in print; empty where there is nothing to draw."""
        return "" if self.spec is None else static_svg(self.spec, self.width, self.key)


def theme(dark: bool, font: str = FONT) -> Spec:
    """The Vega config that colours every figure."""
    text, muted, grid = ("#e6edf3", "#a8b1bb", "#3a414a") if dark else ("#1f2328", "#57606a", "#d8dee4")
    strata = ["#f0813a", "#2dbe95", "#56b4e9", "#e39ac4"] if dark else ["#d55e00", "#009e73", "#0072b2", "#cc79a7"]
    # Methods are no strata: other colours, the primary one as strong as text.
    methods = [text, "#c297ff", "#4cc3e6", "#e0b341"] if dark else [text, "#8250df", "#0a7ea4", "#9a6700"]
    down, up = (["#ffb27a", "#d55e00", "#74401f"], ["#1f567b", "#3a94cf", "#a5d8f7"])
    if not dark:
        down, up = (["#8f3a00", "#d55e00", "#f3bd95"], ["#9ccbe8", "#0072b2", "#00456b"])
    labels = {
        "labelColor": text,
        "titleColor": text,
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
    }
    return {
        "background": "transparent" if dark else "white",
        "font": font,
        "view": {"stroke": None},
        "axis": {**labels, "gridColor": grid, "domainColor": muted, "tickColor": muted},
        "legend": {**labels, "titleColor": muted},
        "title": {"color": text, "subtitleColor": muted, "fontSize": 14, "anchor": "start", "fontWeight": 600},
        "range": {"category": strata, "ordinal": methods, "diverging": [*down, "#262b31" if dark else "#f6f7f8", *up]},
        "style": {
            "zero": {"color": muted, "strokeWidth": 1.5},
            "trend": {"color": muted, "strokeDash": [5, 4]},
            "estimate": {"color": strata[2]},
            "note": {"color": muted, "fontSize": 11},
            "name": {"color": text, "fontSize": 10.5},
            "value": {"color": text, "fontSize": 10.5},
            "value-strong": {"color": "#0d1117" if dark else "#ffffff", "fontSize": 10.5},
        },
    }


def static_svg(spec: Spec, width: int, prefix: str) -> str:
    """The figure as SVG in the light theme; ids carry the prefix, so that several fit in one page."""
    svg: str = vl_convert.vegalite_to_svg({**spec, "width": width}, config=theme(dark=False, font=STATIC_FONT))
    # The renderer counts ids over its whole life: number them anew, so that a second page is the same as the first.
    for place, name in enumerate(dict.fromkeys(re.findall(r'\bid="([^"]+)"', svg))):
        for before, after in (('id="', '"'), ("url(#", ")"), ('href="#', '"')):
            svg = svg.replace(f"{before}{name}{after}", f"{before}{prefix}-{place}{after}")
    return svg


def build_figures(inputs: ReportInputs) -> list[Figure]:
    """The page's figures in order; one without anything to draw has no spec, and the page says so."""
    per_name = [max(44 * len(inputs.budgets), 7 * len(name) + 8) for name in inputs.intermediates]
    heat_width = 190 + len(per_name) * max(per_name, default=0)
    by_budget = forest_spec(forest_rows(inputs, LOW_HIGH_LEVEL), "low − high, points")
    by_doubling = forest_spec(forest_rows(inputs, LOW_HIGH), "low − high, points per doubling")
    drawn: tuple[tuple[str, Spec | None, int, int], ...] = (
        (STRATA_FIGURE, stratum_spec(inputs), 320, 860),
        ("forest-budget", by_budget, 320, 520),
        ("forest-doubling", by_doubling, 320, 520),
        ("forest-methods", method_spec(method_rows(inputs)), 320, 860),
        ("heat", heat_spec(inputs), heat_width, max(heat_width, 760)),
        ("slope", slope_spec(inputs), int(SLOPE_WIDTHS[0]) + 60, 860),
    )
    figures = []
    for key, spec, least, width in drawn:
        text = TEXTS[key]
        if key == STRATA_FIGURE:
            text = replace(text, caption=stratum_caption(inputs))
        spec = None if spec is None else {**spec, "description": text.description}
        figures.append(Figure(key, text, spec, least, width))
    return figures


def write_figures(figures: Sequence[Figure], inputs: ReportInputs, folder: Path) -> None:
    """Write each figure as <key>.svg, <key>.png (2 pixels a point) and <key>.vl.json (its spec) into `folder`.

    They stand alone: each has a title with the study's name, and the spec has its colours. Where there is nothing to
    draw, the files say so.
    """
    for figure in figures:
        title: dict[str, str] = {"text": f"{inputs.study['name']}: {figure.text.title}"}
        if figure.key in BY_TARGET and figure.spec is not None:
            title["subtitle"] = target_title(default_target(inputs))
        spec = {**(figure.spec or note_spec(figure.text.absent)), "title": title}
        svg = static_svg(spec, figure.width, figure.key)
        publish_text(folder / f"{figure.key}.svg", svg)
        with publishing(folder / f"{figure.key}.png") as temporary:
            temporary.write_bytes(vl_convert.svg_to_png(svg, scale=2))
        publish_json(folder / f"{figure.key}.vl.json", {**spec, "width": figure.width, "config": theme(dark=False)})
