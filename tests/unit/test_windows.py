"""Windows over what is too long: nothing left out, nothing too large, always forward."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlift.tasks.windows import home_window, windows

CUTS = st.integers(1, 12).flatmap(
    lambda capacity: st.tuples(
        st.lists(st.integers(1, capacity), min_size=1, max_size=40), st.just(capacity), st.integers(0, 15)
    )
)


def test_by_hand():
    # Ten single units, five at a time, two shared.
    assert windows([1] * 10, 5, 2) == [range(0, 5), range(3, 8), range(6, 10)]
    # Four units: 3 + 1, then stepping back over the 1 (shared 1 <= 2), not over the 3 (shared 4).
    assert windows([3, 1, 2, 2], 4, 2) == [range(0, 2), range(1, 3), range(2, 4)]
    assert windows([1, 1], 5, 2) == [range(0, 2)]


@given(CUTS)
def test_every_item_within_capacity_and_always_forward(cut):
    sizes, capacity, overlap = cut
    found = windows(sizes, capacity, overlap)
    assert {item for window in found for item in window} == set(range(len(sizes)))
    assert all(len(window) > 0 and sum(sizes[item] for item in window) <= capacity for window in found)
    for before, after in pairwise(found):
        assert before.start < after.start <= before.stop
        assert before.stop < after.stop
    assert found[0].start == 0
    assert found[-1].stop == len(sizes)
    # Each window takes all that fits.
    assert all(w.stop == len(sizes) or sum(sizes[w.start : w.stop + 1]) > capacity for w in found)


@given(CUTS)
def test_shared_units_are_as_many_as_the_overlap_allows(cut):
    sizes, capacity, overlap = cut
    found = windows(sizes, capacity, overlap)
    for before, after in pairwise(found):
        assert sum(sizes[after.start : before.stop]) <= overlap
        # One item more would be too much, leave no room for the next item, or not move forward.
        one_more = after.start - 1
        shared = sum(sizes[one_more : before.stop])
        assert one_more <= before.start or shared > overlap or shared + sizes[before.stop] > capacity


@given(CUTS)
def test_home_window_has_the_widest_margin(cut):
    sizes, capacity, overlap = cut
    found = windows(sizes, capacity, overlap)
    home = home_window(found, len(sizes))

    def margin(window: range, item: int) -> float:
        left = float("inf") if window.start == 0 else item - window.start
        right = float("inf") if window.stop == len(sizes) else window.stop - 1 - item
        return min(left, right)

    assert len(home) == len(sizes)
    for item, chosen in enumerate(home):
        margins = {index: margin(window, item) for index, window in enumerate(found) if item in window}
        assert chosen in margins
        assert margins[chosen] == max(margins.values())
        assert chosen == min(index for index, value in margins.items() if value == margins[chosen])


def test_an_item_larger_than_a_window_is_refused():
    with pytest.raises(ValueError, match="larger than a window"):
        windows([2, 6, 1], 5, 1)
