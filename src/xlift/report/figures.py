"""The report's figures: Altair charts without colours of their own, a light and a dark theme, static copies.

A chart names styles and colour ranges; the theme (a Vega config) gives them colours, so one spec serves
light, dark and print. Palette: Okabe and Ito (2008), lightened for dark; strata also differ in shape.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import vl_convert

from xlift.errors import UserError
from xlift.report.charts import (
    SLOPE_WIDTHS,
    Spec,
    forest_rows,
    forest_spec,
    heat_spec,
    slope_spec,
    stratum_caption,
    stratum_spec,
)
from xlift.report.inputs import ReportInputs

# vl-convert carries Liberation Sans: text is measured, and PNGs are drawn, the same on every machine.
STATIC_FONT = "'Liberation Sans', Arial, Helvetica, sans-serif"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif"


FOREST_CAPTION = "Right of zero, low-resource languages gain more; left of it, high-resource ones do."
# key: title, caption, description for those who do not see the figure
TEXTS = {
    "strata": (
        "Gain against budget by stratum",
        "",  # depends on the study: stratum_caption
        "Line chart of gain in points against budget, one line a resource stratum. A table below has the numbers.",
    ),
    "forest-budget": (
        "Low − high: difference in gain",
        FOREST_CAPTION,
        "Forest plot of the low minus high difference in gain, with intervals. A table below has the numbers.",
    ),
    "forest-doubling": (
        "Low − high: difference in gain per doubling of budget",
        FOREST_CAPTION,
        "Forest plot of the low minus high difference in gain per doubling. A table below has the numbers.",
    ),
    "heat": (
        "Gain by language, intermediate task and budget",
        "Mean over seeds; behind a language's name stands its size. A dash is a mean that is missing "
        "because a cell is; it is never taken over the rest. Colours saturate at the 98th percentile.",
        "Heat map of gain: languages in rows by stratum, intermediate tasks and budgets in columns.",
    ),
    "slope": (
        "Gain per doubling against pretraining text",
        "Least-squares slope of gain on log2 budget, mean over intermediate tasks and seeds. The dashed line "
        "is fitted to the dots for the eye; its test is β above. Names that would overlap are left out: "
        "point at a dot, or see the table.",
        "Scatter plot of gain per doubling of budget against pretraining text, a dot a language.",
    ),
}


@dataclass(frozen=True)
class Figure:
    """One figure: the Vega-Lite spec drawn in the browser, and a static SVG of it.

    `min_width` in CSS pixels: below it the figure scrolls in its own box.
    """

    key: str
    title: str
    caption: str
    description: str
    spec: Spec
    static: str
    min_width: int


def theme(dark: bool, font: str = FONT) -> Spec:
    """The Vega config that colours every figure."""
    text, muted, grid = ("#e6edf3", "#a8b1bb", "#3a414a") if dark else ("#1f2328", "#57606a", "#d8dee4")
    strata = ["#f0813a", "#2dbe95", "#56b4e9", "#e39ac4"] if dark else ["#d55e00", "#009e73", "#0072b2", "#cc79a7"]
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
        "title": {"color": text, "fontSize": 14, "anchor": "start", "fontWeight": 600},
        "range": {"category": strata, "diverging": [*down, "#262b31" if dark else "#f6f7f8", *up]},
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
    """The page's figures in order; one without anything to draw is left out (the page says so)."""
    per_name = [max(44 * len(inputs.budgets), 7 * len(name) + 8) for name in inputs.intermediates]
    heat_width = 190 + len(per_name) * max(per_name, default=0)
    forests = {
        key: forest_spec(forest_rows(inputs, estimand), unit)
        for key, estimand, unit in (
            ("forest-budget", "low_minus_high", "low − high, points"),
            ("forest-doubling", "low_minus_high_per_doubling", "low − high, points per doubling"),
        )
    }
    # key, spec, least width on the page, width of the static copy
    drawn = [
        ("strata", stratum_spec(inputs), 320, 860),
        ("forest-budget", forests["forest-budget"], 320, 520),
        ("forest-doubling", forests["forest-doubling"], 320, 520),
        ("heat", heat_spec(inputs), heat_width, max(heat_width, 760)),
        ("slope", slope_spec(inputs), int(SLOPE_WIDTHS[0]) + 60, 860),
    ]
    figures = []
    for key, spec, least, width in drawn:
        if spec is None:
            continue
        title, caption, description = TEXTS[key]
        spec = {**spec, "description": description}
        caption = caption or stratum_caption(inputs)
        figures.append(Figure(key, title, caption, description, spec, static_svg(spec, width, key), least))
    return figures


def write_figures(inputs: ReportInputs, folder: Path) -> None:
    """Write the main figure as gain_by_budget.svg and gain_by_budget.png (2 pixels a point) into `folder`.

    Raises UserError where the contrasts hold no gain by stratum.
    """
    spec = stratum_spec(inputs, title=f"{inputs.study['name']}: gain by budget and resource level")
    if spec is None:
        raise UserError(
            f"Study '{inputs.study['name']}' has no gain by stratum to draw; run the contrasts over a grid "
            "with scores first."
        )
    folder.mkdir(parents=True, exist_ok=True)
    svg = static_svg(spec, 720, "main")
    (folder / "gain_by_budget.svg").write_text(svg, encoding="utf-8")
    (folder / "gain_by_budget.png").write_bytes(vl_convert.svg_to_png(svg, scale=2))
