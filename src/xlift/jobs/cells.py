"""Scoring a study's cells: each into a file of its own, only where that is not current, then one table of all.

The files of the cells are no outputs of a rule: they are kept, published atomically and stamped with the fingerprint
of what they were made for, so that whatever ends a scoring, the next one does the rest.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from xlift.artifacts import fingerprint, holds
from xlift.contrasts.gains import SCORE_KEY
from xlift.errors import UserError
from xlift.example_sets import Specification
from xlift.grid import Grid
from xlift.jobs.score import score_cell
from xlift.runs import Cell
from xlift.study import parse_study
from xlift.tables import publish_table, read_table

CELLS_A_PROCESS = 32
"""Fewer cells are scored sooner than another process starts."""


@dataclass(frozen=True)
class CellFiles:
    """What a cell is scored from, and where its scores are kept. Manifests: None where there is no such run."""

    predictions: str
    intermediate: str | None
    target: str | None
    scores: str

    @classmethod
    def of(cls, grid: Grid, cell: Cell, folder: Path) -> CellFiles:
        """The files of a cell of a study whose results are in `folder`."""
        name, label, seed = cell.intermediate.key
        run = f"{name}/{label}/seed{seed}"
        trained = grid.study.catalog[cell.target].trained
        return cls(
            predictions=f"{folder}/predictions/{cell.target}/{run}.parquet",
            intermediate=f"{folder}/intermediate/{run}/manifest.json" if cell.intermediate.is_run else None,
            target=f"{folder}/target/{cell.target}/{run}/manifest.json" if trained else None,
            scores=f"{folder}/scores/{cell.target}/{run}.parquet",
        )

    def current_scores(self, expected: str) -> pl.DataFrame | None:
        """The kept scores, where they are whole, have this fingerprint, and are younger than what they were made from.

        The ages are looked at because a repeated prediction may differ: only on one kind of processor are its bytes
        those of the first.
        """
        scores = Path(self.scores)
        if not holds(scores, expected):
            return None
        made = scores.stat().st_mtime_ns
        before = [Path(path) for path in (self.predictions, self.intermediate, self.target) if path is not None]
        if any(path.exists() and path.stat().st_mtime_ns > made for path in before):
            return None
        try:
            return read_table(scores)
        except UserError:
            return None


def score_cells(specification: Specification, settings: dict[str, Any], scores: str, workers: int) -> None:
    """Write one table of the scores of all cells of the study with these settings.

    `specification` is what the settings' grid is checked against; results are read from the folder of `scores`.
    """
    grid = Grid(parse_study(settings, "the study"), "the study")
    if grid.scores_specification() != specification:
        raise UserError(
            f"{scores}: the grid of the study is not the one that was planned, for something it is made of changed "
            "since then; run the workflow again"
        )
    table, missing = score_available(grid, Path(scores).parent, workers)
    if missing:
        first = CellFiles.of(grid, missing[0], Path(scores).parent).predictions
        raise UserError(f"{first}: is missing{_more(len(missing))}; run the workflow again to make it")
    publish_table(Path(scores), table, fingerprint=fingerprint(specification))


def score_available(
    grid: Grid, folder: Path, workers: int = 1, cells: Sequence[Cell] | None = None
) -> tuple[pl.DataFrame, list[Cell]]:
    """Scores of the cells that have been predicted, one row a (cell, language, metric), and the cells that have not.

    Of `cells` only, if given. Scores what is not scored yet, on up to `workers` processes; the result does not depend
    on their number.

    Raises:
        UserError: predictions are of other settings or damaged; the first such cell is named, all others are scored.
    """
    files = {cell: CellFiles.of(grid, cell, folder) for cell in (grid.cells if cells is None else cells)}
    missing = [cell for cell, paths in files.items() if not Path(paths.predictions).exists()]
    gone = set(missing)
    there = [cell for cell in files if cell not in gone]
    found = {cell: files[cell].current_scores(grid.stamp("score", cell).fingerprint) for cell in there}
    stale = [cell for cell, table in found.items() if table is None]
    started = time.monotonic()
    _score([(grid.score_specification(cell), files[cell]) for cell in stale], workers)
    print(f"{len(stale)} cells scored in {time.monotonic() - started:.1f} s, {len(there) - len(stale)} kept")
    found |= {cell: read_table(Path(files[cell].scores)) for cell in stale}
    if not found:
        return pl.DataFrame(), missing
    return pl.concat([table for table in found.values() if table is not None]).sort(SCORE_KEY), missing


Task = tuple[Specification, CellFiles]


def _score(tasks: Sequence[Task], workers: int) -> None:
    """Score cells; `UserError` naming the first that could not be, once all others are."""
    processes = max(1, min(workers, len(tasks) // CELLS_A_PROCESS))
    shares = [tasks[first::processes] for first in range(processes)]
    if processes == 1:
        refused = [_refusals(tasks)]
    else:
        started: list[subprocess.Popen[str]] = []
        with ThreadPoolExecutor(processes) as pool:
            try:
                refused = list(pool.map(lambda share: _in_a_process(share, started), shares))
            except BaseException:
                for process in started:
                    process.kill()  # a request to stop is not to wait for them
                raise
    said = [refused[place % processes][place // processes] for place in range(len(tasks))]
    sentences = [sentence for sentence in said if sentence is not None]
    if sentences:
        raise UserError(f"{sentences[0]}{_more(len(sentences))}")


def _refusals(tasks: Sequence[Task]) -> list[str | None]:
    """Score cells one after the other: what is wrong with each, or None."""
    said: list[str | None] = []
    for specification, files in tasks:
        try:
            score_cell(specification, files.predictions, files.intermediate, files.target, files.scores)
            said.append(None)
        except UserError as error:
            said.append(str(error))
    return said


def _in_a_process(tasks: Sequence[Task], started: list[subprocess.Popen[str]]) -> list[str | None]:
    """`_refusals` in a process of its own, which is added to `started`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "xlift.jobs.cells"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "POLARS_MAX_THREADS": "1"},
    )
    started.append(process)
    said, errors = process.communicate(json.dumps([(specification, asdict(files)) for specification, files in tasks]))
    if process.returncode:
        raise RuntimeError(f"a scoring process ended with {process.returncode}:\n{errors}")
    return list(json.loads(said))


def _more(count: int) -> str:
    return f" (and {count - 1} more)" if count > 1 else ""


if __name__ == "__main__":
    given = [(specification, CellFiles(**paths)) for specification, paths in json.load(sys.stdin)]
    json.dump(_refusals(given), sys.stdout)
