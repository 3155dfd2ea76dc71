"""Equivalence tests: statsmodels' TOST, the interval they belong to, and their margins."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from toy_gains import estimated, row, table_of, two_targets
from xlift.contrasts.equivalence import tost_p

BETA, LOW_HIGH = "beta_per_doubling", "low_minus_high_per_doubling"


@pytest.mark.parametrize("centre", [-0.3, 0.0, 0.1, 0.9])
def test_tost_agrees_with_statsmodels(centre: float) -> None:
    from statsmodels.stats.weightstats import DescrStatsW  # type: ignore[import-untyped]

    values = np.random.default_rng(1).normal(centre, 0.4, 12)
    expected = DescrStatsW(values).ttost_mean(-0.5, 0.5)[0]
    found = tost_p(float(values.mean()), float(stats.sem(values)), 11, 0.5)
    assert found == pytest.approx(expected)


def test_the_row_holds_the_test_and_the_interval_that_belongs_to_it() -> None:
    gains = two_targets()
    reference = row(estimated(gains), BETA, "all")
    ends = [reference["ci_low"], reference["ci_high"]]
    for factor in (0.9, 1.1):  # margins just inside and just outside of the 90 % interval
        wide = row(estimated(gains, smallest_effect=50.0), BETA, "all", method="tost")
        margin = factor * max(abs(wide["ci_low"]), abs(wide["ci_high"]))
        found = row(estimated(gains, smallest_effect=margin), BETA, "all", method="tost")
        assert (found["p"] < 0.05) == (factor > 1)
        assert (found["estimate"], found["se"]) == (reference["estimate"], reference["se"])
        assert ends[0] < found["ci_low"] < found["ci_high"] < ends[1]
        assert f"equivalence margin {margin:.3g} points per doubling, 90 % interval" in found["note"]


def test_the_margin_of_low_minus_high_is_the_distance_of_the_strata() -> None:
    table = table_of(two_targets())
    gap = abs(np.mean(table.resource[table.strata == "high"]) - np.mean(table.resource[table.strata == "low"]))
    found = row(estimated(two_targets()), LOW_HIGH, "all", method="tost")
    assert f"margin {0.2 * gap:.3g} points" in found["note"]


def test_there_is_none_for_unseen_other_scales_or_few_seeds() -> None:
    found = estimated(two_targets(), scales=("points", "logit"))
    tost = found.filter(found["method"] == "tost")
    assert tost.select("estimand", "scope", "scale").rows() == [(BETA, "all", "points"), (LOW_HIGH, "all", "points")]
    assert tost["p_adjusted"].null_count() == 0
    few = row(estimated(two_targets(seeds=(1, 2))), BETA, "all", method="tost")
    assert (few["p"], few["se"]) == (None, None)
    assert "fewer than 3 seeds" in few["note"]


def test_equivalence_is_a_family_of_its_own() -> None:
    found = estimated(two_targets(), smallest_effect=3.0)
    p = [row(found, name, "all", method="tost") for name in (BETA, LOW_HIGH)]
    smaller, larger = sorted(p, key=lambda each: each["p"])
    assert smaller["p_adjusted"] == pytest.approx(min(1, 2 * smaller["p"]))
    assert larger["p_adjusted"] == pytest.approx(max(larger["p"], smaller["p_adjusted"]))
