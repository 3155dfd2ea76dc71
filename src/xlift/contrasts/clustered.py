"""Least squares with errors clustered by language and by training run, for designs made of fixed effects.

A design here is a set of mutually orthogonal `Block`s (fixed effects, slopes within groups, the regressor of
interest), so that projections are group sums: 100,000 rows take milliseconds and no dummy column is ever
built. The estimate is `weights @ gain`, with weights in the span of the blocks.

The variance is that of clusters of languages plus that of clusters of runs. The usual third term of two-way
clustering (Cameron, Gelbach & Miller 2011), minus the clusters of both, is left out (on the trouble it makes see
MacKinnon, Nielsen & Webb, arXiv 2406.08880). It is there to undo a double count, but a contrast that is fitted
along languages and along runs has already taken what runs share out of the languages' sums and the reverse: only
the noise of single cells counts twice. In simulations with XTREME-R's cells the sum is about right, and too large
only where neither languages nor runs differ at all; with the third term it is too small (docs/statistics.md). The
sum is never negative. Two more things are particular to gains over a baseline:

- The baseline run of a seed is subtracted from every intermediate task and budget of that seed, so gains of
  different checkpoints share its noise. A gain is therefore split into a treated and a baseline part
  (`split_parts`): in the run dimension the first belongs to the intermediate checkpoint, the second to the
  baseline of that seed.
- Few languages are low-resource, and few runs there may be. Squared cluster sums are divided by one minus
  the cluster's leverage in the direction of the estimate (a scalar form of CR2; Bell & McCaffrey 2002),
  which is G / (G - 1) for a mean over G clusters. Each variance has the Satterthwaite degrees of freedom of
  that estimator, never more than G - 1, and their sum has those of Satterthwaite's formula for a sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import linalg, sparse, special

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_TINY = 1e-9  # regressors of order one, made of sums: smaller values are rounding
_NO_VARIANCE = 1e-18  # points squared: rounding, not noise


@dataclass(frozen=True)
class Block:
    """Regressors `values * (codes == c)`, one a code c: fixed effects where the values are one."""

    codes: IntArray  # [rows], 0 <= code
    values: FloatArray  # [rows]


@dataclass(frozen=True)
class Design:
    """An estimate `weights @ outcome` and the mutually orthogonal blocks that are fitted."""

    weights: FloatArray  # [rows]; all zero where the estimate is not identified
    blocks: tuple[Block, ...]

    @property
    def identified(self) -> bool:
        return bool(np.any(self.weights != 0))


@dataclass(frozen=True)
class Estimate:
    """A least-squares estimate with two-way clustered uncertainty, in the units of the outcome.

    `variance` and `degrees_of_freedom` are None where they cannot be estimated; `note` says why.
    """

    value: float
    variance: float | None
    degrees_of_freedom: float | None
    language_variance: float
    treated_variance: float
    baseline_variance: float
    note: str

    def interval(self, confidence: float) -> tuple[float, float] | None:
        """Two-sided t interval, or None without a variance."""
        if self.variance is None or self.degrees_of_freedom is None:
            return None
        margin = float(special.stdtrit(self.degrees_of_freedom, 0.5 + confidence / 2)) * self.variance**0.5
        return self.value - margin, self.value + margin

    def p_value(self) -> float | None:
        """Two-sided p of "the value is zero", or None without a variance."""
        if self.variance is None or self.degrees_of_freedom is None:
            return None
        return float(2 * special.stdtr(self.degrees_of_freedom, -abs(self.value) / self.variance**0.5))


def mean_design(group: IntArray) -> Design:
    """The mean of the groups' means, each group weighing the same; residuals are taken within groups."""
    rows = np.bincount(group).astype(np.float64)
    weights = 1 / (np.count_nonzero(rows) * rows[group])
    return Design(weights, (Block(group, np.ones(group.size)),))


def difference_design(group: IntArray, moderator: FloatArray) -> Design:
    """The coefficient of `moderator` (0/1, or a standardised size) with a fixed effect for each group."""
    fixed = Block(group, np.ones(group.size))
    return _focal_design((fixed,), _clean(residualise((fixed,), moderator)))


def slope_design(
    pair: IntArray,
    pair_language: IntArray,
    x: FloatArray,
    moderator: FloatArray,
    covariates: FloatArray | None = None,
) -> Design:
    """The coefficient d in y = a[pair, language] + (g[pair] + d * moderator + covariates @ c) * x.

    Args:
        pair: (target, intermediate) of each row. [rows]
        pair_language: (target, intermediate, language) of each row. [rows]
        x: log2 of the realised steps. [rows]
        moderator: what the slope depends on, constant within a language. [rows]
        covariates: what else the slope may depend on, constant within (target, language); those that the others
            determine are left out. [rows, covariates]
    """
    fixed = Block(pair_language, np.ones(pair.size))
    within = _clean(residualise((fixed,), x))
    nuisance: tuple[Block, ...] = (fixed, Block(pair, within))
    if covariates is not None:
        nuisance += _orthogonal_blocks(nuisance, covariates * within[:, None])
    return _focal_design(nuisance, _clean(residualise(nuisance, moderator * within)))


def _orthogonal_blocks(blocks: Sequence[Block], columns: FloatArray) -> tuple[Block, ...]:
    """Blocks of one regressor each, orthogonal to one another and to `blocks`, that span what columns add to these."""
    free = np.column_stack([residualise(blocks, column) for column in columns.T])
    basis, lengths, _ = linalg.svd(free, full_matrices=False)
    kept = lengths > _TINY * max(1.0, float(np.sqrt(np.sum(columns**2))))
    return tuple(Block(np.zeros(len(free), dtype=np.int64), column) for column in basis[:, kept].T)


def residualise(blocks: Sequence[Block], outcome: FloatArray) -> FloatArray:
    """`outcome` minus its least-squares fit on mutually orthogonal blocks. [rows]"""
    for block in blocks:
        norms = np.bincount(block.codes, block.values**2)
        sums = np.bincount(block.codes, block.values * outcome)
        fit = np.divide(sums, norms, out=np.zeros_like(sums), where=norms > 0)
        outcome = outcome - block.values * fit[block.codes]
    return outcome


def split_parts(
    score: FloatArray, baseline_score: FloatArray, target_language: IntArray, seed: IntArray
) -> tuple[FloatArray, FloatArray]:
    """Treated and baseline part of each gain; their difference is the gain. [rows], [rows]

    Both are deviations from the mean over seeds of the baseline at that (target, language). So what a
    language scores in general, which is large and cancels in a gain, is in neither part, and the baseline
    part is the noise of that baseline run: exactly zero for a baseline that is the same for every seed.
    """
    n_seeds = int(seed.max()) + 1
    _, first, back = np.unique(target_language * n_seeds + seed, return_index=True, return_inverse=True)
    cell_group = target_language[first]
    counts = np.bincount(cell_group)
    # Twice, so that equal scores leave exactly zero rather than the rounding of their mean.
    deviation = baseline_score[first]
    for _ in range(2):
        sums = np.bincount(cell_group, deviation)
        deviation = deviation - np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)[cell_group]
    baseline = deviation[back]
    return score - baseline_score + baseline, baseline


def two_way(
    design: Design,
    treated: FloatArray,
    baseline: FloatArray,
    language: IntArray,
    run: IntArray,
    baseline_run: IntArray,
    *,
    small_sample: bool = True,
) -> Estimate:
    """Estimate and two-way clustered variance of a design's coefficient.

    Args:
        design: from one of the `*_design` functions, identified.
        treated, baseline: the parts of the gain (`split_parts`); the outcome is treated - baseline. [rows]
        language: language cluster. [rows]
        run: cluster of the treated part: the intermediate checkpoint, across targets. [rows]
        baseline_run: cluster of the baseline part: the seed. [rows]
        small_sample: divide squared sums by one minus the leverage, and take Satterthwaite degrees of
            freedom; without it the sums are plain (CR0) and each has G - 1.
    """
    weights = design.weights
    outcome = treated - baseline
    treated_residual = residualise(design.blocks, treated)
    by_language = _clusters(design, residualise(design.blocks, outcome), language, small_sample)
    by_run = _clusters(design, treated_residual, run, small_sample)
    seeds = np.unique(baseline_run[weights != 0]).size
    inflate = seeds / (seeds - 1) if small_sample and seeds > 1 else 1.0
    baseline_variance = inflate * float(np.sum(np.bincount(baseline_run, weights * baseline) ** 2))
    parts = (
        (by_language.variance, by_language.degrees_of_freedom),
        (by_run.variance, by_run.degrees_of_freedom),
        (baseline_variance, seeds - 1.0),
    )
    variance: float | None = sum(part for part, _ in parts)
    degrees: float | None = pooled_degrees(parts)
    note = ""
    for dimension, name in ((by_language, "language"), (by_run, "intermediate checkpoint")):
        if dimension.rests_on_one:
            variance = degrees = None
            note = f"rests on a single {name}: no interval or p-value"
            break
    if variance is not None and variance <= _NO_VARIANCE:
        variance = degrees = None
        note = "no variation at all: no interval or p-value"
    return Estimate(
        value=float(weights @ outcome),
        variance=variance,
        degrees_of_freedom=degrees,
        language_variance=by_language.variance,
        treated_variance=by_run.variance,
        baseline_variance=baseline_variance,
        note=note,
    )


def design_degrees(design: Design, cluster: IntArray) -> float:
    """Degrees of freedom that a design gives the variance of a clustering: zero where it rests on one cluster."""
    dimension = _clusters(design, np.zeros_like(design.weights), cluster, small_sample=True)
    return 0.0 if dimension.rests_on_one else dimension.degrees_of_freedom


def pooled_degrees(parts: Sequence[tuple[float, float]]) -> float:
    """Satterthwaite's (1946) degrees of freedom of a sum of independent variance estimates (variance, degrees)."""
    total = sum(variance for variance, _ in parts)
    spread = sum(variance**2 / degrees for variance, degrees in parts if variance > 0 and degrees > 0)
    return total**2 / spread if spread > 0 else max(degrees for _, degrees in parts)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's (1979) step-down adjustment of p-values: family-wise error, in the order given."""
    order = np.argsort(p, kind="stable")
    scaled = np.asarray(p, dtype=np.float64)[order] * np.arange(len(p), 0, -1)
    return _back(order, np.minimum(np.maximum.accumulate(scaled), 1.0))


def benjamini_hochberg(p: Sequence[float]) -> list[float]:
    """Benjamini and Hochberg's (1995) step-up adjustment: false discovery rate, in the order given."""
    order = np.argsort(p, kind="stable")
    scaled = np.asarray(p, dtype=np.float64)[order] * len(p) / np.arange(1, len(p) + 1)
    return _back(order, np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0))


@dataclass(frozen=True)
class _Dimension:
    variance: float
    degrees_of_freedom: float
    rests_on_one: bool  # some cluster is fitted exactly: its error cannot be seen


def _clusters(design: Design, residual: FloatArray, cluster: IntArray, small_sample: bool) -> _Dimension:
    """Sum of squared cluster sums of `weights * residual`, and the degrees of freedom it has."""
    sums = np.bincount(cluster, design.weights * residual)
    norms = np.bincount(cluster, design.weights**2)  # squared length of the weights, a cluster
    n_used = np.count_nonzero(norms)
    if not small_sample:
        return _Dimension(float(np.sum(sums**2)), float(n_used - 1), bool(n_used < 2))
    shares = [_block_shares(block, design.weights, cluster) for block in design.blocks]
    leverages = sum((np.asarray(share.multiply(share).sum(axis=0)).ravel() for share in shares), np.zeros(norms.size))
    free = 1 - np.divide(leverages, norms, out=np.ones_like(norms), where=norms > 0)
    seen = (norms > 0) & (free > _TINY)
    variance = float(np.sum(sums[seen] ** 2 / free[seen]))
    hidden = n_used != np.count_nonzero(seen)
    if hidden or n_used < 2:
        return _Dimension(variance, max(n_used - 1.0, 0.0), bool(hidden or n_used < 2))
    # Satterthwaite: the estimator is a quadratic form in independent errors; this is its Gram matrix.
    gram = np.diag(norms) - sum((share.T @ share).toarray() for share in shares)
    scale = np.where(seen, 1 / np.sqrt(np.where(seen, free, 1.0)), 0.0)
    gram = gram * scale[:, None] * scale[None, :]
    degrees = float(np.trace(gram) ** 2 / np.sum(gram**2))
    return _Dimension(variance, min(degrees, n_used - 1.0), False)


def _block_shares(block: Block, weights: FloatArray, cluster: IntArray) -> sparse.csr_array:
    """Coordinates, on the block's unit vectors, of the weights cut to each cluster. [codes, clusters]"""
    norms = np.bincount(block.codes, block.values**2)
    lengths = np.sqrt(norms)[block.codes]
    entries = np.divide(weights * block.values, lengths, out=np.zeros_like(weights), where=lengths > 0)
    shape = (norms.size, int(cluster.max()) + 1)
    return sparse.csr_array(sparse.coo_array((entries, (block.codes, cluster)), shape=shape))


def _focal_design(nuisance: tuple[Block, ...], focal: FloatArray) -> Design:
    norm = float(focal @ focal)
    weights = focal / norm if norm > 0 else np.zeros_like(focal)
    return Design(weights, (*nuisance, Block(np.zeros(focal.size, dtype=np.int64), focal)))


def _back(order: npt.NDArray[np.intp], values: FloatArray) -> list[float]:
    result = np.empty_like(values)
    result[order] = values
    return [float(value) for value in result]


def _clean(values: FloatArray) -> FloatArray:
    """Rounding set to zero, so that rows that carry no information carry no weight."""
    return np.where(np.abs(values) < _TINY, 0.0, values)


def pair_codes(first: IntArray, second: IntArray) -> IntArray:
    """Dense codes of the pairs of two codings. [rows]"""
    if not first.size:
        return np.zeros(0, dtype=np.int64)
    inverse: IntArray = np.unique(first * (int(second.max()) + 1) + second, return_inverse=True)[1].astype(np.int64)
    return inverse
