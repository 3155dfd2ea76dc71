"""Run the simulation of the inference and write what docs/statistics.md shows of it: `make simulate`."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import altair as alt

from xlift.artifacts import publish_text
from xlift.contrasts import power
from xlift.contrasts.layout import XTREME_R
from xlift.contrasts.rows import BETA as BETA_ROW
from xlift.contrasts.simulate import (
    BETA,
    BOOTSTRAP,
    CROSSED,
    DATA_SETS,
    EFFECTS,
    ESTIMANDS,
    ESTIMATORS,
    TWO_WAY,
    points,
    run,
)
from xlift.contrasts.structure import Spreads, build_grid
from xlift.languages import load_languages
from xlift.report.figures import static_svg
from xlift.resource import Resource, resource_levels

JSON, PAGE, FIGURE = "statistics_simulation.json", "statistics.md", "statistics_power.svg"
FEW_DATA_SETS = 400
Record = dict[str, Any]


def tables(found: Mapping[str, Any]) -> dict[str, str]:
    """The generated tables of docs/statistics.md, by the name of their place."""
    records: list[Record] = found["results"]
    return {
        "level": _level_table(records),
        "methods": _methods_table(records),
        "coverage": _coverage_table(records),
        "power": _power_table(records),
        "spreads": _spreads_table(found["spreads"]),
    }


def _level_table(records: Sequence[Record]) -> str:
    """Rejection of a true null for beta, a column a method."""
    nulls = [record for record in records if record["beta"] == 0 and record["estimand"] == BETA]
    rows = []
    for grid in dict.fromkeys(_grid(record) for record in nulls):
        own = {record["estimator"]: record for record in nulls if _grid(record) == grid}
        rows.append([grid, *(_rate(own.get(name), "rejected") for name in ESTIMATORS)])
    return _markdown(["grid", *ESTIMATORS], rows)


def _methods_table(records: Sequence[Record]) -> str:
    """Level, coverage and standard errors of every contrast at the null, by the methods that are reported."""
    rows = []
    for record in records:
        if (
            record["beta"] == 0
            and record["spreads"] == "usual"
            and record["estimator"] in (TWO_WAY, CROSSED, BOOTSTRAP)
        ):
            rows.append(
                [
                    _grid(record),
                    record["estimand"],
                    record["estimator"],
                    _rate(record, "rejected"),
                    _rate(record, "covered"),
                    f"{record['mean_se'] / record['sd_estimate']:.2f}",
                ]
            )
    return _markdown(["grid", "contrast", "method", "rejected", "coverage", "se / sd"], rows)


def _coverage_table(records: Sequence[Record]) -> str:
    """The primary method's level, coverage, standard error over deviation, and degrees of freedom."""
    rows = []
    for record in records:
        if record["estimator"] == TWO_WAY:
            rows.append(
                [
                    _grid(record),
                    record["estimand"],
                    f"{record['truth']:+.2f}" if record["truth"] else "0",
                    f"{record['mean_estimate']:+.3f}",
                    f"{record['mean_se'] / record['sd_estimate']:.2f}",
                    f"{record['median_degrees']:.0f}",
                    _rate(record, "covered"),
                    f"{record['data_sets']:,}",
                ]
            )
    head = ["grid", "contrast", "truth", "mean estimate", "se / sd", "degrees of freedom", "coverage", "data sets"]
    return _markdown(head, rows)


def _power_table(records: Sequence[Record]) -> str:
    """The primary method's rejections by effect."""
    own = [record for record in records if record["estimator"] == TWO_WAY]
    full = [grid for grid in dict.fromkeys(_grid(r) for r in own) if any(_grid(r) == grid and r["beta"] for r in own)]
    rows = []
    for grid in full:
        for estimand in ESTIMANDS:
            by_effect = {r["beta"]: r for r in own if (_grid(r), r["estimand"]) == (grid, estimand)}
            if by_effect:
                rows.append([grid, estimand, *(_rate(by_effect.get(effect), "rejected") for effect in EFFECTS)])
    return _markdown(["grid", "contrast", *(f"beta = {effect:g}" for effect in EFFECTS)], rows)


def _spreads_table(spreads: Mapping[str, Mapping[str, float]]) -> str:
    names = list(spreads)
    rows = [[key.replace("_", " "), *(f"{spreads[name][key]:g}" for name in names)] for key in spreads[names[0]]]
    return _markdown(["standard deviation of", *names], rows)


def _grid(record: Record) -> str:
    tasks = f"{record['n_intermediates']} task{'s' if record['n_intermediates'] > 1 else ''}"
    spreads = "" if record["spreads"] == "usual" else f", {record['spreads']}"
    return f"{tasks}, {record['n_seeds']} seeds{spreads}"


def _rate(record: Record | None, key: str) -> str:
    """A rate with its Monte Carlo standard error, and of how many data sets where they are few."""
    if record is None:
        return ""
    few = f" (of {record['data_sets']})" if record["data_sets"] < FEW_DATA_SETS else ""
    return f"{100 * record[key]:.1f} ± {100 * record[f'{key}_error']:.1f} %{few}"


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [list(head), ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def with_tables(page: str, found: Mapping[str, Any]) -> str:
    """The page with each `<!-- table: name -->` ... `<!-- end -->` filled; ValueError where a place is missing."""
    for name, table in tables(found).items():
        pattern = re.compile(rf"(<!-- table: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        if not pattern.search(page):
            raise ValueError(f"{PAGE} has no place for the table {name}")
        page = pattern.sub(lambda match, table=table: f"{match[1]}{table}\n{match[2]}", page)  # type: ignore[misc]
    return page


def power_curves(found: Mapping[str, Any], levels: Resource) -> dict[str, Any]:
    """Power against effect: curves as computed by `xlift power`, dots with their error as simulated."""
    dots, lines = [], []
    for record in found["results"]:
        if (record["estimator"], record["estimand"], record["spreads"]) == (TWO_WAY, BETA, "usual"):
            low, high = (100 * (record["rejected"] + sign * 2 * record["rejected_error"]) for sign in (-1, 1))
            dots.append(
                {"grid": _grid(record), "effect": record["beta"], "power": 100 * record["rejected"]}
                | {"low": low, "high": high}
            )
    for grid in dict.fromkeys(dot["grid"] for dot in dots):
        record = next(r for r in found["results"] if _grid(r) == grid)
        rows = build_grid(XTREME_R, levels, record["n_intermediates"], found["log2_budgets"], record["n_seeds"])
        precision = power.precision(rows, Spreads(**found["spreads"]["usual"]), BETA_ROW)
        assert isinstance(precision, power.Precision)  # three seeds and more
        for step in range(41):
            effect = step / 100
            value = 100 * precision.power(effect, found["confidence"])
            lines.append({"grid": grid, "effect": effect, "power": round(value, 3)})
    colour = alt.Color("grid:N", title=None, sort=None)
    x = alt.X("effect:Q", title="|beta|, points per doubling per standard deviation")
    y = alt.Y("power:Q", title="rejected, %", scale=alt.Scale(domain=[0, 100]))
    curve = alt.Chart(alt.Data(values=lines)).mark_line().encode(x=x, y=y, color=colour)
    bars = alt.Chart(alt.Data(values=dots)).mark_rule().encode(x=x, y=alt.Y("low:Q"), y2="high:Q", color=colour)
    points_ = alt.Chart(alt.Data(values=dots)).mark_point(filled=True, size=50).encode(x=x, y=y, color=colour)
    spec: dict[str, Any] = (curve + bars + points_).properties(height=300).to_dict()
    spec.pop("config", None)
    return spec


def write_docs(folder: Path, levels: Resource) -> None:
    """Fill the page's tables and draw the figure from the results in the folder."""
    found = json.loads((folder / JSON).read_text(encoding="utf-8"))
    page = folder / PAGE
    publish_text(page, with_tables(page.read_text(encoding="utf-8"), found))
    publish_text(folder / FIGURE, static_svg(power_curves(found, levels), 560, "statistics"))


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate, then write the results and what the page shows of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="folder to write into")
    parser.add_argument("--languages", type=Path, default=Path("config/languages.csv"))
    parser.add_argument("--data-sets", type=int, default=DATA_SETS, help="of each point, at most")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args(arguments)
    known = load_languages(options.languages)
    limit = options.data_sets
    chosen = [
        replace(point, **{name: min(getattr(point, name), limit) for name in ("n_crossed", "n_nested", "n_bootstrap")})
        for point in points()
    ]
    found = run(known, chosen, limit, options.processes)
    publish_text(options.docs / JSON, json.dumps(found, indent=1) + "\n")
    write_docs(options.docs, resource_levels(known.values()))


if __name__ == "__main__":
    main()
