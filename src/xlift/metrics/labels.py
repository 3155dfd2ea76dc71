"""Metrics of labels and of tags: accuracy, F1 over spans of IOB2 tags, XTREME's F1 over bare tags."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from xlift.errors import UserError
from xlift.metrics.rows import Rows, mean_points, require, wrap


def accuracy(predictions: Sequence[str], golds: Sequence[str]) -> float:
    """Share of labels that are right, in points. Labels are compared as strings."""
    require("label", wrap(predictions), wrap(golds))
    return mean_points([float(p == g) for p, g in zip(predictions, golds, strict=True)])


def token_accuracy(predictions: Rows, golds: Rows) -> float:
    """Share of words that carry the right tag, over all words of all sentences (micro), in points."""
    require("tags", predictions, golds)
    pairs = zip(predictions, golds, strict=True)
    return mean_points([float(p == g) for ps, gs in pairs for p, g in zip(ps, gs, strict=True)])


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
    require("tags", predictions, golds)
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
    require("tags", predictions, golds)
    return _micro_f1(predictions, golds)


def most_frequent(labels: Iterable[str]) -> str:
    """The most frequent label, the first in the alphabet of those that tie."""
    return min(Counter(labels).items(), key=lambda item: (-item[1], item[0]))[0]


def majority_accuracy(golds: Sequence[str]) -> float:
    """Share of the most frequent label, in points: the accuracy of always answering it."""
    if not golds:
        raise UserError("There is no majority label: no gold labels were given.")
    return accuracy([most_frequent(golds)] * len(golds), golds)
