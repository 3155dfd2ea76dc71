"""Clustered least squares: variances against statsmodels and dense algebra, their size in simulations, adjusted p."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlift.contrasts import clustered
from xlift.contrasts.clustered import FloatArray, IntArray, benjamini_hochberg, holm


def random_grid(seed: int = 1, fraction: float = 1.0) -> tuple[IntArray, ...]:
    """Codes (intermediate, budget, seed, language) of a grid of 2 x 3 x 4 x 6, or part of it."""
    codes = [part.ravel() for part in np.meshgrid(range(2), range(3), range(4), range(6), indexing="ij")]
    keep = np.random.default_rng(seed).random(codes[0].size) < fraction
    return tuple(part[keep].astype(np.int64) for part in codes)


def dense(design: clustered.Design) -> FloatArray:
    """The design's columns as a matrix. [rows, coefs]"""
    columns = [np.eye(block.codes.max() + 1)[block.codes] * block.values[:, None] for block in design.blocks]
    matrix = np.column_stack(columns)
    return matrix[:, np.any(matrix != 0, axis=0)]


@pytest.mark.parametrize("fraction", [1.0, 0.8])
def test_both_variances_agree_with_statsmodels(fraction: float) -> None:
    """Without baseline noise and small-sample factors, both one-way variances are the textbook's."""
    import statsmodels.api as sm  # type: ignore[import-untyped]

    task, budget, seed, code = random_grid(fraction=fraction)
    generator = np.random.default_rng(2)
    run = (task * 3 + budget) * 4 + seed
    outcome = (
        generator.normal(size=6)[code] * budget
        + generator.normal(size=24)[run] * (code - 2.5)
        + generator.normal(size=code.size)
    )
    design = clustered.slope_design(
        task, task * 6 + code, budget.astype(np.float64), np.asarray((code - 2.5) ** 3, dtype=np.float64)
    )
    found = clustered.two_way(design, outcome, np.zeros_like(outcome), code, run, seed, small_sample=False)
    matrix = dense(design)
    assert found.value == pytest.approx(sm.OLS(outcome, matrix).fit().params[-1], abs=1e-9)
    for groups, variance in ((code, found.language_variance), (run, found.treated_variance)):
        one_way = sm.OLS(outcome, matrix).fit(cov_type="cluster", cov_kwds={"groups": groups, "use_correction": False})
        assert variance == pytest.approx(one_way.cov_params()[-1, -1], rel=1e-6)
    assert found.variance == pytest.approx(found.language_variance + found.treated_variance, rel=1e-9)


@pytest.mark.parametrize("fraction", [1.0, 0.8])
def test_small_sample_factors_agree_with_dense_algebra(fraction: float) -> None:
    """Squared sums over 1 - leverage, and Satterthwaite's degrees of freedom, from the full hat matrix."""
    task, budget, seed, code = random_grid(fraction=fraction)
    outcome = np.random.default_rng(3).normal(size=code.size)
    design = clustered.slope_design(
        task, task * 6 + code, budget.astype(np.float64), np.asarray((code - 2.5) ** 3, dtype=np.float64)
    )
    zero = np.zeros_like(outcome)
    run = (task * 3 + budget) * 4 + seed
    found = clustered.two_way(design, outcome, zero, code, run, seed)
    matrix = dense(design)
    maker = np.eye(code.size) - matrix @ np.linalg.pinv(matrix)
    parts = []
    for groups, variance in ((code, found.language_variance), (run, found.treated_variance)):
        cuts = [np.where(groups == group, design.weights, 0.0) for group in np.unique(groups)]
        free = [cut @ maker @ cut / (cut @ cut) for cut in cuts if cut.any()]
        vectors = [maker @ cut / share**0.5 for cut, share in zip((c for c in cuts if c.any()), free, strict=True)]
        assert variance == pytest.approx(sum((vector @ outcome) ** 2 for vector in vectors))
        gram = np.array(vectors) @ np.array(vectors).T
        parts.append((variance, min(np.trace(gram) ** 2 / np.sum(gram**2), len(vectors) - 1)))
    total = sum(variance for variance, _ in parts)
    assert found.variance == pytest.approx(total)
    degrees = total**2 / sum(variance**2 / own for variance, own in parts)
    assert found.degrees_of_freedom == pytest.approx(degrees)
    assert min(own for _, own in parts) <= degrees <= sum(own for _, own in parts)


def test_a_mean_over_languages_gets_the_students_t() -> None:
    """One way, one run profile: the language part is the t-test's variance, with G - 1 degrees of freedom."""
    code = np.tile(np.arange(8), 3)
    seed = np.repeat(np.arange(3), 8)
    values = np.random.default_rng(4).normal(size=8)
    outcome = values[code]
    found = clustered.two_way(
        clustered.mean_design(np.zeros(24, dtype=np.int64)), outcome, np.zeros(24), code, seed, seed
    )
    assert found.language_variance == pytest.approx(values.var(ddof=1) / 8)
    assert found.treated_variance == pytest.approx(0, abs=1e-20)


def test_baseline_noise_counts_as_what_it_is() -> None:
    """Only baselines vary: V is the variance of the mean over seeds, however many intermediate tasks."""
    task, seed, code = (part.ravel() for part in np.meshgrid(range(5), range(4), range(6), indexing="ij"))
    noise = np.random.default_rng(5).normal(size=4)
    low = (code < 3).astype(float)
    baseline_score = 40 + 10 * code + noise[seed] * (low - 0.5)
    score = 50.0 + 10 * code
    treated, baseline = clustered.split_parts(score, baseline_score, code, seed)
    assert treated - baseline == pytest.approx(score - baseline_score)
    found = clustered.two_way(clustered.difference_design(task, low), treated, baseline, code, task * 4 + seed, seed)
    assert found.value == pytest.approx(-noise.mean())
    assert found.variance == pytest.approx(noise.var(ddof=1) / 4)
    assert found.degrees_of_freedom == 3
    naive = clustered.two_way(
        clustered.difference_design(task, low), treated - baseline, 0 * baseline, code, task * 4 + seed, seed
    )
    assert naive.variance is not None
    assert naive.variance < 0.3 * noise.var(ddof=1) / 4


def test_a_deterministic_baseline_adds_no_run_variance() -> None:
    task, budget, seed, code = random_grid(fraction=0.8)
    generator = np.random.default_rng(6)
    baseline_score = generator.uniform(30, 90, size=6)[code]
    score = baseline_score + generator.normal(size=code.size)
    treated, baseline = clustered.split_parts(score, baseline_score, code, seed)
    assert not baseline.any()
    found = clustered.two_way(
        clustered.difference_design(task * 3 + budget, (code < 3).astype(float)),
        treated, baseline, code, (task * 3 + budget) * 4 + seed, seed,
    )  # fmt: skip
    assert found.baseline_variance == 0
    assert found.degrees_of_freedom is not None
    assert found.degrees_of_freedom > 3


def test_the_baseline_cancels_in_slopes() -> None:
    task, budget, seed, code = random_grid()
    baseline_score = np.random.default_rng(7).normal(60, 5, size=(4, 6))[seed, code]
    score = 60 + np.random.default_rng(8).normal(size=code.size)
    treated, baseline = clustered.split_parts(score, baseline_score, code, seed)
    design = clustered.slope_design(
        task, task * 6 + code, budget.astype(np.float64), np.asarray(code - 2.5, dtype=np.float64)
    )
    found = clustered.two_way(design, treated, baseline, code, (task * 3 + budget) * 4 + seed, seed)
    assert found.baseline_variance == pytest.approx(0, abs=1e-20)
    without = clustered.two_way(design, treated, 0 * baseline, code, (task * 3 + budget) * 4 + seed, seed)
    assert found.degrees_of_freedom == pytest.approx(without.degrees_of_freedom)


def test_what_runs_share_is_not_in_the_languages_sums_of_a_fitted_contrast() -> None:
    """So nothing is counted twice, and no third term is subtracted: sums of pure tilts and pure slopes vanish."""
    task, budget, seed, code = random_grid()
    moderator = (code - 2.5) / 2
    run = (task * 3 + budget) * 4 + seed
    design = clustered.slope_design(task, task * 6 + code, budget.astype(np.float64), moderator)
    generator = np.random.default_rng(9)
    tilts, slopes = generator.normal(size=24)[run] * moderator, generator.normal(size=6)[code] * budget
    zero = np.zeros_like(tilts)
    assert clustered.two_way(design, tilts, zero, code, run, seed).language_variance == pytest.approx(0, abs=1e-20)
    assert clustered.two_way(design, slopes, zero, code, run, seed).treated_variance == pytest.approx(0, abs=1e-20)


def test_degrees_of_freedom_of_a_sum_are_those_of_welch() -> None:
    """Two samples' variances over their sizes: the degrees of freedom of Welch's t test."""
    from statsmodels.stats.weightstats import CompareMeans, DescrStatsW  # type: ignore[import-untyped]

    generator = np.random.default_rng(12)
    first, second = generator.normal(size=7), 3 * generator.normal(size=12)
    parts = [(sample.var(ddof=1) / sample.size, sample.size - 1.0) for sample in (first, second)]
    expected = CompareMeans(DescrStatsW(first), DescrStatsW(second)).dof_satt()
    assert clustered.pooled_degrees(parts) == pytest.approx(expected)
    assert clustered.pooled_degrees([parts[0], (0.0, 2.0)]) == pytest.approx(6)


# Simulations: seeds are fixed, the bands loose


def test_level_contrasts_hold_their_size_where_naive_clustering_does_not() -> None:
    generator = np.random.default_rng(10)
    n_tasks, n_seeds, n_languages = 6, 5, 20
    task, seed, code = (
        part.ravel() for part in np.meshgrid(range(n_tasks), range(n_seeds), range(n_languages), indexing="ij")
    )
    low = (np.arange(n_languages) < 8).astype(float)
    tilt = low - low.mean()
    design, run = clustered.difference_design(task, low[code]), task * n_seeds + seed
    rejected = {"parts": 0, "naive": 0}
    for _ in range(300):
        usual = generator.normal(50, 10, n_languages)
        score = usual[code] + generator.normal(0, 0.3, run.max() + 1)[run] * tilt[code]
        score += generator.normal(0, 0.5, code.size) + generator.normal(0, 0.2, n_languages)[code]
        noise = generator.normal(0, 1, (n_seeds, 1)) * tilt + generator.normal(0, 0.5, (n_seeds, n_languages))
        baseline_score = (usual + noise)[seed, code]
        treated, baseline = clustered.split_parts(score, baseline_score, code, seed)
        for name, parts in (("parts", (treated, baseline)), ("naive", (treated - baseline, 0 * baseline))):
            p = clustered.two_way(design, *parts, code, run, seed).p_value()
            rejected[name] += p is not None and p < 0.05
    assert rejected["naive"] > 0.2 * 300
    assert rejected["parts"] < 0.09 * 300


@pytest.mark.parametrize("few_low", [False, True])
def test_slopes_hold_their_size_and_are_unbiased(few_low: bool) -> None:
    generator = np.random.default_rng(11)
    n_languages, n_budgets, n_seeds, planted = 49, 6, 3, 0.4
    budget, seed, code = (
        part.ravel() for part in np.meshgrid(range(n_budgets), range(n_seeds), range(n_languages), indexing="ij")
    )
    moderator = generator.normal(size=n_languages)
    if few_low:
        moderator = (np.arange(n_languages) < 5).astype(float)
    profile = moderator - moderator.mean()
    run = budget * n_seeds + seed
    design = clustered.slope_design(np.zeros_like(code), code, budget.astype(np.float64), moderator[code])
    rejected, estimates = 0, []
    for _ in range(400):
        slopes = generator.normal(0, 0.5, n_languages)
        score = slopes[code] * budget + generator.normal(0, 0.5, run.max() + 1)[run] * profile[code]
        score += generator.normal(0, 1, code.size)
        baseline_score = generator.normal(0, 1, (n_seeds, n_languages))[seed, code]
        treated, baseline = clustered.split_parts(score, baseline_score, code, seed)
        p = clustered.two_way(design, treated, baseline, code, run, seed).p_value()
        rejected += p is not None and p < 0.05
        treated = treated + planted * moderator[code] * budget
        estimates.append(float(design.weights @ (treated - baseline)))
    assert rejected <= 0.08 * 400
    assert np.mean(estimates) == pytest.approx(planted, abs=float(4 * np.std(estimates) / 20))


# Multiplicity


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_adjusted_p_values_agree_with_statsmodels(p: list[float]) -> None:
    from statsmodels.stats.multitest import multipletests  # type: ignore[import-untyped]

    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])
    assert benjamini_hochberg(p) == pytest.approx(multipletests(p, method="fdr_bh")[1])
