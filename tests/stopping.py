"""Stopping training runs: by a signal after a given step, and by kills at random moments."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xlift.training import loop
from xlift.training.state import read_state

CLOCK = {"seconds", "seconds_left", "tokens_per_s"}
"""Fields of log.jsonl that differ from one machine and hour to another."""


def published(folder: Path) -> dict[str, object]:
    """What a run published that is the same whenever it runs: its weights, and its log without the clock."""
    return {"weights": (folder / "weights.safetensors").read_bytes(), "log": logged(folder)}


def logged(folder: Path) -> list[dict[str, object]]:
    """A run's log without the clock."""
    entries = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert all(entry.keys() > CLOCK for entry in entries)
    return [{name: entry[name] for name in sorted(entry.keys() - CLOCK)} for entry in entries]


def out_of(study: Path, kind: str = "intermediate") -> Path:
    """Where a run of a study is published."""
    return study / kind / "toy" / "x1" / "seed1"


def states(study: Path, kind: str = "intermediate") -> list[Path]:
    """The files of that run's state."""
    return sorted((study / "state" / kind / "toy" / "x1" / "seed1").glob("*"))


class StopAfter:
    """Sends this process a signal after a given step, as a scheduler or a user would."""

    def __init__(self, monkeypatch: Any, step: int, number: int) -> None:
        sound = loop.TrainingLoop._advance

        def advance(this: Any, made: Any) -> None:
            sound(this, made)
            if this.realised.total.steps == step:
                os.kill(os.getpid(), number)

        monkeypatch.setattr(loop.TrainingLoop, "_advance", advance)


def server_train(train: Callable[..., None], arguments: tuple[Any, ...], folder: Path, kills: int) -> None:
    """Kill a run, `train(*arguments, out)`, at random moments until it was killed so often; check its bytes then."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["xlift.training.run"])
    draw, reached, made, starts = random.Random(kills), [], 0, 0
    started = time.monotonic()
    reference = out_of(folder / "whole")
    process = context.Process(target=train, args=(*arguments, reference))
    process.start()
    process.join()
    needed = time.monotonic() - started
    assert process.exitcode == 0
    out = out_of(folder / "killed")
    while made < kills:
        starts += 1
        assert starts < 40, "the run never gets killed: it ends too early"
        process = context.Process(target=train, args=(*arguments, out))
        process.start()
        process.join(draw.uniform(0.3, 0.8) * needed)
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            made += 1
            whole = [path for path in states(out.parents[3]) if path.suffix == ".safetensors"]
            reached.append(max((read_state(path).facts["step"] for path in whole), default=0))
        else:
            assert process.exitcode == 0
            assert published(out) == published(reference)
            out = out_of(folder / f"killed{starts}")
            needed *= 0.7  # the machine has become faster since
    process = context.Process(target=train, args=(*arguments, out))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert published(out) == published(reference)
    assert max(reached) > 0, "every kill came before the first state was saved"
