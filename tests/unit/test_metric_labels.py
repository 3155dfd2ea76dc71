"""Accuracy and the F1 of tags against seqeval and scikit-learn (oracles), and by hand."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import seqeval.metrics  # type: ignore[import-untyped]
import sklearn.metrics  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st

from xlift import metrics

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


# --- By hand ---


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
