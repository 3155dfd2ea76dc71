"""Learning rate over a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Schedule:
    """A linear rise over `warmup_steps`, the peak up to step `hold_until`, a linear fall to 0 at `steps`.

    A run with its own full decay falls right after its rise; a trunk is cut off before it falls; a branch of it falls
    from its branching point (Hägele et al., 2024, arXiv 2405.18392).
    """

    peak: float
    steps: int
    warmup_steps: int
    hold_until: int

    def rate(self, step: int) -> float:
        """Rate of optimiser step `step` (0-based): above 0 from the first to the last."""
        if step < self.warmup_steps:
            return self.peak * (step + 1) / (self.warmup_steps + 1)
        if step < self.hold_until:
            return self.peak
        return self.peak * (self.steps - step) / (self.steps - self.hold_until)


def schedule_of(specification: Mapping[str, Any]) -> Schedule:
    """The schedule in a run's specification: `linear`, `constant` (a trunk's segment) or `cooldown` (a branch)."""
    recipe, schedule = specification["recipe"], specification["schedule"]
    steps, warmup = recipe["steps"], schedule["warmup_steps"]
    hold = {"linear": warmup, "constant": steps, "cooldown": schedule.get("branch")}[schedule["kind"]]
    return Schedule(recipe["learning_rate"], steps, warmup, hold)
