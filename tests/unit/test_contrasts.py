"""Contrasts: estimates by hand, what is not identified or missing, and families of tests."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toy_gains import EVERY, HIGH, LANGUAGES, LOW, UNSEEN, estimated, noisy, row, scores
from xlift.contrasts.clustered import benjamini_hochberg, holm
from xlift.contrasts.gains import compute_gains
from xlift.contrasts.rows import SCHEMA
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
    assert re.search(r"\d+ planned cells lack \d+ gains: estimated from the rest", str(found["note"]))


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
        assert "3 planned cells lack" in str(values["note"])
    assert row(found, "low_minus_high", "budget=1")["estimate"] is not None
    assert "3 planned cells lack 21 gains" in str(row(found, "low_minus_high_per_doubling", "all")["note"])
    shared = (pl.col("target") == "xnli") & (pl.col("intermediate") == "mnli")  # never part of the grid
    left_out = row(contrasts(table.filter(~shared)), "low_minus_high", "budget=2")
    assert left_out["estimate"] is not None
    assert "1 (target, intermediate) pairs are not part" in str(left_out["note"])


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


def test_budgets_of_one_trunk_are_one_cluster() -> None:
    found = contrasts(scores(noisy, noise=1.0), shared_trunk=True)
    assert row(found, "beta_per_doubling", "all")["n_runs"] == 6


# Multiplicity


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
