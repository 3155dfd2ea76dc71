"""The study's answer in words, and the few numbers beside it."""

from __future__ import annotations

import numpy as np
import polars as pl

from xlift.analysis import CONFIRMATORY
from xlift.contrasts.rows import BETA, CLUSTERED, FROM_THE_REST, LOW_HIGH, LOW_HIGH_LEVEL, POINTS, TOST, UNSEEN, Row
from xlift.contrasts.table import ContrastSettings
from xlift.languages import SOURCE_LANGUAGE

MOST_TABLE_ROWS = 10


def answer(contrasts: pl.DataFrame, gains: pl.DataFrame, settings: ContrastSettings | None = None) -> str:
    """One or two sentences: does more English intermediate training lift low-resource languages more?

    From the clustered rows in points of scope "all": the sign and interval of `beta_per_doubling` decide, and its
    twin, the low minus high difference, says it in points. An interval that includes 0 is reported as "not shown",
    never as "no difference", unless the equivalence test rules out an effect of the size of interest. An answer from a
    part of the planned gains begins by saying so.
    """
    settings = settings or ContrastSettings()
    beta, twin = _found(contrasts, BETA), _found(contrasts, LOW_HIGH)
    if beta.estimate is None:
        return f"This study cannot answer the question: {beta.note or 'the primary contrast was not estimated'}."
    change = (
        f"the gain changes by {signed(beta.estimate)} points per doubling of intermediate training for each "
        f"standard deviation of {settings.measure.scale}"
    )
    if beta.ci_low is None or beta.ci_high is None:
        return f"This study gives an estimate but no answer: {change} ({beta.note})."
    rows = gains.filter(pl.col("is_primary") & (pl.col("language") != SOURCE_LANGUAGE))
    base = (
        f"{_interval_text(beta, settings)}, {counted(beta.n_languages, 'language')}, "
        f"{counted(rows['target'].n_unique(), 'target task')}, {counted(rows['seed'].n_unique(), 'seed')}"
    )
    verdict = _verdict(beta, _found(contrasts, BETA, TOST), settings)
    lacking = [part for part in beta.note.split("; ") if part.endswith(FROM_THE_REST)]
    so_far = f"So far, as {lacking[0].removesuffix(FROM_THE_REST)}: " if lacking else ""
    return f"{so_far}{verdict}; {change} ({base}). {_twin_text(twin, settings)}"


def _verdict(beta: Row, tost: Row, settings: ContrastSettings) -> str:
    size = f"{settings.smallest_effect:g} points per doubling per standard deviation"
    equivalent = tost.p is not None and tost.p < 1 - settings.confidence
    if beta.ci_low is None or beta.ci_high is None:
        raise ValueError("a verdict needs an interval")
    if beta.ci_low <= 0 <= beta.ci_high:
        if equivalent:
            return f"No difference that matters: an effect of {size} or more, the smallest of interest, is ruled out"
        return (
            "Not shown: the interval includes 0, so a difference between low- and high-resource languages is "
            "neither established nor ruled out"
        )
    verdict = (
        "Yes: with more English intermediate training, low-resource languages gain more (or lose less) "
        "than high-resource ones"
        if beta.ci_high < 0
        else "No, the other way round: with more English intermediate training, high-resource languages gain "
        "more (or lose less) than low-resource ones"
    )
    return f"{verdict}, but by less than the smallest effect of interest, {size}" if equivalent else verdict


def answer_table(contrasts: pl.DataFrame, settings: ContrastSettings | None = None) -> list[tuple[str, ...]]:
    """At most ten rows (label, estimate, interval, p, languages and runs) in points; "-" where null."""
    settings = settings or ContrastSettings()
    main = contrasts.filter((pl.col("scale") == POINTS) & (pl.col("method") == CLUSTERED))
    rows = [Row(**values) for values in main.iter_rows(named=True)]
    primary = [row for name in CONFIRMATORY for row in rows if (row.estimand, row.scope) == (name, "all")]
    by_budget = [row for row in rows if row.scope.startswith("budget=") and ";" not in row.scope]
    levels = [row for row in by_budget if row.estimand == LOW_HIGH_LEVEL]
    last = levels[-1].scope if levels else ""
    means = [row for row in by_budget if row.estimand in ("gain_low", "gain_high") and row.scope == last]
    room = MOST_TABLE_ROWS - len(primary) - len(means)
    if len(levels) > room:  # keep the ends, and budgets spread evenly between
        levels = [levels[round(k)] for k in np.linspace(0, len(levels) - 1, room)]
    labels = {
        BETA: f"per doubling, per SD of {settings.measure.scale}",
        LOW_HIGH: "low - high, per doubling",
        UNSEEN: "unseen - rest, per doubling",
        LOW_HIGH_LEVEL: "low - high",
        "gain_low": "gain of low",
        "gain_high": "gain of high",
    }
    return [
        (
            labels[row.estimand] + (f", {row.scope.replace('=', ' ')}" if row.scope != "all" else ""),
            signed(row.estimate),
            "-" if row.ci_low is None else f"{signed(row.ci_low)} to {signed(row.ci_high)}",
            "-" if row.p is None else "< 0.001" if row.p < 0.001 else f"{row.p:.3f}",
            f"{counted(row.n_languages, 'language')}, {counted(row.n_runs, 'run')}",
        )
        for row in (*primary, *levels, *means)
    ]


def signed(value: float | None) -> str:
    """A number of points with its sign, two decimals, or more for small ones; a dash for None."""
    if value is None:
        return "-"
    text = f"{value:+.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:+.2g}"
    return "0.00" if value == 0 else text


def counted(count: int, noun: str) -> str:
    """A number of things: 1 seed, 3 seeds."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _found(contrasts: pl.DataFrame, estimand: str, method: str = CLUSTERED) -> Row:
    here = {"estimand": estimand, "scope": "all", "scale": POINTS, "method": method}
    found = contrasts.filter(*(pl.col(name) == value for name, value in here.items()))
    return Row(**found.row(0, named=True)) if found.height else Row(estimand, "all")


def _twin_text(twin: Row, settings: ContrastSettings) -> str:
    if twin.estimate is None:
        return f"The low minus high difference is missing ({twin.note or 'not estimated'})."
    more = "more" if twin.estimate >= 0 else "less"
    size = signed(abs(twin.estimate)).lstrip("+")
    zero = ", which includes 0" if twin.ci_low is not None and twin.ci_low <= 0 <= (twin.ci_high or 0.0) else ""
    measure = settings.measure
    return (
        f"Languages below {measure.amount(measure.low_below)} gain {size} points {more} per doubling than "
        f"those with {measure.amount(measure.high_from)} or more ({_interval_text(twin, settings)}{zero})."
    )


def _interval_text(row: Row, settings: ContrastSettings) -> str:
    if row.ci_low is None:
        return "no interval"
    return f"{100 * settings.confidence:g} % interval {signed(row.ci_low)} to {signed(row.ci_high)}"
