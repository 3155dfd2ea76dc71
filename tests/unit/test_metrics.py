"""Metrics against seqeval and scikit-learn (oracles), against cases worked by hand, and in what they
refuse."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from itertools import permutations
from typing import Any

import polars as pl
import pytest
import seqeval.metrics  # type: ignore[import-untyped]
import sklearn.metrics  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st

from xlift import metrics
from xlift.errors import UserError
from xlift.metrics import METRICS, floor, score_predictions

Sentences = list[list[str]]

IOB2 = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG"]
UPOS = [
    "ADJ",
    "ADP",
    "ADV",
    "AUX",
    "CCONJ",
    "DET",
    "INTJ",
    "NOUN",
    "NUM",
    "PART",
    "PRON",
    "PROPN",
    "PUNCT",
    "SCONJ",
    "SYM",
    "VERB",
    "X",
]
# Every mark of seqeval with and without type, hyphens in odd places, a full stop, the type "_" by name.
ODD = [
    "O",
    "B",
    "I",
    "E",
    "S",
    ".",
    "_",
    "X",
    "B-",
    "B-_",
    "I-",
    "I-_",
    "E-A",
    "S-A",
    "I-A-B",
    "OO",
    "A-A",
    "-",
    "EA",
    "SA",
    "IA",
]


def quietly(score: Callable[..., Any], golds: Sentences, predictions: Sentences) -> float:
    """seqeval's number in points; it warns of every tag that has no IOB mark."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return 100.0 * float(score(golds, predictions))


def tag_pairs(tags: list[str]) -> st.SearchStrategy[tuple[Sentences, Sentences]]:
    """Predicted and gold sentences of equal lengths, any tag after any other."""
    word = st.tuples(st.sampled_from(tags), st.sampled_from(tags))
    # Half of the words agree, else hardly a span would.
    word = st.one_of(word, st.sampled_from(tags).map(lambda tag: (tag, tag)))
    sentences = st.lists(st.lists(word, min_size=1, max_size=8), min_size=1, max_size=6)
    return sentences.map(lambda rows: ([[p for p, _ in row] for row in rows], [[g for _, g in row] for row in rows]))


# --- Against the oracles ---


@settings(max_examples=300, deadline=None)
@given(tag_pairs(IOB2))
def test_span_f1_is_seqevals_on_any_iob2_tags(pair: tuple[Sentences, Sentences]) -> None:
    predictions, golds = pair
    expected = quietly(seqeval.metrics.f1_score, golds, predictions)
    assert metrics.span_f1(predictions, golds) == pytest.approx(expected)


@settings(max_examples=300, deadline=None)
@given(st.one_of(tag_pairs(UPOS), tag_pairs(["X", "NOUN", "SCONJ", "CCONJ", "INTJ"]), tag_pairs(ODD)))
def test_xtreme_f1_is_seqevals_on_bare_tags(pair: tuple[Sentences, Sentences]) -> None:
    predictions, golds = pair
    expected = quietly(seqeval.metrics.f1_score, golds, predictions)
    assert metrics.xtreme_f1(predictions, golds) == pytest.approx(expected)


@settings(max_examples=100, deadline=None)
@given(tag_pairs(UPOS))
def test_token_accuracy_is_seqevals(pair: tuple[Sentences, Sentences]) -> None:
    predictions, golds = pair
    expected = quietly(seqeval.metrics.accuracy_score, golds, predictions)
    assert metrics.token_accuracy(predictions, golds) == pytest.approx(expected)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("0123"), st.sampled_from("0123")), min_size=1, max_size=50))
def test_accuracy_is_scikit_learns(pairs: list[tuple[str, str]]) -> None:
    predictions, golds = [p for p, _ in pairs], [g for _, g in pairs]
    assert metrics.accuracy(predictions, golds) == pytest.approx(
        100 * sklearn.metrics.accuracy_score(golds, predictions)
    )


def test_spans_are_seqevals_on_long_random_sequences() -> None:
    draw = random.Random(20130)
    for tags in (IOB2, UPOS, ODD):
        golds = [[draw.choice(tags) for _ in range(draw.randint(1, 40))] for _ in range(200)]
        predictions = [[g if draw.random() < 0.7 else draw.choice(tags) for g in row] for row in golds]
        expected = quietly(seqeval.metrics.f1_score, golds, predictions)
        assert 0 < expected < 100
        assert metrics.xtreme_f1(predictions, golds) == pytest.approx(expected)


# --- Tagging by hand ---


@pytest.mark.parametrize(
    ("predicted", "gold", "expected"),
    [
        # Predicted PER 0-1 and LOC 3, gold PER 0-1 and LOC 3-4: one of two right on both sides, 2*1/(2+2).
        ("B-PER I-PER O B-LOC O", "B-PER I-PER O B-LOC I-LOC", 50.0),
        # An I- after O starts a span: the same span as one that begins with B-.
        ("O I-PER I-PER", "O B-PER I-PER", 100.0),
        # The type changes inside: PER 0, LOC 1 against PER 0-1. None right.
        ("B-PER I-LOC", "B-PER I-PER", 0.0),
        # Two spans side by side against one: PER 0, PER 1 against PER 0-1.
        ("B-PER B-PER", "B-PER I-PER", 0.0),
        # The right words under the wrong type.
        ("B-LOC I-LOC", "B-PER I-PER", 0.0),
        # Nothing found, nothing there to find, and something found where nothing is.
        ("O O", "B-PER O", 0.0),
        ("O O", "O O", 0.0),
        ("B-PER O", "O O", 0.0),
    ],
)
def test_span_f1_by_hand(predicted: str, gold: str, expected: float) -> None:
    assert metrics.span_f1([predicted.split()], [gold.split()]) == pytest.approx(expected)


def test_spans_do_not_cross_sentences() -> None:
    # Predicted PER 0 of the first sentence and PER 0 of the second, gold only the first: 2*1/(2+1) = 2/3.
    assert metrics.span_f1([["B-PER"], ["I-PER"]], [["B-PER"], ["O"]]) == pytest.approx(200 / 3)


def test_span_f1_is_micro_over_sentences() -> None:
    # 1 of 1 found in the first, 0 of 3 in the second (nothing predicted): P 1/1, R 1/4, F 2/5. The mean would
    # be 50.
    golds = [["B-PER"], ["B-PER", "B-PER", "B-PER"]]
    assert metrics.span_f1([["B-PER"], ["O", "O", "O"]], golds) == pytest.approx(40.0)


def test_xtreme_f1_merges_runs() -> None:
    gold, predicted = [["NOUN", "NOUN", "VERB"]], [["NOUN", "VERB", "VERB"]]
    # Gold NOUN 0-1, VERB 2; predicted NOUN 0, VERB 1-2: no span in common, yet two words of three are right.
    assert metrics.xtreme_f1(predicted, gold) == 0.0
    assert metrics.token_accuracy(predicted, gold) == pytest.approx(200 / 3)


def test_xtreme_f1_takes_the_first_letter_off() -> None:
    # CCONJ and SCONJ are both of type CONJ once the first letter is off.
    assert metrics.xtreme_f1([["NOUN", "CCONJ", "NOUN"]], [["NOUN", "SCONJ", "NOUN"]]) == 100.0
    # X has no type left and is never closed at the end of a sentence: no span on either side.
    assert metrics.xtreme_f1([["X"]], [["X"]]) == 0.0


def test_token_accuracy_is_micro_over_words() -> None:
    # 1 of 1 and 1 of 3 words: 2 of 4. The mean over sentences would be 66.7.
    assert metrics.token_accuracy([["A"], ["A", "A", "A"]], [["A"], ["A", "B", "B"]]) == 50.0


# --- Answers by hand ---


@pytest.mark.parametrize(
    ("prediction", "answers", "em", "f1"),
    [
        # Case, ASCII punctuation, articles and white space go: both are "blue kite".
        ("The Blue,  kite!", ["blue kite"], 100.0, 100.0),
        # {red, kite} against {red, kite, string}: 2*2/(2+3).
        ("a red kite", ["red kite string"], 0.0, 80.0),
        # Best of the answers: {red, kite} against {kite} is 2*1/(2+1), against {red, kite} 1.
        ("red kite", ["kite", "the red kite"], 100.0, 100.0),
        ("red kite", ["kite", "balloon"], 0.0, 200 / 3),
        # Words count as often as they are there: {to: 2} against {to: 1, fro: 1} shares one: 2*1/(2+2).
        ("to to", ["to fro"], 0.0, 50.0),
        # Punctuation is deleted, not replaced: "wellknown" is one word.
        ("well-known", ["well known"], 0.0, 0.0),
        # An article only as a whole word: "theatre" stays.
        ("theatre", ["atre"], 0.0, 0.0),
        # Only ASCII punctuation: the guillemets and the Arabic question mark stay.
        ("«kite»", ["kite"], 0.0, 0.0),
        # No segmentation: a part of an unspaced answer shares no word with it.
        ("风筝", ["红色风筝"], 0.0, 0.0),
        # No answer; and only an article, which is empty as well: equal, but without a word to share.
        ("", ["kite"], 0.0, 0.0),
        ("The", ["the"], 100.0, 0.0),
    ],
)
def test_squad_by_hand(prediction: str, answers: list[str], em: float, f1: float) -> None:
    assert metrics.squad_em([prediction], [answers]) == em
    assert metrics.squad_f1([prediction], [answers]) == pytest.approx(f1)


def test_squad_is_the_mean_over_questions() -> None:
    # F1 1, 2/3 and 0: mean 5/9. Exact 1 of 3.
    predictions, golds = ["kite", "red kite", "sea"], [["Kite."], ["kite"], ["kite"]]
    assert metrics.squad_f1(predictions, golds) == pytest.approx(500 / 9)
    assert metrics.squad_em(predictions, golds) == pytest.approx(100 / 3)


@pytest.mark.parametrize(
    ("language", "prediction", "answer", "em", "f1"),
    [
        ("en", "the kite", "kite", 100.0, 100.0),
        # Unicode punctuation goes as well.
        ("en", "«kite»", "kite", 100.0, 100.0),
        # Each language its own articles, and no other's: in German "the" is a word, {the, drachen} with
        # {drachen} 2/3.
        ("de", "Der Drachen", "einen Drachen", 100.0, 100.0),
        ("de", "the Drachen", "Drachen", 0.0, 200 / 3),
        ("es", "Las cometas", "unas cometas", 100.0, 100.0),
        # "lo" is not in the Spanish list: {lo, bueno} with {bueno} 2/3.
        ("es", "lo bueno", "bueno", 0.0, 200 / 3),
        ("vi", "cái diều", "diều", 100.0, 100.0),
        # Hindi loses nothing but punctuation; the danda is Unicode punctuation.
        ("hi", "पतंग।", "पतंग", 100.0, 100.0),
        # The Arabic article is a prefix.
        ("ar", "القمر", "قمر", 100.0, 100.0),
        # It goes inside a word too and cuts it: "سؤال" becomes "سؤ", and "رجالنا" the two words "رج" and
        # "نا".
        ("ar", "سؤال", "سؤ", 100.0, 100.0),
        ("ar", "رجالنا", "رج", 0.0, 200 / 3),
        # Chinese character by character: 2 shared of 2 and 4, 2*2/(2+4).
        ("zh", "风筝", "红色风筝", 0.0, 200 / 3),
        ("zh", "《风筝》。", "风筝", 100.0, 100.0),
        # Other scripts stay whole inside: {abc, 12, 风} with {abc, 风} 2*2/(3+2); Han needs no spaces.
        ("zh", "ABC 12风", "abc风", 0.0, 80.0),
        ("zh", "风 筝", "风筝", 100.0, 100.0),
        # U+9FA5 is split off, the next character is beyond the range and stays with its neighbour.
        ("zh", "a\u9fa5", "a \u9fa5", 100.0, 100.0),
        ("zh", "a\u9fa6", "a \u9fa6", 0.0, 0.0),
    ],
)
def test_mlqa_by_hand(language: str, prediction: str, answer: str, em: float, f1: float) -> None:
    assert metrics.mlqa_em([prediction], [[answer]], language) == em
    assert metrics.mlqa_f1([prediction], [[answer]], language) == pytest.approx(f1)


def test_mlqa_takes_the_best_answer() -> None:
    assert metrics.mlqa_f1(["el mar"], [["la luna", "mar"]], "es") == 100.0
    assert metrics.mlqa_em(["el mar"], [["la luna", "mar"]], "es") == 100.0


def test_mlqa_refuses_a_language_it_does_not_define() -> None:
    with pytest.raises(UserError, match=r"'fr'.*squad_f1"):
        metrics.mlqa_f1(["le mot"], [["mot"]], "fr")


# --- Retrieval by hand ---


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


# --- What every metric has in common ---

WORDS = ["red", "blue", "kite", "sea", "风筝", "Drachen"]
IDS = [f"d{k}" for k in range(25)]
Row = tuple[list[str], list[str]]


def rows_for(metric: str) -> st.SearchStrategy[list[Row]]:
    """Rows (prediction, gold) of the metric's shape."""
    shape = METRICS[metric].shape
    if shape == "label":
        row = st.tuples(st.sampled_from("abc").map(lambda x: [x]), st.sampled_from("abc").map(lambda x: [x]))
    elif shape == "tags":
        # X is the one tag whose spans depend on the sentence before.
        tags = IOB2 if metric == "span_f1" else [tag for tag in UPOS if tag != "X"]
        word = st.tuples(st.sampled_from(tags), st.sampled_from(tags))
        row = st.lists(word, min_size=1, max_size=6).map(lambda ws: ([p for p, _ in ws], [g for _, g in ws]))
    elif shape == "answer":
        text = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(" ".join)
        row = st.tuples(text.map(lambda x: [x]), st.lists(text, min_size=1, max_size=3))
    else:
        ids = st.lists(st.sampled_from(IDS), min_size=1, max_size=25, unique=True)
        row = st.tuples(ids.map(lambda x: x[:20]), ids)
    return st.lists(row, min_size=1, max_size=8)


@pytest.mark.parametrize("metric", sorted(METRICS))
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_range_order_and_identity(metric: str, data: st.DataObject) -> None:
    rows = data.draw(rows_for(metric))
    shuffled = data.draw(st.permutations(rows))

    def score(pairs: list[Row]) -> float:
        return METRICS[metric]([p for p, _ in pairs], [g for _, g in pairs], "zh")

    assert 0.0 <= score(rows) <= 100.0
    assert score(shuffled) == score(rows)
    exact = [(gold[:1] if METRICS[metric].shape == "answer" else gold, gold) for _, gold in rows]
    nothing_to_find = metric == "span_f1" and all(tag == "O" for _, gold in rows for tag in gold)
    assert score(exact) == (0.0 if nothing_to_find else 100.0)


@pytest.mark.parametrize("metric", ["squad_em", "squad_f1", "mlqa_em", "mlqa_f1"])
def test_an_extra_answer_never_lowers_the_score(metric: str) -> None:
    scores = [METRICS[metric]([["red kite"]], [answers], "en") for answers in (["sea"], ["sea", "kite"])]
    assert scores[0] <= scores[1]


# --- score_predictions ---

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


# --- Floors ---


def test_majority_accuracy_by_hand() -> None:
    assert metrics.majority_accuracy(["0", "1", "1", "2"]) == 50.0
    assert metrics.majority_accuracy(["0", "1", "2", "3"]) == 25.0
    with pytest.raises(UserError, match="no majority label"):
        metrics.majority_accuracy([])


def test_floors_of_labels_and_tags_by_hand() -> None:
    assert floor("accuracy", [["0"], ["1"], ["1"]], "en") == pytest.approx(200 / 3)
    golds = [["O", "O", "B-PER"], ["B-PER", "I-PER", "O"]]
    assert floor("span_f1", golds, "en") == 0.0
    # Three words of six are O.
    assert floor("token_accuracy", golds, "en") == 50.0
    # NOUN everywhere is NOUN 0-2 and NOUN 0; gold NOUN 0, VERB 1, NOUN 2 and NOUN 0: 2*1/(2+4).
    assert floor("xtreme_f1", [["NOUN", "VERB", "NOUN"], ["NOUN"]], "en") == pytest.approx(100 / 3)


def test_floors_of_answers_are_the_whole_context() -> None:
    contexts, golds = ["The red kite, at sea.", "kite"], [["kite"], ["sea", "a kite"]]
    # {red, kite, at, sea} against {kite}: 2*1/(4+1) = 0.4; the second is all of its context. Mean 0.7, exact
    # 1 of 2.
    assert floor("squad_f1", golds, "en", contexts=contexts) == pytest.approx(70.0)
    assert floor("squad_em", golds, "en", contexts=contexts) == 50.0
    # 4 characters against 2: 2*2/(4+2).
    assert floor("mlqa_f1", [["风筝"]], "zh", contexts=["红色风筝"]) == pytest.approx(200 / 3)


@pytest.mark.parametrize(("pool", "right"), [(1, 1), (4, 1), (5, 2), (5, 5), (6, 3)])
@pytest.mark.parametrize("metric", ["accuracy_at_1", "map_at_20"])
def test_floors_of_rankings_are_the_mean_over_all_orders(metric: str, pool: int, right: int) -> None:
    documents = [str(k) for k in range(pool)]
    orders = [list(order) for order in permutations(documents)]
    expected = METRICS[metric](orders, [documents[:right]] * len(orders), "en")
    assert floor(metric, [documents[:right]], "en", pool_sizes=[pool]) == pytest.approx(expected)


def test_floors_of_rankings_stop_at_20() -> None:
    # One right of 100: (1/100)(1 + 1/2 + ... + 1/20); the harmonic number of 20 is 3.597740.
    assert floor("map_at_20", [["a"]], "en", pool_sizes=[100]) == pytest.approx(3.597740, abs=1e-5)
    # Fifty right of fifty: whatever the order, every rank is right.
    assert floor("map_at_20", [[str(k) for k in range(50)]], "en", pool_sizes=[50]) == pytest.approx(100.0)


def test_floors_refuse() -> None:
    with pytest.raises(UserError, match="no metric 'bleu'"):
        floor("bleu", [["a"]], "en")
    with pytest.raises(UserError, match="needs `contexts`"):
        floor("squad_f1", [["a"]], "en")
    with pytest.raises(UserError, match=r"needs `contexts`: give 2,"):
        floor("squad_f1", [["a"], ["b"]], "en", contexts=["a"])
    with pytest.raises(UserError, match="needs `pool_sizes`"):
        floor("map_at_20", [["a"]], "en")
    with pytest.raises(UserError, match="2 right documents in a pool of 1"):
        floor("map_at_20", [["a", "b"]], "en", pool_sizes=[1])
    with pytest.raises(UserError, match="gold is empty"):
        floor("accuracy", [["a"], []], "en")
    with pytest.raises(UserError, match="nothing to score"):
        floor("span_f1", [], "en")
