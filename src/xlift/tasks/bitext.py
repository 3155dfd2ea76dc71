"""Bitext mining: which source and target sentences of two collections are translations of one another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xlift.tasks.search import search

NEIGHBOURS = 4
"""Neighbours in the other collection that a pair is measured against (Artetxe and Schwenk 2019; LASER, XTREME)."""


@dataclass(frozen=True)
class Mined:
    """A candidate pair: places of source and target sentence, and its margin."""

    source: int
    target: int
    margin: float


def mine(
    sources: Tensor, targets: Tensor, source_texts: Sequence[str], target_texts: Sequence[str], k: int = NEIGHBOURS
) -> list[Mined]:
    """Candidate pairs, best first; a sentence is in one of them at most.

    The margin of a pair is its similarity over the mean of the similarities that both have with their `k` nearest
    neighbours in the other collection (ratio margin; Artetxe and Schwenk 2019, arXiv 1811.01136). Each sentence of
    either side proposes the one of its `k` neighbours with the largest margin, and proposals are taken in the order of
    their margins while both sentences are free ("max" retrieval), as XTREME's `utils_retrieve.py` does for BUCC 2018.
    As there, a text that a collection holds twice counts once as a neighbour, and is in no pair: which of its sentences
    would be meant is not known. `sources` [n, size] and `targets` [m, size]: normalised vectors; texts, one a vector.
    """
    source_rows, target_rows = _first_rows(source_texts), _first_rows(target_texts)
    x, y = sources[torch.tensor(source_rows)], targets[torch.tensor(target_rows)]
    forward, backward = search(x, y, k), search(y, x, k)
    near = {"forward": forward.similarity.double().numpy(), "backward": backward.similarity.double().numpy()}
    means = near["forward"].mean(1), near["backward"].mean(1)
    proposals = [
        (i, j, margin)
        for i, (j, margin) in enumerate(_proposed(forward.places.numpy(), near["forward"], means[0], means[1]))
    ] + [
        (i, j, margin)
        for j, (i, margin) in enumerate(_proposed(backward.places.numpy(), near["backward"], means[1], means[0]))
    ]
    twice_source, twice_target = _repeated(source_texts), _repeated(target_texts)
    used: tuple[set[int], set[int]] = (set(), set())
    found = []
    for i, j, margin in sorted(proposals, key=lambda proposal: -proposal[2]):
        if i in used[0] or j in used[1]:
            continue
        used[0].add(i)
        used[1].add(j)
        source, target = source_rows[i], target_rows[j]
        if source_texts[source] not in twice_source and target_texts[target] not in twice_target:
            found.append(Mined(source, target, margin))
    return found


def _first_rows(texts: Sequence[str]) -> list[int]:
    """Place of the first of each different text, in order."""
    first: dict[str, int] = {}
    for row, text in enumerate(texts):
        first.setdefault(text, row)
    return list(first.values())


def _repeated(texts: Sequence[str]) -> set[str]:
    return {text for text, times in Counter(texts).items() if times > 1}


def _proposed(
    places: NDArray[np.int64],
    similarity: NDArray[np.float64],
    own_mean: NDArray[np.float64],
    other_mean: NDArray[np.float64],
) -> list[tuple[int, float]]:
    """The neighbour with the largest margin of each sentence (the more similar one of equals), and that margin."""
    margins = similarity / ((own_mean[:, None] + other_mean[places]) / 2)
    best = margins.argmax(1)
    rows = np.arange(len(places))
    return list(zip(places[rows, best].tolist(), margins[rows, best].tolist(), strict=True))
