"""Contrasts of reweighted gains: what a bootstrap draw or a permutation needs, without touching rows again.

Every contrast is linear in the gains given the weights, and its design separates into (target, intermediate)
pairs. Within a pair a language has a weight N (its gains against x for a slope, their sum for a level) and a
precision D (the spread of its x, or the number of its gains), both sums over runs. With language weights m and
moderator z the pair contributes

    A = sum_l m_l (z_l - zbar) N_l,    B = sum_l m_l D_l (z_l - zbar)^2,    zbar = sum_l m_l D_l z_l / sum_l m_l D_l,

and the estimate over any set of pairs is sum A / sum B: exactly the weighted least squares of `clustered.py`'s
designs, also where cells are missing. A draw that weights runs changes N and D by a matrix product; one that weights
languages changes m; a permutation changes z.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from xlift.contrasts.clustered import FloatArray, IntArray, pair_codes
from xlift.contrasts.contrast import Contrast
from xlift.contrasts.table import GainTable, Scope

_TINY = 1e-12


@dataclass(frozen=True)
class PairGrid:
    """The gains of one (target, intermediate) pair as matrices of runs by languages; absent ones are 0 in all."""

    target: int
    intermediate: int
    run: IntArray  # [runs] run cluster, a code of the table
    seed: IntArray  # [runs]
    budget: IntArray  # [runs]
    language: IntArray  # [languages] a code of the table
    there: FloatArray  # [runs, languages] 1 or 0
    x: FloatArray  # [runs, languages], centred over the pair
    treated: FloatArray  # [runs, languages]
    baseline: FloatArray  # [runs, languages]


def pair_grids(table: GainTable) -> Iterator[PairGrid]:
    """The pairs of a table that have a defined gain, in order of their codes."""
    rows = np.flatnonzero(table.defined)
    pair = table.target[rows] * len(table.intermediates) + table.intermediate[rows]
    order = np.argsort(pair, kind="stable")
    for part in np.split(rows[order], np.flatnonzero(np.diff(pair[order])) + 1):
        if not part.size:
            continue
        checkpoint = pair_codes(table.budget[part], table.seed[part])
        language, column = np.unique(table.language[part], return_inverse=True)
        first = np.unique(checkpoint, return_index=True)[1]
        shape = (first.size, language.size)

        def matrix(values: FloatArray, place: tuple[IntArray, IntArray], shape: tuple[int, int]) -> FloatArray:
            filled = np.zeros(shape)
            filled[place] = values
            return filled

        place = (checkpoint, column.astype(np.int64))
        x = table.x[part] - table.x[part].mean()
        yield PairGrid(
            target=int(table.target[part[0]]),
            intermediate=int(table.intermediate[part[0]]),
            run=table.run[part][first],
            seed=table.seed[part][first],
            budget=table.budget[part][first],
            language=language,
            there=matrix(np.ones(part.size), place, shape),
            x=matrix(x, place, shape),
            treated=matrix(table.treated[part], place, shape),
            baseline=matrix(table.baseline[part], place, shape),
        )


def slope_moments(weights: FloatArray, grid: PairGrid, outcome: FloatArray) -> tuple[FloatArray, FloatArray]:
    """N and D of each language for slopes. [draws, languages], [draws, languages]

    Args:
        weights: of the pair's runs. [draws, runs]
        outcome: [runs, languages], 0 where a gain is absent.
    """
    number, total_x, total_y = weights @ grid.there, weights @ grid.x, weights @ outcome
    inverse = np.divide(1.0, number, out=np.zeros_like(number), where=number > 0)
    squares = weights @ grid.x**2
    spread = squares - total_x**2 * inverse
    product = weights @ (grid.x * outcome) - total_x * total_y * inverse
    flat = spread <= _TINY * np.maximum(squares, 1.0)  # rounding: x does not vary for this language
    return np.where(flat, 0.0, product), np.where(flat, 0.0, spread)


def level_moments(
    weights: FloatArray, grid: PairGrid, outcome: FloatArray, budget: int | None
) -> tuple[FloatArray, FloatArray]:
    """N and D of each language for levels at a budget: sums and numbers. [draws, languages], [draws, languages]"""
    at = np.ones(grid.budget.size, dtype=bool) if budget is None else grid.budget == budget
    return weights[:, at] @ outcome[at], weights[:, at] @ grid.there[at]


def contributions(
    product: FloatArray, precision: FloatArray, moderator: FloatArray, weight: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """A and B of a pair. [draws], [draws]

    Args:
        product, precision: N and D. [draws or 1, languages]
        moderator: z. [draws or 1, languages]
        weight: m; 0 for languages that take no part. [draws or 1, languages]
    """
    precision = weight * precision
    leaning = (precision * moderator).sum(axis=1)
    total = np.broadcast_to(precision.sum(axis=1), leaning.shape)
    centre = np.divide(leaning, total, out=np.zeros_like(leaning), where=total > 0)
    away = moderator - centre[:, None]
    a = (weight * away * product).sum(axis=1)
    b = (precision * away**2).sum(axis=1)
    identified = b > _TINY * np.maximum(total, _TINY)
    return np.where(identified, a, 0.0), np.where(identified, b, 0.0)


def mean_of_pair(product: FloatArray, number: FloatArray, weight: FloatArray) -> FloatArray:
    """The weighted mean gain of a pair; NaN in draws that have none of its languages. [draws]"""
    sums, totals = (weight * product).sum(axis=1), (weight * number).sum(axis=1)
    return np.divide(sums, totals, out=np.full_like(sums, np.nan), where=totals > 0)


def pairs_inside(targets: IntArray, intermediates: IntArray, scope: Scope) -> IntArray:
    """Which of the pairs with these codes a scope has. [pairs inside]"""
    keep = np.ones(targets.size, dtype=bool)
    if scope.target is not None:
        keep &= targets == scope.target
    if scope.intermediate is not None:
        keep &= intermediates == scope.intermediate
    return np.flatnonzero(keep)


def what(contrast: Contrast) -> tuple[str, str, int | None]:
    """What contrasts share per-pair sums: everything but targets and intermediate tasks of the scope."""
    return contrast.estimand, contrast.kind, contrast.scope.budget
