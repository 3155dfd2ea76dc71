"""Scales: log-odds and error reductions by hand, their parts, and where they are not defined."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toy_gains import CHANCE, EVERY, LANGUAGES, PLAIN, compute_gains, estimated, noisy, row, scores, two_targets
from xlift.catalog import CATALOG
from xlift.contrasts.clustered import FloatArray, pair_codes
from xlift.contrasts.scales import SCALES, at_chance, log_odds, parts_on
from xlift.contrasts.table import ContrastSettings, GainTable
from xlift.errors import UserError


def one(*values: float) -> FloatArray:
    return np.array(values, dtype=np.float64)


def test_log_odds_by_hand() -> None:
    # 75 % of 3 choices is a share of (.75 - 1/3) / (2/3) = .625 over chance; 200 items: 125.5 against 75.5
    assert log_odds(one(75), one(200), one(1 / 3)) == pytest.approx([np.log(125.5 / 75.5)])
    assert log_odds(one(50), one(10), one(0)) == pytest.approx([0.0])
    assert log_odds(one(100), one(10), one(0)) == pytest.approx([np.log(10.5 / 0.5)])


def test_at_and_under_chance_is_the_least_value_and_counted() -> None:
    least = np.log(0.5 / 20.5)
    assert log_odds(one(0, 30, 50), one(20, 20, 20), one(0.5, 0.5, 0.5)) == pytest.approx([least] * 3)
    assert at_chance(one(49.9, 50, 50.1), one(0.5, 0.5, 0.5)).tolist() == [True, True, False]


@given(st.floats(0, 100), st.integers(1, 10**6), st.floats(0, 0.9), st.floats(0, 100))
def test_log_odds_are_finite_and_rise_with_the_score(score: float, n: int, chance: float, other: float) -> None:
    low, high = sorted((score, other))
    values = log_odds(one(low, high), one(n, n), one(chance, chance))
    assert np.isfinite(values).all()
    assert values[0] <= values[1]


def parts(scale: str, score: list[float], baseline: list[float], seed: list[int]) -> tuple[FloatArray, FloatArray]:
    """Parts of rows of one target and language with 100 items and no chance level."""
    size = len(score)
    n, chance = np.full(size, 100.0), np.zeros(size)
    return parts_on(scale, one(*score), one(*baseline), n, chance, np.zeros(size, np.int64), np.array(seed))


def test_error_reduction_is_the_share_of_errors_gone() -> None:
    treated, baseline = parts("error_reduction", [80, 80, 50], [60, 70, 50], [0, 1, 2])
    assert treated - baseline == pytest.approx([20 / 40, 10 / 30, 0.0])
    # against the mean baseline of 60
    assert treated == pytest.approx([20 / 40, 20 / 40, -10 / 40])


def test_the_baseline_part_of_an_error_reduction_is_its_deviation_to_first_order() -> None:
    _, baseline = parts("error_reduction", [80, 80], [60.001, 59.999], [0, 1])
    assert baseline == pytest.approx([0.001 * 20 / 40**2, -0.001 * 20 / 40**2], rel=1e-4)


def test_a_baseline_without_errors_is_not_defined_and_never_infinite() -> None:
    treated, baseline = parts("error_reduction", [100, 99], [100, 100], [0, 1])
    assert np.isnan(treated).all()
    assert np.isnan(baseline).all()


@given(
    st.lists(st.tuples(st.floats(0, 100), st.floats(0, 99.99), st.integers(0, 3)), min_size=1, max_size=12),
    st.sampled_from(SCALES),
)
def test_parts_always_add_up_to_the_gain(rows: list[tuple[float, float, int]], scale: str) -> None:
    baselines = {seed: baseline for _, baseline, seed in rows}  # one baseline a seed
    score, seed = [score for score, _, _ in rows], [seed for _, _, seed in rows]
    base = [baselines[k] for k in seed]
    dense = pair_codes(np.array(seed), np.zeros(len(seed), np.int64))
    treated, baseline = parts(scale, score, base, dense.tolist())
    n, chance = np.full(len(rows), 100.0), np.zeros(len(rows))
    gain = {
        "points": one(*score) - one(*base),
        "logit": log_odds(one(*score), n, chance) - log_odds(one(*base), n, chance),
        "error_reduction": (one(*score) - one(*base)) / (100 - one(*base)),
    }[scale]
    assert treated - baseline == pytest.approx(gain, rel=1e-6, abs=1e-6)
    if len(set(baselines.values())) == 1:
        assert not baseline.any()


def test_every_estimand_is_on_every_scale_and_agrees_with_its_own_formula() -> None:
    gains = two_targets()
    found = estimated(gains, scales=SCALES)
    clustered = found.filter(pl.col("method") == "clustered")
    by_scale = {scale: clustered.filter(pl.col("scale") == scale).select("estimand", "scope") for scale in SCALES}
    assert by_scale["logit"].equals(by_scale["points"])
    assert by_scale["error_reduction"].equals(by_scale["points"])
    at = gains.filter((pl.col("budget") == 1) & pl.col("language").is_in(["gu", "jv", "sw"]))
    chance = at["target"].replace_strict(CHANCE, return_dtype=pl.Float64).to_numpy()
    n = np.full(at.height, 200.0)
    odds = [log_odds(at[name].to_numpy(), n, chance) for name in ("score", "baseline_score")]
    reduced = (at["score"] - at["baseline_score"]) / (100 - at["baseline_score"])
    for scale, gain in (("logit", odds[0] - odds[1]), ("error_reduction", reduced.to_numpy())):
        groups = at.with_columns(gain=pl.Series(gain)).group_by("target", "intermediate").agg(pl.col("gain").mean())
        expected = float(np.mean(groups["gain"].to_numpy()))
        assert row(found, "gain_low", "budget=1", scale)["estimate"] == pytest.approx(expected)


def test_rows_without_an_error_to_reduce_make_no_mean() -> None:
    table = scores(noisy)
    perfect = (pl.col("language") == "sw") & (pl.col("intermediate") == "none")
    gains = compute_gains(table.with_columns(score=pl.when(perfect).then(100.0).otherwise("score")))
    found = estimated(gains, scales=("error_reduction",))
    level = row(found, "gain_low", "budget=1", "error_reduction")
    assert level["estimate"] is None
    assert level["note"] == "6 rows are not defined, their baseline being at 100: no mean over missing cells"
    slope = row(found, "beta_per_doubling", "all", "error_reduction")
    assert slope["estimate"] is not None
    assert "18 rows are not defined" in slope["note"]
    assert found.select(pl.col("estimate", "se", "ci_low", "ci_high").is_infinite().any()).row(0) == (False,) * 4


def test_scores_under_chance_are_counted_in_the_note() -> None:
    table = scores(noisy, noise=1.0)
    low = (pl.col("language") == "jv") & (pl.col("intermediate") == "none")
    gains = compute_gains(table.with_columns(score=pl.when(low).then(20.0).otherwise("score")))
    found = row(estimated(gains, scales=("logit",)), "beta_per_doubling", "all", "logit")
    assert "18 of 162 gains have a score at or under chance" in found["note"]
    assert np.isfinite(found["estimate"])


def test_a_target_without_a_chance_level_is_refused() -> None:
    gains = two_targets()
    settings = ContrastSettings(**{**PLAIN, "chance": {"xnli": 1 / 3}})
    with pytest.raises(UserError, match="target xquad has no chance level"):
        GainTable.read(gains, gains, LANGUAGES, settings).on("logit")


def test_chance_levels_of_the_catalog() -> None:
    assert CATALOG["cldr_kind"].chance == pytest.approx(1 / 5)
    assert CATALOG["cldr_choice"].chance == pytest.approx(1 / 4)
    assert CATALOG["cldr_entities"].chance == CATALOG["cldr_retrieval"].chance == CATALOG["cldr_qa"].chance == 0
    assert all(task.chance > 0 for task in CATALOG.values() if task.family in ("classification", "multiple_choice"))
    assert len(EVERY) == 12
