"""The scales a gain is measured on, each split into the treated run's part and the baseline run's part.

- `points`: the difference of two scores of 0 to 100.
- `logit`: the difference of two chance-corrected log-odds. A score s with chance level c is the share
  q = (s / 100 - c) / (1 - c), and its log-odds are those of (n q + 1/2) / (n + 1), with n items in the test set
  (Haldane 1956; Anscombe 1956): finite for every score. A score at or under chance counts as q = 0, so all of
  these are equal, log(1 / (2 n + 1)); `at_chance` marks them.
- `error_reduction`: the share of the baseline's errors that is gone, (s - b) / (100 - b). Where the baseline
  makes no error it is not defined.

Parts: treated - baseline is the gain. In points and log-odds the baseline part is the deviation of the seed's
baseline from the mean over seeds at that target and language (`clustered.split_parts`). An error reduction is no
difference; its treated part is (s - m) / (100 - m) with m that mean, which is what the gain would be against an
average baseline, and its baseline part is what the seed's own baseline changes: to first order its deviation,
times the ratio of the errors, (100 - s) / (100 - m)^2. Either baseline part is exactly zero where the baseline is
the same for every seed.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from xlift.contrasts.clustered import FloatArray, IntArray, split_parts
from xlift.contrasts.rows import POINTS

BoolArray = npt.NDArray[np.bool_]
LOGIT, ERROR_REDUCTION = "logit", "error_reduction"
SCALES = (POINTS, LOGIT, ERROR_REDUCTION)
_BEST = 100.0


def log_odds(score: FloatArray, n: FloatArray, chance: FloatArray) -> FloatArray:
    """Chance-corrected empirical log-odds of scores in points. [rows]

    Args:
        score: 0 to 100. [rows]
        n: items of the test set, at least 1. [rows]
        chance: chance level as a share, 0 to below 1. [rows]
    """
    share = np.maximum((score / _BEST - chance) / (1 - chance), 0.0)
    return np.log(n * share + 0.5) - np.log(n * (1 - share) + 0.5)


def at_chance(score: FloatArray, chance: FloatArray) -> BoolArray:
    """Whether a score is at or under chance, so that its log-odds are the least its test set has. [rows]"""
    return score <= _BEST * chance


def parts_on(
    scale: str,
    score: FloatArray,
    baseline_score: FloatArray,
    n: FloatArray,
    chance: FloatArray,
    target_language: IntArray,
    seed: IntArray,
) -> tuple[FloatArray, FloatArray]:
    """Treated and baseline part of each gain on a scale; NaN where the scale is not defined. [rows], [rows]"""
    if scale == POINTS:
        return split_parts(score, baseline_score, target_language, seed)
    if scale == LOGIT:
        odds, baseline_odds = log_odds(score, n, chance), log_odds(baseline_score, n, chance)
        return split_parts(odds, baseline_odds, target_language, seed)
    if scale != ERROR_REDUCTION:
        raise ValueError(f"no scale is called {scale!r}")
    _, deviation = split_parts(score, baseline_score, target_language, seed)
    errors = _BEST - baseline_score
    defined = errors > 0
    usual = np.where(defined, errors + deviation, 1.0)  # errors of the mean baseline
    treated = 1 - (_BEST - score) / usual
    # gain = 1 - (100 - s) / errors, so treated - gain = (100 - s) (1 / errors - 1 / usual)
    change = (_BEST - score) * deviation / (np.where(defined, errors, 1.0) * usual)
    return np.where(defined, treated, np.nan), np.where(defined, change, np.nan)
