"""What training and evaluation must not share: rows whose context is evaluated on are left out, and counted."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping

import polars as pl

from xlift.catalog.task import Task
from xlift.sources.reading import CONTEXT

SHARED = "its context is in dev or test too"

Counts = dict[str, Counter[str]]
"""Numbers of rows by `<split>/<language>` and reason."""


def same_text(text: str) -> str:
    """A text as it is compared with others: NFC, white space and case made the same."""
    return " ".join(unicodedata.normalize("NFC", text).split()).lower()


def contexts(frame: pl.DataFrame) -> set[str]:
    """The contexts of rows as they are compared."""
    return {same_text(text) for text in frame[CONTEXT].drop_nulls()}


def left_apart(
    task: Task, frame: pl.DataFrame, others: Mapping[str, Collection[str]], dropped: Counts, notes: Counts
) -> pl.DataFrame:
    """Leave out rows whose context is among those that their split must not share, by split, and count them.

    Sentences of tagging are only counted: WikiANN and UD repeat short ones in all their splits, and published results
    have them in.
    """
    shared = pl.Series(
        [
            text is not None and same_text(text) in others.get(split, ())
            for split, text in frame.select("split", CONTEXT).iter_rows()
        ],
        dtype=pl.Boolean,
    )
    counts = notes if task.family == "tagging" else dropped
    for split, language in frame.filter(shared).select("split", "language").iter_rows():
        counts.setdefault(f"{split}/{language}", Counter())[SHARED] += 1
    return frame if task.family == "tagging" else frame.filter(~shared)


def plain(counts: Counts) -> dict[str, dict[str, int]]:
    """Counts as JSON, sorted."""
    return {place: dict(sorted(of_reason.items())) for place, of_reason in sorted(counts.items())}
