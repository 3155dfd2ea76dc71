"""What the device computes in each optimiser step: micro-batches under a token cap, made while it works."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from xlift.tasks.encoded import Batch, Encoded, collate, token_capped
from xlift.tasks.family import Objective

AHEAD = 2
"""Steps prepared before they are needed."""


@dataclass(frozen=True)
class Step:
    """One optimiser step: its examples, the terms of its loss, the batches that hold them, its part of the run."""

    examples: int
    units: int
    batches: list[Batch]
    part: int = 0


class Feed:
    """Turns the examples of a step into batches of like length that compute at most `cap` token positions each.

    An example with more positions is alone; a family that needs all sequences of a step at once gets one batch.
    """

    def __init__(self, family: Objective, encoded: Encoded, pad_id: int, cap: int) -> None:
        self._family, self._pad_id, self._cap = family, pad_id, cap
        self._sizes = _Sizes.of(family, encoded)

    def step(self, chosen: Tensor, draw: Sequence[int]) -> Step:
        """The step that sees the examples `chosen`; what is drawn anew for it depends on `draw` alone."""
        before = self._sizes.encoded
        generator = np.random.Generator(np.random.PCG64([*draw, 0xD2A3]))
        encoded, places = self._family.drawn(before, chosen, generator)
        sizes = self._sizes if encoded is before else _Sizes.of(self._family, encoded)
        if self._family.whole_batch:
            groups = [places]
        else:
            counts = sizes.first[places + 1] - sizes.first[places]
            groups = [places[index] for index in token_capped(sizes.longest[places], counts, self._cap)]
        batches = [collate(encoded, self._family.sequences(encoded, group), self._pad_id) for group in groups]
        return Step(len(places), int(sizes.units[places].sum()), batches)


@dataclass(frozen=True)
class _Sizes:
    """Examples, and of each its loss terms, the tokens of its longest sequence and the place of its first one."""

    encoded: Encoded
    units: Tensor
    longest: Tensor
    first: Tensor

    @classmethod
    def of(cls, family: Objective, encoded: Encoded) -> _Sizes:
        return cls(encoded, family.units(encoded), example_lengths(encoded), encoded.first_sequence())


def example_lengths(encoded: Encoded) -> Tensor:
    """Tokens of each example's longest sequence [examples]."""
    return torch.zeros(len(encoded.split), dtype=torch.int64).scatter_reduce(0, encoded.owner, encoded.lengths, "amax")


def pinned(steps: Iterable[Step]) -> Iterator[Step]:
    """The steps with their batches in page-locked memory."""
    for step in steps:
        yield replace(step, batches=[batch.pinned() for batch in step.batches])


def prefetched(steps: Iterable[Step]) -> Iterator[Step]:
    """The same steps in the same order, prepared by a thread while the caller computes; its errors are raised here."""
    ready: queue.Queue[Step | BaseException | None] = queue.Queue(AHEAD)
    stopped = threading.Event()

    def put(item: Step | BaseException | None) -> bool:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for step in steps:
                if not put(step):
                    return
        except BaseException as error:
            put(error)
        else:
            put(None)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()
