"""Does the inference hold its level? Simulation on XTREME-R's real cells with crossed languages and runs.

`make simulate` draws data sets at each point: a grid of intermediate tasks and seeds, a mix of spreads
(`structure.py`), and an effect. Each is tested by the primary method and by ones that ignore a part of the structure.
Every data set has a random stream of its own, so results do not depend on the number of processes.
"""

from __future__ import annotations

import multiprocessing
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import special

from xlift.contrasts import clustered
from xlift.contrasts.bootstrap import bootstrap_rows
from xlift.contrasts.clustered import Design, FloatArray, IntArray, pair_codes
from xlift.contrasts.contrast import Contrast, moderators, prepare, slope_contrast
from xlift.contrasts.inference import clustered_row
from xlift.contrasts.layout import XTREME_R
from xlift.contrasts.mixed import MixedData, fit_mixed
from xlift.contrasts.rotation import level_means
from xlift.contrasts.rows import BETA as BETA_ROW
from xlift.contrasts.rows import LOW_HIGH as LOW_HIGH_ROW
from xlift.contrasts.rows import LOW_HIGH_LEVEL
from xlift.contrasts.structure import Grid, Spreads, build_grid, draw_scores, gains_frame
from xlift.contrasts.table import ContrastSettings, GainTable, Scope
from xlift.languages import Language
from xlift.resource import resource_levels

SEED = 20_21
DATA_SETS = 1000
LOG2_BUDGETS = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)
EFFECTS = (0.0, 0.1, 0.2, 0.4)
CONFIDENCE = 0.95

BETA, LOW_HIGH, LEVEL = "beta", "low - high", "low - high at the largest budget"
ESTIMANDS = (BETA, LOW_HIGH, LEVEL)
TWO_WAY, OLS, BY_LANGUAGE, BY_RUN = "two-way clustered (primary)", "least squares", "language clusters", "run clusters"
TEXTBOOK, CROSSED, NESTED, BOOTSTRAP = "three-term two-way", "crossed mixed", "nested mixed", "bootstrap"
ESTIMATORS = (TWO_WAY, CROSSED, BOOTSTRAP, TEXTBOOK, OLS, BY_LANGUAGE, BY_RUN, NESTED)
BOOTSTRAP_DRAWS = 1000

SPREADS = {
    "usual": Spreads(),
    "languages differ": Spreads(
        language_slope=0.8, target_language_slope=0.5, checkpoint_tilt=0.1, target_run_tilt=0.1
    ),
    "runs differ": Spreads(language_slope=0.05, target_language_slope=0.05, checkpoint_tilt=1.0, target_run_tilt=0.5),
    "noise alone": Spreads(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
}


@dataclass(frozen=True, order=True)
class Point:
    """A grid, a mix of spreads and an effect, with how many of its data sets the slow methods see."""

    spreads: str
    n_intermediates: int
    n_seeds: int
    beta: float
    n_crossed: int = 0
    n_nested: int = 0
    n_bootstrap: int = 0


@dataclass(frozen=True)
class Outcome:
    """One method on one data set. `p` is NaN where the method gave none."""

    estimand: str
    estimator: str
    estimate: float
    se: float
    p: float
    covered: bool
    degrees: float


def points() -> list[Point]:
    """Null and three effects with 3, 5, 10 seeds of one task and 3 of three tasks; other spreads at the null.

    The slow methods see the first data sets of the null only.
    """
    slow = {(1, 3): (200, 100, 400), (1, 5): (200, 30, 100), (1, 10): (200, 12, 100), (3, 3): (20, 0, 0)}
    found = [
        Point("usual", *grid, beta, *(numbers if beta == 0 else ()))
        for grid, numbers in slow.items()
        for beta in EFFECTS
    ]
    found += [Point(name, 1, 3, 0.0, n_crossed=50) for name in SPREADS if name != "usual"]
    return found


@dataclass(frozen=True)
class Setting:
    """What the data sets of a point share: rows and designs of the estimands."""

    grid: Grid
    parts: dict[str, tuple[np.ndarray, FloatArray, Design]]  # rows, moderator by language, design

    @classmethod
    def of(cls, point: Point, languages: Mapping[str, Language]) -> Setting:
        grid = build_grid(
            XTREME_R, resource_levels(languages.values()), point.n_intermediates, LOG2_BUDGETS, point.n_seeds
        )
        low = (grid.strata == "low").astype(np.float64)
        wanted = {
            BETA: (np.isfinite(grid.z), np.nan_to_num(grid.z)),
            LOW_HIGH: (np.isin(grid.strata, ("low", "high")), low),
        }
        wanted[LEVEL] = (wanted[LOW_HIGH][0], low)
        parts = {}
        for name, (relevant, moderator) in wanted.items():
            is_level = name == LEVEL
            rows = np.flatnonzero(relevant[grid.language] & ((grid.budget == grid.budget.max()) | (not is_level)))
            pair, language = pair_codes(grid.target[rows], grid.intermediate[rows]), grid.language[rows]
            design = (
                clustered.difference_design(pair, moderator[language])
                if is_level
                else clustered.slope_design(pair, pair_codes(pair, language), grid.x[rows], moderator[language])
            )
            parts[name] = (rows, moderator, design)
        return cls(grid, parts)


def outcomes(point: Point, setting: Setting, number: int, languages: Mapping[str, Language]) -> Iterator[Outcome]:
    """Every method on data set `number` of a point."""
    grid = setting.grid
    key = (SEED, sorted(SPREADS).index(point.spreads), point.n_intermediates, point.n_seeds, round(1000 * point.beta))
    score, baseline = draw_scores(grid, SPREADS[point.spreads], point.beta, np.random.default_rng([*key, number]))
    treated, start = clustered.split_parts(score, baseline, pair_codes(grid.target, grid.language), grid.seed)
    run = grid.checkpoint
    for estimand, (rows, moderator, design) in setting.parts.items():
        truth = truth_of(point, setting, estimand)
        arguments = (design, treated[rows], start[rows], grid.language[rows], run[rows], grid.seed[rows])
        result = clustered.two_way(*arguments)
        variance, degrees = result.variance, result.degrees_of_freedom
        if variance is not None and degrees is not None:
            yield _outcome(estimand, TWO_WAY, result.value, variance**0.5, degrees, truth)
        gain = treated[rows] - start[rows]
        yield from _textbook(estimand, design, gain, grid.language[rows], run[rows], truth)
        se, residual_degrees = least_squares_error(design, gain)
        yield _outcome(estimand, OLS, result.value, se, residual_degrees, truth)
        if number < point.n_crossed:
            yield from _crossed(estimand, grid, rows, gain, moderator, truth)
        if number < point.n_nested and estimand == BETA:
            yield _nested(grid, rows, gain, truth)
    if number < point.n_bootstrap:
        yield from _bootstrap(grid, score, baseline, languages, truths_of(point, setting))


def _textbook(
    estimand: str, design: Design, gain: FloatArray, language: IntArray, run: IntArray, truth: float
) -> Iterator[Outcome]:
    """One-way clusters, and Cameron, Gelbach & Miller's (2011) V_language + V_run - V_both with min(G) - 1."""
    nothing = np.zeros_like(gain)
    plain = clustered.two_way(design, gain, nothing, language, run, run, small_sample=False)
    both = pair_codes(language, run)
    sums = np.bincount(both, design.weights * clustered.residualise(design.blocks, gain))
    parts = []
    for one_way, codes in (
        (plain.language_variance, language),
        (plain.treated_variance, run),
        (float(sums @ sums), both),
    ):
        groups = np.unique(codes[design.weights != 0]).size
        parts.append((one_way * groups / (groups - 1), groups - 1.0))
    (by_language, languages), (by_run, runs), (by_both, _) = parts
    yield _outcome(estimand, BY_LANGUAGE, plain.value, by_language**0.5, languages, truth)
    yield _outcome(estimand, BY_RUN, plain.value, by_run**0.5, runs, truth)
    # A difference may be negative; the larger one-way variance is the usual remedy.
    variance = max(by_language + by_run - by_both, by_language, by_run)
    yield _outcome(estimand, TEXTBOOK, plain.value, variance**0.5, min(languages, runs), truth)


def least_squares_error(design: Design, outcome: FloatArray) -> tuple[float, float]:
    """Textbook standard error of a design's coefficient, independent equal errors, and its degrees of freedom."""
    residual = clustered.residualise(design.blocks, outcome)
    rank = sum(np.count_nonzero(np.bincount(block.codes, block.values**2)) for block in design.blocks)
    degrees = float(outcome.size - rank)
    return float(np.sqrt(residual @ residual / degrees * (design.weights @ design.weights))), degrees


def _crossed(
    estimand: str, grid: Grid, rows: np.ndarray, gain: FloatArray, moderator: FloatArray, truth: float
) -> Iterator[Outcome]:
    codes = (grid.target[rows], grid.intermediate[rows], grid.seed[rows], grid.language[rows], grid.checkpoint[rows])
    data = MixedData(gain, grid.x[rows], *codes, moderator)
    if estimand == LEVEL:
        data = level_means(gain, grid.target[rows], grid.language[rows], grid.seed[rows], moderator, "difference")
    fit = fit_mixed(data)
    if fit.value is not None and fit.se is not None and fit.degrees_of_freedom is not None:
        yield _outcome(estimand, CROSSED, fit.value, fit.se, fit.degrees_of_freedom, truth)


def _bootstrap(
    grid: Grid, score: FloatArray, baseline: FloatArray, languages: Mapping[str, Language], truth: Mapping[str, float]
) -> Iterator[Outcome]:
    """The rows that the table of contrasts would have, of the same data set as gains."""
    settings = ContrastSettings(bootstrap_draws=BOOTSTRAP_DRAWS, confidence=CONFIDENCE)
    gains = gains_frame(grid, score, baseline)
    table = GainTable.read(gains, gains, languages, settings)
    last = len(table.budgets) - 1
    level = Contrast(LOW_HIGH_LEVEL, Scope("largest", budget=last), "difference", *moderators(table)[LOW_HIGH_LEVEL])
    contrasts = {BETA: slope_contrast(table, BETA_ROW), LOW_HIGH: slope_contrast(table, LOW_HIGH_ROW), LEVEL: level}
    prepared = [prepare(table, contrast) for contrast in contrasts.values()]
    rows = bootstrap_rows(table, prepared, [clustered_row(table, each) for each in prepared])
    for name, row in zip(contrasts, rows, strict=True):
        if row.estimate is not None and row.se is not None and row.p is not None:
            covered = (row.ci_low or 0.0) <= truth[name] <= (row.ci_high or 0.0)
            yield Outcome(name, BOOTSTRAP, row.estimate, row.se, row.p, covered, np.inf)


def _nested(grid: Grid, rows: np.ndarray, gain: FloatArray, truth: float) -> Outcome:
    """What is often fitted: random intercept and slope by language, and runs, which `groups` nests in languages."""
    import pandas as pd  # statsmodels' door
    import statsmodels.formula.api as smf

    language = grid.language[rows]
    frame = pd.DataFrame(
        {
            "gain": gain,
            "x": grid.x[rows],
            "z": grid.z[language],
            "target": grid.target[rows],
            "language": language,
            "run": grid.checkpoint[rows],
        }
    )
    model = smf.mixedlm(
        "gain ~ C(target) * x + z * x", frame, groups="language", re_formula="~x", vc_formula={"run": "0 + C(run)"}
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the boundary, mostly: part of what is being shown
        fit = model.fit(reml=True, method=["lbfgs"])
    return _outcome(BETA, NESTED, float(fit.params["z:x"]), float(fit.bse["z:x"]), np.inf, truth)


def _outcome(estimand: str, estimator: str, value: float, se: float, degrees: float, truth: float) -> Outcome:
    def tail(distance: float) -> float:
        statistic = -abs(distance) / se
        return float(2 * (special.ndtr(statistic) if np.isinf(degrees) else special.stdtr(degrees, statistic)))

    covered = tail(value - truth) > 1 - CONFIDENCE
    return Outcome(estimand, estimator, value, se, tail(value), covered, degrees)


def summary(point: Point, found: Sequence[Outcome], truth: dict[str, float]) -> list[dict[str, Any]]:
    """One record an estimand and method: rates with their Monte Carlo standard errors, and how se compares with sd."""
    records = []
    for estimand in ESTIMANDS:
        for estimator in ESTIMATORS:
            own = [o for o in found if (o.estimand, o.estimator) == (estimand, estimator)]
            if not own:
                continue
            estimates, errors = np.array([o.estimate for o in own]), np.array([o.se for o in own])
            rejected = float(np.mean([o.p < 1 - CONFIDENCE for o in own]))
            covered = float(np.mean([o.covered for o in own]))
            degrees = [o.degrees for o in own if np.isfinite(o.degrees)]
            record = {
                "spreads": point.spreads,
                "n_intermediates": point.n_intermediates,
                "n_seeds": point.n_seeds,
                "beta": point.beta,
                "estimand": estimand,
                "estimator": estimator,
                "data_sets": len(own),
                "truth": truth[estimand],
                "first_estimate": own[0].estimate,
                "mean_estimate": float(estimates.mean()),
                "sd_estimate": float(estimates.std(ddof=1)),
                "mean_se": float(np.sqrt(np.mean(errors**2))),
                "rejected": rejected,
                "rejected_error": _rate_error(rejected, len(own)),
                "covered": covered,
                "covered_error": _rate_error(covered, len(own)),
                "median_degrees": float(np.median(degrees)) if degrees else None,
            }
            records.append({k: round(v, 5) if isinstance(v, float) else v for k, v in record.items()})
    return records


def _rate_error(rate: float, count: int) -> float:
    """Monte Carlo standard error of a rate; of (k + 1) / (n + 2), as no event in few draws is no certainty."""
    shrunk = (rate * count + 1) / (count + 2)
    return float((shrunk * (1 - shrunk) / count) ** 0.5)


def simulate_point(point: Point, languages: Mapping[str, Language], numbers: Sequence[int]) -> list[Outcome]:
    """All methods on some data sets of a point."""
    setting = Setting.of(point, languages)
    return [outcome for number in numbers for outcome in outcomes(point, setting, number, languages)]


def truth_of(point: Point, setting: Setting, estimand: str) -> float:
    """What an estimand is at a point: least squares on the effect itself."""
    (rows, _, design), grid = setting.parts[estimand], setting.grid
    return float(design.weights @ (point.beta * grid.tilt[grid.language[rows]] * grid.x[rows]))


def truths_of(point: Point, setting: Setting) -> dict[str, float]:
    """What each estimand is at a point."""
    return {name: truth_of(point, setting, name) for name in setting.parts}


def run(languages: Mapping[str, Language], chosen: Sequence[Point], data_sets: int, processes: int) -> dict[str, Any]:
    """Simulate the points, `processes` at a time. The result holds no time, place or machine."""
    size = 20
    jobs = [
        (point, languages, range(first, min(first + size, data_sets)))
        for point in sorted(chosen, key=lambda point: (-point.n_nested - point.n_crossed - point.n_bootstrap, point))
        for first in range(0, data_sets, size)
    ]
    found: dict[Point, list[Outcome]] = {point: [] for point in chosen}
    if processes == 1:
        results = [simulate_point(*job) for job in jobs]
    else:
        with multiprocessing.get_context("spawn").Pool(processes) as pool:
            results = pool.starmap(simulate_point, jobs, chunksize=1)
    for (point, _, _), result in zip(jobs, results, strict=True):
        found[point].extend(result)
    used = sorted({point.spreads for point in chosen}, key=list(SPREADS).index)
    return {
        "seed": SEED,
        "log2_budgets": LOG2_BUDGETS,
        "confidence": CONFIDENCE,
        "cells": sum(len(set(codes) - {"en"}) for codes in XTREME_R.values()),
        "spreads": {name: asdict(SPREADS[name]) for name in used},
        "results": [
            record
            for point in chosen
            for record in summary(point, found[point], truths_of(point, Setting.of(point, languages)))
        ],
    }
