"""Metrics of answers: exact match and F1 as the scripts of SQuAD 1.1, SQuAD 2.0 and MLQA define them."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from unicodedata import category

from xlift.errors import UserError
from xlift.metrics.rows import Rows, mean_points, require, wrap

Normalise = Callable[[str], str]

_ENGLISH_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_MLQA_ARTICLES = {
    "de": re.compile(r"\b(?:der|die|das|den|dem|des|ein|eine|einen|einem|einer|eines)\b"),
    "en": _ENGLISH_ARTICLES,
    "es": re.compile(r"\b(?:el|la|los|las|un|una|unos|unas)\b"),
    "vi": re.compile(r"\b(?:của|là|cái|chiếc|những)\b"),
    # The Arabic article is a prefix; MLQA's pattern takes these two letters out wherever they stand.
    "ar": re.compile("ال"),
}
MLQA_LANGUAGES = ("ar", "de", "en", "es", "hi", "vi", "zh")
_HAN = re.compile("([\u4e00-\u9fa5])")


def _squad_normalise(text: str) -> str:
    kept = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(_ENGLISH_ARTICLES.sub(" ", kept).split())


def _mlqa_normaliser(language: str) -> Normalise:
    if language not in MLQA_LANGUAGES:
        raise UserError(f"MLQA defines no answer normalisation for {language!r}: use squad_f1 or squad_em.")
    articles = _MLQA_ARTICLES.get(language)

    def normalise(text: str) -> str:
        kept = "".join(c for c in text.lower() if c not in string.punctuation and category(c)[0] != "P")
        if articles is not None:
            kept = articles.sub(" ", kept)
        if language == "zh":
            kept = _HAN.sub(r" \1 ", kept)
        return " ".join(kept.split())

    return normalise


def _exact_match(prediction: str, gold: str) -> float:
    return float(prediction == gold)


def _bag_f1(prediction: str, gold: str) -> float:
    """F1 of two bags of space-separated words; 0 if either is empty, as in the official scripts."""
    predicted, right = Counter(prediction.split()), Counter(gold.split())
    shared = (predicted & right).total()
    return 2 * shared / (predicted.total() + right.total()) if shared else 0.0


def _best_answer(
    predictions: Sequence[str], golds: Rows, normalise: Normalise, compare: Callable[[str, str], float]
) -> float:
    """Mean over questions of the best comparison with any of the right answers, in points."""
    require("answer", wrap(predictions), golds)
    best = []
    for prediction, answers in zip(predictions, golds, strict=True):
        predicted = normalise(prediction)
        best.append(max(compare(predicted, normalise(answer)) for answer in answers))
    return mean_points(best)


def squad_em(predictions: Sequence[str], golds: Rows) -> float:
    """SQuAD v1.1 exact match, in points: equal to one of the right answers after normalising.

    The English normaliser in every language (XQuAD and TyDiQA-GoldP in XTREME): lower case, ASCII punctuation
    deleted, the words a, an and the deleted, white space squeezed; no segmentation. After the official v1.1
    evaluation script (read in Hugging Face evaluate's copy, `metrics/squad/compute_score.py`).
    """
    return _best_answer(predictions, golds, _squad_normalise, _exact_match)


def squad_f1(predictions: Sequence[str], golds: Rows) -> float:
    """SQuAD v1.1 F1, in points: bag-of-words F1 with the closest right answer; normalised as in `squad_em`.

    An answer that is empty after normalising scores 0, even against itself, as in the official script.
    """
    return _best_answer(predictions, golds, _squad_normalise, _bag_f1)


def mlqa_em(predictions: Sequence[str], golds: Rows, language: str) -> float:
    """MLQA exact match, in points; `language` is the answers' (one of `MLQA_LANGUAGES`, else `UserError`).

    Lower case; punctuation of ASCII and of Unicode's P categories deleted; the language's articles deleted
    (none in hi and zh); split at white space, in zh also around each character U+4E00..U+9FA5. All of it
    was read in, not recalled from, MLQA's evaluation script (facebookresearch/MLQA `mlqa_evaluation_v1.py`,
    commit 5ef5c731). Two of its oddities are kept: in ar the letters alif lam become a space anywhere in a
    word (the anchored alternative of its pattern never matches), and the Vietnamese list holds more than
    articles. What counts as P follows the running Python's Unicode tables, there as here.
    """
    return _best_answer(predictions, golds, _mlqa_normaliser(language), _exact_match)


def mlqa_f1(predictions: Sequence[str], golds: Rows, language: str) -> float:
    """MLQA F1, in points: as `squad_f1`, but normalised and sourced as `mlqa_em`."""
    return _best_answer(predictions, golds, _mlqa_normaliser(language), _bag_f1)


# --- SQuAD 2.0: questions without an answer ---

ALWAYS = -1e9
"""A threshold below every difference of two scores: no question is answered."""


def _bag_f1_v2(prediction: str, gold: str) -> float:
    """As `_bag_f1`, but two empty bags agree."""
    predicted, right = prediction.split(), gold.split()
    return float(predicted == right) if not predicted or not right else _bag_f1(prediction, gold)


def _v2_shares(predictions: Sequence[str], golds: Rows, compare: Callable[[str, str], float]) -> list[float]:
    require("answer", wrap(predictions), golds)
    shares = []
    for prediction, answers in zip(predictions, golds, strict=True):
        # An answer of which nothing is left is none, and a question without one is answered by the empty string.
        right = [text for answer in answers if (text := _squad_normalise(answer))] or [""]
        predicted = _squad_normalise(prediction)
        shares.append(max(compare(predicted, text) for text in right))
    return shares


def squad_v2_em(predictions: Sequence[str], golds: Rows) -> float:
    """SQuAD 2.0 exact match, in points. A question without an answer has the gold `[""]`.

    Normalised as in `squad_em`. After the official evaluation script of v2.0 (`evaluate-v2.0.py`).
    """
    return mean_points(_v2_shares(predictions, golds, _exact_match))


def squad_v2_f1(predictions: Sequence[str], golds: Rows) -> float:
    """SQuAD 2.0 F1, in points: as `squad_f1`, but an empty answer scores 1 against an empty gold, else 0."""
    return mean_points(_v2_shares(predictions, golds, _bag_f1_v2))


def no_answer_threshold(metric: str, predictions: Sequence[str], golds: Rows, scores: Sequence[float]) -> float:
    """The threshold on the no-answer scores that makes `metric` best where larger scores give no answer.

    `predictions` are the best answers, none of them empty; `scores` say how much better no answer is. The search of the
    official script (`find_best_thresh` of `evaluate-v2.0.py`): from no answer at all, questions are answered in the
    order of their scores, and the earliest best place counts. Two things differ, both for scores that are no
    probabilities: where no answer at all is best the threshold is `ALWAYS` (there 0), and questions of equal scores are
    answered together, since no threshold tells them apart.
    """
    compare = _exact_match if metric == "squad_v2_em" else _bag_f1_v2
    answered = _v2_shares(predictions, golds, compare)
    silent = _v2_shares([""] * len(golds), golds, compare)
    order = sorted(range(len(scores)), key=lambda row: scores[row])
    total = best = 0.0
    threshold = ALWAYS
    for place, row in enumerate(order):
        total += answered[row] - silent[row]
        last = place + 1 == len(order) or scores[order[place + 1]] > scores[row]
        if last and total > best:
            best, threshold = total, scores[row]
    return threshold
