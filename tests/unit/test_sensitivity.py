"""Sensitivity rows: each is the primary contrast of changed gains, settings or designs, computed another way here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest

from toy_gains import (
    EVERY,
    HIGH,
    LANGUAGES,
    UNSEEN,
    compute_gains,
    estimated,
    incomplete,
    noisy,
    row,
    scores,
    table_of,
    two_targets,
)
from xlift.contrasts.rows import BETA, LOW_HIGH, SCHEMA
from xlift.contrasts.sensitivity import split_gains
from xlift.resource import resource_levels

NUMBERS = ("estimate", "se", "ci_low", "ci_high", "p", "n_languages", "n_runs")


def same(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Two rows have the same numbers, and an estimate."""
    assert one["estimate"] is not None
    assert [one[name] for name in NUMBERS] == pytest.approx([other[name] for name in NUMBERS])


@pytest.fixture(scope="module")
def gains() -> pl.DataFrame:
    return two_targets()


@pytest.fixture(scope="module")
def found(gains: pl.DataFrame) -> pl.DataFrame:
    return estimated(gains, sensitivity=True)


def without(gains: pl.DataFrame, *codes: str) -> pl.DataFrame:
    return gains.filter(~pl.col("language").is_in(codes))


@pytest.mark.parametrize("estimand", [BETA, LOW_HIGH])
@pytest.mark.parametrize("code", ["sw", "fr"])
def test_without_a_language_is_the_contrast_of_the_other_languages(
    gains: pl.DataFrame, found: pl.DataFrame, estimand: str, code: str
) -> None:
    same(row(found, estimand, f"all;without={code}"), row(estimated(without(gains, code)), estimand, "all"))


def test_without_a_family_goes_by_branches_and_by_the_whole(gains: pl.DataFrame, found: pl.DataFrame) -> None:
    for family, codes in (
        ("Uralic", ["fi"]),
        ("Indo-European: Germanic", ["de"]),
        ("Indo-European", ["de", "fr", "gu", "ru"]),
    ):
        changed = row(estimated(without(gains, *codes)), BETA, "all")
        same(row(found, BETA, f"all;without_family={family}"), changed)


def test_every_language_and_family_that_takes_part_is_left_out_once(found: pl.DataFrame) -> None:
    scopes = found.filter((pl.col("estimand") == BETA) & (pl.col("method") == "clustered"))["scope"].to_list()
    left_out = {scope.partition("without=")[2] for scope in scopes if "without=" in scope}
    assert left_out == set(EVERY) - {"en", *UNSEEN}
    low_high = found.filter(pl.col("estimand") == LOW_HIGH)["scope"].to_list()
    assert "all;without=te" not in low_high  # neither low nor high
    assert len(scopes) == len(set(scopes))


def test_sensitivity_is_in_no_family_of_tests(gains: pl.DataFrame, found: pl.DataFrame) -> None:
    extra = found.filter(pl.col("scope").str.starts_with("all;"))
    assert extra["p"].null_count() < extra.height
    assert extra["p_adjusted"].null_count() == extra.height
    primary = found.filter(~pl.col("scope").str.starts_with("all;"))
    assert primary.equals(estimated(gains))


def test_without_collapsed_cells_is_the_contrast_of_the_other_cells(gains: pl.DataFrame) -> None:
    flag = (pl.col("intermediate") == "mnli") & (pl.col("budget") == 1.0) & (pl.col("seed") == 2)
    flagged = gains.with_columns(collapsed=flag)
    found = estimated(flagged, sensitivity=True)
    changed = row(found, BETA, "all;without=collapsed")
    # The baseline's part is that of the whole study: only the estimate can be told from the other cells alone.
    assert changed["estimate"] == pytest.approx(row(estimated(flagged.filter(~flag)), BETA, "all")["estimate"])
    assert "15 rows are left out (collapsed)" in changed["note"]
    kept = row(found, BETA, "all")
    assert kept["estimate"] == pytest.approx(row(estimated(gains), BETA, "all")["estimate"])
    assert "2 of 36 cells collapsed and are kept" in kept["note"]
    assert not any("without=collapsed" in scope for scope in estimated(gains, sensitivity=True)["scope"])


def test_other_resource_levels() -> None:
    classes = {
        "sw": 2,
        "jv": 1,
        "gu": 1,
        "te": 1,
        "ka": 3,
        "de": 5,
        "fr": 5,
        "ru": 4,
        "fi": 4,
        "wo": 2,
        "yo": 2,
        "en": 5,
    }
    languages = {code: replace(LANGUAGES[code], joshi_class=classes.get(code, 5)) for code in EVERY}
    gains = two_targets()
    found = estimated(gains, languages, sensitivity=True)
    own = estimated(gains, languages, resource="joshi")
    for estimand in (BETA, LOW_HIGH):
        same(row(found, estimand, "all;resource=joshi"), row(own, estimand, "all"))
    assert row(own, LOW_HIGH, "all")["n_languages"] == 8  # te is low by Joshi
    assert "not identified" in row(found, BETA, "all;resource=mc4")["note"]  # no sizes in this table
    assert not any("resource=cc100" in scope for scope in found["scope"])


def test_the_axis_of_tokens() -> None:
    gains = two_targets().with_columns(tokens=(pl.col("steps") * pl.col("seed") ** 0.5 * 100).cast(pl.Int64))
    found = estimated(gains, sensitivity=True)
    same(row(found, BETA, "all;axis=tokens"), row(estimated(gains.with_columns(steps="tokens")), BETA, "all"))


@pytest.mark.parametrize("whole", [True, False])
def test_covariates_of_the_slope_agree_with_dense_least_squares(whole: bool) -> None:
    gains = two_targets().with_columns(
        n=pl.col("language").str.len_bytes() + pl.col("language").cast(pl.Categorical).to_physical() * 37 + 100,
        fertility=1.0 + pl.col("language").cast(pl.Categorical).to_physical() % 5 / 3,
    )
    gains = gains if whole else incomplete(gains)
    found = estimated(gains, sensitivity=True)
    table = table_of(gains)
    keep = np.flatnonzero(np.isfinite(table.resource[table.language]))
    rows = gains.filter(pl.col("language") != "en").sort("target", "intermediate", "budget", "seed", "language")[keep]
    x = table.x[keep]
    pair = table.target[keep] * 2 + table.intermediate[keep]
    cell = pair * 20 + table.language[keep]
    dummies, cells = (np.eye(codes.max() + 1)[codes] for codes in (pair, cell))
    latin = np.array([LANGUAGES[code].script == "Latin" for code in rows["language"]], dtype=float)
    size, fertility = np.log2(rows["n"].to_numpy()), np.log2(rows["fertility"].to_numpy())
    families = sorted({language.language_family for language in LANGUAGES.values()})
    family = np.array([[LANGUAGES[code].language_family == name for name in families] for code in rows["language"]])
    covariates = {
        "script": [latin],
        "n": [size],
        "fertility": [fertility],
        "script+n+fertility": [latin, size, fertility],
    }
    covariates["language_family"] = list(family.T.astype(float))
    for name, columns in covariates.items():
        moderators = np.column_stack([table.resource[table.language[keep]], *columns])
        design = np.column_stack([moderators * x[:, None], dummies * x[:, None], cells])
        expected = np.linalg.lstsq(design, (table.treated - table.baseline)[keep], rcond=None)[0][0]
        changed = row(found, BETA, f"all;adjusted={name}")
        assert changed["estimate"] == pytest.approx(expected, rel=1e-6), name
        assert changed["se"] is not None


def test_a_covariate_that_determines_the_resource_leaves_nothing_to_estimate() -> None:
    gains = two_targets()
    levels = {code: 2.0**z for code, z in resource_levels(LANGUAGES.values()).z.items()}
    told = gains.with_columns(fertility=pl.col("language").replace_strict(levels, default=1.0))
    changed = row(estimated(told, sensitivity=True), BETA, "all;adjusted=fertility")
    assert changed["estimate"] is None
    assert changed["note"].startswith("not identified")


def test_a_covariate_that_does_not_vary_says_so(found: pl.DataFrame) -> None:
    constant = row(found, BETA, "all;adjusted=n")  # every test set has 200 items
    assert constant["note"] == "the covariate does not vary: nothing is adjusted"
    same(constant, row(found, BETA, "all"))


def test_fertility_that_was_not_measured_makes_no_row(found: pl.DataFrame) -> None:
    assert not any("fertility" in scope for scope in found["scope"])


# What is out of the primary analysis


def test_shared_data_and_other_arms_are_out_of_the_primary_analysis_and_have_rows_of_their_own() -> None:
    tasks = ("mnli", "squad", "shuffled")
    table = scores(noisy, {"xnli": EVERY, "xquad": ["en", *HIGH, "sw", "ka"]}, tasks, noise=1.0)
    marked = table.with_columns(
        # The same task in another arm.
        intermediate=pl.col("intermediate").replace("shuffled", "mnli"),
        arm=pl.when(pl.col("intermediate") == "shuffled").then(pl.lit("shuffled_labels")).otherwise(pl.lit("main")),
        shared_data=(pl.col("intermediate") == "squad") & (pl.col("target") == "xquad"),
    )
    gains = compute_gains(marked)
    found = estimated(gains, sensitivity=True)
    plain = gains.with_columns(arm=pl.lit("main"), shared_data=pl.lit(False), was=pl.col("arm"))
    shared = (pl.col("intermediate") == "squad") & (pl.col("target") == "xquad")
    control = pl.col("was") == "shuffled_labels"
    for part, scope, level in (
        (plain.filter(~shared & ~control), "all", "budget=1"),
        (plain.filter(shared), "shared_data", "shared_data;budget=1"),
        (plain.filter(control), "arm=shuffled_labels", "arm=shuffled_labels;budget=1"),
    ):
        alone = estimated(part)
        same(row(found, BETA, scope), row(alone, BETA, "all"))
        same(row(found, "gain_all", level), row(alone, "gain_all", "budget=1"))
    assert row(found, BETA, "shared_data")["p_adjusted"] is None
    assert dict(found.schema) == SCHEMA
    assert not found.select(pl.struct("estimand", "scope", "scale", "method").is_duplicated().any()).item()


def test_columns_that_are_not_there_mark_nothing() -> None:
    gains = two_targets().drop("arm", "shared_data")
    primary, left_out = split_gains(gains)
    assert primary.equals(gains)
    assert left_out == {}
