"""Damaged files, killed jobs, stopped runs: what is said, what is kept, and how it goes on."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from harness import SCORED, Finished, Workspace, processes_below, tiny_study

from faults import Fault
from xlift.artifacts import sha256_of

DAMAGED = "intermediate/cldr_qa/x1/seed1"
LONG_STEPS = 80
LONG_RUN = "cldr_choice/x1/seed1"
LONG_PREDICTIONS = f"results/tiny/predictions/cldr_retrieval/{LONG_RUN}.parquet"
LONG_JOBS = {"train_intermediate": 1, "predict_cell": 1}


def forget(workspace: Workspace, *cells: str) -> None:
    """Delete predictions and scores of cells, and what is made of all scores."""
    for cell in cells:
        for kind in ("predictions", "scores"):
            (workspace.results() / kind / f"{cell}.parquet").unlink()
    for name in ("scores.parquet", "report/index.html"):
        (workspace.results() / name).unlink()


def truncate(path: Path) -> tuple[str, str]:
    """Cut a file's last bytes off as a full disk does, keeping its times. Returns its sha256 before and after."""
    before, times = sha256_of(path), path.stat()
    with path.open("rb+") as stream:
        stream.truncate(times.st_size - 8)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    return before, sha256_of(path)


def refusal(log: Path) -> str:
    """The one line that a job which was refused its input leaves in its log."""
    lines = log.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]


@pytest.mark.fault("one cell that fails")
def test_one_failing_cell_leaves_the_others_alone(copied: Workspace, fault: Fault) -> None:
    cells = [f"cldr_retrieval/{run}" for run in ("none/x0/seed1", "cldr_choice/x1/seed1", "cldr_qa/x1/seed1")]
    finished = {cell: sha256_of(copied.results() / "scores" / f"{cell}.parquet") for cell in cells}
    forget(copied, *cells)
    weights = copied.results() / DAMAGED / "weights.safetensors"
    whole = weights.read_bytes()
    expected, found = truncate(weights)

    ended = copied.run("--keep-going")
    assert ended.code != 0
    made = [cell for cell in cells if (copied.results() / "predictions" / f"{cell}.parquet").exists()]
    assert made == cells[:2]
    said = refusal(copied.results() / "logs" / "predict_cell" / f"{cells[2]}.log")
    for part in (f"results/tiny/{DAMAGED}/weights.safetensors", expected, found):
        assert part in said
    assert said in ended.output
    assert not (copied.results() / "scores.parquet").exists()

    # As the sentence advises; nothing else than what hangs on the run is repeated.
    shutil.move(copied.results() / DAMAGED, copied.folder / "aside")
    advised = copied.plan()
    assert advised["train_intermediate"] == 1
    assert advised["train_target"] == 2
    assert advised["predict_cell"] == 3
    shutil.move(copied.folder / "aside", copied.results() / DAMAGED)

    times = weights.stat()
    weights.write_bytes(whole)
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
    ended = copied.run()
    assert ended.code == 0, ended.output
    assert ended.jobs == {"predict_cell": 1, **SCORED}
    assert {cell: sha256_of(copied.results() / "scores" / f"{cell}.parquet") for cell in cells} == finished
    assert copied.plan() == {}
    fault.survives()


@pytest.mark.parametrize(
    "name",
    ["encoder/model.safetensors", "encoded/cldr_retrieval/length64/tokens.safetensors", "data/cldr_retrieval.parquet"],
)
@pytest.mark.fault("a truncated encoder, token file or data file")
def test_truncated_inputs_are_refused(copied: Workspace, name: str, fault: Fault) -> None:
    cell = "cldr_retrieval/none/x0/seed1"
    forget(copied, cell)
    expected, found = truncate(copied.results() / name)
    ended = copied.run()
    assert ended.code != 0
    said = refusal(copied.results() / "logs" / "predict_cell" / f"{cell}.log")
    for part in (f"results/tiny/{name}", expected, found):
        assert part in said
    assert said in ended.output
    assert not (copied.results() / "predictions" / f"{cell}.parquet").exists()
    fault.refuses()


@pytest.mark.parametrize("name", ["encoder/model.safetensors", "encoded/cldr_kind/length64/tokens.safetensors"])
@pytest.mark.fault("a truncated encoder, token file or data file")
def test_training_refuses_truncated_inputs(copied: Workspace, finished: Finished, name: str, fault: Fault) -> None:
    root = Path(finished.settings["data"]["root"])
    copied.write_study(tiny_study(root, recipes={"cldr_kind": {"learning_rate": 0.0017}}))
    expected, found = truncate(copied.results() / name)
    ended = copied.run("results/tiny/target/cldr_kind/none/x0/seed1/manifest.json")
    assert ended.code != 0
    said = refusal(copied.results() / "logs" / "train_target" / "cldr_kind" / "none" / "x0" / "seed1.log")
    for part in (f"results/tiny/{name}", expected, found):
        assert part in said
    assert not (copied.results() / "target" / "cldr_kind" / "none" / "x0" / "seed1" / "manifest.json").exists()
    fault.refuses()


@pytest.fixture
def longer(copied: Workspace, finished: Finished) -> Workspace:
    """A copy in which one intermediate run is to be trained anew, for long enough to be hit in the middle."""
    root = Path(finished.settings["data"]["root"])
    copied.write_study(tiny_study(root, recipes={"cldr_choice": {"steps": LONG_STEPS}}))
    return copied


@pytest.fixture(scope="module")
def uninterrupted(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """sha256 of the longer run's weights and predictions where nothing interrupts it."""
    workspace = finished.workspace.copy(tmp_path_factory.mktemp("uninterrupted") / "work")
    root = Path(finished.settings["data"]["root"])
    workspace.write_study(tiny_study(root, recipes={"cldr_choice": {"steps": LONG_STEPS}}))
    ended = workspace.run(LONG_PREDICTIONS)
    assert ended.code == 0, ended.output
    assert ended.jobs == LONG_JOBS
    return long_results(workspace)


def long_results(workspace: Workspace) -> dict[str, str]:
    """sha256 of the longer run's weights and predictions."""
    names = (f"results/tiny/intermediate/{LONG_RUN}/weights.safetensors", LONG_PREDICTIONS)
    return {name: sha256_of(workspace.folder / name) for name in names}


def training_job(process: subprocess.Popen[str], workspace: Workspace) -> psutil.Process:
    """The training job's own process, once it is some steps in."""
    log = workspace.results() / "logs" / "train_intermediate" / f"{LONG_RUN}.log"
    ends = time.monotonic() + 120
    while time.monotonic() < ends:
        if log.exists() and f"/{LONG_STEPS} " in log.read_text(encoding="utf-8"):  # and not of the run before
            jobs = [job for job, command in processes_below(process.pid) if "train.py" in command]
            return jobs[-1]
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    pytest.fail("the training job did not begin")


def holds_run(workspace: Workspace) -> bool:
    """Whether the longer run has been published."""
    manifest = workspace.results() / "intermediate" / LONG_RUN / "manifest.json"
    return manifest.exists() and json.loads(manifest.read_text(encoding="utf-8"))["steps"] == LONG_STEPS


def goes_on(workspace: Workspace, uninterrupted: dict[str, str]) -> None:
    """Run again: the interrupted run and what follows it, to the very bytes of a run without interruption."""
    folder = workspace.results() / "intermediate" / LONG_RUN
    assert not (folder / "manifest.json").exists()
    ended = workspace.run(LONG_PREDICTIONS)
    assert ended.code == 0, ended.output
    assert ended.jobs == LONG_JOBS
    assert long_results(workspace) == uninterrupted
    assert sorted(path.name for path in folder.iterdir()) == ["log.jsonl", "manifest.json", "weights.safetensors"]


@pytest.mark.fault("kill -9 of a training job under Snakemake")
def test_killed_training_job(longer: Workspace, uninterrupted: dict[str, str], fault: Fault) -> None:
    process = longer.start("--cores", "2", LONG_PREDICTIONS, "--configfile", "study.yaml")
    training_job(process, longer).kill()
    output, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "Error in rule train_intermediate" in output
    goes_on(longer, uninterrupted)
    fault.survives()


@pytest.mark.fault("Control-C in a running study")
def test_interrupted_snakemake(longer: Workspace, uninterrupted: dict[str, str], fault: Fault) -> None:
    """Control-C in a terminal: SIGINT to Snakemake and its jobs."""
    process = longer.start("--cores", "2", LONG_PREDICTIONS, "--configfile", "study.yaml")
    job = training_job(process, longer)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode != 0, output
    assert not psutil.pid_exists(job.pid)
    goes_on(longer, uninterrupted)
    fault.survives()


@pytest.mark.fault("SIGTERM to Snakemake")
def test_snakemake_told_to_stop(longer: Workspace, uninterrupted: dict[str, str], fault: Fault) -> None:
    """It waits for the job that runs, and starts no other."""
    process = longer.start("--cores", "2", LONG_PREDICTIONS, "--configfile", "study.yaml")
    training_job(process, longer)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "Traceback" not in output
    assert holds_run(longer)
    ended = longer.run(LONG_PREDICTIONS)
    assert ended.code == 0, ended.output
    assert ended.jobs == {"predict_cell": 1}
    assert long_results(longer) == uninterrupted
    fault.survives()


@pytest.mark.fault("kill -9 of Snakemake, whose lock stays")
def test_killed_snakemake(longer: Workspace, uninterrupted: dict[str, str], fault: Fault) -> None:
    """A machine that goes down: Snakemake's lock stays and says so; without it the study goes on."""
    process = longer.start("--cores", "2", LONG_PREDICTIONS, "--configfile", "study.yaml")
    training_job(process, longer)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=120)
    locked = longer.run(LONG_PREDICTIONS)
    assert locked.code != 0
    assert "--unlock" in locked.output
    assert longer.snakemake("--unlock", "--configfile", "study.yaml").code == 0
    goes_on(longer, uninterrupted)
    fault.survives()


@pytest.mark.fault("a job that the system ends for want of memory")
def test_out_of_memory(longer: Workspace, uninterrupted: dict[str, str], fault: Fault) -> None:
    """The system's way with a job that takes too much is kill -9: the next attempt asks for more."""
    process = longer.start("--cores", "2", "--retries", "1", LONG_PREDICTIONS, "--configfile", "study.yaml")
    training_job(process, longer).kill()
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    asked = [
        int(found) for found in re.findall(r"rule train_intermediate:(?:\n .*)*?\n +resources: .*?mem_mb=(\d+)", output)
    ]
    assert len(asked) == 2, output
    assert asked[1] >= 2 * asked[0] - 1
    assert long_results(longer) == uninterrupted
    fault.survives()
