"""Limits on the number of examples: a larger number holds the smaller one's, pairs stay together."""

from __future__ import annotations

import polars as pl
import pytest

from xlift.sources.readers import limited
from xlift.sources.readers_retrieval import retrieval_frame


def labelled(rows: int = 40) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {"split": split, "language": language, "id": f"{number:03d}"}
            for split, language in (("train", "en"), ("dev", "en"), ("test", "de"), ("test", "en"))
            for number in range(rows)
        ]
    )


def ids(frame: pl.DataFrame, split: str, language: str) -> list[str]:
    return frame.filter(split=split, language=language)["id"].to_list()


def test_no_limits_change_nothing():
    frame = labelled()
    assert limited(frame, {}).equals(frame)
    assert limited(frame, {"train": 99, "test": 40}).equals(frame)


def test_each_split_and_language_has_its_number_in_the_old_order():
    found = limited(labelled(), {"train": 7, "test": 3})
    assert found.group_by("split", "language").len().sort("split", "language").rows() == [
        ("dev", "en", 40),
        ("test", "de", 3),
        ("test", "en", 3),
        ("train", "en", 7),
    ]
    assert ids(found, "train", "en") == sorted(ids(found, "train", "en"))
    assert ids(found, "test", "de") == ids(found, "test", "en")  # rows that are one another's translation


@pytest.mark.parametrize(("fewer", "more"), [(1, 2), (5, 17), (17, 39)])
def test_more_hold_the_fewer(fewer, more):
    few, many = (set(ids(limited(labelled(), {"train": n}), "train", "en")) for n in (fewer, more))
    assert len(few) == fewer
    assert few < many


def test_the_choice_follows_no_order():
    assert ids(limited(labelled(), {"train": 10}), "train", "en") != [f"{n:03d}" for n in range(10)]


def pool(split: str, queries: dict[str, list[str]], documents: list[str]) -> pl.DataFrame:
    frames = (
        retrieval_frame("query", list(queries), ["q"] * len(queries), ["p"] * len(queries), list(queries.values())),
        retrieval_frame("document", documents, ["d"] * len(documents), ["p"] * len(documents), [[] for _ in documents]),
    )
    return pl.concat(frames).with_columns(split=pl.lit(split), language=pl.lit("de"))


def test_queries_keep_their_documents():
    documents = [f"d{n:02d}" for n in range(40)]
    frame = pool("test", {f"q{n:02d}": [f"d{n:02d}", "d39"] for n in range(20)}, documents)
    found = limited(frame, {"test": 5})
    queries = found.filter(role="query")
    wanted = {name for gold in queries["gold"] for name in gold}
    assert queries.height == 5
    assert set(found.filter(role="document")["id"]) == wanted
    whole = limited(frame, {"train": 1})
    assert whole.equals(frame)


def test_documents_are_right_in_their_own_pool_and_split_only():
    one = pool("test", {"q": ["d1"]}, ["d1", "d2"])
    other = pool("test", {"r": ["d2"]}, ["d1", "d2"]).with_columns(pool=pl.lit("other"), language=pl.lit("fr"))
    found = limited(pl.concat([one, other]), {"test": 1})
    assert found.select("role", "pool", "id").rows() == [
        ("query", "p", "q"),
        ("document", "p", "d1"),
        ("query", "other", "r"),
        ("document", "other", "d2"),
    ]


def test_sentences_to_mine_from_stay_beside_the_pairs():
    queries = {f"q{n:02d}": [f"d{n:02d}"] if n < 10 else [] for n in range(40)}
    frame = pool("test", queries, [f"d{n:02d}" for n in range(40)])
    found = limited(frame, {"test": 12})
    kept = found.filter(role="query")
    right = {name for gold in kept["gold"] for name in gold}
    documents = set(found.filter(role="document")["id"])
    assert kept.height == 12
    assert right < documents
    assert len(documents - {f"d{n:02d}" for n in range(10)}) == 12  # as many that are nobody's
