"""Learning rate over a run."""

from __future__ import annotations

import math


def learning_rate(step: int, steps: int, peak: float, warmup: float) -> float:
    """Rate of optimiser step `step` (0-based) of `steps`: linear rise over a share `warmup`, then linear fall to 0.

    The first step after the rise has the peak rate and the last step a rate above 0.
    """
    rise = math.ceil(warmup * steps)
    if step < rise:
        return peak * (step + 1) / (rise + 1)
    return peak * (steps - step) / (steps - rise)
