"""Rankings by hand, and the common pool size against all draws."""

from __future__ import annotations

from itertools import combinations

import pytest

from xlift import metrics
from xlift.errors import UserError


def test_accuracy_at_1_by_hand() -> None:
    # Right, right (either document), wrong (the right one is second).
    rankings = [["a", "b"], ["c", "a"], ["b", "a"]]
    assert metrics.accuracy_at_1(rankings, [["a"], ["a", "c"], ["a"]]) == pytest.approx(200 / 3)


TWENTY = [f"d{k}" for k in range(1, 21)]


@pytest.mark.parametrize(
    ("ranking", "gold", "expected"),
    [
        # One right document: the reciprocal of its rank, 1/4.
        (["b", "c", "d", "a"], ["a"], 25.0),
        # At ranks 1 and 3 of two: (1/1 + 2/3) / 2 = 5/6.
        (["a", "x", "b"], ["a", "b"], 500 / 6),
        # At rank 2, two more never found: (1/2) / 3 = 1/6.
        (["x", "a", "y"], ["a", "b", "c"], 100 / 6),
        # Thirty right, the twenty first all among them: divided by 20, not 30.
        (TWENTY, [*TWENTY, *(f"e{k}" for k in range(10))], 100.0),
        # Thirty right, only rank 20 is one of them: (1/20) / 20.
        ([*(f"x{k}" for k in range(19)), "e0"], [f"e{k}" for k in range(30)], 0.25),
        # Rank 21 is past the cut.
        ([*TWENTY, "a"], ["a"], 0.0),
        # A document in the ranking that is nowhere right.
        (["x"], ["a"], 0.0),
    ],
)
def test_map_at_20_by_hand(ranking: list[str], gold: list[str], expected: float) -> None:
    assert metrics.map_at_20([ranking], [gold]) == pytest.approx(expected)


def test_map_at_20_is_the_mean_over_queries() -> None:
    # 1, 1/2 and 0.
    assert metrics.map_at_20([["a"], ["x", "a"], ["x"]], [["a"], ["a"], ["a"]]) == pytest.approx(50.0)


# --- A common pool size ---


@pytest.mark.parametrize("size", [1, 2, 5, 8])
@pytest.mark.parametrize("common", [1, 2, 3, 5, 8, 20])
def test_the_common_pool_is_the_mean_over_all_draws(size: int, common: int) -> None:
    for rank in range(1, size + 1):
        others = [place for place in range(1, size + 1) if place != rank]
        draws = list(combinations(others, min(common, size) - 1))
        expected = 100 * sum(all(place > rank for place in drawn) for drawn in draws) / len(draws)
        assert metrics.accuracy_at_1_common([rank], [size], common) == pytest.approx(expected)


def test_the_common_pool_by_hand() -> None:
    # One document better among 999 others, of which 199 are drawn: 1 - 199/999. First is first in every pool.
    assert metrics.accuracy_at_1_common([2], [1000]) == pytest.approx(100 * 800 / 999)
    assert metrics.accuracy_at_1_common([1, 2], [1000, 1000]) == pytest.approx((100 + 100 * 800 / 999) / 2)
    # A pool that is smaller is taken whole; too many better ones to leave all out.
    assert metrics.accuracy_at_1_common([2], [150]) == 0.0
    assert metrics.accuracy_at_1_common([802], [1000]) == 0.0
    assert metrics.accuracy_at_1_common([801], [1000]) > 0.0


def test_with_all_pools_of_the_common_size_it_is_accuracy_at_1() -> None:
    assert metrics.accuracy_at_1_common([1, 2, 200, 1], [200] * 4) == 50.0


@pytest.mark.parametrize(("ranks", "sizes"), [([0], [5]), ([6], [5]), ([], []), ([1], [5, 5])])
def test_the_common_pool_refuses_what_is_no_rank(ranks: list[int], sizes: list[int]) -> None:
    with pytest.raises(UserError, match=r"Rank \d in a pool of 5|ranks for"):
        metrics.accuracy_at_1_common(ranks, sizes)
