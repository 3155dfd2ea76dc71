"""A run in progress on disk, so that a run that was stopped goes on instead of starting over.

A state is one safetensors file named by its sha256, renamed into place when whole: at any moment there is at least the
one before. It is no output of the workflow: a retry finds it, and it is removed when the run is published.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from xlift.artifacts import canonical_json, publishing, sha256_of
from xlift.errors import UserError

SUFFIX = ".safetensors"


@dataclass(frozen=True)
class State:
    """All that a run needs to go on: tensors, and facts that JSON can hold (`step` and `fingerprint` among them)."""

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]


def write_state(path: Path, state: State) -> None:
    """Write one state file, without publishing it."""
    tensors = {name: state.tensors[name].detach().cpu().contiguous() for name in sorted(state.tensors)}
    save_file(tensors, path, metadata={"facts": canonical_json(state.facts)})


def read_state(path: Path) -> State:
    """Read one state file; `UserError` where it is no such file."""
    try:
        with safe_open(path, framework="pt") as stored:
            facts = json.loads(stored.metadata()["facts"])
            return State({name: stored.get_tensor(name) for name in sorted(stored.keys())}, facts)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: is not the state of a run ({error}); delete it and run the workflow again") from None


class StateFolder:
    """Where one run keeps its state; `every` seconds between two saves."""

    def __init__(self, folder: Path, fingerprint: str, every: float) -> None:
        self._folder, self._fingerprint, self._every = folder, fingerprint, every
        self._saved = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether it is time to save."""
        return time.monotonic() - self._saved >= self._every

    def save(self, state: State) -> None:
        """Publish a state, then remove the older ones."""
        made = State(state.tensors, {**state.facts, "fingerprint": self._fingerprint})
        self._folder.mkdir(parents=True, exist_ok=True)
        written = self._folder / f"new.{os.getpid()}"
        try:
            write_state(written, made)
            path = self._folder / f"{sha256_of(written)}{SUFFIX}"
            with publishing(path) as temporary:
                os.replace(written, temporary)
        finally:
            written.unlink(missing_ok=True)
        for old in self._folder.iterdir():
            if old != path:
                old.unlink(missing_ok=True)
        self._saved = time.monotonic()

    def load(self) -> State | None:
        """The newest whole state of this very run, or None; says why one is not used."""
        found: list[State] = []
        for path in sorted(self._folder.glob(f"*{SUFFIX}")):
            if sha256_of(path) != path.name.removesuffix(SUFFIX):
                print(f"{path}: is damaged, so the run does not go on from it", flush=True)
                continue
            state = read_state(path)
            if state.facts.get("fingerprint") == self._fingerprint:
                found.append(state)
            else:
                print(f"{path}: is of a run with other settings, so this run does not go on from it", flush=True)
        return max(found, key=lambda state: int(state.facts["step"]), default=None)

    def remove(self) -> None:
        """Remove it, once the run is published."""
        shutil.rmtree(self._folder, ignore_errors=True)


class StopRequest:
    """Whether this process was asked to stop."""

    name: str | None = None


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Take SIGTERM and SIGINT as requests to stop after the step that is running, instead of at once.

    Only in a program's main thread, where signals arrive; elsewhere nothing is ever requested.
    """
    request = StopRequest()

    def ask(number: int, frame: FrameType | None) -> None:
        request.name = signal.Signals(number).name

    try:
        before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:
        yield request
        return
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
