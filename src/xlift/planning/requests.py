"""What a training or prediction job asks a scheduler for, from what it is planned to cost.

Sizes are asked for before anything has run, so they rest on the stated rates of `costs` and not on finished runs: on
the slow side, for a job that asks for too much waits a little longer, and one that asked for too little is killed.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from xlift.errors import UserError
from xlift.grid import Grid
from xlift.planning.costs import RATES, VOCABULARY, CostModel
from xlift.planning.dag import Job
from xlift.planning.evidence import Evidence
from xlift.planning.plan import encoder_shape
from xlift.runs import Cell, Intermediate

SLOWEST_GPU = "t4"
"""What the partition's GPU is taken for where the profile does not say."""
FLOOR_MINUTES = 20
"""Least that is asked for: a job starts Python twice and reads the encoder, on a file system that may be slow, and its
run is told to save five minutes before the limit."""
MARGIN = 3.0
"""Asked for, as a multiple of what is planned."""
BASE_MB = 2000
"""Memory of Python, torch and a device's libraries."""
COPIES = {"lora": 3, "full": 6}
"""Host memory as a multiple of the encoder's fp32 weights: they are read and converted; with full fine-tuning the
gradients, the optimiser's moments and the copy of a state that is being saved come on top."""


class Requests:
    """Sizes of a study's jobs on a partition of one kind of device (a name in `RATES`; None: not known)."""

    def __init__(self, grid: Grid, results: Path, device: str | None) -> None:
        chosen = (device or SLOWEST_GPU).lower()
        if chosen not in RATES:
            raise UserError(
                f"profile: default-resources: device: {device!r} is not known; use one of {', '.join(sorted(RATES))}"
            )
        shape, _ = encoder_shape(grid, results)
        self._model = CostModel(grid, Evidence((), (), ()), shape, chosen, RATES[chosen])
        self._memory = BASE_MB + COPIES[grid.study.trainable.method] * math.ceil(
            4 * (shape.linear_parameters + VOCABULARY * shape.hidden) / 1e6
        )

    def minutes(self, rule: str, of: Intermediate | Cell, attempt: int) -> int:
        """Minutes of a training or prediction job; twice as many at every further attempt."""
        run, cell = (of.intermediate, of) if isinstance(of, Cell) else (of, None)
        seconds = self._model.estimate(Job(rule, "", None, run=run, cell=cell)).seconds
        return int(math.ceil(max(FLOOR_MINUTES, MARGIN * seconds / 60)) * 2 ** (attempt - 1))

    def memory_mb(self, attempt: int) -> int:
        """MB of host memory; as much again at every further attempt."""
        return self._memory * attempt


def partition_device(workflow: Any) -> str | None:
    """The partition's device as a profile's `default-resources` have it, in Snakemake's workflow object."""
    resources = workflow.resource_settings.default_resources
    found = None if resources is None else resources.get("device")
    return None if found is None or found.raw is None else str(found.raw).strip("'\"")
