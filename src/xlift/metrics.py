"""Every metric of every target task, in points 0..100, and what a model that learnt nothing scores.

Each metric takes two aligned sequences, predictions and golds, and uses every pair: a pair that cannot be
scored is a `UserError`, never a row left out. `METRICS` gives them one signature over the rows of a
predictions file, `score_predictions` applies one of them language by language, `floor` gives the score of the
trivial prediction that a trained run has to beat.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Literal
from unicodedata import category

import polars as pl

from xlift.errors import UserError

Rows = Sequence[Sequence[str]]
"""One list a row: `[label]`, one tag a word, `[answer]` or every right answer, document ids best first."""

Shape = Literal["label", "tags", "answer", "ranking"]

RANKING_DEPTH = 20

# --- Checks ---


def _row_problem(shape: Shape, prediction: Sequence[str] | None, gold: Sequence[str] | None) -> str | None:
    """What keeps one row from being scored, in words, or None."""
    for side, values in (("prediction", prediction), ("gold", gold)):
        if values is None:
            return f"the {side} is null"
        # A str is a sequence of str too, and would be scored character by character.
        if isinstance(values, str) or not isinstance(values, Sequence):
            return f"the {side} is not a list of strings"
        if None in values:
            return f"the {side} holds a null"
        if not all(isinstance(value, str) for value in values):
            return f"the {side} is not a list of strings"
    assert prediction is not None
    assert gold is not None
    if not gold:
        return "the gold is empty"
    if shape == "tags":
        if len(prediction) != len(gold):
            return f"{len(prediction)} predicted tags for {len(gold)} gold tags"
        if "" in prediction or "" in gold:
            return "a tag is the empty string"
    elif shape == "ranking":
        if not prediction:
            return "the ranking is empty"
        if len(set(prediction)) != len(prediction) or len(set(gold)) != len(gold):
            return "a document id is repeated"
    elif len(prediction) != 1:
        return f"{len(prediction)} predictions where exactly one belongs"
    elif shape == "label" and len(gold) != 1:
        return f"{len(gold)} gold labels where exactly one belongs"
    return None


def _require(shape: Shape, predictions: Rows, golds: Rows, names: Sequence[str] | None = None) -> None:
    """Raise `UserError` unless every pair can be scored; `names` says which row (default: its position)."""
    if len(predictions) != len(golds):
        raise UserError(f"{len(predictions)} predictions for {len(golds)} golds: give one a row.")
    if not golds:
        raise UserError("There is nothing to score: no predictions were given.")
    for i, (prediction, gold) in enumerate(zip(predictions, golds, strict=True)):
        problem = _row_problem(shape, prediction, gold)
        if problem is not None:
            where = names[i] if names is not None else f"example {i}"
            raise UserError(f"Cannot score {where}: {problem}; predict again or mend the row.")


def _wrap(values: Iterable[str]) -> list[list[str]]:
    return [[value] for value in values]


def _mean_points(shares: Sequence[float]) -> float:
    """Mean of shares in 0..1 as points; `fsum` makes it the same in every order of the rows."""
    return 100.0 * fsum(shares) / len(shares)


# --- Labels and tags ---


def accuracy(predictions: Sequence[str], golds: Sequence[str]) -> float:
    """Share of labels that are right, in points. Labels are compared as strings."""
    _require("label", _wrap(predictions), _wrap(golds))
    return _mean_points([float(p == g) for p, g in zip(predictions, golds, strict=True)])


def token_accuracy(predictions: Rows, golds: Rows) -> float:
    """Share of words that carry the right tag, over all words of all sentences (micro), in points."""
    _require("tags", predictions, golds)
    pairs = zip(predictions, golds, strict=True)
    return _mean_points([float(p == g) for ps, gs in pairs for p, g in zip(ps, gs, strict=True)])


def _spans(sentences: Rows) -> set[tuple[str, int, int]]:
    """Spans (type, first word, last word) over the sentences laid end to end with an `O` behind each.

    The rules are conlleval's as seqeval 1.2.2 applies them in its default mode (`get_entities`): the first
    character of a tag is its mark, what follows the first hyphen its type ("_" if nothing does), and a span
    breaks where the marks say so or the type changes. The start is kept across sentences as there: with tags
    outside IOB2 a span may end without having been started, and then begins where the last one did.
    """
    spans = set()
    mark, kind, first, position = "O", "", 0, 0
    for sentence in sentences:
        for tag in (*sentence, "O"):
            next_mark, next_kind = tag[0], tag[1:].split("-", maxsplit=1)[-1] or "_"
            changed = kind != next_kind
            if mark in "ES" or (mark in "BI" and next_mark in "BSO") or (mark not in "O." and changed):
                spans.add((kind, first, position - 1))
            opened = mark in "ESO" and next_mark in "EI"
            if opened or next_mark in "BS" or (next_mark not in "O." and changed):
                first = position
            mark, kind, position = next_mark, next_kind, position + 1
    return spans


def _micro_f1(predictions: Rows, golds: Rows) -> float:
    predicted, right = _spans(predictions), _spans(golds)
    total = len(predicted) + len(right)
    return 200.0 * len(predicted & right) / total if total else 0.0


def span_f1(predictions: Rows, golds: Rows) -> float:
    """Micro F1 over the entity spans of IOB2 tags, sentence by sentence, in points.

    seqeval's default (conlleval-like, not strict): an `I-` that follows nothing of its type starts a span.
    The score is 0 if neither side has a span. Raises `UserError` for a tag that is not IOB2.
    """
    _require("tags", predictions, golds)
    for tag in sorted({tag for rows in (predictions, golds) for row in rows for tag in row}):
        if tag != "O" and (tag[:2] not in ("B-", "I-") or len(tag) == 2):
            raise UserError(f"span_f1 needs IOB2 tags (O, B-type, I-type), not {tag!r}: use token_accuracy.")
    return _micro_f1(predictions, golds)


def xtreme_f1(predictions: Rows, golds: Rows) -> float:
    """XTREME's part-of-speech number: seqeval 1.2.2's F1 on bare UPOS tags, in points.

    XTREME's `evaluate.py` hands tags without IOB marks to seqeval, which takes the first letter for a mark
    and the rest for a type. So runs of equal tags merge into one span, CCONJ and SCONJ are the same type
    though the S of SCONJ and SYM ends a span after each word, and X, whose type is empty, is not closed at
    the end of a sentence (which makes the number depend on the order of sentences where X occurs). Gold NOUN
    NOUN VERB against NOUN VERB VERB is 0, at token accuracy 67. For comparison with published numbers only.
    """
    _require("tags", predictions, golds)
    return _micro_f1(predictions, golds)


# --- Answers ---

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
    _require("answer", _wrap(predictions), golds)
    best = []
    for prediction, answers in zip(predictions, golds, strict=True):
        predicted = normalise(prediction)
        best.append(max(compare(predicted, normalise(answer)) for answer in answers))
    return _mean_points(best)


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


# --- Rankings ---


def accuracy_at_1(rankings: Rows, golds: Rows) -> float:
    """Share of queries whose first document is right, in points. Rankings are document ids, best first."""
    _require("ranking", rankings, golds)
    return _mean_points([float(ranking[0] in gold) for ranking, gold in zip(rankings, golds, strict=True)])


def map_at_20(rankings: Rows, golds: Rows) -> float:
    """Mean over queries of AP@20 / min(number of right documents, 20), in points.

    AP@20 is the sum, over the ranks k <= 20 that hold a right document, of the precision at k. A query whose
    20 best are all right scores 100 however many right documents the pool has; with one right document this
    is MRR@20. XTREME-R (arXiv 2104.07412) names mAP@20 for LAReQA and Mewsli-X but its evaluator has none:
    the divisor is our definition.
    """
    _require("ranking", rankings, golds)
    shares = []
    for ranking, gold in zip(rankings, golds, strict=True):
        right, hits, precision_sum = set(gold), 0, 0.0
        for rank, document in enumerate(ranking[:RANKING_DEPTH], start=1):
            if document in right:
                hits += 1
                precision_sum += hits / rank
        shares.append(precision_sum / min(len(right), RANKING_DEPTH))
    return _mean_points(shares)


# --- One signature for all ---


@dataclass(frozen=True)
class Metric:
    """A metric over rows of a predictions file: `metric(predictions, golds, language)` gives points 0..100.

    `shape` says what the rows hold; `score` is called once every row is known to have it.
    """

    shape: Shape
    score: Callable[[Rows, Rows, str], float]

    def __call__(self, predictions: Rows, golds: Rows, language: str, names: Sequence[str] | None = None) -> float:
        """Score aligned rows of one language; `names` (one a row) are what a `UserError` calls them."""
        _require(self.shape, predictions, golds, names)
        return self.score(predictions, golds, language)


def _first(rows: Rows) -> list[str]:
    return [row[0] for row in rows]


METRICS: dict[str, Metric] = {
    "accuracy": Metric("label", lambda p, g, _: accuracy(_first(p), _first(g))),
    "accuracy_at_1": Metric("ranking", lambda p, g, _: accuracy_at_1(p, g)),
    "map_at_20": Metric("ranking", lambda p, g, _: map_at_20(p, g)),
    "mlqa_em": Metric("answer", lambda p, g, language: mlqa_em(_first(p), g, language)),
    "mlqa_f1": Metric("answer", lambda p, g, language: mlqa_f1(_first(p), g, language)),
    "span_f1": Metric("tags", lambda p, g, _: span_f1(p, g)),
    "squad_em": Metric("answer", lambda p, g, _: squad_em(_first(p), g)),
    "squad_f1": Metric("answer", lambda p, g, _: squad_f1(_first(p), g)),
    "token_accuracy": Metric("tags", lambda p, g, _: token_accuracy(p, g)),
    "xtreme_f1": Metric("tags", lambda p, g, _: xtreme_f1(p, g)),
}


def metric_named(name: str) -> Metric:
    """The metric of that name, or a `UserError` that lists the names."""
    if name not in METRICS:
        raise UserError(f"There is no metric {name!r}: use one of {', '.join(METRICS)}.")
    return METRICS[name]


def score_predictions(predictions: pl.DataFrame, metric: str) -> pl.DataFrame:
    """Score a predictions file language by language.

    `predictions` has the columns language, id, prediction and gold (others are ignored). Returns language,
    metric, score (f64, points 0..100) and n (i64, number of examples: sentences in tagging), sorted by
    language. Raises `UserError`, naming the first language and id it concerns, for an unknown metric, a
    missing column, no rows, a null or repeated (language, id), a null prediction or gold, and a row without
    the metric's shape.
    """
    chosen = metric_named(metric)
    missing = [c for c in ("language", "id", "prediction", "gold") if c not in predictions.columns]
    if missing:
        raise UserError(f"Predictions lack the column(s) {', '.join(missing)}: predict again.")
    if predictions.is_empty():
        raise UserError(f"Predictions have no rows, so there is nothing to score by {metric}: predict again.")
    keys = predictions.select("language", "id")
    if sum(keys.null_count().row(0)):
        raise UserError("A prediction has no language or no id: predict again.")
    repeated = keys.filter(keys.is_duplicated()).sort("language", "id")
    if not repeated.is_empty():
        language, row_id = repeated.row(0)
        raise UserError(f"Predictions repeat language {language!r}, id {row_id!r}: predict again.")
    scores = []
    for rows in predictions.partition_by("language", maintain_order=True):
        language = rows["language"][0]
        names = [f"language {language!r}, id {row_id!r}" for row_id in rows["id"]]
        score = chosen(rows["prediction"].to_list(), rows["gold"].to_list(), language, names)
        scores.append((language, metric, score, len(rows)))
    schema = {"language": pl.String, "metric": pl.String, "score": pl.Float64, "n": pl.Int64}
    return pl.DataFrame(scores, schema=schema, orient="row").sort("language")


def _most_frequent(labels: Iterable[str]) -> str:
    """The most frequent label, the first in the alphabet of those that tie."""
    return min(Counter(labels).items(), key=lambda item: (-item[1], item[0]))[0]


def majority_accuracy(golds: Sequence[str]) -> float:
    """Share of the most frequent label, in points: the accuracy of always answering it."""
    if not golds:
        raise UserError("There is no majority label: no gold labels were given.")
    return accuracy([_most_frequent(golds)] * len(golds), golds)


def _random_ranking(metric: str, golds: Rows, pool_sizes: Sequence[int]) -> float:
    """Expected score of ranking each query's pool at random, in points."""
    shares = []
    for gold, pool in zip(golds, pool_sizes, strict=True):
        right = len(gold)
        if pool < right:
            raise UserError(f"{right} right documents in a pool of {pool}: give the whole pool's size.")
        if metric == "accuracy_at_1":
            shares.append(right / pool)
            continue
        # A right document at rank k (probability right / pool) has precision 1/k times itself and the right
        # ones expected among the k - 1 before it.
        others = (right - 1) / (pool - 1) if pool > 1 else 0.0
        ranks = range(1, min(pool, RANKING_DEPTH) + 1)
        expected = fsum(right / pool * (1 + (k - 1) * others) / k for k in ranks)
        shares.append(expected / min(right, RANKING_DEPTH))
    return _mean_points(shares)


def floor(
    metric: str,
    golds: Rows,
    language: str,
    *,
    contexts: Sequence[str] | None = None,
    pool_sizes: Sequence[int] | None = None,
) -> float:
    """What a model that learnt nothing scores, in points.

    Labels: always the most frequent one. Tags: `O` everywhere for span F1 (0), the most frequent tag
    everywhere otherwise. Answers: the whole context (`contexts`, one a row). Rankings: the expected score of
    a random order of the query's pool (`pool_sizes`, documents, one a row). Raises `UserError` where the one
    that is needed is missing or of another length.
    """
    chosen = metric_named(metric)
    if chosen.shape == "answer":
        if contexts is None or len(contexts) != len(golds):
            raise UserError(f"The floor of {metric} needs `contexts`: give {len(golds)}, one a row.")
        return chosen(_wrap(contexts), golds, language)
    _require(chosen.shape, golds, golds)
    if chosen.shape == "ranking":
        if pool_sizes is None or len(pool_sizes) != len(golds):
            raise UserError(f"The floor of {metric} needs `pool_sizes`: give {len(golds)}, one a row.")
        return _random_ranking(metric, golds, pool_sizes)
    constant = "O" if metric == "span_f1" else _most_frequent(tag for row in golds for tag in row)
    return chosen([[constant] * len(row) for row in golds], golds, language)
