"""Permutation tests against brute force over designs made anew, exact enumeration, and their size under the null."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import toy_gains as toy
from xlift.contrasts.clustered import FloatArray
from xlift.contrasts.contrast import Contrast, prepare, slope_contrast
from xlift.contrasts.inference import clustered_row
from xlift.contrasts.permutation import permutation_rows
from xlift.contrasts.rows import BETA, LOW_HIGH, Row
from xlift.contrasts.table import GainTable
from xlift.resource import resource_levels

WITH: dict[str, Any] = {"methods": ("clustered", "permutation"), "permutations": 5000}
SCRIPT = {code: language.script for code, language in toy.LANGUAGES.items()}


def estimate_with(table: GainTable, contrast: Contrast, moderator: FloatArray) -> float:
    """The estimate with another moderator, from a design made anew."""
    value = clustered_row(table, prepare(table, replace(contrast, moderator=moderator))).estimate
    return math.nan if value is None else value


def brute_force_p(table: GainTable, contrast: Contrast, arrangements: list[FloatArray]) -> float:
    """Share of all arrangements (the observed one first) at least as far from their mean as the observed one."""
    values = np.array([estimate_with(table, contrast, each) for each in arrangements])
    distance = np.abs(values - np.nanmean(values))
    return float(np.mean(~(distance < distance[0] - 1e-9)))


def permuted_row(table: GainTable, contrast: Contrast, scripts: Mapping[str, str] = SCRIPT) -> Row:
    """The permutation test of one contrast."""
    prepared = prepare(table, contrast)
    return permutation_rows(table, [prepared], [clustered_row(table, prepared)], scripts)[0]


@pytest.mark.parametrize("whole", [True, False])
def test_all_arrangements_within_scripts_are_those_of_brute_force(whole: bool) -> None:
    gains = toy.two_targets() if whole else toy.incomplete(toy.two_targets())
    table = toy.table_of(gains, **WITH)
    contrast = slope_contrast(table, BETA)
    codes = np.array(table.languages)
    latin = [k for k, code in enumerate(codes) if code not in toy.SCRIPTS and contrast.relevant[k]]  # de fi fr jv sw
    arrangements = []
    for order in itertools.permutations(latin):
        moved = contrast.moderator.copy()
        moved[latin] = contrast.moderator[list(order)]
        arrangements.append(moved)
    assert len(arrangements) == 120
    found = permuted_row(table, contrast)
    assert found.p == pytest.approx(brute_force_p(table, contrast, arrangements))
    assert "4 of 9 languages are alone in their script and keep their z" in found.note
    assert "smallest possible p 0.0083 (all 120 arrangements)" in found.note
    assert (found.se, found.ci_low) == (None, None)


def test_all_labellings_are_those_of_brute_force() -> None:
    gains = toy.two_targets()
    table = toy.table_of(gains, **WITH)
    contrast = slope_contrast(table, LOW_HIGH)
    compared = np.flatnonzero(contrast.relevant)
    arrangements = [contrast.moderator]
    for chosen in itertools.combinations(compared, 3):
        moved = np.zeros(contrast.moderator.size)
        moved[list(chosen)] = 1.0
        if not np.array_equal(moved, contrast.moderator):
            arrangements.append(moved)
    assert len(arrangements) == math.comb(7, 3)
    found = toy.row(toy.estimated(gains, **WITH), LOW_HIGH, "all", method="permutation")
    assert found["p"] == pytest.approx(brute_force_p(table, contrast, arrangements))
    assert "all 35 arrangements" in found["note"]


def test_random_arrangements_come_near_the_exact_p_and_never_below_their_least() -> None:
    gains = toy.two_targets()
    exact = toy.row(toy.estimated(gains, **WITH), BETA, "all", method="permutation")["p"]
    table = toy.table_of(gains, permutations=119)  # one fewer than there are
    found = permuted_row(table, slope_contrast(table, BETA))
    assert found.p == pytest.approx(exact, abs=0.15)
    assert "smallest possible p 0.0083 (119 random arrangements)" in found.note
    z = resource_levels(toy.LANGUAGES.values()).z
    strong = toy.scores(lambda t, i, b, s, code: 3 * z.get(code, 0) * math.log2(b) + toy.noisy(t, i, b, s, code) / 99)
    table = toy.table_of(toy.compute_gains(strong), permutations=100)
    found = permuted_row(table, slope_contrast(table, BETA), dict.fromkeys(toy.EVERY, "one"))
    assert found.p == pytest.approx(1 / 101)


def test_a_difference_between_scripts_is_no_evidence_on_resource() -> None:
    """Languages of other scripts gain less; within scripts nothing depends on z."""
    low = ["jv", "sw", "gu"]
    apart = {code: replace(toy.LANGUAGES[code], script="Latin" if code in low else "Other") for code in toy.EVERY}
    table = toy.scores(lambda t, i, b, s, code: (code in low) * 3 * math.log2(b) + toy.noisy(t, i, b, s, code) / 9)
    found = toy.estimated(toy.compute_gains(table), apart, **WITH)
    assert toy.row(found, BETA, "all")["p"] < 0.05
    assert toy.row(found, BETA, "all", method="permutation")["p"] > 0.05


def test_scripts_of_one_language_each_give_no_p() -> None:
    lonely = {code: replace(language, script=code) for code, language in toy.LANGUAGES.items()}
    found = toy.row(toy.estimated(toy.two_targets(), lonely, **WITH), BETA, "all", method="permutation")
    assert found["p"] is None
    assert "9 of 9 languages are alone in their script" in found["note"]
    assert "no other arrangement exists" in found["note"]


def test_fewer_than_three_seeds_give_no_p() -> None:
    found = toy.row(toy.estimated(toy.two_targets(seeds=(1, 2)), **WITH), LOW_HIGH, "all", method="permutation")
    assert found["p"] is None
    assert "fewer than 3 seeds" in found["note"]


def test_the_size_under_the_null() -> None:
    """Language slopes without regard to z, common to all runs: p below .1 in about a tenth of the studies."""
    generator = np.random.default_rng(3)
    rejected = 0
    for _ in range(60):
        own = dict(zip(toy.EVERY, generator.normal(0, 2, len(toy.EVERY)), strict=True))
        gains = toy.compute_gains(
            toy.scores(lambda t, i, b, s, code, own=own: 5 + own[code] * math.log2(b), intermediates=("mnli",))
        )
        table = toy.table_of(gains, permutations=200)
        p = permuted_row(table, slope_contrast(table, LOW_HIGH)).p
        rejected += p is not None and p <= 0.1
    assert rejected <= 13  # P(Binomial(60, .1) > 13) = .004
