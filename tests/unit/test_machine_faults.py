"""A full or read-only disk, and memory that runs out: one sentence, nothing half-written, nothing lost."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import save_file

from xlift.artifacts import publish_folder, publish_json, publishing, read_manifest, verified
from xlift.jobs import logged
from xlift.machine_faults import machine_fault

MIB = 2**20


def mounted(folder: Path, size: int) -> bool:
    """Whether a file system of `size` bytes in memory could be mounted at the folder."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not mounted(folder, MIB):
        pytest.skip("mounting a small disk needs root and mount")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fails_in_a_job(log: Path, work) -> str:
    """The sentence that a job ends with."""
    with pytest.raises(SystemExit) as ended, logged(str(log)):
        work()
    assert ended.value.code == 1, log.read_text(encoding="utf-8")
    (line,) = log.read_text(encoding="utf-8").splitlines()
    return line


def write_parquet(path: Path) -> None:
    with publishing(path) as temporary:
        pl.DataFrame({"x": os.urandom(2 * MIB)[:MIB].hex()}).write_parquet(temporary, compression="uncompressed")


def write_weights(path: Path) -> None:
    with publishing(path) as temporary:
        save_file({"w": torch.zeros(MIB)}, temporary)


def write_json(path: Path) -> None:
    publish_json(path, "x" * 2 * MIB)


@pytest.mark.fault("a disk that is full while something is published")
@pytest.mark.parametrize("write", [write_parquet, write_weights, write_json])
def test_a_full_disk(write, small_disk, tmp_path, fault):
    old, new = small_disk / "old", small_disk / "new"
    publish_json(old, {"kept": True})
    before = old.read_bytes()
    for path in (old, new):
        line = fails_in_a_job(tmp_path / "log", lambda path=path: write(path))
        assert line.startswith("error: ")
        assert "the disk is full; free some space and run the workflow again" in line
        fault.refuses()
    assert [path.name for path in small_disk.iterdir()] == ["old"]
    assert old.read_bytes() == before


@pytest.mark.fault("a disk that is full while something is published")
def test_a_disk_that_fills_while_a_folder_is_published(small_disk, tmp_path, fault):
    def small(folder: Path) -> None:
        (folder / "weights").write_bytes(b"1" * 1000)

    def large(folder: Path) -> None:
        (folder / "weights").write_bytes(b"2" * 1000)
        (folder / "more").write_bytes(b"3" * 2 * MIB)

    publish_folder(small_disk / "run", small, {"fingerprint": "a"})
    line = fails_in_a_job(tmp_path / "log", lambda: publish_folder(small_disk / "run", large, {"fingerprint": "b"}))
    assert "the disk is full" in line
    # What was there may be lost, for it was to be replaced; but nothing vouches for a half.
    assert not (small_disk / "run" / "manifest.json").exists()
    assert not list((small_disk / "run").glob(".staging*"))
    publish_folder(small_disk / "run", small, {"fingerprint": "b"})
    assert verified(small_disk / "run", "weights").read_bytes() == b"1" * 1000
    assert read_manifest(small_disk / "run")["fingerprint"] == "b"
    fault.refuses()


@pytest.mark.fault("a disk that is full while a job writes its log")
def test_a_log_on_the_full_disk(small_disk, fault):
    (small_disk / "filler").write_bytes(b"0" * (MIB - 8192))
    code = (
        "import sys; from pathlib import Path; from xlift.jobs import logged\n"
        "with logged(sys.argv[1]):\n"
        "    print('x' * 20000)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(small_disk / "log")], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert "the disk is full" in ended.stderr
    fault.refuses()


@pytest.mark.fault("a results folder that cannot be written")
def test_a_folder_that_cannot_be_written(small_disk, fault):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    code = "import sys; from xlift.jobs import logged\nwith logged(sys.argv[1]): pass\n"
    log = small_disk / "logs" / "job.log"
    ended = subprocess.run([sys.executable, "-c", code, str(log)], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr == (
        f"error: {small_disk / 'logs'}: cannot be written or read; give this user the right to, and run the workflow "
        "again\n"
    )
    fault.refuses()


def test_memory_that_runs_out():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    for error in (caught.value, MemoryError()):
        assert (machine_fault(error) or "").startswith("out of memory; run the workflow again with --retries 3")
    of_a_gpu = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
    assert (machine_fault(of_a_gpu) or "").startswith("out of the GPU's memory; set training.gradient_checkpointing")


@pytest.mark.fault("SIGTERM in a job that is not in its training steps")
def test_a_job_that_is_told_to_stop(tmp_path, fault):
    code = (
        "import sys, time; from xlift.jobs import logged\n"
        "with logged(sys.argv[1]):\n"
        "    print('begun', flush=True)\n"
        "    time.sleep(60)\n"
    )
    log = tmp_path / "log"
    process = subprocess.Popen([sys.executable, "-c", code, str(log)])
    ends = time.monotonic() + 30
    while not (log.exists() and "begun" in log.read_text()):
        assert time.monotonic() < ends
        time.sleep(0.05)
    process.terminate()
    assert process.wait(timeout=30) == 1
    assert log.read_text().splitlines()[1:] == [
        "error: stopped by SIGTERM; run the workflow again: it goes on from what was finished or saved"
    ]
    fault.refuses()


def test_faults_of_ours_keep_their_traceback(tmp_path):
    with pytest.raises(SystemExit) as ended, logged(str(tmp_path / "log")):
        raise ValueError("a mistake")
    assert ended.value.code == 2
    assert "Traceback" in (tmp_path / "log").read_text(encoding="utf-8")
