"""Permutation tests: could the resource level be dealt to other languages and give as large a contrast?

- beta: z is exchanged among languages of the same script (`Language.script`), so that no difference between scripts
  can pass for one of resource. A language alone in its script keeps its z; it has part in the estimate, not in the
  test. The statistic is the estimate's distance from its mean over all arrangements, which is the part of it that is
  made within scripts.
- low - high and unseen - rest: the labels are exchanged among the languages compared, of whatever script.

The designs are made anew for every arrangement (a target has other languages, and so has other low ones, then). Where
there are no more arrangements than permutations asked for, all are taken and the test is exact; otherwise random
ones, the one observed counted among them: p = (1 + as extreme) / (1 + permutations) is never below 1 / (1 +
permutations) (Phipson & Smyth 2010). Gains of runs and targets of a language move with it, so that no assumption on
their dependence is made; that languages are exchangeable, given the script, is assumed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from xlift.contrasts.clustered import FloatArray, IntArray
from xlift.contrasts.contrast import FEW_SEEDS, Contrast, Prepared
from xlift.contrasts.moments import PairGrid, contributions, level_moments, pair_grids, slope_moments
from xlift.contrasts.rows import BETA, Row, joined
from xlift.contrasts.table import GainTable

METHOD = "permutation"
SEED = 20260702
NO_COMPARISON = "a mean compares no languages: nothing to exchange, no p-value"
_TIE = 1e-9
_Arrangements = dict[tuple[str, bytes], tuple[FloatArray, bool]]


def permutation_rows(
    table: GainTable, prepared: Sequence[Prepared], clustered: Sequence[Row], scripts: Mapping[str, str]
) -> list[Row]:
    """The permutation tests' rows of contrasts, beside their clustered rows; a mean has an estimate and no test.

    Args:
        scripts: script by language code.
    """
    names = np.array([scripts[code] for code in table.languages], dtype=str)
    script = np.unique(names, return_inverse=True)[1].astype(np.int64) if names.size else np.zeros(0, dtype=np.int64)
    moments = _Moments(table)
    known: _Arrangements = {}
    rows = []
    for each, beside in zip(prepared, clustered, strict=True):
        row = each.row(table, METHOD)
        if each.design is None:
            rows.append(row)
            continue
        row = replace(row, estimate=beside.estimate)
        is_mean, few = each.contrast.kind == "mean", each.few_seeds(table)
        if is_mean or few:
            rows.append(replace(row, note=joined(NO_COMPARISON * is_mean, row.note, FEW_SEEDS * few)))
            continue
        p, note = _test(table, each.contrast, moments, script, known)
        rows.append(replace(row, p=p, note=joined(row.note, note)))
    return rows


class _Moments:
    """N and D of every pair without reweighting, made once a kind and budget."""

    def __init__(self, table: GainTable) -> None:
        self._grids = list(pair_grids(table))
        self._known: dict[tuple[str, int | None], list[tuple[FloatArray, FloatArray]]] = {}

    def of(self, contrast: Contrast) -> Iterator[tuple[PairGrid, FloatArray, FloatArray]]:
        """The pairs of a contrast's scope with their N and D. [1, languages]"""
        scope = contrast.scope
        key = (contrast.kind, scope.budget)
        if key not in self._known:
            self._known[key] = [self._moments(grid, contrast.kind, scope.budget) for grid in self._grids]
        for grid, (product, precision) in zip(self._grids, self._known[key], strict=True):
            if scope.target in (None, grid.target) and scope.intermediate in (None, grid.intermediate):
                yield grid, product, precision

    @staticmethod
    def _moments(grid: PairGrid, kind: str, budget: int | None) -> tuple[FloatArray, FloatArray]:
        outcome, once = grid.treated - grid.baseline, np.ones((1, grid.run.size))
        return slope_moments(once, grid, outcome) if kind == "slope" else level_moments(once, grid, outcome, budget)


def _test(
    table: GainTable, contrast: Contrast, moments: _Moments, script: IntArray, known: _Arrangements
) -> tuple[float | None, str]:
    """p and what to note; `known` keeps arrangements, which contrasts of the same languages share."""
    pairs = list(moments.of(contrast))
    present = np.unique(np.concatenate([grid.language[precision[0] > 0] for grid, _, precision in pairs]))
    movable = present[contrast.relevant[present]]
    within = contrast.estimand == BETA
    group = script[movable] if within else np.zeros(movable.size, dtype=np.int64)
    values, key = contrast.moderator[movable], (contrast.estimand, movable.tobytes())
    if key not in known:
        known[key] = _arrangements(values, group, table.settings.permutations, labels=not within)
    arrangements, is_all = known[key]
    note = ""
    if within:
        alone = np.count_nonzero(np.bincount(group)[group] == 1)
        note = f"{alone} of {movable.size} languages are alone in their script and keep their z" if alone else ""
    count = arrangements.shape[0]
    if count < 2:
        return None, joined(note, "no other arrangement exists: no p-value")
    estimates = _estimates(contrast, pairs, movable, arrangements)
    undefined = np.count_nonzero(~np.isfinite(estimates))
    distance = np.abs(estimates - np.mean(estimates[np.isfinite(estimates)]))
    # An arrangement that leaves nothing to compare counts against the observed one.
    as_extreme = np.count_nonzero(~(distance < distance[0] - _TIE * max(1.0, float(distance[0]))))
    size = f"all {count} arrangements" if is_all else f"{count - 1} random arrangements"
    smallest = f"smallest possible p {1 / count:.2g} ({size})"
    lost = f"{undefined} arrangements leave nothing to compare and count as extreme" if undefined else ""
    return float(as_extreme / count), joined(note, lost, smallest)


def _estimates(
    contrast: Contrast,
    pairs: Sequence[tuple[PairGrid, FloatArray, FloatArray]],
    movable: IntArray,
    arrangements: FloatArray,
) -> FloatArray:
    """The estimate under each arrangement of the moderator over the movable languages. [arrangements]"""
    above, below = np.zeros(arrangements.shape[0]), np.zeros(arrangements.shape[0])
    for grid, product, precision in pairs:
        takes_part = np.isin(grid.language, movable)
        place = np.searchsorted(movable, grid.language[takes_part])
        weight = np.ones((1, place.size))
        a, b = contributions(product[:, takes_part], precision[:, takes_part], arrangements[:, place], weight)
        above += a
        below += b
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)


def _arrangements(values: FloatArray, group: IntArray, most: int, labels: bool) -> tuple[FloatArray, bool]:
    """Arrangements within groups, the observed one first, and whether they are all. [arrangements, values]"""
    members = [np.flatnonzero(group == code) for code in np.unique(group)]
    if labels:
        ones = int(values.sum())
        total = math.comb(values.size, ones)
    else:
        ones, total = 0, math.prod(math.factorial(part.size) for part in members)
    if total > most:
        generator = np.random.default_rng(SEED)
        arranged = np.tile(values, (most + 1, 1))
        for part in members:
            if part.size > 1:
                arranged[1:, part] = generator.permuted(arranged[1:, part], axis=1)
        return arranged, False
    if labels:
        every = [np.isin(np.arange(values.size), chosen) for chosen in itertools.combinations(range(values.size), ones)]
        found = np.array(every, dtype=np.float64)
    else:
        choices = itertools.product(*(itertools.permutations(part) for part in members))
        order = np.concatenate(members)
        found = np.empty((total, values.size))
        for index, choice in enumerate(choices):
            found[index, order] = values[np.concatenate([np.array(part) for part in choice])]
    observed = int(np.flatnonzero((found == values).all(axis=1))[0])
    found[[0, observed]] = found[[observed, 0]]
    return found, True
