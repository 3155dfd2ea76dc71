"""What may not happen in the contrasts of a study: a test for each clause."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest

from toy_gains import (
    CHANCE,
    EVERY,
    HIGH,
    LANGUAGES,
    compute_gains,
    crossed,
    estimated,
    noisy,
    row,
    scores,
    two_targets,
)
from xlift.contrasts.estimands import ContrastSettings, estimate_contrasts
from xlift.contrasts.gains import compute_gains as gains_of
from xlift.contrasts.mixed import MixedEstimate
from xlift.contrasts.rows import METHODS
from xlift.contrasts.scales import SCALES
from xlift.errors import UserError

NUMBERS = ("estimate", "se", "ci_low", "ci_high", "p", "p_adjusted")
EVERYTHING: dict[str, Any] = {
    "scales": SCALES, "methods": METHODS, "sensitivity": True, "bootstrap_draws": 100, "permutations": 100,
}  # fmt: skip


def everything(gains: pl.DataFrame, planned: pl.DataFrame | None = None) -> pl.DataFrame:
    planned = crossed(gains) if planned is None else planned
    return estimate_contrasts(gains, planned, LANGUAGES, ContrastSettings(**EVERYTHING, chance=CHANCE))


@pytest.fixture(scope="module")
def found() -> pl.DataFrame:
    return everything(two_targets())


@pytest.mark.parametrize("seeds", [(1,), (1, 2)])
def test_a_p_value_from_under_three_seeds(seeds: tuple[int, ...]) -> None:
    few = everything(two_targets(seeds=seeds))
    assert few["estimate"].null_count() < few.height
    for name in NUMBERS[1:]:
        assert few[name].null_count() == few.height, name
    assert few.filter(pl.col("estimate").is_not_null())["note"].str.contains("fewer than 3 seeds").all()


def test_a_p_value_that_rests_on_two_seeds_beside_cells_of_a_third_that_carry_nothing() -> None:
    """A target without low-resource languages has a third seed: it is no third seed of low - high."""
    gains = compute_gains(scores(noisy, {"xnli": EVERY, "xquad": ["en", *HIGH]}, noise=1.0))
    uneven = gains.filter((pl.col("target") == "xquad") | (pl.col("seed") < 3))
    found = estimated(uneven, methods=METHODS, bootstrap_draws=50, permutations=50)
    for method in METHODS:
        values = row(found, "low_minus_high_per_doubling", "all", method=method)
        assert values["estimate"] is not None
        assert (values["se"], values["p"]) == (None, None)
        assert "fewer than 3 seeds" in values["note"]
    assert row(found, "beta_per_doubling", "all")["p"] is not None


def test_a_mean_over_missing_cells() -> None:
    gains = two_targets()
    gone = (pl.col("target") == "xnli") & (pl.col("intermediate") == "squad") & (pl.col("budget") == 2.0)
    partly = everything(gains.filter(~gone))
    levels = partly.filter(pl.col("estimand").is_in(["gain_low", "gain_high", "gain_all", "low_minus_high"]))
    over_the_gap = levels.filter(
        pl.col("scope").is_in(["budget=2", "budget=2;target=xnli", "budget=2;intermediate=squad"])
    )
    assert over_the_gap.height > 20
    for name in NUMBERS:
        assert over_the_gap[name].null_count() == over_the_gap.height
    assert over_the_gap["note"].str.contains("no mean over missing cells").all()
    whole = levels.filter(pl.col("scope") == "budget=1")
    assert whole["estimate"].null_count() == 0


def test_a_mean_over_cells_that_leave_no_trace_in_the_gains() -> None:
    """A task's largest budget that no target has yet, or a whole target: only the plan tells that they are missing."""
    gains = two_targets()
    levels = ["gain_low", "gain_mid", "gain_high", "gain_all", "low_minus_high"]
    largest = (pl.col("intermediate") == "squad") & (pl.col("budget") == 2.0)
    target = pl.col("target") == "xquad"
    for gone, scopes, cells in (
        (largest, ["budget=2", "budget=2;target=xnli", "budget=2;target=xquad", "budget=2;intermediate=squad"], 6),
        (target, ["budget=0.5", "budget=1", "budget=2", "budget=1;target=xquad", "budget=1;intermediate=mnli"], 18),
    ):
        partly = everything(gains.filter(~gone), gains)
        over_the_gap = partly.filter(pl.col("estimand").is_in(levels), pl.col("scope").is_in(scopes))
        assert set(over_the_gap["scope"]) == set(scopes)
        for name in NUMBERS:
            assert over_the_gap[name].null_count() == over_the_gap.height
        assert over_the_gap["note"].str.contains(r"planned cells? lacks? \d+ gains?: no mean over missing cells").all()
        assert not partly["note"].str.contains("not planned at this budget").any()
        # Of the languages with a size xnli has 9 and xquad 6.
        beta = row(partly, "beta_per_doubling", "all")
        lost = 3 * (9 + 6) if cells == 6 else 18 * 6
        assert f"{cells} planned cells lack {lost} gains: estimated from the rest" in beta["note"]
        assert beta["estimate"] is not None
        slopes = partly.filter(pl.col("estimand").str.ends_with("per_doubling"), pl.col("scope") == "all")
        assert slopes["note"].str.contains("planned cells lack").all()
    undone = row(partly, "beta_per_doubling", "target=xquad")
    assert undone["estimate"] is None
    assert undone["note"] == "not identified: no gains yet; 18 planned cells lack 108 gains"


def test_an_arm_of_which_there_is_nothing_yet() -> None:
    gains = two_targets()
    control = gains.with_columns(arm=pl.lit("shuffled_labels"))
    found = everything(gains, pl.concat([gains, control]))
    own = found.filter(pl.col("scope").str.starts_with("arm=shuffled_labels"))
    assert set(own["estimand"]) == {"beta_per_doubling", "low_minus_high_per_doubling", "low_minus_high", "gain_all"}
    assert own["estimate"].null_count() == own.height
    assert own["note"].str.contains("planned cells lack").all()
    primary = ~pl.col("scope").str.starts_with("arm=")
    assert found.filter(primary).equals(everything(gains).filter(primary))


def test_english_in_an_average(found: pl.DataFrame) -> None:
    gains = two_targets()
    other = pl.when(pl.col("language") == "en").then(pl.col("score") / 2).otherwise("score")
    moved = gains.with_columns(score=other).with_columns(gain=pl.col("score") - pl.col("baseline_score"))
    assert everything(moved).equals(found)
    assert everything(gains.filter(pl.col("language") != "en")).equals(found)


def test_log_0_or_anything_not_finite() -> None:
    table = scores(noisy, {"xnli": EVERY, "xquad": ["en", *HIGH, "sw", "ka"]}, noise=1.0)
    edge = {"jv": 0.0, "sw": 100.0, "te": 100 / 3}
    moved = pl.col("language").replace_strict(edge, default=None, return_dtype=pl.Float64)
    baseline = pl.col("intermediate") == "none"
    extreme = table.with_columns(score=pl.when(baseline | (pl.col("seed") == 2)).then(moved).fill_null(pl.col("score")))
    found = everything(compute_gains(extreme))
    for name in NUMBERS:
        values = found[name].drop_nulls().to_numpy()
        assert np.isfinite(values).all(), name
    logit = row(found, "beta_per_doubling", "all", "logit")
    assert "have a score at or under chance" in logit["note"]
    reduction = row(found, "gain_low", "budget=1", "error_reduction")
    assert reduction["estimate"] is None
    assert "their baseline being at 100" in reduction["note"]


def test_the_baseline_as_a_budget() -> None:
    """`none` is a contrast of its own; no row is made of log2 of its steps."""
    gains = gains_of(scores(noisy))
    assert "none" not in gains["intermediate"].to_list()
    assert gains["budget"].min() > 0
    with pytest.raises(UserError, match="no positive number of steps"):
        estimated(gains.with_columns(steps=pl.lit(0)))


@pytest.mark.parametrize(
    "fit",
    [
        MixedEstimate(note="singular: the likelihood does not tell the variances apart: withheld"),
        MixedEstimate(note="not converged: the likelihood still rises: withheld"),
        MixedEstimate(note="the estimate or its standard error is exactly zero or not finite: withheld"),
    ],
)
def test_a_mixed_model_that_is_not_trusted_as_a_number(fit: MixedEstimate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xlift.contrasts.inference.fit_mixed", lambda data: fit)
    values = row(estimated(two_targets(), methods=("clustered", "mixed")), "beta_per_doubling", "all", method="mixed")
    assert [values[name] for name in NUMBERS] == [None] * 6
    assert values["note"] == fit.note


def test_a_mixed_model_is_crossed_and_not_nested(found: pl.DataFrame) -> None:
    """Were runs nested in languages, what a run does to all languages would be noise of each language's own.

    Runs that tilt all languages alike make the clustered and the crossed standard errors large together.
    """
    generator = np.random.default_rng(4)
    tilt = {}

    def tilted(target: str, task: str, budget: float, seed: int, code: str) -> float:
        z = EVERY.index(code) / 6 - 1
        push = tilt.setdefault((task, budget, seed), generator.normal(0, 3))
        return push * z + noisy(target, task, budget, seed, code) / 20

    gains = compute_gains(scores(tilted, seeds=(1, 2, 3, 4, 5)))
    both = estimated(gains, methods=("clustered", "mixed"))
    se = [row(both, "beta_per_doubling", "all", method=name)["se"] for name in ("clustered", "mixed")]
    assert None not in se
    assert math.log(se[1] / se[0]) == pytest.approx(0, abs=0.7)
    assert row(found, "beta_per_doubling", "all", method="mixed")["n_runs"] == 18


def test_a_collapsed_run_dropped() -> None:
    gains = two_targets()
    flag = (pl.col("intermediate") == "mnli") & (pl.col("seed") == 2)
    flagged = everything(gains.with_columns(collapsed=flag))
    plain = everything(gains)
    primary = ~pl.col("scope").str.contains("collapsed")
    assert flagged.filter(primary).drop("note").equals(plain.drop("note"))
    beta = row(flagged, "beta_per_doubling", "all")
    assert "cells collapsed and are kept" in beta["note"]
    assert row(flagged, "beta_per_doubling", "all;without=collapsed")["estimate"] != beta["estimate"]


def test_a_task_without_low_cells_in_low_minus_high_unmarked() -> None:
    gains = compute_gains(scores(noisy, {"xnli": EVERY, "xquad": ["en", *HIGH]}, noise=1.0))
    found = everything(gains)
    for estimand, scope in (("low_minus_high_per_doubling", "all"), ("low_minus_high", "budget=1")):
        for method in ("clustered", "bootstrap", "permutation"):
            for scale in SCALES:
                values = row(found, estimand, scope, scale, method)
                assert "no weight on xquad" in values["note"], (estimand, scale, method)
    assert "no weight on xquad" in row(found, "low_minus_high_per_doubling", "all", method="mixed")["note"]
    assert "no low-resource language in xquad" in row(found, "gain_low", "budget=1")["note"]
    own = row(found, "low_minus_high", "budget=1;target=xquad")
    assert own["estimate"] is None
    assert own["note"] == "not identified: no low-resource language"


def test_what_is_not_identified_has_no_number_by_any_method() -> None:
    gains = compute_gains(scores(noisy, {"xquad": ["en", *HIGH]}, noise=1.0))
    low_high = everything(gains).filter(pl.col("estimand") == "low_minus_high_per_doubling")
    assert set(low_high["method"]) == set(METHODS)  # no equivalence test of what has no estimate
    for name in NUMBERS:
        assert low_high[name].null_count() == low_high.height
    assert low_high["note"].str.contains("not identified").all()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (pl.col("score") + 90, "a score outside 0 to 100"),
        (pl.col("score") - 90, "a score outside 0 to 100"),
    ],
)
def test_a_score_outside_its_range(change: pl.Expr, sentence: str) -> None:
    moved = two_targets().with_columns(score=change).with_columns(gain=pl.col("score") - pl.col("baseline_score"))
    with pytest.raises(UserError, match=sentence) as caught:
        everything(moved)
    assert "\n" not in str(caught.value)


def test_counts_and_notes_are_in_every_row(found: pl.DataFrame) -> None:
    assert (
        found.select(pl.col("n_languages", "n_runs", "note", "scope", "method").null_count().sum()).row(0) == (0,) * 5
    )
    with_number = found.filter(pl.col("estimate").is_not_null())
    assert with_number.filter(pl.col("se").is_not_null())["n_languages"].min() >= 2
    assert with_number["n_runs"].min() >= 3
    assert (
        with_number.filter(pl.col("p").is_not_null()).select((pl.col("p") > 0).all() & (pl.col("p") <= 1).all()).item()
    )
