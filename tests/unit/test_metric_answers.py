"""Answers by hand: SQuAD 1.1, SQuAD 2.0 and its threshold, MLQA."""

from __future__ import annotations

import random

import pytest

from xlift import metrics
from xlift.errors import UserError


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


# --- SQuAD 2.0 ---


@pytest.mark.parametrize(
    ("prediction", "answers", "em", "f1"),
    [
        # No answer where there is none; an answer where there is none; none where there is one.
        ("", [""], 100.0, 100.0),
        ("kite", [""], 0.0, 0.0),
        ("", ["kite"], 0.0, 0.0),
        # As SQuAD 1.1 where both say something: {red, kite} against {red, kite, string}, 2*2/(2+3).
        ("a red kite", ["red kite string"], 0.0, 80.0),
        ("The kite!", ["sea", "kite"], 100.0, 100.0),
        # A gold of which nothing is left is dropped, and only then is the question without an answer.
        ("", ["the"], 100.0, 100.0),
        ("", ["the", "kite"], 0.0, 0.0),
        # A prediction of which nothing is left is no answer.
        ("the", [""], 100.0, 100.0),
        ("A.", ["kite"], 0.0, 0.0),
    ],
)
def test_squad_v2_by_hand(prediction: str, answers: list[str], em: float, f1: float) -> None:
    assert metrics.squad_v2_em([prediction], [answers]) == em
    assert metrics.squad_v2_f1([prediction], [answers]) == pytest.approx(f1)


def test_squad_v2_is_the_mean_over_questions() -> None:
    # F1 1, 2/3 and 0: mean 5/9. Exact 1 of 3.
    predictions, golds = ["", "red kite", "sea"], [[""], ["kite"], [""]]
    assert metrics.squad_v2_f1(predictions, golds) == pytest.approx(500 / 9)
    assert metrics.squad_v2_em(predictions, golds) == pytest.approx(100 / 3)


def test_the_threshold_by_hand() -> None:
    # In the order of the scores -3, -1, 0.5, 2: answering gains 1 (right), loses 1 (there is no answer), gains 2/3
    # (half right), gains 0 (wrong, and silence is wrong too). From silence: 1, 0, 2/3, 2/3: the first is best.
    predictions, golds = ["kite", "sea", "red kite", "moon"], [["kite"], [""], ["kite"], ["sun"]]
    assert metrics.no_answer_threshold("squad_v2_f1", predictions, golds, [-3.0, -1.0, 0.5, 2.0]) == -3.0
    # With another order the half right answer comes before the loss: 1, 5/3, 2/3.
    assert metrics.no_answer_threshold("squad_v2_f1", predictions, golds, [-3.0, 0.5, -1.0, 2.0]) == -1.0
    # By exact match a half right answer gains nothing.
    assert metrics.no_answer_threshold("squad_v2_em", predictions, golds, [-3.0, 0.5, -1.0, 2.0]) == -3.0


def test_silence_is_the_threshold_where_it_is_best() -> None:
    threshold = metrics.no_answer_threshold("squad_v2_f1", ["kite", "sea"], [[""], [""]], [-5e3, 7.0])
    assert threshold == metrics.ALWAYS
    assert all(score > threshold for score in (-5e3, 7.0))


def test_questions_of_equal_scores_are_answered_together() -> None:
    # Answering the first only would be best, and no threshold does that: together they gain nothing.
    assert metrics.no_answer_threshold("squad_v2_f1", ["kite", "sea"], [["kite"], [""]], [1.0, 1.0]) == metrics.ALWAYS


@pytest.mark.parametrize("metric", ["squad_v2_f1", "squad_v2_em"])
@pytest.mark.parametrize("seed", range(20))
def test_no_other_threshold_scores_better(metric: str, seed: int) -> None:
    draw = random.Random(seed)
    texts = ["kite", "red kite", "sea", "blue sea"]
    predictions = [draw.choice(texts) for _ in range(12)]
    golds = [[""] if draw.random() < 0.5 else [draw.choice(texts)] for _ in predictions]
    scores = [float(draw.randint(-4, 4)) for _ in predictions]  # many are equal

    def score(threshold: float) -> float:
        answers = ["" if s > threshold else p for p, s in zip(predictions, scores, strict=True)]
        return metrics.METRICS[metric]([[a] for a in answers], golds, "en")

    found = score(metrics.no_answer_threshold(metric, predictions, golds, scores))
    assert found == pytest.approx(max(score(threshold) for threshold in (-9.0, *scores)))
