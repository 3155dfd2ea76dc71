"""Cutting what is longer than an encoder takes into overlapping windows."""

from __future__ import annotations

from collections.abc import Sequence


def windows(sizes: Sequence[int], capacity: int, overlap: int) -> list[range]:
    """Ranges of consecutive items, each of at most `capacity` units, that share about `overlap` units.

    `sizes` are the items' units (a word's tokens), each at most `capacity`. Every item is in at least one window and
    every window after the first begins at an item of the one before or right after it.
    """
    if any(size > capacity for size in sizes):
        raise ValueError("an item is larger than a window")
    found: list[range] = []
    start = 0
    while True:
        end, used = start, 0
        while end < len(sizes) and used + sizes[end] <= capacity:
            used += sizes[end]
            end += 1
        found.append(range(start, end))
        if end == len(sizes):
            return found
        # Step back by the overlap, but always forward of the last start and with room for what comes next.
        start, shared = end, 0
        most = min(overlap, capacity - sizes[end])
        while start - 1 > found[-1].start and shared + sizes[start - 1] <= most:
            start -= 1
            shared += sizes[start]


def home_window(found: Sequence[range], items: int) -> list[int]:
    """For each item, the window in which it has the most neighbours on its poorer side; the first one among equals."""
    best = [0] * items
    margin = [-1] * items
    for index, window in enumerate(found):
        for item in window:
            # At the very beginning or end of the whole there is nothing more to see on that side.
            left = items if window.start == 0 else item - window.start
            right = items if window.stop == items else window.stop - 1 - item
            if min(left, right) > margin[item]:
                best[item], margin[item] = index, min(left, right)
    return best
