"""The answer in words: it follows the intervals, and claims nothing without them."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from toy_gains import LANGUAGES, compute_gains, estimated, noisy, row, scores
from xlift.contrasts.answer import answer, answer_table
from xlift.contrasts.table import ContrastSettings
from xlift.resource import resource_levels


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
    found = estimated(gains, smallest_effect=smallest)
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
    text = answer(estimated(few), few)
    assert "no answer" in text
    assert "fewer than 3 seeds" in text
    once = compute_gains(scores(noisy, budgets=(1.0,)))
    text = answer(estimated(once), once)
    assert text.startswith("This study cannot answer")
    assert "two budgets" in text
    many = scores(noisy, budgets=tuple(2.0**k for k in range(9)))
    lines = answer_table(estimated(compute_gains(many)))
    assert len(lines) == 10
    assert [line[0] for line in lines if line[0].startswith("low - high, b")][::4] == [
        "low - high, budget 1",
        "low - high, budget 256",
    ]


def test_the_answer_of_an_incomplete_study_begins_by_saying_so() -> None:
    z = resource_levels(LANGUAGES.values()).z
    table = scores(lambda t, i, budget, s, code: 5 - z.get(code, 0) * float(np.log2(budget)), noise=0.3)
    gains = compute_gains(table)
    part = gains.filter((pl.col("intermediate") != "squad") | (pl.col("budget") != 2.0))
    text = answer(estimated(part, planned=gains), part)
    # Three seeds in the nine languages with a size.
    assert text.startswith("So far, as 3 planned cells lack 27 gains: Yes: with more English intermediate training")
    assert "So far" not in answer(estimated(gains, planned=gains), gains)
