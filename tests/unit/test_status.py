"""Where a study stands, from its files: done, running, failed, stopped, stale, not begun."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl
import pytest

from xlift.artifacts import publish_json
from xlift.grid import Grid
from xlift.runs import Cell, baseline
from xlift.status import State, Status, cell_state, matrix, status_lines, study_status
from xlift.study import parse_study

SETTINGS = {
    "study": "small",
    "intermediates": ["cldr_pairs"],
    "budgets": [1, 2],
    "seeds": [2, 1],
    "targets": ["cldr_kind", "cldr_retrieval"],
    "languages": ["de"],
}
GRID = Grid(parse_study(SETTINGS, "x"), "x")
RUN = next(run for run in GRID.intermediates if run.key == ("cldr_pairs", "x1", 1))
NOW = 1_700_000_000.0


class Study:
    """Made-up results of the small study, and Snakemake's lock; times are seconds after some moment."""

    def __init__(self, folder: Path) -> None:
        self.results, self.snakemake = folder / "results", folder / ".snakemake"
        self.folder = self.results / "small"

    def manifest(self, kind: str, job, path: str, stamp: str | None = None, at: float = 0) -> None:
        out = self.folder / kind / path / "manifest.json"
        publish_json(out, {"fingerprint": stamp or GRID.stamp(kind, job).fingerprint})
        os.utime(out, (NOW + at, NOW + at))

    def predictions(self, cell: Cell, path: str, at: float = 0) -> None:
        out = self.folder / "predictions" / f"{path}.parquet"
        out.parent.mkdir(parents=True, exist_ok=True)
        stamp = GRID.stamp("predict", cell).fingerprint
        pl.DataFrame({"x": [1]}).write_parquet(out, metadata={"fingerprint": stamp})
        os.utime(out, (NOW + at, NOW + at))

    def log(self, rule: str, path: str, text: str, at: float = 0) -> None:
        out = self.folder / "logs" / rule / f"{path}.log"
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
        os.utime(out, (NOW + at, NOW + at))

    def lock(self, at: float) -> None:
        lock = self.snakemake / "locks" / "0.output.lock"
        lock.parent.mkdir(parents=True)
        lock.touch()
        os.utime(lock, (NOW + at, NOW + at))

    @property
    def status(self) -> Status:
        return study_status(GRID, self.results, self.snakemake)

    def of_run(self) -> State:
        return self.status.runs[RUN].state


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path)


PATH = "cldr_pairs/x1/seed1"


def test_nothing_is_there(study):
    assert {job.state for job in study.status.jobs()} == {State.MISSING}
    assert len(list(study.status.jobs())) == 4 + 6 + 12


def test_a_run(study):
    study.log("train_intermediate", PATH, "step 10/24  loss 1.0\n", at=5)
    assert study.of_run() is State.STOPPED
    study.lock(at=4)
    assert study.of_run() is State.RUNNING
    assert study.status.runs[RUN].last == "step 10/24  loss 1.0"
    study.manifest("intermediate", RUN, PATH, at=9)
    assert study.of_run() is State.DONE


def test_a_log_from_before_the_snakemake_that_is_at_work(study):
    study.log("train_intermediate", PATH, "step 10/24  loss 1.0\n", at=5)
    study.lock(at=6)
    assert study.of_run() is State.STOPPED


@pytest.mark.parametrize(
    "text", ["step 10\nerror: a loss that is not finite\n", "Traceback (most\n  x\nValueError: y\n"]
)
def test_a_failed_run(study, text):
    study.log("train_intermediate", PATH, text, at=5)
    (failed,) = study.status.failed()
    assert failed.last == text.splitlines()[-1]
    # It is tried again.
    study.lock(at=6)
    study.log("train_intermediate", PATH, "", at=7)
    assert study.of_run() is State.RUNNING


def test_a_run_of_other_settings(study):
    study.manifest("intermediate", RUN, PATH, stamp="another", at=5)
    study.log("train_intermediate", PATH, "step 24/24\n", at=4)
    assert study.of_run() is State.STALE
    study.log("train_intermediate", PATH, "error: x\n", at=6)
    assert study.of_run() is State.FAILED


def test_a_cell_is_the_worst_of_what_it_hangs_on_until_it_is_there(study):
    cell = Cell("cldr_kind", RUN)
    study.manifest("intermediate", RUN, PATH)
    study.manifest("target", cell, f"cldr_kind/{PATH}", stamp="another")
    study.log("predict_cell", f"cldr_kind/{PATH}", "error: y\n", at=1)
    assert [job.state for job in study.status.cells[cell]] == [State.DONE, State.STALE, State.FAILED]
    assert cell_state(study.status.cells[cell]) is State.FAILED
    study.predictions(cell, f"cldr_kind/{PATH}", at=2)
    assert cell_state(study.status.cells[cell]) is State.DONE


def test_the_matrix_and_what_to_do(study):
    study.manifest("intermediate", RUN, PATH)
    study.predictions(Cell("cldr_retrieval", baseline(1)), "cldr_retrieval/none/x0/seed1")
    study.predictions(Cell("cldr_retrieval", RUN), f"cldr_retrieval/{PATH}")
    study.log("train_target", f"cldr_kind/{PATH}", "step 1/40\nerror: the disk is full; free some\n", at=1)
    lines = status_lines(GRID, study.status, "snakemake --configfile my.yaml --cores 2").splitlines()
    assert lines[0] == "small: 12 cells: 1 failed, 9 not begun, 2 done"
    rows = {tuple(line.split()[:2]): line.split()[2:] for line in lines[3:7]}
    # Seeds 1 and 2; the baseline has no run of its own.
    assert rows == {
        ("intermediate", "budget"): ["run", "cldr_kind", "cldr_retrieval"],
        ("none", "x0"): ["..", "#."],
        ("cldr_pairs", "x1"): ["#.", "!.", "#."],
        ("cldr_pairs", "x2"): ["..", "..", ".."],
    }
    assert lines[8:] == [
        "failed:",
        f"  {study.folder}/logs/train_target/cldr_kind/{PATH}.log: error: the disk is full; free some",
        "",
        "to run just these again:",
        f"  snakemake --configfile my.yaml --cores 2 {study.folder}/target/cldr_kind/{PATH}/manifest.json",
    ]


def test_preparation_that_failed_is_shown_with_its_output(study):
    study.log("encode_task", "cldr_kind/length64", "error: a file is damaged\n", at=1)
    study.log("prepare_data", "cldr_pairs", "Traceback (most\n  x\nKeyError: 'y'\n", at=1)
    study.log("prepare_encoder", "x", "", at=1)
    for gone in ("cldr_gone/length64", "cldr_kind/length65"):  # of the study as it was
        study.log("encode_task", gone, "error: a file is damaged\n", at=1)
    assert [(job.output, job.last) for job in study.status.failed()] == [
        (study.folder / "data/cldr_pairs.parquet", "KeyError: 'y'"),
        (study.folder / "encoded/cldr_kind/length64/manifest.json", "error: a file is damaged"),
    ]
    lines = status_lines(GRID, study.status, "snakemake").splitlines()
    assert lines[
        -1
    ] == f"  snakemake {study.folder}/data/cldr_pairs.parquet {study.folder}/encoded/cldr_kind/length64/" + (
        "manifest.json"
    )


def test_a_running_job_is_shown_with_its_progress(study):
    study.lock(at=4)
    said = "step 10/24  loss 1.0312  1,234 tokens/s  3.33 min left"
    study.log("train_intermediate", PATH, f"runs on node1, GPU 0\n{said}\n", at=5)
    lines = status_lines(GRID, study.status, "snakemake").splitlines()
    assert lines[-2:] == ["running:", f"  {study.folder}/logs/train_intermediate/{PATH}.log: {said}"]


def test_a_matrix_that_fits_is_one_table_with_whole_heads():
    heads, rows = ("task", "budget", "a_long", "b"), [("mnli", "x1", "##", ">.")]
    # 4 + 2 + 6 + 2 + 6 + 2 + 2 columns.
    assert matrix(heads, rows, 24) == ["", "task  budget  a_long  b", "mnli  x1      ##      >."]
    broken = ["", "              a_", "task  budget  long  b", "mnli  x1      ##    >."]
    assert matrix(heads, rows, 23) == broken
    assert matrix(heads, rows, 22) == broken
    assert matrix(heads, rows, 21) == [
        *["", "              a_", "task  budget  long", "mnli  x1      ##"],
        *["", "", "task  budget  b", "mnli  x1      >."],
    ]
