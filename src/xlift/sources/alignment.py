"""Whether sentence pairs are translations of one another, told from their lengths alone.

The lengths of a sentence and of its translation go together in any two languages (Gale and Church 1993), those of two
sentences that have nothing to do with each other do not. Rows are looked at in stretches, so that a file that loses a
line halfway is found out, and compared with the same rows moved by a few: where a file is sorted by length, any two
neighbours are about as long.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import polars as pl

from xlift.errors import UserError

STRETCH = 100
"""Pairs that are judged together, at least; fewer than this many say too little."""
BOUND = 4.0
"""Standard deviations that Spearman's correlation has to be above 0. Over all orders of one side it has a mean of 0 and
a standard deviation of 1 / sqrt(pairs - 1), whatever the lengths are."""
MOVED = (-3, -2, -1, 1, 2, 3)
"""Rows by which one side is moved for comparison."""


def check_aligned(where: str, first: Sequence[str], second: Sequence[str]) -> None:
    """Refuse pairs whose lengths in characters go together no better than chance or than moved ones do.

    `where`: which pairs, for the message. Fewer than `STRETCH` pairs pass: they are too few to tell.
    """
    lengths = pl.DataFrame({"first": [len(text) for text in first], "second": [len(text) for text in second]})
    stretches = lengths.height // STRETCH
    edges = [lengths.height * number // max(stretches, 1) for number in range(stretches + 1)]
    for start, end in pairwise(edges):
        rows = lengths[start:end]
        found = _correlation(rows, 0)
        if not found >= BOUND / math.sqrt(rows.height - 1) or any(found <= _correlation(rows, by) for by in MOVED):
            raise UserError(
                f"{where}: the lengths of rows {start} to {end - 1} on both sides (rank correlation {found:.2f}) go "
                "together as those of unrelated sentences do, so that its pairs do not align; use another revision"
            )


def _correlation(rows: pl.DataFrame, by: int) -> float:
    """Spearman's correlation of the lengths with the second side moved by some rows; NaN where one side has but one."""
    moved = pl.concat([rows["second"][by:], rows["second"][:by]])
    return float(pl.select(pl.corr(rows["first"], moved, method="spearman")).item())
