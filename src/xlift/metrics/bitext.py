"""Bitext mining: F1 over mined pairs, and the threshold on their margins that makes it best."""

from __future__ import annotations

from collections.abc import Sequence

from xlift.errors import UserError
from xlift.metrics.rows import Rows, require


def bitext_f1(predictions: Rows, golds: Rows) -> float:
    """F1 over sentence pairs, in points. A row is a source sentence: what was mined for it (one id or none), and its
    right targets (any number).

    Micro: a mined pair is right if it is a gold pair; precision over all mined pairs, recall over all gold pairs, 0
    where none is right. As BUCC 2018 and XTREME's evaluation. Raises `UserError` where there is no gold pair at all.
    """
    require("pair", predictions, golds)
    total = sum(len(set(gold)) for gold in golds)
    if not total:
        raise UserError("There is no gold pair to find: check the data's gold pairs.")
    mined = sum(len(prediction) for prediction in predictions)
    right = sum(target in gold for prediction, gold in zip(predictions, golds, strict=True) for target in prediction)
    return 200.0 * right / (mined + total)


def margin_threshold(margins: Sequence[float], right: Sequence[bool], golds: int) -> float:
    """The least margin of a mined pair that makes F1 best, of candidates with these margins that are right or not.

    Candidates are taken in the order of falling margins; half-way between the last one taken at the best place (the
    earliest of equals) and the next one is the threshold, as XTREME's `bucc_optimize` has it. Where that stops half-way
    through candidates of equal margins, this does not: no threshold tells them apart. 0 where none
    is right, as there.
    """
    order = sorted(range(len(margins)), key=lambda row: -margins[row])
    found, best, threshold = 0, 0.0, 0.0
    for place, row in enumerate(order):
        found += right[row]
        following = margins[order[place + 1]] if place + 1 < len(order) else margins[row]
        if place + 1 < len(order) and following == margins[row]:
            continue
        f1 = 2 * found / (place + 1 + golds)
        if f1 > best:
            best, threshold = f1, (margins[row] + following) / 2
    return threshold
