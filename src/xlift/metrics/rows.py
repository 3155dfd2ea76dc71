"""What the rows of a predictions file hold, by shape, and what keeps one from being scored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import fsum
from typing import Literal

from xlift.errors import UserError

Rows = Sequence[Sequence[str]]
"""One list a row: `[label]`, one tag a word, `[answer]` or every right answer, document ids best first, the mined
sentence or none."""

Shape = Literal["label", "tags", "answer", "ranking", "pair"]


def row_problem(shape: Shape, prediction: Sequence[str] | None, gold: Sequence[str] | None) -> str | None:
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
    if shape == "pair":
        return f"{len(prediction)} predictions where one at most belongs" if len(prediction) > 1 else None
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


def require(shape: Shape, predictions: Rows, golds: Rows, names: Sequence[str] | None = None) -> None:
    """Raise `UserError` unless every pair can be scored; `names` says which row (default: its position)."""
    if len(predictions) != len(golds):
        raise UserError(f"{len(predictions)} predictions for {len(golds)} golds: give one a row.")
    if not golds:
        raise UserError("There is nothing to score: no predictions were given.")
    for i, (prediction, gold) in enumerate(zip(predictions, golds, strict=True)):
        problem = row_problem(shape, prediction, gold)
        if problem is not None:
            where = names[i] if names is not None else f"example {i}"
            raise UserError(f"Cannot score {where}: {problem}; predict again or mend the row.")


def wrap(values: Iterable[str]) -> list[list[str]]:
    """Each value as a row of its own."""
    return [[value] for value in values]


def mean_points(shares: Sequence[float]) -> float:
    """Mean of shares in 0..1 as points; `fsum` makes it the same in every order of the rows."""
    return 100.0 * fsum(shares) / len(shares)
