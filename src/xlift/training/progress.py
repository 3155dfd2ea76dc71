"""What a run says on its way: an entry of log.jsonl every few steps, a line for readers every few seconds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

WINDOW = 100
"""A run's speed is the mean over so many of its last steps, so that it follows a machine that becomes busy."""
LINE_EVERY = 10.0
"""Seconds between two lines for readers."""


def speeds(step: int, steps: int, tokens_at: Sequence[int], seconds_at: Sequence[float]) -> dict[str, Any]:
    """How far a run is after a step, how fast, and what is left: fields of log.jsonl that docs/terminal.md describes.

    `tokens_at`, `seconds_at`: tokens trained on and seconds in the loop since the run's first step, by step.
    """
    before = max(step - WINDOW, 0)
    tokens, seconds = tokens_at[step - 1], seconds_at[step - 1]
    passed = seconds - (seconds_at[before - 1] if before else 0.0)
    trained = tokens - (tokens_at[before - 1] if before else 0)
    return {
        "step": step,
        "steps": steps,
        "tokens": tokens,
        "tokens_per_s": trained / passed,
        "seconds": seconds,
        "seconds_left": (steps - step) * passed / (step - before),
    }


def progress_line(entry: dict[str, Any]) -> str:
    """An entry for readers."""
    step, steps = entry["step"], entry["steps"]
    took = f"{duration(entry['seconds'])} in all" if step == steps else f"{duration(entry['seconds_left'])} left"
    return f"step {step}/{steps}  loss {entry['loss']:.4f}  {entry['tokens_per_s']:,.0f} tokens/s  {took}"


def duration(seconds: float) -> str:
    """A time in the unit that suits it: 12 s, 3.4 min, 5.6 h."""
    if seconds < 100:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


class Pace:
    """When to write a line for readers: with the first entry, then every `LINE_EVERY` seconds."""

    def __init__(self) -> None:
        self._last, self._spoke = time.monotonic(), False

    def due(self, at_entry: bool) -> bool:
        """Whether to write one now, where there is an entry of log.jsonl or not."""
        return (at_entry and not self._spoke) or time.monotonic() - self._last >= LINE_EVERY

    def spoken(self) -> None:
        """One was written."""
        self._last, self._spoke = time.monotonic(), True
