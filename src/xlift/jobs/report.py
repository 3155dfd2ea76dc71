"""Gains, contrasts and the page."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from xlift.analysis import PLAN, plan_sentence
from xlift.artifacts import publish_text, read_manifest, read_sealed
from xlift.catalog.task import MAIN
from xlift.columns import in_columns
from xlift.contrasts.answer import answer, answer_table
from xlift.contrasts.estimands import estimate_contrasts
from xlift.contrasts.gains import CELL, FERTILITY, GAINS, completeness, compute_gains
from xlift.contrasts.rows import CONTRASTS
from xlift.contrasts.sensitivity import split_gains
from xlift.contrasts.table import ContrastSettings
from xlift.languages import SOURCE_LANGUAGE, load_languages
from xlift.report.contents import build_tables, write_tables
from xlift.report.figures import build_figures, write_figures
from xlift.report.inputs import ReportInputs
from xlift.report.page import render_page
from xlift.tables import publish_table, read_table


def estimate(
    settings: dict[str, Any], scores: str, languages: str, encoded: Sequence[str], gains: str, contrasts: str
) -> None:
    """Write gains over the baseline and the contrasts made of them.

    Args:
        settings: `analysis_specification`.
        encoded: manifests of the targets' token ids.
    """
    measured = fertility([read_manifest(Path(path).parent).get("tokens_per_character", {}) for path in encoded])
    table = compute_gains(read_table(Path(scores)).join(measured, on="language", how="left", maintain_order="left"))
    planned = planned_gains(settings["planned"])
    found = estimate_contrasts(table, planned, load_languages(Path(languages)), contrast_settings(settings))
    for frame, columns, path in ((table, (*GAINS, FERTILITY), gains), (found, CONTRASTS, contrasts)):
        publish_table(Path(path), in_columns(frame, columns))


def planned_gains(planned: Mapping[str, Any]) -> pl.DataFrame:
    """One row a gain of the whole study, from `planned_gains_specification`: where it stands, and its language."""
    shared = {tuple(pair) for pair in planned["shared_data"]}
    runs = [
        (target, task, arm, budget, (target, task) in shared)
        for target, before in planned["runs"].items()
        for task, arm, budget in before
    ]
    columns = {
        "target": pl.String,
        "intermediate": pl.String,
        "arm": pl.String,
        "budget": pl.Float64,
        "shared_data": pl.Boolean,
    }
    languages = [(target, code) for target, codes in planned["languages"].items() for code in codes]
    return (
        pl.DataFrame(runs, schema=columns, orient="row")
        .join(pl.DataFrame({"seed": planned["seeds"]}, schema={"seed": pl.Int64}), how="cross")
        .join(pl.DataFrame(languages, schema=["target", "language"], orient="row"), on="target")
    )


def fertility(tokens_per_character: Sequence[Mapping[str, float]]) -> pl.DataFrame:
    """Language and fertility: tokens a character relative to English, the geometric mean over the tasks that have both.

    Args:
        tokens_per_character: by language, one mapping a task.
    """
    logs: dict[str, list[float]] = {}
    for by_language in tokens_per_character:
        if SOURCE_LANGUAGE in by_language:
            for language, value in by_language.items():
                logs.setdefault(language, []).append(math.log(value / by_language[SOURCE_LANGUAGE]))
    rows = [(language, math.exp(math.fsum(values) / len(values))) for language, values in sorted(logs.items())]
    return pl.DataFrame(rows, schema={"language": pl.String, "fertility": pl.Float64}, orient="row")


def contrast_settings(settings: dict[str, Any]) -> ContrastSettings:
    """The contrasts' settings from what `analysis_settings` or `analysis_specification` gave."""
    return ContrastSettings(**{name: value for name, value in settings.items() if name not in ("code", "planned")})


def render(study: dict[str, Any], tables: dict[str, str], languages: str, plan: str, page: str) -> None:
    """Write the page, and its figures and tables beside it. `study` holds the plain settings and the expected cells.

    The manifests of the prepared examples are in the folder of the study's results, two above the page.
    """
    known, settings = load_languages(Path(languages)), contrast_settings(study["analysis"])
    frames = {name: read_table(Path(path)) for name, path in tables.items()}
    expected = pl.DataFrame(study["cells"], orient="row", schema=list(CELL))
    done = completeness(expected, frames["scores"]).rename({"n_languages": "languages"})
    of_main = pl.col("arm") == MAIN
    counts = {target: len(codes) for target, codes in study["target_languages"].items()}
    inputs = ReportInputs(
        study={**study, "confidence": settings.confidence},
        answer=answer(frames["contrasts"], split_gains(frames["gains"])[0], settings),
        scores=frames["scores"].filter(of_main),
        gains=frames["gains"].filter(of_main),
        contrasts=frames["contrasts"],
        runs=frames["runs"],
        languages=known,
        resource=settings.levels(known),
        plan=plan_sentence(Path(plan), study["plan"]),
        completeness=done.filter(of_main).with_columns(
            expected_languages=pl.col("target").replace_strict(counts, return_dtype=pl.Int64)
        ),
        provenance={
            **provenance(frames["runs"]),
            "rows left out": rows_left_out(Path(page).parent.parent, study["examples"]),
        },
    )
    figures, contents = build_figures(inputs), build_tables(inputs)
    write_figures(figures, inputs, Path(page).parent / "figures")
    write_tables(contents, Path(page).parent / "tables")
    publish_text(Path(page), render_page(inputs, figures, contents))


def provenance(runs: pl.DataFrame) -> dict[str, Any]:
    """What the runs ran on and with, from their manifests."""
    versions = [json.loads(text) for text in runs["versions"].unique().sort()]
    names = sorted({name for entry in versions for name in entry})
    return {
        "platform": runs["platform"].unique().sort().to_list(),
        "device": runs["device"].unique().sort().to_list(),
        "precision": runs["dtype"].unique().sort().to_list(),
        "versions": {name: sorted({entry[name] for entry in versions if name in entry}) for name in names},
    }


def rows_left_out(results: Path, tasks: Sequence[str]) -> dict[str, list[str]]:
    """How many rows of a task's source are not among its prepared examples, split by split, and why; none: no entry."""
    found = {}
    for task in tasks:
        manifest = results / "data" / f"{task}.json"
        if not manifest.is_file():  # deleted once it was used, or not prepared yet where this is the page so far
            found[task] = [f"not known: {manifest} is not there"]
            continue
        dropped = read_sealed(manifest, str(manifest.with_suffix(".parquet"))).get("dropped", {})
        lines = [
            f"{place} {rows:,} ({reason})"
            for place, reasons in sorted(dropped.items())
            for reason, rows in sorted(reasons.items())
        ]
        if lines:
            found[task] = lines
    return found


def answer_lines(analysis: dict[str, Any], current_plan: dict[str, Any], results: Path, tasks: Sequence[str]) -> str:
    """The answer in words, whether it is as planned, and the table of at most ten lines, for a terminal.

    `tasks`: the sets of examples that the study prepares; where rows were left out of one, a line says so.
    """
    found, settings = read_table(results / "contrasts.parquet"), contrast_settings(analysis)
    planned = plan_sentence(results / PLAN, current_plan)
    rows = [
        ("contrast (points)", "estimate", f"{100 * settings.confidence:g}% interval", "p", "from"),
        *answer_table(found, settings),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    said = answer(found, split_gains(read_table(results / "gains.parquet"))[0], settings)
    left = [f"Rows left out of {task}: {', '.join(told)}." for task, told in rows_left_out(results, tasks).items()]
    return "\n".join([said, planned, *left, "", *lines])
