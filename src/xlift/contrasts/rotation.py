"""Gains of a (target, intermediate) pair, freed of fixed effects and rotated to where the parameters are.

In a pair in which every language has the same runs, what a run does to all languages and what a language scores
in all budgets of a seed are removed by centring; what is left is rotated, over languages into the direction of
the centred moderator and the rest, over checkpoints into the direction of the centred x and the rest. Both are
orthogonal, so nothing is lost. Languages that lack a run of their pair are left out of it, and counted.

Levels at a budget are the same with seeds as the runs and a constant 1 for x, which nothing is centred out of: the
direction of x is then the mean over seeds. For a mean over languages the moderator is a constant 1 too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from xlift.contrasts.clustered import FloatArray, IntArray, pair_codes

_FLAT = 1e-9  # moderators and log2 steps are of order one: a smaller spread is rounding


@dataclass(frozen=True)
class MixedData:
    """Gains as arrays. Codes need not be dense. All are [rows], `moderator` is [languages] by language code.

    Of a `difference` or a `mean` (levels at a budget) each row is the mean of a target's gains over its intermediate
    tasks, `averaged` in number, so that there is one code of `intermediate`, seeds are the checkpoints and x is 1.
    """

    outcome: FloatArray
    x: FloatArray  # log2 of the realised steps, the same for all rows of a checkpoint
    target: IntArray
    intermediate: IntArray
    seed: IntArray
    language: IntArray
    checkpoint: IntArray  # (intermediate, budget, seed)
    moderator: FloatArray
    shared_trunk: bool = False
    kind: Literal["slope", "difference", "mean"] = "slope"
    averaged: FloatArray | None = None  # gains that each row is the mean of; 1 where None


@dataclass(frozen=True)
class Pair:
    """What a (target, intermediate) pair says, after centring and rotation."""

    target: int
    intermediate: int
    languages: IntArray
    direction: FloatArray  # unit vector of the (centred) moderator, zero where it does not vary [languages]
    moderator_norm: float
    x_norm: float
    loadings: FloatArray  # centred runs on the task's run effects: checkpoints, then trunks [runs, effects]
    n_checkpoints: int  # of the task
    along_x: FloatArray  # unit vector of the centred x [runs]
    slope: float  # the outcome along both directions
    slopes: FloatArray  # the outcome along x, across the moderator [languages]
    tilts: FloatArray  # the outcome along the moderator, across x [runs]
    rest: float  # sum of squares of all else
    run_dimensions: int  # runs, minus seeds where starts are removed
    language_dimensions: int  # languages, minus 1 where what a run does to all of them is removed
    averaged: float  # gains that each row is the mean of

    @property
    def projector(self) -> FloatArray:
        """Onto what is across the moderator, of what is not removed. [languages, languages]"""
        size = self.languages.size
        removed = 1 / size if self.language_dimensions < size else 0.0
        return np.eye(size) - removed - np.outer(self.direction, self.direction)


def level_means(
    gain: FloatArray,
    target: IntArray,
    language: IntArray,
    seed: IntArray,
    moderator: FloatArray,
    kind: Literal["difference", "mean"],
) -> MixedData:
    """Means of the gains at one budget over a target's intermediate tasks; [rows], but moderator [languages]."""
    mean = pair_codes(pair_codes(target, language), seed)
    count = np.bincount(mean).astype(np.float64)
    first = np.unique(mean, return_index=True)[1]
    return MixedData(
        outcome=np.bincount(mean, gain) / count,
        x=np.ones(first.size),
        target=target[first],
        intermediate=np.zeros(first.size, dtype=np.int64),
        seed=seed[first],
        language=language[first],
        checkpoint=seed[first],
        moderator=moderator if kind == "difference" else np.ones_like(moderator),
        kind=kind,
        averaged=count,
    )


def rotated_pairs(rows: MixedData) -> tuple[list[Pair], int]:
    """The pairs that say something, and how many rows were left out as incomplete."""
    found = [_pair(rows, members) for members in _groups(rows.target, rows.intermediate)]
    return [pair for pair, _ in found if pair is not None], sum(dropped for _, dropped in found)


def _groups(first: IntArray, second: IntArray) -> list[IntArray]:
    """Row numbers of each pair of codes, in the order of the codes."""
    order = np.lexsort((second, first))
    change = np.flatnonzero((np.diff(first[order]) != 0) | (np.diff(second[order]) != 0)) + 1
    return [part.astype(np.int64) for part in np.split(order, change) if part.size]


def _pair(rows: MixedData, members: IntArray) -> tuple[Pair | None, int]:
    """A rotated pair, None where it says nothing, and how many rows were left out as incomplete."""
    runs, run = np.unique(rows.checkpoint[members], return_inverse=True)
    languages, language = np.unique(rows.language[members], return_inverse=True)
    outcome = np.full((languages.size, runs.size), np.nan)
    outcome[language, run] = rows.outcome[members]
    complete = ~np.isnan(outcome).any(axis=1)
    dropped = int(np.count_nonzero(~np.isnan(outcome[~complete])))
    outcome, languages = outcome[complete], languages[complete]
    x, seed = np.zeros(runs.size), np.zeros(runs.size, dtype=np.int64)
    x[run], seed[run] = rows.x[members], np.unique(rows.seed[members], return_inverse=True)[1]
    start = seed if rows.kind == "slope" else None
    centred = _centred(x, start)
    x_norm = float(np.linalg.norm(centred))
    is_mean = rows.kind == "mean"
    language_dimensions = languages.size - (not is_mean)
    if language_dimensions < 1 or x_norm <= _FLAT:
        return None, dropped
    outcome = _centred(outcome, start)
    along_x = centred / x_norm
    moderator = rows.moderator[languages]
    if not is_mean:
        outcome = outcome - outcome.mean(axis=0)
        moderator = moderator - moderator.mean()
    norm = float(np.linalg.norm(moderator))
    norm = norm if norm > _FLAT else 0.0
    direction = moderator / norm if norm else np.zeros_like(moderator)
    slopes, tilts = outcome @ along_x, direction @ outcome
    slope = float(tilts @ along_x)
    slopes, tilts = slopes - slope * direction, tilts - slope * along_x
    rest = float(np.sum(outcome**2) - slope**2 - slopes @ slopes - tilts @ tilts)
    task = int(rows.intermediate[members[0]])
    loadings, n_checkpoints = _loadings(rows, task, runs, start)
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
        run_dimensions=runs.size - (0 if start is None else np.unique(seed).size),
        language_dimensions=language_dimensions,
        averaged=1.0 if rows.averaged is None else float(rows.averaged[members[0]]),
    )
    return pair, dropped


def _loadings(rows: MixedData, task: int, runs: IntArray, start: IntArray | None) -> tuple[FloatArray, int]:
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
    return _centred(columns.T, start).T, every.size


def _centred(values: FloatArray, seed: IntArray | None) -> FloatArray:
    """Values minus their mean over the runs of a seed, if seeds are given, along the last axis. [..., runs]"""
    if seed is None:
        return values
    indicator = (seed[:, None] == np.arange(seed.max() + 1)).astype(np.float64)
    return values - (values @ indicator / indicator.sum(axis=0)) @ indicator.T
