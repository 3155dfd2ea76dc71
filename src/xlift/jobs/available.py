"""The page of what is there, where some cells of a study are missing: scores, gains and contrasts of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xlift.artifacts import MANIFEST, holds
from xlift.errors import UserError
from xlift.grid import FINGERPRINT_LETTERS, Grid, analysis_specification, place
from xlift.jobs.cells import CellFiles, score_available
from xlift.jobs.report import estimate, render
from xlift.jobs.score import collect_runs
from xlift.runs import Cell, Intermediate
from xlift.study import parse_study
from xlift.tables import publish_table


def report_available(
    page: Mapping[str, Any],
    settings: dict[str, Any],
    languages: str,
    encoded: Sequence[str],
    plan: str,
    outputs: Mapping[str, str],
    workers: int = 1,
) -> None:
    """Score the cells whose predictions are there, and write tables and page of them; the page names the others.

    Args:
        page: what the page of the whole study is given.
        settings: the study file's, from which its grid is made again.
        outputs: paths of `scores`, `runs`, `gains`, `contrasts` and `page`; the results are in the folder above.
    """
    grid = Grid(parse_study(settings, "the study"), "the study")
    folder = Path(outputs["scores"]).parent.parent
    present = [cell for cell in grid.cells if is_present(grid, cell, folder)]
    if not present:
        raise UserError(f"study {grid.study.study}: no cell has predictions yet; run the workflow first")
    table, _ = score_available(grid, folder, workers, present)
    publish_table(Path(outputs["scores"]), table)
    runs = finished_runs(grid, folder)
    if not any(runs.values()):
        raise UserError(f"study {grid.study.study}: no run is finished yet; run the workflow first")
    places = {kind: [where for where, _ in found] for kind, found in runs.items()}
    collect_runs(places, {kind: [path for _, path in found] for kind, found in runs.items()}, outputs["runs"])
    specification = analysis_specification(grid)
    estimate(specification, outputs["scores"], languages, encoded, outputs["gains"], outputs["contrasts"])
    tables = {name: outputs[name] for name in ("scores", "gains", "contrasts", "runs")}
    render(dict(page), tables, languages, plan, outputs["page"])


def is_present(grid: Grid, cell: Cell, folder: Path) -> bool:
    """Whether a cell's predictions, and the runs whose manifests its scores quote, are there and of this study."""
    files = CellFiles.of(grid, cell, folder)
    wanted: list[tuple[str | None, str, Intermediate | Cell]] = [
        (files.predictions, "predict", cell),
        (files.intermediate, "intermediate", cell.intermediate),
        (files.target, "target", cell),
    ]
    return all(holds(Path(path), grid.stamp(kind, of).fingerprint) for path, kind, of in wanted if path is not None)


def finished_runs(grid: Grid, folder: Path) -> dict[str, list[tuple[list[Any], str]]]:
    """Every training run that is there, by kind: its place in the grid and its manifest's path."""
    found: dict[str, list[tuple[list[Any], str]]] = {"trunks": [], "intermediates": [], "targets": []}
    jobs: list[tuple[str, str, str | None, Intermediate, Intermediate | Cell]] = [
        *(("trunks", "trunk", None, run, run) for run in grid.segments),
        *(("intermediates", "intermediate", None, run, run) for run in grid.intermediates),
        *(("targets", "target", cell.target, cell.intermediate, cell) for cell in grid.target_runs()),
    ]
    for group, kind, target, run, job in jobs:
        path = "{inter}/{budget}/seed{seed}".format(**run.wildcards)
        manifest = folder / kind / (target or "") / path / MANIFEST
        expected = grid.stamp(kind, job).fingerprint
        if holds(manifest, expected):
            found[group].append(([*place(target, run), expected[:FINGERPRINT_LETTERS]], str(manifest)))
    return found
