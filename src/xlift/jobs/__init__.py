"""What each rule does: read inputs, call the package, publish outputs. Scripts call one function each."""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn, TextIO

from xlift.errors import Stopped, UserError
from xlift.gpu_slots import VISIBLE, claim_gpu
from xlift.machine_faults import machine_fault


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
def logged(log: str, inputs: Iterable[str] = ()) -> Iterator[None]:
    """Send a job's output to its log file; end it with one sentence, or a traceback where the fault is ours.

    `inputs`: the files that the job reads, none of which may be from the future (see `brought_to_now`).
    """
    path = Path(log)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("w", encoding="utf-8", buffering=1)
    except OSError as error:
        sys.exit(f"error: {machine_fault(error) or error}")
    with _closing(stream), redirect_stdout(stream), redirect_stderr(stream):
        try:
            with stoppable():
                brought_to_now(inputs)
                yield
        except (Exception, Stopped) as error:
            sentence = str(error) if isinstance(error, (UserError, Stopped)) else machine_fault(error)
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
def stoppable() -> Iterator[None]:
    """Let SIGTERM end a job in a sentence wherever it is; a training run's steps take it as a request to save first."""

    def stop(number: int, _: FrameType | None) -> NoReturn:
        name = signal.Signals(number).name
        raise Stopped(f"stopped by {name}; run the workflow again: it goes on from what was finished or saved")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def brought_to_now(paths: Iterable[str]) -> None:
    """Give files that were written by a clock ahead of this one's the present time.

    Snakemake takes an output that is older than an input for a fault of the job, and deletes it: a job that reads what
    a machine with such a clock wrote could not end before this clock has caught up.
    """
    now = time.time()
    for path in paths:
        if not os.path.exists(path) or os.stat(path).st_mtime <= now:
            continue
        try:
            os.utime(path, (now, now))
        except OSError:
            raise UserError(
                f"{path}: is from the future by this machine's clock, and only its owner may set its time; run `touch` "
                "on it as its owner, and then the workflow again"
            ) from None
        print(f"{path}: was written by a clock that is ahead of this machine's; its time is set to now")


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
