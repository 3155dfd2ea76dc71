"""Hierarchical bootstrap over languages and training runs: a check of the clustered intervals without formulas.

A draw reweights languages and runs independently (the pigeonhole bootstrap of crossed factors; Owen 2007, Annals of
Applied Statistics 1:386, who shows that it errs to the wide side, by counting the noise of single cells more than
once). What is drawn:

- intermediate checkpoints, with replacement among the seeds of the same intermediate task and budget, so that every
  draw has the same budgets; a checkpoint carries its gains at every target and language. Where budgets share a trunk,
  trunks among the seeds of their task;
- baseline runs, among the seeds, once a draw for the whole study: the baseline part of a gain (`scales.py`) follows
  them, the treated part follows the checkpoints. So the noise of a baseline stays common to all gains that it is
  subtracted from;
- languages: among all seen ones for beta, whose z goes along with them; within each stratum for the contrasts of
  strata and for means, whose strata are given.

From n units n - 1 are drawn and weigh n / (n - 1) each (Rao & Wu 1988, JASA 83:231): the plain bootstrap, n of n,
has a variance too small by (n - 1) / n, which at 3 seeds is a third. A single unit cannot be drawn and stays as it is;
a contrast that rests on one has no interval here, as it has none by the clustered method.

The interval is of percentiles. The estimates are linear in gains, so that draws are near symmetric and without bias:
BCa would correct for what is not there with two more estimated numbers. p is twice the smaller share of draws on one
side of 0, counting the estimate as one draw more. Both lean on as few units as there are: with 3 seeds or 5
low-resource languages percentiles are shorter than t intervals. Measurement noise of items is in both levels already:
a language's draw carries its own test set, a run's its own predictions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from xlift.contrasts.clustered import FloatArray, IntArray
from xlift.contrasts.contrast import FEW_SEEDS, Contrast, Prepared
from xlift.contrasts.moments import (
    PairGrid,
    contributions,
    level_moments,
    mean_of_pair,
    pair_grids,
    pairs_inside,
    slope_moments,
    what,
)
from xlift.contrasts.rows import BETA, Row, joined
from xlift.contrasts.table import GainTable

METHOD = "bootstrap"
SEED = 20260701
CHUNK = 500
"""Draws at a time: memory stays small whatever their number."""
_MOST_EMPTY = 0.05


@dataclass(frozen=True)
class Weights:
    """Weights of draws: of run clusters, baseline runs (seeds), and languages in two ways."""

    run: FloatArray  # [draws, run clusters]
    seed: FloatArray  # [draws, seeds]
    seen: FloatArray  # [draws, languages], drawn among all seen languages
    stratum: FloatArray  # [draws, languages], drawn within strata


def draw_weights(table: GainTable, draws: int, generator: np.random.Generator) -> Weights:
    """Weights of `draws` draws; each row of each kind has the sum of the number of units it draws among."""
    first = np.unique(table.run, return_index=True)[1]
    budget = np.zeros_like(table.budget) if table.settings.shared_trunk else table.budget
    group = table.intermediate[first] * (len(table.budgets) + 1) + budget[first]
    # Languages without any gain yet are no units that could be drawn.
    there = np.isin(np.arange(table.strata.size), table.language)
    seen = np.where(there, np.where(np.isfinite(table.resource), 0, 1), 2)
    strata = np.where(there, np.unique(table.strata, return_inverse=True)[1], table.strata.size)
    return Weights(
        run=resampled(group, draws, generator),
        seed=resampled(np.zeros(int(table.seed.max()) + 1, dtype=np.int64), draws, generator),
        seen=resampled(seen, draws, generator),
        stratum=resampled(strata, draws, generator),
    )


def resampled(group: IntArray, draws: int, generator: np.random.Generator) -> FloatArray:
    """Rao and Wu's weights: n - 1 of a group's n units with replacement, times n / (n - 1). [draws, units]"""
    weights = np.ones((draws, group.size))
    for code in np.unique(group):
        members = np.flatnonzero(group == code)
        n = members.size
        if n > 1:
            counts = generator.multinomial(n - 1, np.full(n, 1 / n), size=draws)
            weights[:, members] = counts * (n / (n - 1))
    return weights


def bootstrap_estimates(table: GainTable, contrasts: Sequence[Contrast], weights: Weights) -> FloatArray:
    """Estimates of every contrast in every draw; NaN where a draw leaves nothing to compare. [draws, contrasts]"""
    grids = list(pair_grids(table))
    targets = np.array([grid.target for grid in grids], dtype=np.int64)
    intermediates = np.array([grid.intermediate for grid in grids], dtype=np.int64)
    shared = {what(contrast): contrast for contrast in contrasts}
    draws = weights.run.shape[0]
    sums = {key: np.zeros((4, draws, len(grids))) for key in shared}
    for index, grid in enumerate(grids):
        _fill(grid, shared, weights, sums, index, has_baseline=bool(np.any(grid.baseline)))
    estimates = np.full((draws, len(contrasts)), np.nan)
    for index, contrast in enumerate(contrasts):
        inside = pairs_inside(targets, intermediates, contrast.scope)
        values = sums[what(contrast)][:, :, inside]
        if contrast.kind == "mean":
            there = np.isfinite(values[0])
            number = there.sum(axis=1)
            difference = np.where(there, values[0] - np.nan_to_num(values[2]), 0.0).sum(axis=1)
            estimates[:, index] = np.divide(difference, number, out=estimates[:, index], where=number > 0)
        else:
            parts = []
            for a, b in ((values[0], values[1]), (values[2], values[3])):
                top, bottom = a.sum(axis=1), b.sum(axis=1)
                parts.append(np.divide(top, bottom, out=np.full(draws, np.nan), where=bottom > 0))
            # No weight on the baselines' part is no baseline noise; no weight on the treated part is no estimate.
            estimates[:, index] = parts[0] - np.nan_to_num(parts[1])
    return estimates


def _fill(
    grid: PairGrid,
    shared: dict[tuple[str, str, int | None], Contrast],
    weights: Weights,
    sums: dict[tuple[str, str, int | None], FloatArray],
    index: int,
    has_baseline: bool,
) -> None:
    """Put a pair's sums in their place: numerators and denominators of the treated and the baseline part."""
    parts = [(0, weights.run[:, grid.run], grid.treated)]
    if has_baseline:
        parts.append((2, weights.seed[:, grid.seed], grid.baseline))
    for place, by_run, outcome in parts:
        slopes = slope_moments(by_run, grid, outcome) if any(key[1] == "slope" for key in shared) else None
        levels: dict[int | None, tuple[FloatArray, FloatArray]] = {}
        for key, contrast in shared.items():
            budget = contrast.scope.budget
            if contrast.kind == "slope":
                moments = slopes
            else:
                if budget not in levels:
                    levels[budget] = level_moments(by_run, grid, outcome, budget)
                moments = levels[budget]
            if moments is None:
                continue
            own = weights.seen if contrast.estimand == BETA else weights.stratum
            weight = own[:, grid.language] * contrast.relevant[grid.language]
            if contrast.kind == "mean":
                sums[key][place, :, index] = mean_of_pair(*moments, weight)
            else:
                moderator = contrast.moderator[grid.language][None, :]
                sums[key][place : place + 2, :, index] = contributions(*moments, moderator, weight)


def bootstrap_rows(table: GainTable, prepared: Sequence[Prepared], clustered: Sequence[Row]) -> list[Row]:
    """The bootstrap's rows of contrasts, beside their rows by the clustered method."""
    chosen = [k for k, each in enumerate(prepared) if each.design is not None]
    rows = [each.row(table, METHOD) for each in prepared]
    if not chosen:
        return rows
    contrasts = [prepared[k].contrast for k in chosen]
    generator = np.random.default_rng(SEED)
    draws = table.settings.bootstrap_draws
    sizes = [min(CHUNK, draws - start) for start in range(0, draws, CHUNK)]
    parts = [bootstrap_estimates(table, contrasts, draw_weights(table, size, generator)) for size in sizes]
    estimates = np.concatenate(parts)
    for column, k in enumerate(chosen):
        rows[k] = _row(table, rows[k], clustered[k], estimates[:, column], prepared[k].few_seeds(table))
    return rows


def _row(table: GainTable, row: Row, clustered: Row, values: FloatArray, few_seeds: bool) -> Row:
    row = replace(row, estimate=clustered.estimate)
    if few_seeds:
        return replace(row, note=joined(row.note, FEW_SEEDS))
    if clustered.se is None or clustered.estimate is None:  # a single cluster, or no variation: the same holds here
        return replace(row, note=clustered.note)
    whole = values[np.isfinite(values)]
    empty = values.size - whole.size
    if empty > _MOST_EMPTY * values.size:
        why = f"{empty} of {values.size} draws leave nothing to compare: no interval or p-value"
        return replace(row, note=joined(row.note, why))
    tail = 50 * (1 - table.settings.confidence)
    low, high = np.percentile(whole, [tail, 100 - tail])
    below, above = np.count_nonzero(whole <= 0), np.count_nonzero(whole >= 0)
    p = min(1.0, 2 * (min(below, above) + 1) / (whole.size + 1))
    note = f"{empty} of {values.size} draws leave nothing to compare" if empty else ""
    return replace(
        row,
        se=float(whole.std(ddof=1)),
        ci_low=float(low),
        ci_high=float(high),
        p=float(p),
        note=joined(row.note, note),
    )
