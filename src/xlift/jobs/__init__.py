"""What each rule does: read inputs, call the package, publish outputs. Scripts call one function each."""

from __future__ import annotations

import gc
import os
import socket
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import TextIO

from xlift.errors import UserError
from xlift.gpu_slots import VISIBLE, claim_gpu
from xlift.jobs.faults import machine_fault


@contextmanager
def fast_imports() -> Iterator[None]:
    """Import without garbage collection, which costs a seventh of the time of importing torch and peft.

    What was imported stays out of later collections too.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def logged(log: str) -> Iterator[None]:
    """Send a job's output to its log file; end it with one sentence, or a traceback where the fault is ours."""
    path = Path(log)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("w", encoding="utf-8", buffering=1)
    except OSError as error:
        sys.exit(f"error: {machine_fault(error) or error}")
    with _closing(stream), redirect_stdout(stream), redirect_stderr(stream):
        try:
            yield
        except Exception as error:
            sentence = str(error) if isinstance(error, UserError) else machine_fault(error)
            try:
                if sentence is None:
                    traceback.print_exc()
                else:
                    print(f"error: {sentence}")
            except OSError:  # the disk that is full is the log's, too
                print(f"error: {sentence or error}", file=sys.__stderr__)
            failed = 2 if sentence is None else 1
        else:
            return
    sys.exit(failed)


@contextmanager
def _closing(stream: TextIO) -> Iterator[None]:
    """Close a log whose last words may not fit its disk any more."""
    try:
        yield
    finally:
        with suppress(OSError):
            stream.close()


def start_computing() -> None:
    """Begin a training or prediction job: no network, and a GPU of its own until it ends where no scheduler gave one.

    Data and encoder were prepared by local rules, so that nothing here has a reason to look for a hub. To be called
    before torch is imported. Says in the log where the job runs, where that is not simply here.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    claimed = claim_gpu()
    job = os.environ.get("SLURM_JOB_ID")
    if claimed is not None or job is not None:
        where = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
        gpu = os.environ.get(VISIBLE)
        of_job = "" if job is None else f", SLURM job {job}"
        print(f"runs on {where}{of_job}, {f'GPU {gpu}' if gpu else 'no GPU'}", flush=True)
