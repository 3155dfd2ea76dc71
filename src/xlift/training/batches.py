"""Which examples each optimiser step sees: exactly the batch size, drawn by the seed, of like length."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from xlift.budgets import unique_examples

POOL_BATCHES = 16
"""Batches cut from one length-sorted pool at most: larger pads less, smaller is more random."""


def training_subset(examples: Tensor, fraction: float, seed: int) -> Tensor:
    """The share `fraction` of the examples that a run draws from, rounded up to whole ones, in order.

    Of one seed, a smaller share lies in a larger one.
    """
    if fraction == 1:
        return examples
    order = np.random.Generator(np.random.PCG64([seed, 0x5B5E7])).permutation(len(examples))
    kept = np.sort(order[: unique_examples(fraction, len(examples))])
    return examples[torch.from_numpy(kept)]


def plan_batches(examples: Tensor, lengths: Tensor, batch_size: int, steps: int, seed: int) -> Iterator[Tensor]:
    """Examples of each of `steps` optimiser steps, `batch_size` each.

    An endless stream of shuffled passes over `examples` is cut into pools; each pool is sorted by length and cut into
    batches, whose order is shuffled. A pool is no larger than one pass, so that no example is seen a third time before
    each was seen once; a batch larger than one pass repeats examples. `lengths` [examples] are the given examples'.
    Depends on the arguments only, and a longer run begins with the batches of a shorter one.
    """
    if len(examples) == 0:
        raise ValueError("no training examples")
    generator = np.random.Generator(np.random.PCG64([seed, 0xBA7C4]))
    pool_batches = max(1, min(POOL_BATCHES, len(examples) // batch_size))
    order = np.empty(0, dtype=np.int64)
    made = 0
    while made < steps:
        # The last pool is not cut short: a longer run then begins with the very batches of a shorter one.
        wanted = pool_batches * batch_size
        while len(order) < wanted:
            order = np.concatenate([order, generator.permutation(len(examples))])
        pool, order = order[:wanted], order[wanted:]
        pool = pool[np.argsort(lengths.numpy()[pool], kind="stable")]
        for index in generator.permutation(pool_batches):
            if made == steps:
                return
            yield examples[torch.from_numpy(pool[index * batch_size : (index + 1) * batch_size].copy())]
            made += 1
