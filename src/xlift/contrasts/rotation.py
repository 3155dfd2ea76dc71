"""Gains of a (target, intermediate) pair, freed of fixed effects and rotated to where the parameters are.

In a pair in which every language has the same runs, what a run does to all languages and what a language scores
in all budgets of a seed are removed by centring; what is left is rotated, over languages into the direction of
the centred moderator and the rest, over checkpoints into the direction of the centred x and the rest. Both are
orthogonal, so nothing is lost. Languages that lack a run of their pair are left out of it, and counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xlift.contrasts.clustered import FloatArray, IntArray

_FLAT = 1e-9  # moderators and log2 steps are of order one: a smaller spread is rounding


@dataclass(frozen=True)
class SlopeData:
    """Gains as arrays. Codes need not be dense. All are [rows], `moderator` is [languages] by language code."""

    outcome: FloatArray
    x: FloatArray  # log2 of the realised steps, the same for all rows of a checkpoint
    target: IntArray
    intermediate: IntArray
    seed: IntArray
    language: IntArray
    checkpoint: IntArray  # (intermediate, budget, seed)
    moderator: FloatArray
    shared_trunk: bool = False


@dataclass(frozen=True)
class Pair:
    """What a (target, intermediate) pair says, after centring and rotation."""

    target: int
    intermediate: int
    languages: IntArray
    direction: FloatArray  # unit vector of the centred moderator, zero where it does not vary [languages]
    moderator_norm: float
    x_norm: float
    loadings: FloatArray  # centred runs on the task's run effects: checkpoints, then trunks [runs, effects]
    n_checkpoints: int  # of the task
    along_x: FloatArray  # unit vector of the centred x [runs]
    slope: float  # the outcome along both directions
    slopes: FloatArray  # the outcome along x, across the moderator [languages]
    tilts: FloatArray  # the outcome along the moderator, across x [runs]
    rest: float  # sum of squares of all else
    run_dimensions: int  # runs - seeds


def rotated_pairs(rows: SlopeData) -> tuple[list[Pair], int]:
    """The pairs that say something of slopes, and how many rows were left out as incomplete."""
    found = [_pair(rows, members) for members in _groups(rows.target, rows.intermediate)]
    return [pair for pair, _ in found if pair is not None], sum(dropped for _, dropped in found)


def _groups(first: IntArray, second: IntArray) -> list[IntArray]:
    """Row numbers of each pair of codes, in the order of the codes."""
    order = np.lexsort((second, first))
    change = np.flatnonzero((np.diff(first[order]) != 0) | (np.diff(second[order]) != 0)) + 1
    return [part.astype(np.int64) for part in np.split(order, change) if part.size]


def _pair(rows: SlopeData, members: IntArray) -> tuple[Pair | None, int]:
    """A rotated pair, None where it says nothing of slopes, and how many rows were left out as incomplete."""
    runs, run = np.unique(rows.checkpoint[members], return_inverse=True)
    languages, language = np.unique(rows.language[members], return_inverse=True)
    outcome = np.full((languages.size, runs.size), np.nan)
    outcome[language, run] = rows.outcome[members]
    complete = ~np.isnan(outcome).any(axis=1)
    dropped = int(np.count_nonzero(~np.isnan(outcome[~complete])))
    outcome, languages = outcome[complete], languages[complete]
    x, seed = np.zeros(runs.size), np.zeros(runs.size, dtype=np.int64)
    x[run], seed[run] = rows.x[members], np.unique(rows.seed[members], return_inverse=True)[1]
    centred = _centred(x, seed)
    x_norm = float(np.linalg.norm(centred))
    if languages.size < 2 or x_norm <= _FLAT:
        return None, dropped
    outcome = _centred(outcome, seed)
    outcome = outcome - outcome.mean(axis=0)
    along_x = centred / x_norm
    moderator = rows.moderator[languages] - rows.moderator[languages].mean()
    norm = float(np.linalg.norm(moderator))
    norm = norm if norm > _FLAT else 0.0
    direction = moderator / norm if norm else np.zeros_like(moderator)
    slopes, tilts = outcome @ along_x, direction @ outcome
    slope = float(tilts @ along_x)
    slopes, tilts = slopes - slope * direction, tilts - slope * along_x
    rest = float(np.sum(outcome**2) - slope**2 - slopes @ slopes - tilts @ tilts)
    task = int(rows.intermediate[members[0]])
    loadings, n_checkpoints = _loadings(rows, task, runs, seed)
    pair = Pair(
        target=int(rows.target[members[0]]),
        intermediate=task,
        languages=languages,
        direction=direction,
        moderator_norm=norm,
        x_norm=x_norm,
        loadings=loadings,
        n_checkpoints=n_checkpoints,
        along_x=along_x,
        slope=slope,
        slopes=slopes,
        tilts=tilts,
        rest=max(rest, 0.0),
        run_dimensions=runs.size - np.unique(seed).size,
    )
    return pair, dropped


def _loadings(rows: SlopeData, task: int, runs: IntArray, seed: IntArray) -> tuple[FloatArray, int]:
    """Runs on the effects of all checkpoints of the task, then of its trunks, centred; how many are checkpoints."""
    inside = rows.intermediate == task
    every = np.unique(rows.checkpoint[inside])
    columns = (runs[:, None] == every).astype(np.float64)
    if rows.shared_trunk:
        x, own = np.zeros(every.size), np.zeros(every.size, dtype=np.int64)
        place = np.searchsorted(every, rows.checkpoint[inside])
        x[place], own[place] = rows.x[inside], rows.seed[inside]
        trunks = (own[:, None] == np.unique(own)) * x[:, None]
        columns = np.hstack([columns, columns @ trunks])
    return _centred(columns.T, seed).T, every.size


def _centred(values: FloatArray, seed: IntArray) -> FloatArray:
    """Values minus their mean over the runs of a seed, along the last axis. [..., runs]"""
    indicator = (seed[:, None] == np.arange(seed.max() + 1)).astype(np.float64)
    return values - (values @ indicator / indicator.sum(axis=0)) @ indicator.T
