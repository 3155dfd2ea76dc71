"""Which examples each step sees."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xlift.training.batches import plan_batches

PLANS = st.tuples(st.integers(1, 60), st.integers(1, 20), st.integers(1, 60), st.integers(0, 5))


def plan(examples: int, batch: int, steps: int, seed: int) -> list[list[int]]:
    lengths = torch.tensor([(7 * i) % 13 + 1 for i in range(examples)])
    # Examples are any indices, not just 0, 1, 2...
    return [chosen.tolist() for chosen in plan_batches(torch.arange(examples) * 3 + 5, lengths, batch, steps, seed)]


@settings(max_examples=150, deadline=None)
@given(PLANS)
def test_exact_sizes_same_by_seed_and_prefix_of_a_longer_run(numbers):
    examples, batch, steps, seed = numbers
    found = plan(examples, batch, steps, seed)
    assert [len(chosen) for chosen in found] == [batch] * steps
    assert {index for chosen in found for index in chosen} <= set(range(5, 5 + 3 * examples, 3))
    assert plan(examples, batch, steps, seed) == found
    assert plan(examples, batch, 2 * steps + 3, seed)[:steps] == found


@settings(max_examples=150, deadline=None)
@given(PLANS.filter(lambda numbers: numbers[1] <= numbers[0]))
def test_nothing_a_third_time_before_everything_once(numbers):
    examples, batch, _, seed = numbers
    seen: Counter[int] = Counter()
    for chosen in plan(examples, batch, 4 * examples // batch + 2, seed):
        if len(seen) < examples:
            assert all(seen[index] < 2 for index in chosen)
        seen.update(chosen)
    assert len(seen) == examples


def test_a_batch_larger_than_the_data_repeats_examples_evenly():
    for chosen in plan(3, 8, 5, 0):
        assert sorted(Counter(chosen).values()) in ([2, 3, 3], [2, 2, 4])
    assert Counter(i for chosen in plan(3, 8, 3, 0) for i in chosen) == {5: 8, 8: 8, 11: 8}


def test_other_seed_other_batches():
    plans = [plan(100, 4, 10, seed) for seed in range(5)]
    assert len({str(found) for found in plans}) == 5


def test_batches_are_of_like_length():
    lengths = torch.arange(1, 257)
    found = list(plan_batches(torch.arange(256), lengths, 16, 16, 3))
    # One pass in one pool: the sixteen batches are sixteen runs of neighbours, in a shuffled order.
    assert sorted(sorted(chosen.tolist()) for chosen in found) == [list(range(i, i + 16)) for i in range(0, 256, 16)]
    assert [min(chosen.tolist()) for chosen in found] != sorted(min(chosen.tolist()) for chosen in found)


def test_no_examples():
    with pytest.raises(ValueError, match="no training examples"):
        next(plan_batches(torch.tensor([], dtype=torch.int64), torch.tensor([]), 2, 2, 0))
