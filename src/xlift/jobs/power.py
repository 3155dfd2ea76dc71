"""`xlift power`: the smallest effects that a study's grid detects, as lines, a table and a figure."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import altair as alt
import polars as pl
import vl_convert

from xlift.analysis import analysis_settings
from xlift.artifacts import publish_text, publishing
from xlift.catalog.task import MAIN
from xlift.contrasts.power import POWER, Layout, pilot_spreads, power_table
from xlift.contrasts.rows import BETA, LOW_HIGH
from xlift.contrasts.sensitivity import split_gains
from xlift.contrasts.structure import Spreads
from xlift.errors import UserError
from xlift.grid import Grid
from xlift.jobs.report import contrast_settings
from xlift.languages import load_languages
from xlift.report.figures import static_svg
from xlift.runs import shares_data
from xlift.settings import Power
from xlift.study import Study
from xlift.tables import publish_table, read_table

LANGUAGES = Path("config/languages.csv")
FACETS = {"seeds": "n_seeds", "budgets": "n_budgets", "range": "doublings", "intermediates": "n_intermediates"}
TITLES = {
    "seeds": "seeds",
    "budgets": "budgets, over the same range",
    "range": "doublings from the smallest to the largest budget",
    "intermediates": "intermediate tasks",
}


def write_power(study: Study, file: str, results: Path) -> str:
    """Write power.parquet, power.svg and power.png to a study's results; the text for a terminal.

    Raises `UserError` where the grid has one budget, or what its precision rests on cannot be read.
    """
    grid = Grid(study, file)
    steps = [[budget.steps for budget in grid.budgets[task] if budget.arm == MAIN] for task in study.intermediates]
    if len(steps[0]) < 2:
        raise UserError(f"{file}: budgets: a slope needs two budgets at least; add one")
    settings = contrast_settings(analysis_settings(study))
    known = load_languages(LANGUAGES)
    spreads, source = _spreads(study, results, settings, known)
    layout = Layout(
        targets={target: tuple(grid.scored_languages(target)) for target in study.targets},
        n_trained_targets=sum(study.catalog[target].trained for target in study.targets),
        log2_budgets=tuple(tuple(math.log2(number / own[0]) for number in own) for own in steps),
        n_seeds=len(study.seeds),
        shares_data=frozenset(
            (target, k)
            for target in study.targets
            for k, task in enumerate(study.intermediates)
            if shares_data(study.catalog, task, target)
        ),
        shared_trunk=settings.shared_trunk,
    )
    found = power_table(layout, settings.levels(known), spreads, settings.confidence)
    publish_table(results / "power.parquet", found)
    svg = static_svg(power_chart(found), 720, "power")
    publish_text(results / "power.svg", svg)
    with publishing(results / "power.png") as temporary:
        temporary.write_bytes(vl_convert.svg_to_png(svg, scale=2))
    head = (
        f"Smallest effects detected with {POWER:.0%} power at {1 - settings.confidence:.2g}, two-sided, in points per "
        f"doubling.\nSD: per standard deviation of {settings.measure.scale}. Variances: {source}."
    )
    return "\n".join([head, "", *power_lines(found), "", f"The figure: {(results / 'power.svg').resolve().as_uri()}"])


def _spreads(study: Study, results: Path, settings: Any, known: Any) -> tuple[Spreads, str]:
    """Standard deviations stated in the study, or of its own gains, or assumed, and which of these."""
    if study.power is not None:
        return Spreads(**study.power.model_dump()), "as stated under `power`"
    path = results / "gains.parquet"
    if not path.exists():
        return Spreads(), "assumed (config/README.md, `power`), as there are no gains to estimate them from"
    found = pilot_spreads(split_gains(read_table(path))[0], known, settings)
    if isinstance(found, str):
        return Spreads(), f"assumed, as those of {path} cannot be estimated ({found})"
    names = [name for name in Power.model_fields if name != "trunk_tilt" or settings.shared_trunk]
    parts = ", ".join(f"{name.replace('_', ' ')} {getattr(found, name):.2g}" for name in names)
    return found, f"estimated from {path} ({parts})"


def power_lines(found: pl.DataFrame) -> list[str]:
    """A line a layout, the planned one first: what differs, training runs, and the smallest effects."""
    rows: dict[str, dict[str, Any]] = {}
    for row in found.iter_rows(named=True):
        label = "as planned" if row["planned"] else _label(row)
        own = rows.setdefault(label, {"runs": row["n_runs"], "planned": row["planned"]})
        own[row["estimand"]] = row["note"] if row["smallest_effect"] is None else f"{row['smallest_effect']:.2f}"
    ordered = sorted(rows, key=lambda label: not rows[label]["planned"])
    cells = [("grid", "runs", "per SD", "low - high")]
    cells += [(label, f"{rows[label]['runs']:,}", rows[label][BETA], rows[label][LOW_HIGH]) for label in ordered]
    widths = [max(len(row[k]) for row in cells) for k in range(4)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(row[k].rjust(widths[k]) for k in (1, 2, 3))]).rstrip() for row in cells
    ]


def _label(row: dict[str, Any]) -> str:
    count = f"{row[FACETS[row['change']]]:g}"
    return {
        "seeds": f"{count} seeds",
        "budgets": f"{count} budgets in the same range",
        "range": f"budgets over {count} doublings ({row['n_budgets']})",
        "intermediates": f"{count} intermediate task{'' if count == '1' else 's'}",
    }[row["change"]]


def power_chart(found: pl.DataFrame) -> dict[str, Any]:
    """Smallest detectable beta against each size of the grid, the planned grid marked; a Vega-Lite spec."""
    panels = []
    highest = max(found.filter(pl.col("estimand") == BETA)["smallest_effect"].drop_nulls().to_list(), default=1.0)
    for change, column in FACETS.items():
        rows = found.filter(
            (pl.col("change") == change) & (pl.col("estimand") == BETA) & pl.col("smallest_effect").is_not_null()
        ).select(size=pl.col(column).cast(pl.Float64), effect="smallest_effect", planned="planned")
        if not rows.height:
            continue
        base = alt.Chart(alt.Data(values=rows.to_dicts())).encode(
            x=alt.X(
                "size:Q", title=TITLES[change], scale=alt.Scale(zero=False, padding=12), axis=alt.Axis(tickMinStep=1)
            ),
            y=alt.Y("effect:Q", title="smallest effect, per SD", scale=alt.Scale(domainMin=0, domainMax=highest)),
        )
        planned = base.mark_point(filled=True, size=110, style="estimate").transform_filter("datum.planned")
        panels.append((base.mark_line(point=True, style="trend") + planned).properties(width=280, height=180))
    chart: Any = alt.concat(*panels, columns=2) if panels else alt.Chart(alt.Data(values=[])).mark_point()
    spec: dict[str, Any] = chart.to_dict()
    spec.pop("config", None)
    return spec
