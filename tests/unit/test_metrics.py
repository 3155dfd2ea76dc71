"""What every metric has in common, scoring predictions by language, and what metrics refuse."""

from __future__ import annotations

import random
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlift import metrics
from xlift.errors import UserError
from xlift.metrics import METRICS, score_predictions

IOB2 = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG"]
# X is left out: the one tag whose spans depend on the sentence before.
UPOS = ["ADJ", "ADP", "AUX", "CCONJ", "INTJ", "NOUN", "PROPN", "PUNCT", "SCONJ", "SYM", "VERB"]
WORDS = ["red", "blue", "kite", "sea", "风筝", "Drachen"]
IDS = [f"d{k}" for k in range(25)]
Row = tuple[list[str], list[str]]


def rows_for(metric: str) -> st.SearchStrategy[list[Row]]:
    """Rows (prediction, gold) of the metric's shape."""
    shape = METRICS[metric].shape
    if shape == "label":
        row = st.tuples(st.sampled_from("abc").map(lambda x: [x]), st.sampled_from("abc").map(lambda x: [x]))
    elif shape == "tags":
        word = st.tuples(*[st.sampled_from(IOB2 if metric == "span_f1" else UPOS)] * 2)
        row = st.lists(word, min_size=1, max_size=6).map(lambda ws: ([p for p, _ in ws], [g for _, g in ws]))
    elif shape == "answer":
        text = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(" ".join)
        row = st.tuples(text.map(lambda x: [x]), st.lists(text, min_size=1, max_size=3))
    elif shape == "pair":
        pair = st.tuples(st.lists(st.sampled_from(IDS), max_size=1), st.lists(st.sampled_from(IDS), max_size=2))
        return st.lists(pair, min_size=1, max_size=8).filter(lambda rows: any(gold for _, gold in rows))
    else:
        ids = st.lists(st.sampled_from(IDS), min_size=1, max_size=25, unique=True)
        golds = st.sampled_from(IDS).map(lambda x: [x]) if metric == "accuracy_at_1_common" else ids
        row = st.tuples(ids.map(lambda x: x[:20]), golds)
    return st.lists(row, min_size=1, max_size=8)


def numbers_of(rows: list[Row]) -> dict[str, list[int]]:
    """Rank of each query's one right document in a pool of 300: as in the ranking, or 25."""
    ranks = [ranking.index(gold[0]) + 1 if gold and gold[0] in ranking else 25 for ranking, gold in rows]
    return {"rank": ranks, "pool_size": [300] * len(rows)}


@pytest.mark.parametrize("metric", sorted(METRICS))
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_range_order_and_identity(metric: str, data: st.DataObject) -> None:
    rows = data.draw(rows_for(metric))
    shuffled = data.draw(st.permutations(rows))

    def score(pairs: list[Row]) -> float:
        return METRICS[metric]([p for p, _ in pairs], [g for _, g in pairs], "zh", numbers=numbers_of(pairs))

    assert 0.0 <= score(rows) <= 100.0
    assert score(shuffled) == score(rows)
    exact = [(gold[:1] if METRICS[metric].shape == "answer" else gold, gold) for _, gold in rows]
    if METRICS[metric].shape == "pair":
        exact = [(gold[:1], gold[:1]) for _, gold in rows]
    nothing_to_find = metric == "span_f1" and all(tag == "O" for _, gold in rows for tag in gold)
    assert score(exact) == (0.0 if nothing_to_find else 100.0)


@pytest.mark.parametrize("metric", ["squad_em", "squad_f1", "squad_v2_em", "squad_v2_f1", "mlqa_em", "mlqa_f1"])
def test_an_extra_answer_never_lowers_the_score(metric: str) -> None:
    scores = [METRICS[metric]([["red kite"]], [answers], "en") for answers in (["sea"], ["sea", "kite"])]
    assert scores[0] <= scores[1]


SCHEMA: dict[str, Any] = {
    "language": pl.String,
    "id": pl.String,
    "prediction": pl.List(pl.String),
    "gold": pl.List(pl.String),
}


def frame(*rows: tuple[Any, Any, Any, Any]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=SCHEMA, orient="row")


def test_score_predictions_scores_each_language() -> None:
    predictions = frame(
        ("sw", "1", ["a"], ["a"]),
        ("de", "1", ["b"], ["a"]),
        ("sw", "2", ["a"], ["b"]),
        ("de", "2", ["b"], ["c"]),
    )
    scores = score_predictions(predictions, "accuracy")
    assert scores.schema == {"language": pl.String, "metric": pl.String, "score": pl.Float64, "n": pl.Int64}
    assert scores.rows() == [("de", "accuracy", 0.0, 2), ("sw", "accuracy", 50.0, 2)]


def test_score_predictions_passes_the_language_on() -> None:
    predictions = frame(("de", "1", ["der Mond"], ["Mond"]), ("en", "1", ["der Mond"], ["Mond"]))
    # "der" is an article in German, and in English one of two words.
    assert score_predictions(predictions, "mlqa_em")["score"].to_list() == [100.0, 0.0]


def test_score_predictions_counts_sentences_not_words() -> None:
    predictions = frame(("en", "1", ["O", "B-PER"], ["O", "B-PER"]), ("en", "2", ["O"], ["O"]))
    assert score_predictions(predictions, "span_f1").rows() == [("en", "span_f1", 100.0, 2)]


@pytest.mark.parametrize("metric", ["span_f1", "token_accuracy", "map_at_20", "squad_f1", "accuracy_at_1"])
def test_score_predictions_does_not_depend_on_row_order(metric: str) -> None:
    draw = random.Random(7)
    shape = METRICS[metric].shape
    rows: list[tuple[str, str, list[str], list[str]]] = []
    for k in range(60):
        tags = [[draw.choice(IOB2) for _ in range(5)] for _ in range(2)]
        prediction = {"tags": tags[0], "ranking": draw.sample(IDS, 20)}.get(shape, [" ".join(draw.sample(WORDS, 2))])
        gold = {"tags": tags[1], "ranking": draw.sample(IDS, 3)}.get(shape, [" ".join(draw.sample(WORDS, 3))])
        rows.append((draw.choice(["de", "en", "sw"]), str(k), prediction, gold))
    expected = score_predictions(frame(*rows), metric)
    draw.shuffle(rows)
    assert score_predictions(frame(*rows), metric).equals(expected)
    assert expected["n"].sum() == 60


@pytest.mark.parametrize(
    ("metric", "rows", "message"),
    [
        ("bleu", [("en", "1", ["a"], ["a"])], "no metric 'bleu'.*accuracy"),
        ("accuracy", [], "no rows"),
        (
            "accuracy",
            [("en", "1", ["a"], ["a"]), ("sw", "7", None, ["a"])],
            "'sw', id '7': the prediction is null",
        ),
        ("accuracy", [("en", "1", [None], ["a"])], "'en', id '1': the prediction holds a null"),
        ("accuracy", [("en", "1", ["a"], None)], "the gold is null"),
        ("accuracy", [("en", "1", ["a"], [])], "'en', id '1': the gold is empty"),
        ("squad_f1", [("en", "1", ["a"], [])], "the gold is empty"),
        ("span_f1", [("en", "1", [], [])], "the gold is empty"),
        ("map_at_20", [("en", "1", ["a"], [])], "the gold is empty"),
        ("accuracy", [("en", "1", [], ["a"])], "0 predictions where exactly one"),
        ("accuracy", [("en", "1", ["a", "b"], ["a"])], "2 predictions where exactly one"),
        ("squad_em", [("en", "1", ["a", "b"], ["a"])], "2 predictions where exactly one"),
        ("accuracy", [("en", "1", ["a"], ["a", "b"])], "2 gold labels where exactly one"),
        ("span_f1", [("en", "1", ["O"], ["O", "O"])], "'en', id '1': 1 predicted tags for 2 gold tags"),
        ("xtreme_f1", [("en", "1", ["X", "X"], ["X"])], "2 predicted tags for 1 gold tags"),
        ("token_accuracy", [("en", "1", ["", "X"], ["X", "X"])], "a tag is the empty string"),
        ("span_f1", [("en", "1", ["NOUN"], ["NOUN"])], "needs IOB2 tags.*'NOUN'"),
        ("span_f1", [("en", "1", ["B-"], ["O"])], "needs IOB2 tags.*'B-'"),
        ("accuracy_at_1", [("en", "1", [], ["a"])], "the ranking is empty"),
        ("bitext_f1", [("en", "1", ["a", "b"], ["a"])], "'en', id '1': 2 predictions where one at most"),
        ("bitext_f1", [("en", "1", ["a"], None)], "the gold is null"),
        ("bitext_f1", [("en", "1", ["a"], [])], "no gold pair to find"),
        ("squad_v2_f1", [("en", "1", [], [""])], "0 predictions where exactly one"),
        ("accuracy_at_1_common", [("en", "1", ["a"], ["a"])], r"lack the column\(s\) rank, pool_size"),
        ("map_at_20", [("en", "1", ["a", "a"], ["a"])], "a document id is repeated"),
        ("mlqa_f1", [("fr", "1", ["a"], ["a"])], "no answer normalisation for 'fr'"),
        ("accuracy", [("en", "1", ["a"], ["a"]), ("en", "1", ["b"], ["a"])], "repeat language 'en', id '1'"),
        ("accuracy", [(None, "1", ["a"], ["a"])], "no language or no id"),
        ("accuracy", [("en", None, ["a"], ["a"])], "no language or no id"),
    ],
)
def test_score_predictions_refuses(metric: str, rows: list[tuple[Any, Any, Any, Any]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        score_predictions(frame(*rows), metric)


def test_one_id_may_be_there_in_two_languages() -> None:
    predictions = frame(("en", "1", ["a"], ["a"]), ("sw", "1", ["a"], ["a"]))
    assert score_predictions(predictions, "accuracy").height == 2


def test_score_predictions_refuses_other_columns() -> None:
    good = frame(("en", "1", ["a"], ["a"]))
    with pytest.raises(UserError, match=r"lack the column.*gold"):
        score_predictions(good.drop("gold"), "accuracy")
    with pytest.raises(UserError, match="prediction is not a list of strings"):
        score_predictions(good.with_columns(prediction=pl.lit("a")), "accuracy")
    with pytest.raises(UserError, match="gold is not a list of strings"):
        score_predictions(good.with_columns(gold=pl.lit([1], dtype=pl.List(pl.Int64))), "accuracy")
    with pytest.raises(UserError, match="gold is not a list of strings"):
        score_predictions(good.with_columns(gold=pl.lit(1)), "accuracy")


def test_functions_refuse_what_does_not_align() -> None:
    with pytest.raises(UserError, match="1 predictions for 2 golds"):
        metrics.accuracy(["a"], ["a", "b"])
    with pytest.raises(UserError, match="nothing to score"):
        metrics.map_at_20([], [])
    with pytest.raises(UserError, match="example 1: 1 predicted tags for 2 gold tags"):
        metrics.token_accuracy([["A"], ["A"]], [["A"], ["A", "A"]])
    # A bare string as the gold answers would be taken letter by letter.
    with pytest.raises(UserError, match="gold is not a list of strings"):
        metrics.squad_f1(["kite"], ["kite"])


def test_the_common_pool_reads_rank_and_pool_size() -> None:
    rows = frame(("de", "1", ["a"], ["a"]), ("sw", "1", ["b"], ["a"]))
    placed = rows.with_columns(rank=pl.Series([1, 2]), pool_size=pl.Series([399, 399]))
    # The one better document of sw is not drawn with probability 199 / 398 (C(397, 199) / C(398, 199)).
    expected = [("de", "accuracy_at_1_common", 100.0, 1), ("sw", "accuracy_at_1_common", 50.0, 1)]
    assert score_predictions(placed, "accuracy_at_1_common").rows() == expected
    for broken in (pl.Series([1, None]), pl.Series([1.0, 2.0])):
        with pytest.raises(UserError, match="without a whole number as rank"):
            score_predictions(placed.with_columns(rank=broken), "accuracy_at_1_common")
    several = placed.with_columns(gold=pl.lit(["a", "b"]))
    with pytest.raises(UserError, match="one right document each"):
        score_predictions(several, "accuracy_at_1_common")
    with pytest.raises(UserError, match="lack the column"):
        METRICS["accuracy_at_1_common"]([["a"]], [["a"]], "de")
