"""Equivalence: two one-sided tests (TOST; Schuirmann 1987) against the study's smallest effect of interest.

A null result alone says nothing; an interval inside the margins says that whatever difference there is, it is
smaller than what would matter. The margin is fixed in the plan, in points per doubling for one standard deviation
of the resource level. For low - high it is that times the distance of the two strata's mean levels.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import special

from xlift.contrasts.contrast import Prepared
from xlift.contrasts.inference import clustered_estimate
from xlift.contrasts.rows import BETA, LOW_HIGH, TOST, Row, joined
from xlift.contrasts.table import GainTable


def tost_p(value: float, se: float, degrees_of_freedom: float, margin: float) -> float:
    """p of "the effect is at least `margin` in size": the larger of the two one-sided t-tests' p-values."""
    return float(special.stdtr(degrees_of_freedom, (abs(value) - margin) / se))


def margin_of(table: GainTable, prepared: Prepared) -> float | None:
    """The equivalence margin of a contrast in points per doubling; None where it has none."""
    effect = table.settings.smallest_effect
    if prepared.contrast.estimand == BETA:
        return effect
    if prepared.contrast.estimand == LOW_HIGH:
        levels = [np.mean(table.resource[table.strata == name]) for name in ("low", "high")]
        return effect * float(abs(levels[1] - levels[0]))
    return None  # unseen languages have no resource level


def equivalence_row(table: GainTable, prepared: Prepared, row: Row) -> Row | None:
    """The `tost` row beside a clustered row in points; None where the contrast has no margin.

    The interval has confidence 1 - 2 alpha: it lies inside the margins exactly where the test rejects at alpha,
    one minus the study's confidence.
    """
    if prepared.design is None:
        return None
    margin = margin_of(table, prepared)
    if margin is None:
        return None
    blank = replace(row, method=TOST, se=None, ci_low=None, ci_high=None, p=None, p_adjusted=None)
    result = clustered_estimate(table, prepared, prepared.design)
    if row.se is None or result.degrees_of_freedom is None:
        return blank
    level = 2 * table.settings.confidence - 1
    interval = result.interval(level)
    if interval is None:
        return blank
    note = joined(f"equivalence margin {margin:.3g} points per doubling, {100 * level:g} % interval", row.note)
    p = tost_p(result.value, row.se, result.degrees_of_freedom, margin)
    return replace(blank, se=row.se, ci_low=interval[0], ci_high=interval[1], p=p, note=note)
