"""Gains, contrasts and the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl

from xlift.artifacts import publish_text, publishing
from xlift.catalog import MAIN
from xlift.contrasts.estimands import answer, answer_table, estimate_contrasts
from xlift.contrasts.gains import CELL, completeness, compute_gains
from xlift.contrasts.table import ContrastSettings
from xlift.jobs.score import read_table
from xlift.languages import load_languages
from xlift.report.figures import write_figures
from xlift.report.inputs import ReportInputs
from xlift.report.page import render_page


def estimate(settings: dict[str, Any], scores: str, languages: str, gains: str, contrasts: str) -> None:
    """Write gains over the baseline and the contrasts made of them."""
    table = compute_gains(read_table(Path(scores)))
    found = estimate_contrasts(primary(table), load_languages(Path(languages)), contrast_settings(settings))
    for frame, path in ((table, gains), (found, contrasts)):
        with publishing(Path(path)) as temporary:
            frame.write_parquet(temporary)


def primary(table: pl.DataFrame) -> pl.DataFrame:
    """The rows of the primary analysis: the main arm, without pairs whose training data overlap."""
    return table.filter((pl.col("arm") == MAIN) & ~pl.col("shared_data"))


def contrast_settings(settings: dict[str, Any]) -> ContrastSettings:
    """The analysis settings of a study's `contrasts` block."""
    return ContrastSettings(**{name: settings[name] for name in ("low_below", "high_from", "confidence")})


def render(study: dict[str, Any], tables: dict[str, str], languages: str, page: str) -> None:
    """Write the page and its main figures beside it. `study` holds the plain settings and the expected cells."""
    frames = {name: read_table(Path(path)) for name, path in tables.items()}
    expected = pl.DataFrame(study["cells"], orient="row", schema=list(CELL))
    done = completeness(expected, frames["scores"]).rename({"n_languages": "languages"})
    of_main = pl.col("arm") == MAIN
    counts = {target: len(codes) for target, codes in study["target_languages"].items()}
    inputs = ReportInputs(
        study=study,
        answer=answer(frames["contrasts"], primary(frames["gains"]), contrast_settings(study)),
        scores=frames["scores"].filter(of_main),
        gains=frames["gains"].filter(of_main),
        contrasts=frames["contrasts"],
        runs=frames["runs"],
        languages=load_languages(Path(languages)),
        completeness=done.filter(of_main).with_columns(
            expected_languages=pl.col("target").replace_strict(counts, return_dtype=pl.Int64)
        ),
        provenance=provenance(frames["runs"]),
    )
    write_figures(inputs, Path(page).parent)
    publish_text(Path(page), render_page(inputs))


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


def answer_lines(settings: dict[str, Any], gains: Path, contrasts: Path) -> str:
    """The answer in words and the table of at most ten lines, for a terminal."""
    found = read_table(contrasts)
    rows = [
        ("contrast (points)", "estimate", f"{settings['confidence']:.0%} interval", "p", "from"),
        *answer_table(found),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([answer(found, primary(read_table(gains)), contrast_settings(settings)), "", *lines])
