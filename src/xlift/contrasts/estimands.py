"""The contrasts of a study: which languages gain more from English intermediate training, and by how much.

Every estimate comes from fixed-effects least squares in points, with language x run clustered uncertainty
(`clustered.py`). English, the source, is in none; tasks are never pooled without task terms; intermediate
and target tasks are taken as given, languages and training runs as samples. Cells that do not belong in the
primary analysis (shared training data, controls) are to be left out of `gains` by the caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from xlift.contrasts import clustered
from xlift.contrasts.clustered import Design, FloatArray, IntArray, benjamini_hochberg, holm, pair_codes
from xlift.contrasts.table import BoolArray, ContrastSettings, GainTable, Scope
from xlift.languages import SOURCE_LANGUAGE, STRATA, Language

__all__ = [
    "CONFIRMATORY", "SCHEMA", "ContrastSettings", "answer", "answer_table", "benjamini_hochberg",
    "estimate_contrasts", "holm",
]  # fmt: skip

BETA, LOW_HIGH, UNSEEN = "beta_per_doubling", "low_minus_high_per_doubling", "unseen_minus_rest_per_doubling"
LOW_HIGH_LEVEL = "low_minus_high"
CONFIRMATORY = (BETA, LOW_HIGH, UNSEEN)  # at scope "all"
FEWEST_SEEDS = 3
MOST_TABLE_ROWS = 10

SCHEMA = {
    "estimand": pl.String, "scope": pl.String, "scale": pl.String, "method": pl.String,
    "estimate": pl.Float64, "se": pl.Float64, "ci_low": pl.Float64, "ci_high": pl.Float64,
    "p": pl.Float64, "p_adjusted": pl.Float64, "n_languages": pl.Int64, "n_runs": pl.Int64, "note": pl.String,
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One row of the contrasts table; effects in points (per doubling of steps, for beta per SD too)."""

    estimand: str
    scope: str
    scale: str = "points"
    method: str = "clustered"
    estimate: float | None = None
    se: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    p: float | None = None
    p_adjusted: float | None = None
    n_languages: int = 0
    n_runs: int = 0
    note: str = ""


def estimate_contrasts(
    gains: pl.DataFrame, languages: dict[str, Language], settings: ContrastSettings | None = None
) -> pl.DataFrame:
    """All contrasts of a gains table, with `SCHEMA` as columns.

    Per doubling of realised steps (scope "all", "target=...", "intermediate=..."): `beta_per_doubling`, the
    primary estimand (per standard deviation of log2 CC-100 size over all seen languages of `languages` but
    English), and `low_minus_high_per_doubling`; `unseen_minus_rest_per_doubling` (scope "all"). At each
    budget: `low_minus_high` ("budget=...", "budget=...;target=...") and the mean gain of each stratum,
    `gain_low` and so on, over equally weighted (target, intermediate) means.

    What is not identified, and a level with rows missing, has a null estimate and a note; fewer than 3
    seeds give no interval and no p. `p_adjusted` is Holm's over the three contrasts at scope "all",
    Benjamini and Hochberg's over each map (an estimand over all targets, intermediates or budgets).

    Raises:
        UserError: a column is missing, a key occurs twice, a language is not in the table, steps are not
            positive.
    """
    settings = settings or ContrastSettings()
    table = GainTable.read(gains, languages, settings)
    everything = Scope("all")
    per_target = [Scope(f"target={name}", target=k) for k, name in enumerate(table.targets)]
    per_task = [Scope(f"intermediate={name}", intermediate=k) for k, name in enumerate(table.intermediates)]
    per_budget = [Scope(f"budget={budget:g}", budget=k) for k, budget in enumerate(table.budgets)]
    per_both = [
        Scope(f"{at.name};{of.name}", target=of.target, budget=at.budget) for at in per_budget for of in per_target
    ]
    is_low, is_high, is_unseen = (table.strata == name for name in ("low", "high", "unseen"))
    seen = np.isfinite(table.resource)
    rows = [
        _slope(table, BETA, scope, np.nan_to_num(table.resource), seen)
        for scope in (everything, *per_target, *per_task)
    ]
    rows += [
        _slope(table, LOW_HIGH, scope, is_low.astype(np.float64), is_low | is_high)
        for scope in (everything, *per_target, *per_task)
    ]
    rows.append(_slope(table, UNSEEN, everything, is_unseen.astype(np.float64), np.ones_like(is_unseen)))
    rows += [_level_difference(table, scope, is_low, is_high) for scope in (*per_budget, *per_both)]
    rows += [_level_mean(table, name, scope) for name in STRATA for scope in per_budget]
    return pl.DataFrame([vars(row) for row in _adjust(rows)], schema=SCHEMA)


def _slope(table: GainTable, estimand: str, scope: Scope, moderator: FloatArray, relevant: BoolArray) -> Row:
    """The row of d in gain = a[pair, language] + (g[pair] + d * moderator) * x; a pair is (target, task)."""
    rows = np.flatnonzero(table.inside(scope) & relevant[table.language])
    pair = pair_codes(table.target[rows], table.intermediate[rows])
    x, value = table.x[rows], moderator[table.language[rows]]
    missing = table.missing_rows(scope, relevant, rows.size)
    notes = [f"{missing} rows of the grid are missing: estimated from the rest"] if missing else []
    design = clustered.slope_design(pair, pair_codes(pair, table.language[rows]), x, value) if rows.size else None
    if design is None or not design.identified:
        spread_x = rows.size > 0 and _varies_within(pair, x).size > 0
        return _unidentified(table, estimand, scope, rows, _why_not(table, estimand, rows, value, spread_x), notes)
    silent = np.setdiff1d(table.target[rows], table.target[rows][design.weights != 0])
    if silent.size:
        notes.append(f"no weight on {_listed(table.targets, silent)}: no languages or budgets to compare there")
    return _inferred(table, estimand, scope, rows, design, notes)


def _level_difference(table: GainTable, scope: Scope, is_low: BoolArray, is_high: BoolArray) -> Row:
    """Low minus high mean gain at a budget, with a term for each (target, intermediate)."""
    relevant = is_low | is_high
    rows = np.flatnonzero(table.inside(scope) & relevant[table.language])
    pair = pair_codes(table.target[rows], table.intermediate[rows])
    low = is_low[table.language[rows]].astype(np.float64)
    design = clustered.difference_design(pair, low) if rows.size else None
    missing = table.missing_rows(scope, relevant, rows.size)
    if rows.size and (design is None or not design.identified):
        why = _why_not(table, LOW_HIGH_LEVEL, rows, low, True)
        return _unidentified(table, LOW_HIGH_LEVEL, scope, rows, why, [])
    if design is None or missing:
        why = _incomplete(missing) if missing else _why_not(table, LOW_HIGH_LEVEL, rows, low, True)
        return _unidentified(table, LOW_HIGH_LEVEL, scope, rows, why, [])
    silent = np.setdiff1d(table.target[rows], table.target[rows][design.weights != 0])
    notes = [f"no weight on {_listed(table.targets, silent)}: no low- or no high-resource language there"]
    return _inferred(table, LOW_HIGH_LEVEL, scope, rows, design, notes if silent.size else [])


def _level_mean(table: GainTable, name: str, scope: Scope) -> Row:
    """Mean gain of a stratum at a budget: the mean of the (target, intermediate) means."""
    estimand = f"gain_{name}"
    relevant = table.strata == name
    inside = table.inside(scope)
    rows = np.flatnonzero(inside & relevant[table.language])
    missing = table.missing_rows(scope, relevant, rows.size)
    if missing or not rows.size:
        why = _incomplete(missing) if missing else f"no {_words(name)} language in the gains"
        return _unidentified(table, estimand, scope, rows, why, [])
    absent = np.setdiff1d(table.target[inside], table.target[rows])
    notes = [f"no {_words(name)} language in {_listed(table.targets, absent)}"] if absent.size else []
    design = clustered.mean_design(pair_codes(table.target[rows], table.intermediate[rows]))
    return _inferred(table, estimand, scope, rows, design, notes)


def _inferred(table: GainTable, estimand: str, scope: Scope, rows: IntArray, design: Design, notes: list[str]) -> Row:
    """The row of an identified design: estimate, and its uncertainty where there are seeds enough."""
    result = clustered.two_way(
        design,
        table.treated[rows],
        table.baseline[rows],
        table.language[rows],
        table.run[rows],
        table.seed[rows],
    )
    notes = _common_notes(table, scope, rows, notes)
    pair = pair_codes(table.target[rows], table.intermediate[rows])
    compared = rows[np.isin(pair, pair[design.weights != 0])]
    row = Row(
        estimand,
        scope.name,
        estimate=result.value,
        n_languages=np.unique(table.language[compared]).size,
        n_runs=np.unique(table.run[compared]).size,
    )
    if np.unique(table.seed[rows]).size < FEWEST_SEEDS:
        notes.append(f"fewer than {FEWEST_SEEDS} seeds: no interval or p-value")
        return replace(row, note="; ".join(notes))
    interval = result.interval(table.settings.confidence)
    if result.note:
        notes.append(result.note)
    if interval is None or result.variance is None:
        return replace(row, note="; ".join(notes))
    return replace(
        row,
        se=result.variance**0.5,
        ci_low=interval[0],
        ci_high=interval[1],
        p=result.p_value(),
        note="; ".join(notes),
    )


def _unidentified(table: GainTable, estimand: str, scope: Scope, rows: IntArray, why: str, notes: list[str]) -> Row:
    return Row(
        estimand,
        scope.name,
        n_languages=np.unique(table.language[rows]).size,
        n_runs=np.unique(table.run[rows]).size,
        note="; ".join([why, *_common_notes(table, scope, rows, notes)]),
    )


def _common_notes(table: GainTable, scope: Scope, rows: IntArray, notes: list[str]) -> list[str]:
    """Notes every row may carry: tasks not run at this budget, pairs not in the grid, collapsed runs."""
    notes = list(notes)
    if scope.budget is not None and rows.size:
        inside = table.intermediate[table.inside(replace(scope, target=None))]
        absent = np.setdiff1d(table.intermediate, inside)
        if absent.size:
            notes.append(f"not run at this budget: {_listed(table.intermediates, absent)}")
    pairs = np.unique(pair_codes(table.target, table.intermediate)).size
    absent_pairs = len(table.targets) * len(table.intermediates) - pairs
    if absent_pairs and scope.target is None and scope.intermediate is None:
        notes.append(f"{absent_pairs} (target, intermediate) pairs are not in the gains")
    collapsed = np.unique(table.cell[rows][table.collapsed[rows]]).size
    if collapsed:
        notes.append(f"{collapsed} of {np.unique(table.cell[rows]).size} cells collapsed and are kept")
    return notes


def _incomplete(missing: int) -> str:
    return f"{missing} rows of the grid are missing: no mean over missing cells"


def _why_not(table: GainTable, estimand: str, rows: IntArray, moderator: FloatArray, spread_x: bool) -> str:
    """One reason why a contrast is not identified."""
    strata = set(table.strata[table.language[rows]].tolist())
    if not table.target.size:
        return "not identified: no gains at all, as no scored cell has its baseline"
    if estimand in (LOW_HIGH, LOW_HIGH_LEVEL):
        absent = [name for name in ("low", "high") if name not in strata]
    elif estimand == UNSEEN:
        absent = [] if strata - {"unseen"} else ["seen"]
        absent += [] if "unseen" in strata else ["unseen"]
    else:
        absent = [] if np.unique(moderator).size > 1 else ["second seen"]
    if absent:
        return f"not identified: no {' and no '.join(_words(name) for name in absent)} language"
    if not spread_x:
        return "not identified: no intermediate task has two budgets"
    return "not identified: no target has languages to compare"


def _varies_within(group: IntArray, values: FloatArray) -> IntArray:
    """Groups in which a value takes more than one value."""
    pairs = np.unique(np.stack([group.astype(np.float64), values]), axis=1)[0]
    found, counts = np.unique(pairs, return_counts=True)
    return found[counts > 1].astype(np.int64)


def _listed(names: Sequence[str], codes: IntArray) -> str:
    return ", ".join(names[code] for code in codes)


def _words(stratum_name: str) -> str:
    return f"{stratum_name}-resource" if stratum_name in ("low", "mid", "high") else stratum_name


def _adjust(rows: Sequence[Row]) -> list[Row]:
    """Fill `p_adjusted`: Holm over the confirmatory rows, Benjamini and Hochberg over each map."""
    families: dict[tuple[str, ...], list[int]] = {}
    for index, row in enumerate(rows):
        if row.p is not None:
            confirmatory = row.estimand in CONFIRMATORY and row.scope == "all"
            kind = tuple(part.split("=")[0] for part in row.scope.split(";"))
            families.setdefault(("confirmatory",) if confirmatory else (row.estimand, *kind), []).append(index)
    adjusted = list(rows)
    for family, members in families.items():
        adjust = holm if family == ("confirmatory",) else benjamini_hochberg
        values = adjust([p for index in members if (p := rows[index].p) is not None])
        for index, value in zip(members, values, strict=True):
            adjusted[index] = replace(rows[index], p_adjusted=value)
    return adjusted


def answer(contrasts: pl.DataFrame, gains: pl.DataFrame, settings: ContrastSettings | None = None) -> str:
    """One or two sentences: does more English intermediate training lift low-resource languages more?

    From the rows of scope "all": the sign and interval of `beta_per_doubling` decide, and its twin, the low
    minus high difference, says it in points. An interval that includes 0 is reported as "not shown", never as
    "no difference".
    """
    settings = settings or ContrastSettings()
    beta, twin = _primary(contrasts, BETA), _primary(contrasts, LOW_HIGH)
    if beta.estimate is None:
        return f"This study cannot answer the question: {beta.note or 'the primary contrast was not estimated'}."
    change = (
        f"the gain changes by {signed(beta.estimate)} points per doubling of intermediate training for each "
        "standard deviation of log2 CC-100 size"
    )
    if beta.ci_low is None or beta.ci_high is None:
        return f"This study gives an estimate but no answer: {change} ({beta.note})."
    if beta.ci_high < 0:
        verdict = (
            "Yes: with more English intermediate training, low-resource languages gain more (or lose less) "
            "than high-resource ones"
        )
    elif beta.ci_low > 0:
        verdict = (
            "No, the other way round: with more English intermediate training, high-resource languages gain "
            "more (or lose less) than low-resource ones"
        )
    else:
        verdict = (
            "Not shown: the interval includes 0, so a difference between low- and high-resource languages is "
            "neither established nor ruled out"
        )
    rows = gains.filter(pl.col("is_primary") & (pl.col("language") != SOURCE_LANGUAGE))
    base = (
        f"{_interval_text(beta, settings)}, {_counted(beta.n_languages, 'language')}, "
        f"{_counted(rows['target'].n_unique(), 'target task')}, {_counted(rows['seed'].n_unique(), 'seed')}"
    )
    return f"{verdict}; {change} ({base}). {_twin_text(twin, settings)}"


def answer_table(contrasts: pl.DataFrame) -> list[tuple[str, ...]]:
    """At most ten rows (label, estimate, interval, p, languages and runs); "-" where null."""
    rows = [Row(**values) for values in contrasts.iter_rows(named=True)]
    primary = [row for name in CONFIRMATORY for row in rows if (row.estimand, row.scope) == (name, "all")]
    levels = [row for row in rows if row.estimand == LOW_HIGH_LEVEL and ";" not in row.scope]
    last = levels[-1].scope if levels else ""
    means = [row for row in rows if row.estimand in ("gain_low", "gain_high") and row.scope == last]
    room = MOST_TABLE_ROWS - len(primary) - len(means)
    if len(levels) > room:  # keep the ends, and budgets spread evenly between
        levels = [levels[round(k)] for k in np.linspace(0, len(levels) - 1, room)]
    labels = {
        BETA: "per doubling, per SD of log2 CC-100",
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
            f"{_counted(row.n_languages, 'language')}, {_counted(row.n_runs, 'run')}",
        )
        for row in (*primary, *levels, *means)
    ]


def signed(value: float | None) -> str:
    """A number of points with its sign, two decimals, or more for small ones; a dash for None."""
    if value is None:
        return "-"
    text = f"{value:+.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:+.2g}"
    return "0.00" if value == 0 else text


def _primary(contrasts: pl.DataFrame, estimand: str) -> Row:
    found = contrasts.filter((pl.col("estimand") == estimand) & (pl.col("scope") == "all"))
    return Row(**found.row(0, named=True)) if found.height else Row(estimand, "all")


def _twin_text(twin: Row, settings: ContrastSettings) -> str:
    if twin.estimate is None:
        return f"The low minus high difference is missing ({twin.note or 'not estimated'})."
    more = "more" if twin.estimate >= 0 else "less"
    size = signed(abs(twin.estimate)).lstrip("+")
    zero = ", which includes 0" if twin.ci_low is not None and twin.ci_low <= 0 <= (twin.ci_high or 0.0) else ""
    return (
        f"Languages below {settings.low_below:g} GiB of CC-100 gain {size} points {more} per doubling than "
        f"those with {settings.high_from:g} GiB or more ({_interval_text(twin, settings)}{zero})."
    )


def _interval_text(row: Row, settings: ContrastSettings) -> str:
    if row.ci_low is None:
        return "no interval"
    return f"{100 * settings.confidence:g} % interval {signed(row.ci_low)} to {signed(row.ci_high)}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
