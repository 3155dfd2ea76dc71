"""GPUs shared by several jobs of one machine: each has its own, whatever becomes of the others. No GPU is needed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from xlift.errors import UserError
from xlift.gpu_slots import claim_gpu, listed_devices, lock_folder, visible_devices

HOLD = """
import sys, time
from pathlib import Path
from xlift.gpu_slots import claim_gpu
environment = {}
slot = claim_gpu(environment, sys.argv[2].split(","), Path(sys.argv[1]))
print(environment["CUDA_VISIBLE_DEVICES"], flush=True)
time.sleep(60)
"""


def holder(folder: Path, devices: str) -> subprocess.Popen[str]:
    """A process that takes a GPU and keeps it."""
    return subprocess.Popen([sys.executable, "-c", HOLD, str(folder), devices], stdout=subprocess.PIPE, text=True)


def taken(process: subprocess.Popen[str]) -> str:
    """The next line it says: the GPU it took, or that it waits."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_each_process_has_its_own_and_a_third_waits(tmp_path: Path) -> None:
    processes = [holder(tmp_path, "0,1") for _ in range(2)]
    try:
        assert sorted(taken(process) for process in processes) == ["0", "1"]
        processes.append(holder(tmp_path, "0,1"))
        assert taken(processes[2]).startswith("waiting for a GPU: 2 of 2 are taken")
        os.kill(processes[0].pid, signal.SIGKILL)  # a job that ends in the worst way
        processes[0].wait()
        ended = time.monotonic()
        found = taken(processes[2])
        assert time.monotonic() - ended < 30
        os.kill(processes[1].pid, signal.SIGKILL)
        processes[1].wait()
        # The one that was freed, whichever it was, is the third's; the other one is free now.
        processes.append(holder(tmp_path, "0,1"))
        assert {found, taken(processes[3])} == {"0", "1"}
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_only_the_chosen_gpu_is_visible(tmp_path: Path) -> None:
    environment = {"CUDA_VISIBLE_DEVICES": "2,3"}
    slots = [claim_gpu(environment, None, tmp_path)]
    assert environment["CUDA_VISIBLE_DEVICES"] == "2"
    environment["CUDA_VISIBLE_DEVICES"] = "2,3"
    slots.append(claim_gpu(environment, None, tmp_path))
    assert environment["CUDA_VISIBLE_DEVICES"] == "3"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2.lock", "3.lock"]
    for slot in slots:
        assert slot is not None
        os.close(slot.descriptor)


@pytest.mark.parametrize("scheduler", ["SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "FLUX_JOB_ID"])
def test_a_scheduler_hands_out_its_own(scheduler: str, tmp_path: Path) -> None:
    for given in ({"CUDA_VISIBLE_DEVICES": "5"}, {"CUDA_VISIBLE_DEVICES": ""}, {}):
        environment = {scheduler: "17", **given}
        assert claim_gpu(environment, folder=tmp_path) is None
        assert environment == {scheduler: "17", **given}
    assert list(tmp_path.iterdir()) == []


def test_jobs_in_one_allocation_share_its_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in `salloc --gpus=2` with a local Snakemake in it; another allocation's GPUs have the same numbers."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    environments = [{"SLURM_JOB_ID": job, "CUDA_VISIBLE_DEVICES": "0,1"} for job in ("17", "17", "18")]
    slots = [claim_gpu(environment) for environment in environments]
    assert [environment["CUDA_VISIBLE_DEVICES"] for environment in environments] == ["0", "1", "0"]
    assert len(list(tmp_path.iterdir())) == 2
    for slot in slots:
        assert slot is not None
        os.close(slot.descriptor)


def test_without_a_gpu_nothing_is_taken(tmp_path: Path) -> None:
    environment: dict[str, str] = {}
    assert claim_gpu(environment, [], tmp_path) is None
    assert environment == {}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ("0", ["0"]),
        ("1, 0", ["1", "0"]),
        ("", []),
        ("-1", []),
        ("3,-1,2", ["3"]),
        ("GPU-ab,GPU-cd", ["GPU-ab", "GPU-cd"]),
    ],
)
def test_what_is_visible(listed: str, expected: list[str]) -> None:
    assert visible_devices({"CUDA_VISIBLE_DEVICES": listed}) == expected


def test_what_the_driver_lists() -> None:
    first = "GPU 0: NVIDIA A100 (UUID: GPU-5c1)\n"
    whole = f"{first}GPU 1: NVIDIA A100 (UUID: GPU-7f2)\n"
    cut = first + "".join(f"  MIG 3g.20gb     Device  {index}: (UUID: MIG-{index + 1})\n" for index in range(2))
    assert listed_devices(whole) == ["0", "1"]
    assert listed_devices(cut) == ["MIG-1", "MIG-2"]
    assert listed_devices("No devices were found\n") == []


def test_a_lock_folder_of_somebody_elses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert lock_folder() == tmp_path / f"xlift-gpus-{os.getuid()}"
    (tmp_path / "elsewhere").mkdir()
    lock_folder().symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="set TMPDIR"):
        lock_folder()
