"""Faults injected into whole studies: what is lost, what is refused, and that it ends in the same bytes."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
import torch
from harness import MODEL_ID, STUDY_FILE, Finished, Workspace, processes_below, tiny_study
from safetensors.torch import load_file, save_file

from faults import Fault
from xlift.artifacts import sha256_of

KILLS = 20
LATEST = 9.0
"""Seconds after its start at which a run is killed at the latest."""


def tables(workspace: Workspace) -> dict[str, str]:
    """sha256 of every prediction, every weight and every table of a study."""
    root = workspace.results()
    names = ("predictions/**/*.parquet", "**/weights.safetensors", "*.parquet")
    found = sorted(path for name in names for path in root.glob(name) if path.name != "runs.parquet")
    return {str(path.relative_to(root)): sha256_of(path) for path in found}


def unfinished(workspace: Workspace) -> set[str]:
    """Outputs of jobs that Snakemake has begun and not seen the end of, by its markers; it will repeat them."""
    marks = workspace.folder / ".snakemake" / "incomplete"
    files = (path.relative_to(marks) for path in marks.rglob("*") if path.is_file())
    # A long name is cut into folders, each marked by an @.
    names = ("".join(part.removeprefix("@") for part in path.parts) for path in files)
    return {str(Path(urlsafe_b64decode(name).decode()).relative_to("results/tiny")) for name in names}


def finished_tables(workspace: Workspace) -> dict[str, str]:
    """`tables` of the jobs whose end Snakemake has seen."""
    repeated = unfinished(workspace)
    return {
        path: digest
        for path, digest in tables(workspace).items()
        if "/" in path and not {path, str(Path(path).with_name("manifest.json"))} & repeated
    }


def nothing_half_written(root: Path) -> None:
    """Every manifest vouches for files that are as it says; every table under its own name can be read."""
    for path in sorted(root.rglob("manifest.json")):
        for name, facts in json.loads(path.read_text(encoding="utf-8"))["files"].items():
            assert sha256_of(path.parent / name) == facts["sha256"], path
    for path in sorted(root.rglob("*.parquet")):
        pl.read_parquet(path)
    for path in sorted((root / "data").glob("*.json")):
        assert sha256_of(path.with_suffix(".parquet")) == json.loads(path.read_text(encoding="utf-8"))["sha256"]


@pytest.mark.fault("kill -9 of Snakemake and all its jobs, at a random moment of a study")
def test_killed_at_random_moments(workspace: Workspace, finished: Finished, fault: Fault) -> None:
    workspace.write_study(finished.settings)
    moments = random.Random(20)
    kills, at_work = 0, 0
    kept: dict[str, str] = {}
    whole = False
    while kills < KILLS:
        # The machine is gone, and its lock with it; what was being written is marked as incomplete.
        process = workspace.start("--cores", "2", "--nolock", "--configfile", STUDY_FILE)
        time.sleep(moments.uniform(1.0, LATEST))
        if process.poll() is None:
            at_work += any(".snakemake/scripts" in command for _, command in processes_below(process.pid))
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        output, _ = process.communicate(timeout=60)
        assert "Traceback" not in output, output
        nothing_half_written(workspace.results())
        # What was done stays as it was. A job that ended while Snakemake was being killed is repeated.
        assert kept.items() <= tables(workspace).items()
        kept = finished_tables(workspace)
        whole = whole or len(kept) > 0
        if process.returncode == 0:
            assert tables(workspace) == tables(finished.workspace)
            shutil.rmtree(workspace.folder / "results")
            kept = {}
    assert whole, "no kill came after a finished job"
    assert at_work >= KILLS // 4, "most of the kills found nothing at work"
    ended = workspace.run("--nolock")
    assert ended.code == 0, ended.output
    assert tables(workspace) == tables(finished.workspace)
    assert workspace.plan() == {}
    fault.survives(KILLS)


def flip(path: Path) -> None:
    """Change one bit in the middle of a file, and neither its size nor its times."""
    times = path.stat()
    with path.open("rb+") as stream:
        stream.seek(times.st_size // 2)
        byte = stream.read(1)[0]
        stream.seek(times.st_size // 2)
        stream.write(bytes([byte ^ 1]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


RUN = "cldr_choice/x1/seed1"
FLIPPED = {
    "the encoder's weights": ("encoder/model.safetensors", f"target/cldr_kind/{RUN}/manifest.json"),
    "the tokenizer": ("encoder/tokenizer.json", "encoded/cldr_kind/length64/manifest.json"),
    "token ids": ("encoded/cldr_kind/length64/tokens.safetensors", f"target/cldr_kind/{RUN}/manifest.json"),
    "examples": ("data/cldr_kind.parquet", f"predictions/cldr_kind/{RUN}.parquet"),
    "a checkpoint": (f"intermediate/{RUN}/weights.safetensors", f"target/cldr_kind/{RUN}/manifest.json"),
    "a target's checkpoint": (f"target/cldr_kind/{RUN}/weights.safetensors", f"predictions/cldr_kind/{RUN}.parquet"),
}


@pytest.mark.fault("one flipped bit in a checkpoint, the encoder, token ids or examples")
@pytest.mark.parametrize(("damaged", "made"), FLIPPED.values(), ids=list(FLIPPED))
def test_a_flipped_bit(copied: Workspace, finished: Finished, fault: Fault, damaged: str, made: str) -> None:
    before = sha256_of(copied.results() / damaged)
    flip(copied.results() / damaged)
    (copied.results() / made).unlink()
    ended = copied.run(f"results/tiny/{made}")
    assert ended.code != 0
    assert f"results/tiny/{damaged}" in ended.output
    assert before in ended.output, "the sentence says what the file should be"
    assert "Traceback" not in ended.output
    assert not (copied.results() / made).exists()
    fault.refuses()
    # As the sentence advises.
    folder = (copied.results() / damaged).parent
    if damaged.startswith("data/"):
        (copied.results() / damaged).unlink()
    else:
        shutil.rmtree(folder)
    ended = copied.run(f"results/tiny/{made}")
    assert ended.code == 0, ended.output
    assert sha256_of(copied.results() / damaged) == before
    if made.endswith(".parquet"):
        assert sha256_of(copied.results() / made) == sha256_of(finished.workspace.results() / made)


@pytest.mark.fault("one altered number in a manifest")
def test_an_altered_manifest(copied: Workspace, fault: Fault) -> None:
    """Of the run's steps, which scores quote; nothing else tells of it."""
    path = copied.results() / "intermediate" / RUN / "manifest.json"
    times, text = path.stat(), path.read_text(encoding="utf-8")
    assert text.count('"steps": 4,') >= 1
    path.write_text(text.replace('"steps": 4,', '"steps": 5,'), encoding="utf-8")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    for cell in (copied.results() / "scores").glob(f"*/{RUN}.parquet"):
        cell.unlink()
    (copied.results() / "scores.parquet").unlink()
    ended = copied.run("results/tiny/scores.parquet")
    assert ended.code != 0
    assert f"intermediate/{RUN}/manifest.json: its sha256 is not the one it carries" in ended.output
    assert "Traceback" not in ended.output
    fault.refuses()


@pytest.mark.fault("a manifest cut short or with another content")
@pytest.mark.parametrize("text", ["", "{", '{"files": {}}', "[]"], ids=["empty", "cut", "without files", "a list"])
def test_a_damaged_manifest(copied: Workspace, finished: Finished, fault: Fault, text: str) -> None:
    path = copied.results() / "intermediate" / RUN / "manifest.json"
    times = path.stat()
    path.write_text(text, encoding="utf-8")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    made = copied.results() / "target" / "cldr_kind" / RUN / "manifest.json"
    made.unlink()
    ended = copied.run(f"results/tiny/target/cldr_kind/{RUN}/manifest.json")
    assert ended.code != 0
    assert "Traceback" not in ended.output, ended.output
    folder = f"results/tiny/intermediate/{RUN}"
    found = r"(is not valid JSON|lists no files|its sha256 [^\n]*)"
    said = rf"error: {folder}/manifest\.json: {found}; delete the folder {folder} and run "
    assert re.search(said, ended.output), ended.output
    assert not made.exists()
    fault.refuses()
    shutil.rmtree(path.parent)
    assert copied.run(f"results/tiny/target/cldr_kind/{RUN}/manifest.json").code == 0
    assert tables(copied) == tables(finished.workspace)


@pytest.mark.fault("a damaged or altered manifest of prepared examples")
@pytest.mark.parametrize("how", ["cut", "a number altered"])
def test_a_damaged_manifest_of_examples(copied: Workspace, finished: Finished, fault: Fault, how: str) -> None:
    path = copied.results() / "data" / "cldr_kind.json"
    times, text = path.stat(), path.read_text(encoding="utf-8")
    damaged = {"cut": text[:-20], "a number altered": re.sub(r'("test/de": )\d+', r"\g<1>7", text)}[how]
    assert damaged != text
    path.write_text(damaged, encoding="utf-8")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    page = copied.results() / "report" / "index.html"
    page.unlink()
    ended = copied.run()
    assert ended.code != 0
    assert "Traceback" not in ended.output, ended.output
    examples = "results/tiny/data/cldr_kind.parquet"
    assert f"error: results/tiny/data/cldr_kind.json: is missing or damaged; delete {examples} and run" in ended.output
    assert not page.exists()
    fault.refuses()
    (copied.folder / examples).unlink()
    assert copied.run(examples).code == 0
    assert copied.run().code == 0
    assert tables(copied) == tables(finished.workspace)


@pytest.mark.fault("a damaged prediction file")
@pytest.mark.parametrize("how", ["cut", "empty", "another's", *(f"a bit at {part}/8" for part in range(8))])
def test_a_damaged_prediction(copied: Workspace, fault: Fault, how: str) -> None:
    cell = f"cldr_kind/{RUN}.parquet"
    path = copied.results() / "predictions" / cell
    content = path.read_bytes()
    other = copied.results() / "predictions" / "cldr_kind" / "cldr_qa/x1/seed1.parquet"
    damaged = {"cut": content[:-100], "empty": b"", "another's": other.read_bytes()}
    for part in range(8):
        flipped = bytearray(content)
        flipped[len(content) * part // 8 + 5] ^= 1 << part
        damaged[f"a bit at {part}/8"] = bytes(flipped)
    path.write_bytes(damaged[how])
    (copied.results() / "scores" / cell).unlink()
    ended = copied.run()
    assert ended.code != 0
    assert "Traceback" not in ended.output, ended.output
    assert re.search(rf"error: results/tiny/predictions/{cell}: [^\n]*[:;] delete it and run", ended.output), (
        ended.output
    )
    fault.refuses()
    path.unlink()
    assert copied.run(f"results/tiny/predictions/{cell}").code == 0
    assert path.read_bytes() == content
    assert copied.run().code == 0


@pytest.fixture
def running(copied: Workspace, finished: Finished) -> Iterator[Workspace]:
    """A workspace in which another Snakemake is at work."""
    root = Path(finished.settings["data"]["root"])
    copied.write_study(tiny_study(root, recipes={"cldr_choice": {"steps": 400}}))
    process = copied.start("--cores", "1", "--configfile", STUDY_FILE)
    ends = time.monotonic() + 60
    while not list((copied.folder / ".snakemake" / "locks").glob("*")):
        assert time.monotonic() < ends
        time.sleep(0.05)
    yield copied
    os.killpg(process.pid, signal.SIGTERM)
    process.communicate(timeout=60)


@pytest.mark.fault("a second Snakemake on the same folder")
def test_two_at_once(running: Workspace, fault: Fault) -> None:
    ended = running.run()
    assert ended.code != 0
    assert "Error: Directory cannot be locked" in ended.output
    fault.refuses()


@pytest.mark.fault("a lock in the folder that no Snakemake here has taken")
def test_a_foreign_lock(copied: Workspace, fault: Fault) -> None:
    """Of another machine that shares the folder, or of one that is gone: only a person can tell."""
    (copied.results() / "report/index.html").unlink()
    locks = copied.folder / ".snakemake" / "locks"
    locks.mkdir(exist_ok=True)
    (locks / "0.output.lock").write_text("results/tiny/report/index.html\n", encoding="utf-8")
    (locks / "0.input.lock").write_text("results/tiny/scores.parquet\n", encoding="utf-8")
    ended = copied.run()
    assert ended.code != 0
    assert "Error: Directory cannot be locked" in ended.output
    assert "--unlock" in ended.output
    assert not (copied.results() / "report/index.html").exists()
    fault.refuses()
    assert copied.run("--unlock").code == 0
    assert copied.run().code == 0
    assert copied.plan() == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system that cannot be written")
@pytest.mark.fault("a results folder that cannot be written")
def test_results_that_cannot_be_written(workspace: Workspace, finished: Finished, fault: Fault) -> None:
    workspace.write_study(finished.settings)
    results = workspace.folder / "results"
    results.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", str(results)], check=True)
    try:
        assert workspace.plan()["prepare_encoder"] == 1  # a dry-run writes nothing
        ended = workspace.run()
    finally:
        subprocess.run(["umount", str(results)], check=True)
    assert ended.code != 0
    assert "results/tiny: cannot be written; give this user the right to, or run Snakemake in another" in ended.output
    assert "Traceback" not in ended.output
    assert "rule prepare" not in ended.output.split("Job stats")[1]
    fault.refuses()


@pytest.mark.fault("a clock that was ahead by an hour while a run was published")
def test_clock_skew(copied: Workspace, finished: Finished, fault: Fault) -> None:
    """What starts from the run has not begun; by Snakemake's rules its outputs would be older than their inputs."""
    later = time.time() + 3600
    for path in (copied.results() / "intermediate" / RUN).iterdir():
        os.utime(path, (later, later))
    for kind in ("target", "predictions"):
        for path in sorted((copied.results() / kind).glob(f"*/{RUN}*")):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    (copied.results() / "scores.parquet").unlink()
    (copied.results() / "report/index.html").unlink()
    ended = copied.run()
    assert ended.code == 0, ended.output
    assert ended.jobs["train_target"] == 2
    assert ended.jobs["predict_cell"] == 3
    manifest = copied.results() / "intermediate" / RUN / "manifest.json"
    assert manifest.stat().st_mtime < time.time()
    assert copied.plan() == {}
    assert tables(copied) == tables(finished.workspace)
    fault.survives()


@pytest.mark.fault("a loss that is no number")
def test_a_loss_that_is_no_number(copied: Workspace, finished: Finished, fault: Fault, tmp_path: Path) -> None:
    """Of an encoder with an overflow among its weights: every run says so, and none is published."""
    root = tmp_path / "hub"
    shutil.copytree(finished.settings["data"]["root"], root)
    weights = load_file(root / MODEL_ID / "model.safetensors")
    weights["encoder.layer.1.output.LayerNorm.bias"][0] = torch.nan
    save_file(weights, root / MODEL_ID / "model.safetensors")
    copied.write_study(tiny_study(root, encoder={"source": "hub", "id": MODEL_ID, "revision": "broken"}))
    made = f"results/tiny/intermediate/{RUN}/manifest.json"
    ended = copied.run(made)
    assert ended.code != 0
    assert "step 1 of 4 has a loss or gradient that is not finite" in ended.output
    assert "Traceback" not in ended.output
    assert not (copied.folder / made).exists()
    fault.refuses()
