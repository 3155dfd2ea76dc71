"""Contrasts: estimates by hand, variances against statsmodels and dense algebra, simulations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toy_gains import EVERY, HIGH, LANGUAGES, LOW, UNSEEN, estimated, noisy, row, scores
from xlift.contrasts import clustered
from xlift.contrasts.answer import answer, answer_table
from xlift.contrasts.clustered import FloatArray, IntArray, benjamini_hochberg, holm
from xlift.contrasts.gains import compute_gains
from xlift.contrasts.rows import SCHEMA
from xlift.contrasts.table import ContrastSettings
from xlift.errors import UserError
from xlift.languages import Language
from xlift.resource import resource_levels


def estimate_contrasts(
    gains: pl.DataFrame, languages: Mapping[str, Language] = LANGUAGES, **options: Any
) -> pl.DataFrame:
    return estimated(gains, languages, **options)


def contrasts(table: pl.DataFrame, **options: Any) -> pl.DataFrame:
    return estimated(compute_gains(table), **options)


# Estimates


def test_low_minus_high_is_the_plain_difference_of_equally_weighted_means() -> None:
    table = scores(noisy, {"xnli": EVERY, "xquad": EVERY})
    gains = compute_gains(table)
    found = contrasts(table)
    at = gains.filter(pl.col("budget") == 0.5)
    means = {
        name: at.filter(pl.col("language").is_in(codes)).group_by("target", "intermediate").agg(pl.col("gain").mean())
        for name, codes in (("low", LOW), ("high", HIGH), ("unseen", UNSEEN), ("mid", ["te", "ka"]))
    }
    levels = {name: float(np.mean(table["gain"].to_numpy())) for name, table in means.items()}
    for name, level in levels.items():
        assert row(found, f"gain_{name}", "budget=0.5")["estimate"] == pytest.approx(level)
    difference = row(found, "low_minus_high", "budget=0.5")
    assert difference["estimate"] == pytest.approx(levels["low"] - levels["high"])
    assert (difference["n_languages"], difference["n_runs"]) == (7, 6)
    one = at.filter(pl.col("target") == "xquad")
    plain = [one.filter(pl.col("language").is_in(codes))["gain"].to_numpy().mean() for codes in (LOW, HIGH)]
    assert row(found, "low_minus_high", "budget=0.5;target=xquad")["estimate"] == pytest.approx(plain[0] - plain[1])


def test_slopes_are_contrasts_of_the_slopes_of_each_language() -> None:
    table = scores(noisy)
    slope = {
        code: np.polyfit(np.log2(part["steps"].to_numpy()), part["gain"].to_numpy(), 1)[0]
        for (code,), part in compute_gains(table).group_by("language")
    }
    found = contrasts(table)
    low, high, unseen = (np.mean([slope[code] for code in codes]) for codes in (LOW, HIGH, UNSEEN))
    assert row(found, "low_minus_high_per_doubling", "all")["estimate"] == pytest.approx(low - high)
    rest = np.mean([slope[code] for code in EVERY if code not in ("en", *UNSEEN)])
    assert row(found, "unseen_minus_rest_per_doubling", "all")["estimate"] == pytest.approx(unseen - rest)
    z = resource_levels(LANGUAGES.values()).z
    expected = np.polyfit([z[code] for code in z], [slope[code] for code in z], 1)[0]
    beta = row(found, "beta_per_doubling", "all")
    assert beta["estimate"] == pytest.approx(expected)
    assert (beta["n_languages"], beta["n_runs"]) == (9, 18)


def test_a_planted_effect_is_found_and_english_is_in_no_contrast() -> None:
    z = resource_levels(LANGUAGES.values()).z

    def planted(target: str, intermediate: str, budget: float, seed: int, code: str) -> float:
        own = len(code + target) + 0.1 * seed  # the same for all languages of a cell
        return 50.0 if code == "en" else own + (2.0 - 0.7 * z.get(code, 0.0)) * float(np.log2(budget) + 2)

    found = contrasts(scores(planted, {"xnli": EVERY, "xquad": ["en", *HIGH, "sw"]}))
    beta = row(found, "beta_per_doubling", "all")
    assert beta["estimate"] == pytest.approx(-0.7)
    assert beta["p"] is None
    assert "no variation" in str(beta["note"])
    assert row(found, "beta_per_doubling", "target=xquad")["estimate"] == pytest.approx(-0.7)
    assert row(found, "beta_per_doubling", "intermediate=squad")["estimate"] == pytest.approx(-0.7)


def test_dense_dummies_give_the_same_slope_on_an_incomplete_grid() -> None:
    gains = compute_gains(scores(noisy, {"xnli": EVERY, "xquad": ["en", *HIGH, "sw"]}))
    part = gains.filter(pl.col("language") != "en").sample(fraction=0.7, seed=3, shuffle=True)
    seen = part.filter(~pl.col("language").is_in(UNSEEN))
    z = resource_levels(LANGUAGES.values()).z
    x = np.log2(seen["steps"].to_numpy())
    cell = seen.select(pl.struct("target", "intermediate", "language").rank("dense")).to_series().to_numpy() - 1
    pair = seen.select(pl.struct("target", "intermediate").rank("dense")).to_series().to_numpy() - 1
    focal = np.array([z[code] for code in seen["language"]]) * x
    design = np.column_stack([focal, np.eye(pair.max() + 1)[pair] * x[:, None], np.eye(cell.max() + 1)[cell]])
    expected = np.linalg.lstsq(design, seen["gain"].to_numpy(), rcond=None)[0][0]
    found = row(estimate_contrasts(part, LANGUAGES), "beta_per_doubling", "all")
    assert found["estimate"] == pytest.approx(expected)
    assert "rows of the grid are missing: estimated from the rest" in str(found["note"])


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**16))
def test_the_order_of_the_rows_does_not_matter(seed: int) -> None:
    gains = compute_gains(scores(noisy, {"xnli": EVERY, "xquad": [*HIGH, "sw"]}, noise=1.0))
    shuffled = gains.sample(fraction=1.0, shuffle=True, seed=seed)
    assert estimate_contrasts(shuffled, LANGUAGES).equals(estimate_contrasts(gains, LANGUAGES))


# What is not identified, missing or too little


def test_schema_and_notes_where_something_is_missing() -> None:
    table = scores(noisy, {"xnli": EVERY, "xquad": ["en", *HIGH, "wo"]}, noise=1.0)
    found = contrasts(table)
    assert dict(found.schema) == SCHEMA
    assert not found.select(pl.struct("estimand", "scope", "scale", "method").is_duplicated().any()).item()
    assert found.select(pl.col("estimate", "se", "p").is_nan().any()).row(0) == (False, False, False)
    missing = row(found, "low_minus_high_per_doubling", "target=xquad")
    assert missing["estimate"] is None
    assert missing["note"] == "not identified: no low-resource language"
    assert "xquad" in str(row(found, "low_minus_high_per_doubling", "all")["note"])
    assert "no low-resource language in xquad" in str(row(found, "gain_low", "budget=1")["note"])
    assert "xquad" in str(row(found, "low_minus_high", "budget=1")["note"])
    once = contrasts(scores(noisy, budgets=(1.0,)))
    assert "two budgets" in str(row(once, "beta_per_doubling", "all")["note"])
    assert row(once, "low_minus_high", "budget=1")["estimate"] is not None


def test_fewer_than_three_seeds_give_an_estimate_without_interval_or_p() -> None:
    found = contrasts(scores(noisy, seeds=(1, 2)))
    for estimand, scope in (
        ("beta_per_doubling", "all"),
        ("low_minus_high", "budget=1"),
        ("gain_low", "budget=1"),
    ):
        values = row(found, estimand, scope)
        assert values["estimate"] is not None
        assert [values[name] for name in ("se", "ci_low", "ci_high", "p", "p_adjusted")] == [None] * 5
        assert values["note"] == "fewer than 3 seeds: no interval or p-value"


def test_one_low_language_gives_no_interval() -> None:
    found = contrasts(scores(noisy, {"xnli": ["en", "sw", *HIGH]}, noise=1.0))
    values = row(found, "low_minus_high_per_doubling", "all")
    assert values["estimate"] is not None
    assert values["se"] is None
    assert "rests on a single language" in str(values["note"])


def test_no_mean_over_missing_cells() -> None:
    table = scores(noisy, {"xnli": EVERY, "xquad": EVERY})
    gone = (pl.col("target") == "xnli") & (pl.col("intermediate") == "squad") & (pl.col("budget") == 2.0)
    found = contrasts(table.filter(~gone))
    for estimand, scope in (("low_minus_high", "budget=2"), ("gain_low", "budget=2")):
        values = row(found, estimand, scope)
        assert values["estimate"] is None
        assert "rows of the grid are missing" in str(values["note"])
    assert row(found, "low_minus_high", "budget=1")["estimate"] is not None
    assert "21 rows" in str(row(found, "low_minus_high_per_doubling", "all")["note"])
    shared = (pl.col("target") == "xnli") & (pl.col("intermediate") == "mnli")  # never part of the grid
    left_out = row(contrasts(table.filter(~shared)), "low_minus_high", "budget=2")
    assert left_out["estimate"] is not None
    assert "1 (target, intermediate) pairs are not" in str(left_out["note"])


def test_collapsed_cells_stay_and_are_counted() -> None:
    collapsed = (pl.col("intermediate") == "mnli") & (pl.col("budget") == 1.0) & (pl.col("seed") == 2)
    table = scores(noisy)
    flagged = table.with_columns(collapsed=collapsed)
    plain, with_flag = (
        row(contrasts(table), "gain_low", "budget=1"),
        row(contrasts(flagged), "gain_low", "budget=1"),
    )
    assert plain["estimate"] == with_flag["estimate"]
    assert with_flag["note"] == "1 of 6 cells collapsed and are kept"


def test_without_any_gain_every_row_says_so() -> None:
    found = contrasts(scores(noisy).filter(pl.col("intermediate") != "none"))
    assert found["estimate"].null_count() == found.height == 3
    assert all("no scored cell has its baseline" in note for note in found["note"])


def test_bad_gains_are_refused() -> None:
    gains = compute_gains(scores(noisy))
    with pytest.raises(UserError, match="language de"):
        estimate_contrasts(gains, {code: LANGUAGES[code] for code in EVERY if code != "de"})
    with pytest.raises(UserError, match=r"two primary rows.*language=de"):
        estimate_contrasts(pl.concat([gains, gains.filter(pl.col("language") == "de").head(1)]), LANGUAGES)
    with pytest.raises(UserError, match="steps"):
        estimate_contrasts(gains.with_columns(steps=pl.lit(0)), LANGUAGES)
    with pytest.raises(UserError, match="baseline_score"):
        estimate_contrasts(gains.with_columns(gain=pl.col("gain") + 1), LANGUAGES)


# Variance


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


def test_budgets_of_one_trunk_are_one_cluster() -> None:
    found = contrasts(scores(noisy, noise=1.0), shared_trunk=True)
    assert row(found, "beta_per_doubling", "all")["n_runs"] == 6


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


# Multiplicity and words


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_adjusted_p_values_agree_with_statsmodels(p: list[float]) -> None:
    from statsmodels.stats.multitest import multipletests  # type: ignore[import-untyped]

    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])
    assert benjamini_hochberg(p) == pytest.approx(multipletests(p, method="fdr_bh")[1])


def test_families_of_adjusted_p_values() -> None:
    found = contrasts(scores(noisy, {"xnli": EVERY, "xquad": EVERY}, noise=1.0))
    names = ["beta_per_doubling", "low_minus_high_per_doubling", "unseen_minus_rest_per_doubling"]
    families: list[tuple[Callable[[list[float]], list[float]], list[dict[str, Any]]]] = [
        (holm, [row(found, name, "all") for name in names]),
        (benjamini_hochberg, [row(found, "gain_high", f"budget={budget}") for budget in ("0.5", "1", "2")]),
    ]
    for adjust, members in families:
        expected = adjust([values["p"] for values in members])
        assert [values["p_adjusted"] for values in members] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("sign", "smallest", "words"),
    [
        (-1, 0.2, "Yes: with more English intermediate training, low-resource languages gain more"),
        (-1, 2.0, "Yes: with more English intermediate training, low-resource languages gain more"),
        (1, 0.2, "No, the other way round"),
        (0, 0.01, "Not shown"),
        (0, 0.2, "No difference that matters: an effect of 0.2 points per doubling"),
    ],
)
def test_the_answer_follows_the_intervals(sign: int, smallest: float, words: str) -> None:
    z = resource_levels(LANGUAGES.values()).z
    table = scores(lambda t, i, budget, s, code: 5 + sign * z.get(code, 0) * float(np.log2(budget)), noise=0.3)
    gains = compute_gains(table)
    found = estimate_contrasts(gains, LANGUAGES, smallest_effect=smallest)
    text = answer(found, gains, ContrastSettings(smallest_effect=smallest))
    assert text.startswith(words)
    assert ("but by less than the smallest effect of interest" in text) == (smallest == 2.0)
    beta = row(found, "beta_per_doubling", "all")
    assert f"{beta['estimate']:+.2f}"[:4] in text
    assert "95 % interval" in text
    assert "3 seeds" in text
    lines = answer_table(found)
    assert 3 < len(lines) <= 10
    assert {len(line) for line in lines} == {5}


def test_the_answer_without_an_interval_or_estimate_claims_nothing() -> None:
    few = compute_gains(scores(noisy, seeds=(1,)))
    text = answer(estimate_contrasts(few, LANGUAGES), few)
    assert "no answer" in text
    assert "fewer than 3 seeds" in text
    once = compute_gains(scores(noisy, budgets=(1.0,)))
    text = answer(estimate_contrasts(once, LANGUAGES), once)
    assert text.startswith("This study cannot answer")
    assert "two budgets" in text
    many = scores(noisy, budgets=tuple(2.0**k for k in range(9)))
    lines = answer_table(contrasts(many))
    assert len(lines) == 10
    assert [line[0] for line in lines if line[0].startswith("low - high, b")][::4] == [
        "low - high, budget 1",
        "low - high, budget 256",
    ]
