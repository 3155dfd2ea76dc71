"""Random structure of gains: the rows of a grid, standard deviations of what varies, and draws from them.

    score[t, i, l, r] = level[t, l] + start[t, i, l] + u[r] + u[t, r] + (v[r] + v[t, r]) * z[l] + noise
                        + (g[t, i] + h[l] + h[t, l] + h[i, l] + h[t, i, l] + beta * z[l]) * x[r]
    baseline[t, l, s] = level[t, l] + b[t, s] + c[t, s] * z[l] + noise

x is log2 of the steps relative to the smallest budget, r an intermediate checkpoint (i, budget, seed s). Where budgets
are checkpoints of one trunk a seed, k[i, s] * z[l] * x[r] is added: a trunk that drifts. The starts, g and the levels
u and b cancel in every contrast of languages within runs; the rest is what the uncertainty of a slope is made of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl

from xlift.contrasts.clustered import FloatArray, IntArray, pair_codes
from xlift.languages import SOURCE_LANGUAGE
from xlift.resource import Resource


@dataclass(frozen=True)
class Spreads:
    """Standard deviations in points: slopes per doubling, tilts per standard deviation of z.

    The defaults are assumptions, not measurements. Those up to the noise decide how precise a slope is; with them and
    XTREME-R's layout, one intermediate task, six budgets and three seeds, beta has a standard error of about 0.1.
    """

    language_slope: float = 0.30  # h[l]
    target_language_slope: float = 0.20  # h[t, l]
    task_language_slope: float = 0.10  # h[i, l], i an intermediate task
    pair_language_slope: float = 0.10  # h[t, i, l]
    trunk_tilt: float = 0.10  # k[i, s], per doubling; of trunks only
    checkpoint_tilt: float = 0.50  # v[r]: an intermediate checkpoint that happens to favour high-resource languages
    target_run_tilt: float = 0.50  # v[t, r]: the same of a target run
    noise: float = 1.0  # of a score, of one run in one language
    baseline_tilt: float = 0.50  # c[t, s]
    checkpoint_level: float = 1.0  # u[r]
    target_run_level: float = 1.0  # u[t, r]
    baseline_level: float = 1.0  # b[t, s]
    pair_slope: float = 0.50  # g[t, i]
    start: float = 1.0  # start[t, i, l]


@dataclass(frozen=True)
class Grid:
    """The rows of a grid without English, as codes. All [rows], but names, z and strata [languages]."""

    target: IntArray
    intermediate: IntArray
    budget: IntArray
    seed: IntArray
    language: IntArray
    x: FloatArray
    names: tuple[str, ...]
    z: FloatArray  # NaN where unseen
    strata: npt.NDArray[np.str_]
    shared_trunk: bool = False  # the budgets of a task and seed are checkpoints of one long run

    @property
    def run(self) -> IntArray:
        """Run cluster of each row: the intermediate checkpoint, or the trunk. [rows]"""
        return pair_codes(self.intermediate, self.seed) if self.shared_trunk else self.checkpoint

    @property
    def checkpoint(self) -> IntArray:
        """Intermediate checkpoint of each row. [rows]"""
        return pair_codes(pair_codes(self.intermediate, self.budget), self.seed)

    @property
    def pair(self) -> IntArray:
        """(target, intermediate) of each row. [rows]"""
        return pair_codes(self.target, self.intermediate)

    @property
    def tilt(self) -> FloatArray:
        """z with the lowest seen value for unseen languages, which tilts push too. [languages]"""
        return np.where(np.isnan(self.z), np.nanmin(self.z), self.z)

    def within(self, languages: npt.NDArray[np.bool_]) -> Grid:
        """The rows of some languages, with the same codes."""
        return self.rows(languages[self.language])

    def rows(self, keep: npt.NDArray[np.bool_]) -> Grid:
        """Some of the rows, with the same codes."""
        columns = ("target", "intermediate", "budget", "seed", "language", "x")
        return replace(self, **{name: getattr(self, name)[keep] for name in columns})


def build_grid(
    layout: Mapping[str, Sequence[str]],
    levels: Resource,
    n_intermediates: int,
    log2_budgets: Sequence[float],
    n_seeds: int,
) -> Grid:
    """Every target with every intermediate task, budget, seed and non-English language of its own."""
    names = tuple(sorted({code for codes in layout.values() for code in codes} - {SOURCE_LANGUAGE}))
    place = {code: k for k, code in enumerate(names)}
    cells = [
        (target, place[code])
        for target, codes in enumerate(layout[name] for name in sorted(layout))
        for code in sorted(codes)
        if code != SOURCE_LANGUAGE
    ]
    target, language = np.array(cells, dtype=np.int64).T
    cell, intermediate, budget, seed = (
        part.ravel().astype(np.int64)
        for part in np.meshgrid(
            range(len(cells)), range(n_intermediates), range(len(log2_budgets)), range(n_seeds), indexing="ij"
        )
    )
    return Grid(
        target=target[cell],
        intermediate=intermediate,
        budget=budget,
        seed=seed,
        language=language[cell],
        x=np.asarray(log2_budgets, dtype=np.float64)[budget],
        names=names,
        z=np.array([levels.z.get(code, np.nan) for code in names]),
        strata=np.array([levels.strata[code] for code in names]),
    )


def draw_scores(
    grid: Grid, spreads: Spreads, beta: float, generator: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Scores of the treated runs and of their baselines, in points around zero. [rows], [rows]"""

    def normal(spread: float, *codes: IntArray) -> FloatArray:
        """One draw for each combination of the codes. [rows]"""
        joint = codes[0]
        for other in codes[1:]:
            joint = joint * (int(other.max()) + 1) + other
        # Drawn over all combinations, present or not: cheaper than finding those that are.
        return spread * generator.standard_normal(int(joint.max()) + 1)[joint]

    target, task, language, seed, run = grid.target, grid.intermediate, grid.language, grid.seed, grid.checkpoint
    tilt = grid.tilt[language]
    slope = (
        beta * tilt
        + normal(spreads.pair_slope, target, task)
        + normal(spreads.language_slope, language)
        + normal(spreads.target_language_slope, target, language)
        + normal(spreads.task_language_slope, task, language)
        + normal(spreads.pair_language_slope, target, task, language)
    )
    if grid.shared_trunk:
        slope = slope + normal(spreads.trunk_tilt, task, seed) * tilt
    score = (
        normal(spreads.start, target, task, language)
        + slope * (grid.x - grid.x.min())
        + normal(spreads.checkpoint_level, run)
        + normal(spreads.target_run_level, target, run)
        + (normal(spreads.checkpoint_tilt, run) + normal(spreads.target_run_tilt, target, run)) * tilt
        + spreads.noise * generator.standard_normal(target.size)
    )
    baseline = (
        normal(spreads.baseline_level, target, seed)
        + normal(spreads.baseline_tilt, target, seed) * tilt
        + normal(spreads.noise, target, language, seed)
    )
    return score, baseline


def gains_frame(grid: Grid, score: FloatArray, baseline: FloatArray, middle: float = 50.0) -> pl.DataFrame:
    """The gains table of a drawn grid: keys, scores around `middle` points, gains. [rows]

    Names sort as their codes do; steps are 2 to the power of x, times 1,000. Raises ValueError where a score
    falls outside 0 to 100.
    """
    if min(score.min(), baseline.min()) + middle < 0 or max(score.max(), baseline.max()) + middle > 100:
        raise ValueError(f"scores around {middle:g} leave 0 to 100; take smaller spreads")
    names = np.array(grid.names)
    return pl.DataFrame(
        {
            "target": [f"target{code:02d}" for code in grid.target],
            "intermediate": [f"task{code:02d}" for code in grid.intermediate],
            "budget": grid.budget + 1.0,
            "seed": grid.seed,
            "language": names[grid.language],
            "metric": "accuracy",
            "is_primary": True,
            "score": score + middle,
            "baseline_score": baseline + middle,
            "gain": score - baseline,
            "steps": np.rint(1000 * 2.0**grid.x).astype(np.int64),
            "n": 1000,
            "collapsed": False,
        }
    )
