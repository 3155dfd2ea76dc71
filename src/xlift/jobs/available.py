"""The page of what is there, where some cells of a study are missing: scores, gains and contrasts of the others."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from xlift.artifacts import holds, publishing
from xlift.contrasts.gains import SCORE_KEY
from xlift.errors import UserError
from xlift.jobs.report import estimate, render
from xlift.jobs.score import collect_runs, read_table, score_cell


def report_available(
    study: Mapping[str, Any],
    cells: Sequence[Mapping[str, Any]],
    runs: Mapping[str, Sequence[Mapping[str, Any]]],
    languages: str,
    encoded: Sequence[str],
    plan: str,
    outputs: Mapping[str, str],
) -> None:
    """Score the cells whose predictions are there, and write tables and page of them; the page names the others.

    Args:
        study: what the page of the whole study is given; `analysis` in it are the contrasts' settings.
        cells: specification of the scores and paths (`predictions`; `intermediate`, `target`: manifests or None).
        runs: by kind (`trunks`, `intermediates`, `targets`) each run's `place`, `manifest` and `fingerprint`.
        outputs: paths of `scores`, `runs`, `gains`, `contrasts` and `page`.
    """
    present = [cell for cell in cells if is_present(cell)]
    if not present:
        raise UserError(f"study {study['name']}: no cell has predictions yet; run the workflow first")
    score_present(present, outputs["scores"])
    there = {kind: [run for run in runs[kind] if holds(Path(run["manifest"]), run["fingerprint"])] for kind in runs}
    if not any(there.values()):
        raise UserError(f"study {study['name']}: no run is finished yet; run the workflow first")
    places = {kind: [run["place"] for run in found] for kind, found in there.items()}
    collect_runs(places, {kind: [run["manifest"] for run in found] for kind, found in there.items()}, outputs["runs"])
    estimate(study["analysis"], outputs["scores"], languages, encoded, outputs["gains"], outputs["contrasts"])
    tables = {name: outputs[name] for name in ("scores", "gains", "contrasts", "runs")}
    render(dict(study), tables, languages, plan, outputs["page"])


def is_present(cell: Mapping[str, Any]) -> bool:
    """Whether a cell's predictions are there, made for this study's settings, and the manifests that scores quote."""
    manifests = [cell[name] for name in ("intermediate", "target") if cell[name] is not None]
    made = holds(Path(cell["predictions"]), cell["specification"]["predictions"])
    return made and all(Path(path).exists() for path in manifests)


def score_present(cells: Sequence[Mapping[str, Any]], scores: str) -> None:
    """One table of the scores of some cells."""
    Path(scores).parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=Path(scores).parent) as folder:
        paths = [str(Path(folder) / f"{index}.parquet") for index in range(len(cells))]
        for cell, path in zip(cells, paths, strict=True):
            score_cell(cell["specification"], cell["predictions"], cell["intermediate"], cell["target"], path)
        table = pl.concat([read_table(Path(path)) for path in paths]).sort(SCORE_KEY)
    with publishing(Path(scores)) as temporary:
        table.write_parquet(temporary)
