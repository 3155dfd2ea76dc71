"""The bootstrap against weighted least squares on dense matrices, its weights, and what it withholds."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from toy_gains import HIGH, compute_gains, estimated, incomplete, noisy, row, scores, table_of, two_targets
from xlift.contrasts.bootstrap import Weights, bootstrap_estimates, draw_weights, resampled
from xlift.contrasts.clustered import FloatArray, IntArray, pair_codes
from xlift.contrasts.contrast import Contrast, all_contrasts, prepare
from xlift.contrasts.table import GainTable

BOTH: dict[str, Any] = {"methods": ("clustered", "bootstrap"), "bootstrap_draws": 400}


def dense_estimate(table: GainTable, contrast: Contrast, rows: IntArray, y: FloatArray, weight: FloatArray) -> float:
    """A contrast of outcome `y` by weighted least squares with a dummy for every fixed effect, or by plain means."""
    pair = pair_codes(table.target[rows], table.intermediate[rows])
    if contrast.kind == "mean":
        codes = [code for code in np.unique(pair) if weight[pair == code].sum() > 0]
        return float(np.mean([np.average(y[pair == code], weights=weight[pair == code]) for code in codes]))
    keep = weight > 0
    pair, y, weight, rows = pair_codes(pair[keep], 0 * pair[keep]), y[keep], weight[keep], rows[keep]
    dummies = np.eye(pair.max() + 1)[pair]
    z = contrast.moderator[table.language[rows]]
    if contrast.kind == "slope":
        cell = pair_codes(pair, table.language[rows])
        x = table.x[rows]
        design = np.column_stack([z * x, dummies * x[:, None], np.eye(cell.max() + 1)[cell]])
    else:
        design = np.column_stack([z, dummies])
    root = np.sqrt(weight)
    return float(np.linalg.lstsq(design * root[:, None], y * root, rcond=None)[0][0])


def brute_force(table: GainTable, contrast: Contrast, weights: Weights, draw: int) -> float:
    """The estimate of one draw: treated parts weighted by runs, minus baseline parts weighted by seeds."""
    rows = prepare(table, contrast).rows
    own = weights.seen if contrast.estimand == "beta_per_doubling" else weights.stratum
    language = own[draw, table.language[rows]]
    return dense_estimate(
        table, contrast, rows, table.treated[rows], language * weights.run[draw, table.run[rows]]
    ) - dense_estimate(table, contrast, rows, table.baseline[rows], language * weights.seed[draw, table.seed[rows]])


@pytest.mark.parametrize("scale", ["points", "error_reduction"])
@pytest.mark.parametrize("whole", [True, False])
def test_draws_are_the_weighted_least_squares_of_dense_designs(whole: bool, scale: str) -> None:
    gains = two_targets() if whole else incomplete(two_targets())
    table = table_of(gains).on(scale)
    # Levels with missing rows have no row in the table of contrasts, but the draws are defined all the same.
    contrasts = [each for each in all_contrasts(table) if len(each.scope.kind) == 1 and prepare(table, each).rows.size]
    # Weights above zero: where a draw drops a language the dense designs lose columns, not the estimate.
    generator = np.random.default_rng(5)
    sizes = (int(table.run.max()) + 1, int(table.seed.max()) + 1, len(table.languages), len(table.languages))
    weights = Weights(*(generator.uniform(0.2, 2.0, size=(3, size)) for size in sizes))
    found = bootstrap_estimates(table, contrasts, weights)
    assert found.shape == (3, len(contrasts))
    checked = 0
    for column, contrast in enumerate(contrasts):
        if np.isfinite(found[:, column]).all():
            expected = [brute_force(table, contrast, weights, draw) for draw in range(3)]
            assert found[:, column] == pytest.approx(expected, rel=1e-7, abs=1e-9), contrast.scope.name
            checked += 1
    assert checked >= 20


def test_real_draws_with_zero_weights_agree_too() -> None:
    table = table_of(two_targets(seeds=(1, 2, 3, 4)))
    contrasts = [each for each in all_contrasts(table) if each.scope.name in ("all", "budget=1")]
    contrasts = [each for each in contrasts if prepare(table, each).design is not None]
    weights = draw_weights(table, 6, np.random.default_rng(0))
    assert (weights.seen == 0).any()
    found = bootstrap_estimates(table, contrasts, weights)
    expected = [[brute_force(table, each, weights, draw) for each in contrasts] for draw in range(6)]
    assert found == pytest.approx(np.array(expected), rel=1e-7, abs=1e-9)


def test_equal_weights_give_the_estimates_of_the_table() -> None:
    table = table_of(incomplete(two_targets()))
    contrasts = [each for each in all_contrasts(table) if prepare(table, each).design is not None]
    ones = Weights(*(np.ones((1, size)) for size in (table.run.max() + 1, table.seed.max() + 1, 11, 11)))
    found = bootstrap_estimates(table, contrasts, ones)[0]
    clustered = estimated(incomplete(two_targets()))
    for contrast, value in zip(contrasts, found, strict=True):
        assert value == pytest.approx(row(clustered, contrast.estimand, contrast.scope.name)["estimate"])


def test_weights_have_the_variance_of_a_mean_and_stay_within_their_group() -> None:
    group = np.array([0, 0, 0, 1, 1, 1, 1, 2])
    weights = resampled(group, 40_000, np.random.default_rng(1))
    for code, size in ((0, 3), (1, 4), (2, 1)):
        assert np.allclose(weights[:, group == code].sum(axis=1), size)
    assert (weights[:, 7] == 1).all()
    values = np.array([1.0, 4.0, -2.0])
    means = weights[:, :3] @ values / 3
    assert means.mean() == pytest.approx(1.0, abs=0.05)
    assert means.var() == pytest.approx(values.var(ddof=1) / 3, rel=0.05)  # not the plain bootstrap's two thirds


def test_checkpoints_are_drawn_within_task_and_budget_and_baselines_once_for_all() -> None:
    table = table_of(two_targets())
    weights = draw_weights(table, 50, np.random.default_rng(2))
    for task in range(2):
        for budget in range(3):
            runs = np.unique(table.run[(table.intermediate == task) & (table.budget == budget)])
            assert runs.size == 3
            assert np.allclose(weights.run[:, runs].sum(axis=1), 3)
    assert weights.seed.shape == (50, 3)
    trunk = table_of(two_targets(), shared_trunk=True)
    assert draw_weights(trunk, 5, np.random.default_rng(2)).run.shape == (5, 6)


def test_baseline_noise_is_in_the_interval_of_levels_and_not_of_slopes() -> None:
    plain = scores(lambda *cell: noisy(*cell) / 50)
    shift = pl.col("seed").replace_strict({1: -3.0, 2: 0.0, 3: 3.0}, return_dtype=pl.Float64)
    moved = pl.when(pl.col("intermediate") == "none").then(pl.col("score") + shift).otherwise("score")
    quiet, loud = (estimated(compute_gains(t), **BOTH) for t in (plain, plain.with_columns(score=moved)))
    level = [row(t, "gain_all", "budget=1", method="bootstrap")["se"] for t in (quiet, loud)]
    assert level[1] == pytest.approx((9 / 3) ** 0.5, rel=0.15)  # sd of the baselines 3, three of them
    assert level[0] < 0.1
    slope = [row(t, "beta_per_doubling", "all", method="bootstrap")["se"] for t in (quiet, loud)]
    assert slope[1] == pytest.approx(slope[0], rel=1e-9)


def test_intervals_are_near_those_of_the_clustered_method_on_a_large_grid() -> None:
    gains = two_targets(seeds=tuple(range(12)), budgets=(1.0, 2.0, 4.0, 8.0))
    found = estimated(gains, methods=("clustered", "bootstrap"), bootstrap_draws=2000)
    both = [row(found, "beta_per_doubling", "all", method=name) for name in ("clustered", "bootstrap")]
    assert both[0]["estimate"] == both[1]["estimate"]
    assert both[1]["se"] == pytest.approx(both[0]["se"], rel=0.5)
    assert both[1]["ci_low"] < both[1]["estimate"] < both[1]["ci_high"]
    assert (both[0]["n_languages"], both[0]["n_runs"]) == (both[1]["n_languages"], both[1]["n_runs"])


def test_the_same_seed_gives_the_same_rows_whatever_the_order() -> None:
    gains = two_targets()
    shuffled = gains.sample(fraction=1.0, shuffle=True, seed=9)
    assert estimated(gains, **BOTH).equals(estimated(shuffled, **BOTH))


def test_no_interval_from_few_seeds_or_a_single_language() -> None:
    few = row(estimated(two_targets(seeds=(1, 2)), **BOTH), "beta_per_doubling", "all", method="bootstrap")
    assert few["estimate"] is not None
    assert [few[name] for name in ("se", "ci_low", "p")] == [None] * 3
    assert "fewer than 3 seeds" in few["note"]
    alone = compute_gains(scores(noisy, {"xnli": ["en", "sw", *HIGH]}, noise=1.0))
    single = row(estimated(alone, **BOTH), "low_minus_high_per_doubling", "all", method="bootstrap")
    assert single["p"] is None
    assert "rests on a single language" in single["note"]
