"""F1 over mined pairs and the threshold on their margins, by hand."""

from __future__ import annotations

import random

import pytest

from xlift import metrics
from xlift.errors import UserError


@pytest.mark.parametrize(
    ("predictions", "golds", "expected"),
    [
        # Three mined, two of them right, four to find: P 2/3, R 2/4, F 2*2/(3+4).
        ([["a"], ["b"], ["x"], [], []], [["a"], ["b"], ["c"], ["d"], []], 400 / 7),
        # All of them and no other; none; only wrong ones.
        ([["a"], []], [["a"], []], 100.0),
        ([[], []], [["a"], []], 0.0),
        ([["b"], ["a"]], [["a"], []], 0.0),
        # A sentence with two right targets has two pairs to find: 1 of 1 mined, 1 of 2 found, 2*1/(1+2).
        ([["a"]], [["a", "b"]], 200 / 3),
    ],
)
def test_bitext_f1_by_hand(predictions: list[list[str]], golds: list[list[str]], expected: float) -> None:
    assert metrics.bitext_f1(predictions, golds) == pytest.approx(expected)


def test_bitext_f1_refuses_a_collection_without_gold() -> None:
    with pytest.raises(UserError, match="no gold pair"):
        metrics.bitext_f1([["a"]], [[]])


def test_the_margin_threshold_by_hand() -> None:
    # Falling: 1.4 right, 1.2 wrong, 1.1 right, 1.0 wrong; three to find. F1 2/4, 2/5, 4/6, 4/7: best after 1.1.
    margins, right = [1.0, 1.1, 1.2, 1.4], [False, True, False, True]
    assert metrics.margin_threshold(margins, right, 3) == pytest.approx(1.05)
    # With one to find: 2/2 after the first.
    assert metrics.margin_threshold(margins, [False, False, False, True], 1) == pytest.approx(1.3)
    # The last candidate has none after it: its own margin, which takes it.
    assert metrics.margin_threshold([1.3, 1.2], [True, True], 2) == pytest.approx(1.2)
    # None right, or none at all: all are taken, as by XTREME's script.
    assert metrics.margin_threshold(margins, [False] * 4, 3) == 0.0
    assert metrics.margin_threshold([], [], 3) == 0.0


@pytest.mark.parametrize("seed", range(20))
def test_no_other_threshold_scores_better(seed: int) -> None:
    draw = random.Random(seed)
    margins = [1 + draw.randint(0, 9) / 10 for _ in range(15)]  # many are equal
    right = [draw.random() < 0.5 for _ in margins]
    golds = sum(right) + draw.randint(1, 3)

    def f1(threshold: float) -> float:
        taken = [r for m, r in zip(margins, right, strict=True) if m >= threshold]
        return 2 * sum(taken) / (len(taken) + golds)

    assert f1(metrics.margin_threshold(margins, right, golds)) == pytest.approx(max(map(f1, margins)))
