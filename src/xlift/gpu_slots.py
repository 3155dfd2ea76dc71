"""One GPU for each of several jobs on one machine, where no scheduler hands them out one by one.

A job that computes takes one of the visible GPUs by locking that GPU's file, and sees no other one from then on. The
lock is the system's (`flock`): it is gone as soon as the process is, however that ends. A job that finds every GPU
taken waits, for a run plans with all of a device's memory. Without torch: the GPU has to be chosen before CUDA starts.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from xlift.errors import UserError

VISIBLE = "CUDA_VISIBLE_DEVICES"
SCHEDULERS = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "FLUX_JOB_ID")
"""Set inside the jobs of schedulers, which hand GPUs out themselves."""
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Slot:
    """A GPU that this process holds until it ends: its name as `CUDA_VISIBLE_DEVICES` takes it, and the open lock."""

    device: str
    descriptor: int


def claim_gpu(
    environment: MutableMapping[str, str] | None = None,
    devices: Sequence[str] | None = None,
    folder: Path | None = None,
) -> Slot | None:
    """Take one GPU for this process and make it the only visible one; wait while all are taken.

    Nothing is taken, and None returned, where there is no GPU, and inside a scheduler's job with one GPU. Of several
    that a scheduler gave (in `salloc`, with a local Snakemake in it) the jobs take one each.

    Args:
        environment: read and changed; this process's own by default.
        devices: names of the GPUs to choose from; what is visible by default.
        folder: where the lock files are: the same for all jobs that share GPUs. One folder a user by default.
    """
    environment = os.environ if environment is None else environment
    job = next((environment[name] for name in SCHEDULERS if environment.get(name)), None)
    if job is not None and VISIBLE not in environment:
        return None  # not what `nvidia-smi` lists, which may be others'
    devices = visible_devices(environment) if devices is None else devices
    if len(devices) < (1 if job is None else 2):
        return None
    folder = lock_folder(job) if folder is None else folder
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    said = False
    while True:
        for device in devices:
            descriptor = _locked(folder / f"{re.sub(r'[^A-Za-z0-9._-]', '_', device)}.lock")
            if descriptor is not None:
                environment[VISIBLE] = device
                return Slot(device, descriptor)
        if not said:
            print(f"waiting for a GPU: {len(devices)} of {len(devices)} are taken by other jobs", flush=True)
            said = True
        time.sleep(POLL_SECONDS)


def visible_devices(environment: MutableMapping[str, str]) -> list[str]:
    """GPUs that a process with this environment may use, named as `CUDA_VISIBLE_DEVICES` names them."""
    listed = environment.get(VISIBLE)
    if listed is None:
        return listed_devices(_nvidia_smi())
    names = [name.strip() for name in listed.split(",")]
    # CUDA itself ignores what follows the first invalid entry.
    valid = [bool(name) and name != "-1" for name in names]
    return names[: valid.index(False)] if False in valid else names


def listed_devices(text: str) -> list[str]:
    """GPUs in what `nvidia-smi -L` says: numbers, or the ids of MIG parts where a GPU is cut into such."""
    parts = re.findall(r"UUID: (MIG-[^)\s]+)", text)
    whole = re.findall(r"^GPU \d+:", text, re.MULTILINE)
    return parts or [str(index) for index in range(len(whole))]


def lock_folder(job: str | None = None) -> Path:
    """A folder of this user's on this very machine; each scheduler's job, whose GPUs are numbered anew, has its own."""
    of_job = "" if job is None else "-" + re.sub(r"[^A-Za-z0-9]", "_", job)
    folder = Path(tempfile.gettempdir()) / f"xlift-gpus-{os.getuid()}{of_job}"
    if folder.is_symlink() or (folder.exists() and folder.stat().st_uid != os.getuid()):
        raise UserError(f"{folder}: the folder of GPU locks is somebody else's; set TMPDIR to a folder of your own")
    return folder


def _nvidia_smi() -> str:
    command = shutil.which("nvidia-smi")
    if command is None:
        return ""
    try:
        return subprocess.run([command, "-L"], capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""  # a driver that does not answer: torch will find no GPU either


def _locked(path: Path) -> int | None:
    """An open, locked file, or None where another process has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
