"""All cells of a study are scored once, on any number of processes, and what is wrong with one names it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import polars as pl
import pytest

from xlift.artifacts import fingerprint, holds, publish_folder
from xlift.errors import Stopped, UserError
from xlift.example_sets import STAGE_VERSIONS
from xlift.grid import Grid
from xlift.jobs import cells as scoring
from xlift.jobs import stoppable
from xlift.jobs.cells import CellFiles, score_available, score_cells
from xlift.jobs.score import REALISED
from xlift.planning.costs import SCORE_SECONDS, CostModel
from xlift.planning.dag import study_jobs
from xlift.planning.evidence import Evidence, ScoringRecord, read_evidence
from xlift.runs import Cell
from xlift.study import parse_study
from xlift.tables import publish_table, read_table
from xlift.training.cost import EncoderShape

SETTINGS = {
    "study": "small",
    "intermediates": ["cldr_pairs"],
    "budgets": [1],
    "seeds": [1, 2, 3],
    "targets": ["cldr_kind", "cldr_retrieval"],
    "languages": ["de", "sw"],
}
LABELS = ("unit", "language")


def make(**changes: object) -> Grid:
    return Grid(parse_study({**SETTINGS, **changes}, "x"), "x")


def right_answers(cell: Cell) -> int:
    """How many of a cell's four predictions a language are right: its own number, to tell cells apart."""
    return cell.intermediate.seed + (not cell.intermediate.is_none)


def predict(grid: Grid, cell: Cell, folder: Path) -> CellFiles:
    """Publish predictions of which `right_answers` are right, and the manifests they are scored with."""
    files = CellFiles.of(grid, cell, folder)
    right = right_answers(cell)
    if cell.target == "cldr_kind":
        gold, wrong = [LABELS[0]], [LABELS[1]]
    else:
        gold, wrong = ["a"], ["b"]
    rows = [
        {"language": language, "id": str(k), "prediction": gold if k < right else wrong, "gold": gold}
        for language in ("de", "sw")
        for k in range(4)
    ]
    path = Path(files.predictions)
    path.parent.mkdir(parents=True, exist_ok=True)
    stamp = grid.stamp("predict", cell).fingerprint
    publish_table(path, pl.DataFrame(rows), fingerprint=stamp)
    parents = (("intermediate", cell.intermediate, files.intermediate), ("target", cell, files.target))
    for kind, job, manifest in parents:
        if manifest is not None:
            facts = {name: 7 for name in REALISED} | {"dev": {"collapsed": False}}
            facts |= {"fingerprint": grid.stamp(kind, job).fingerprint}
            publish_folder(Path(manifest).parent, lambda _: None, facts)
    return files


@pytest.fixture
def grid() -> Grid:
    return make()


@pytest.fixture
def folder(grid: Grid, tmp_path: Path) -> Path:
    for cell in grid.cells:
        predict(grid, cell, tmp_path)
    return tmp_path


def scored(capsys: pytest.CaptureFixture[str]) -> tuple[int, int]:
    """How many cells were scored and how many kept, by what was said."""
    found = re.fullmatch(r"(\d+) cells scored in [0-9.]+ s, (\d+) kept\n", capsys.readouterr().out)
    assert found is not None
    return int(found[1]), int(found[2])


def test_every_cell_has_its_own_scores(grid, folder, capsys):
    table, missing = score_available(grid, folder)
    assert missing == []
    assert scored(capsys) == (12, 0)
    found = table.filter("is_primary").select("target", "intermediate", "seed", "language", "score", "steps").rows()
    wanted = [
        (
            cell.target,
            cell.intermediate.task,
            cell.intermediate.seed,
            language,
            25.0 * right_answers(cell),
            0 if cell.intermediate.is_none else 7,
        )
        for cell in grid.cells
        for language in ("de", "sw")
    ]
    assert sorted(found) == sorted(wanted)
    again, _ = score_available(grid, folder)
    assert scored(capsys) == (0, 12)
    assert again.equals(table)


def test_processes_change_no_byte(grid, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(scoring, "CELLS_A_PROCESS", 4)
    specification, table = grid.scores_specification(), folder / "scores.parquet"
    score_cells(specification, SETTINGS, str(table), 3)
    assert scored(capsys) == (12, 0)
    first = table.read_bytes()
    assert holds(table, grid.scores_stamp.fingerprint)
    for cell in grid.cells:
        Path(CellFiles.of(grid, cell, folder).scores).unlink()
    score_cells(specification, SETTINGS, str(table), 1)
    assert scored(capsys) == (12, 0)
    assert table.read_bytes() == first


def test_what_is_not_current_is_scored_again(grid, folder, capsys):
    table, _ = score_available(grid, folder)
    scored(capsys)
    files = [CellFiles.of(grid, cell, folder) for cell in grid.cells]
    trained = next(k for k, entry in enumerate(files) if entry.intermediate and entry.target)
    assert trained == 3  # an index of its own
    # Missing; cut short; damaged in the middle; of another specification; older than a manifest; than predictions.
    Path(files[0].scores).unlink()
    Path(files[1].scores).write_bytes(Path(files[1].scores).read_bytes()[:-8])
    whole = Path(files[2].scores).read_bytes()
    Path(files[2].scores).write_bytes(b"\0" * 64 + whole[64:])
    publish_table(Path(files[6].scores), read_table(Path(files[6].scores)), fingerprint="of something else")
    for place, younger in ((trained, files[trained].target), (11, files[11].predictions)):
        later = Path(files[place].scores).stat().st_mtime_ns + 1
        os.utime(str(younger), ns=(later, later))
    again, _ = score_available(grid, folder)
    assert scored(capsys) == (6, 6)
    assert again.equals(table)
    assert Path(files[2].scores).read_bytes() == whole


def test_another_metric_version_scores_all_and_another_seed_one_seed(folder, monkeypatch, capsys):
    score_available(make(), folder)
    scored(capsys)
    more = make(seeds=[1, 2, 3, 4])
    for cell in more.cells:
        if cell.intermediate.seed == 4:
            predict(more, cell, folder)
    score_available(more, folder)
    assert scored(capsys) == (4, 12)
    monkeypatch.setitem(STAGE_VERSIONS, "score", 99)
    score_available(make(), folder)
    assert scored(capsys) == (12, 0)


def test_a_bad_prediction_is_named_and_all_others_are_scored(grid, folder, capsys):
    bad = [CellFiles.of(grid, cell, folder) for cell in (grid.cells[2], grid.cells[7])]
    stamp = fingerprint(grid.prediction_specification(grid.cells[2]))
    frame = pl.read_parquet(bad[0].predictions).drop("gold")
    publish_table(Path(bad[0].predictions), frame, fingerprint=stamp)
    Path(bad[1].predictions).write_bytes(b"PAR1")
    with pytest.raises(UserError) as caught:
        score_available(grid, folder)
    assert str(caught.value) == (
        f"{bad[0].predictions}: Predictions lack the column(s) gold: predict again. (and 1 more)"
    )
    there = [cell for cell in grid.cells if Path(CellFiles.of(grid, cell, folder).scores).exists()]
    assert len(there) == len(grid.cells) - 2
    # An interrupted or failed scoring is gone on with.
    for cell in (grid.cells[2], grid.cells[7]):
        predict(grid, cell, folder)
    table, _ = score_available(grid, folder)
    assert scored(capsys) == (2, 10)
    assert table.height == 2 * len(grid.cells)


def test_a_request_to_stop_is_no_cells_mistake(grid, folder, monkeypatch):
    def stop(*arguments):
        raise Stopped("stopped by SIGTERM")

    monkeypatch.setattr(scoring, "score_cell", stop)
    with pytest.raises(Stopped):
        score_available(grid, folder)
    assert not list(folder.glob("scores/**/*.parquet"))


def test_a_request_to_stop_ends_the_scoring_processes(grid, folder, monkeypatch):
    """SIGTERM to a job that waits for two of them."""
    processes: list[subprocess.Popen[str]] = []

    def wait(share, started):
        process = subprocess.Popen(["sleep", "60"], text=True)
        started.append(process)
        processes.append(process)
        if len(processes) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        process.wait()
        return [None] * len(share)

    monkeypatch.setattr(scoring, "CELLS_A_PROCESS", 1)
    monkeypatch.setattr(scoring, "_in_a_process", wait)
    with stoppable(), pytest.raises(Stopped, match="stopped by SIGTERM"):
        score_available(grid, folder, 2)
    assert [process.returncode for process in processes] == [-signal.SIGKILL] * 2


def test_cells_without_predictions_are_listed(grid, folder):
    Path(CellFiles.of(grid, grid.cells[5], folder).predictions).unlink()
    table, missing = score_available(grid, folder)
    assert missing == [grid.cells[5]]
    assert table.height == 2 * (len(grid.cells) - 1)
    with pytest.raises(UserError, match=r"\.parquet: is missing; run the workflow again"):
        score_cells(grid.scores_specification(), SETTINGS, str(folder / "scores.parquet"), 1)
    assert not (folder / "scores.parquet").exists()


def test_another_grid_than_the_planned_one_is_refused(grid, folder):
    other = make(seeds=[1]).scores_specification()
    with pytest.raises(UserError, match="is not the one that was planned"):
        score_cells(other, SETTINGS, str(folder / "scores.parquet"), 1)


def test_params_stay_small_however_large_the_grid():
    assert len(make(seeds=list(range(200))).scores_stamp.text) == len(make().scores_stamp.text) < 120


def test_a_plan_learns_from_what_the_last_scoring_said(grid, folder, capsys):
    score_available(grid, folder)
    log = folder / "small" / "logs" / "score_cells.log"
    log.parent.mkdir(parents=True)
    log.write_text(capsys.readouterr().out, encoding="utf-8")
    (found,) = read_evidence(folder, ["small"]).scorings
    assert found.cells == 12
    log.write_text("12 cells scored in 6.0 s, 3 kept\n", encoding="utf-8")
    evidence = read_evidence(folder, ["small"])
    assert evidence.scorings == (ScoringRecord(12, 6.0),)
    shape = EncoderShape(layers=2, hidden=32, intermediate=64)
    job = next(job for job in study_jobs(grid, folder) if job.rule == "score_cells")
    seconds = [
        CostModel(grid, told, shape, "cpu", 1e10).estimate(job).seconds for told in (evidence, Evidence((), (), ()))
    ]
    assert seconds == pytest.approx([3.0 + 12 * 0.5, 3.0 + 12 * SCORE_SECONDS])
    log.write_text("0 cells scored in 0.0 s, 12 kept\n", encoding="utf-8")
    assert read_evidence(folder, ["small"]).scorings == ()
