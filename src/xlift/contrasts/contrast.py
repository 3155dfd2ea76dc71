"""What is compared: each contrast as an estimand on a scope, the rows it uses, its design, and what to note.

A method (`clustered`, `mixed`, `bootstrap`, `permutation`) takes a `Prepared` contrast and gives a `Row`. A
contrast that is not identified is never handed on: its row is the same for every method.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from xlift.analysis import FEWEST_SEEDS
from xlift.contrasts import clustered
from xlift.contrasts.clustered import Design, FloatArray, IntArray, pair_codes
from xlift.contrasts.rows import BETA, CLUSTERED, FROM_THE_REST, LOW_HIGH, LOW_HIGH_LEVEL, UNSEEN, Row, joined
from xlift.contrasts.scales import LOGIT, at_chance
from xlift.contrasts.table import BoolArray, GainTable, Scope
from xlift.languages import STRATA

EVERYTHING = Scope("all")


@dataclass(frozen=True)
class Contrast:
    """An estimand on a scope.

    kind: `slope` is d in gain = a[pair, language] + (g[pair] + d * moderator) * x, a pair being (target,
    intermediate); `difference` is d in gain = a[pair] + d * moderator; `mean` is the mean of the pairs' means.
    """

    estimand: str
    scope: Scope
    kind: Literal["slope", "difference", "mean"]
    moderator: FloatArray  # [languages]
    relevant: BoolArray  # [languages] that take part


@dataclass(frozen=True)
class Prepared:
    """A contrast on the rows of a table, with its design where it is identified, else `why_not`."""

    contrast: Contrast
    rows: IntArray  # indices of the rows that take part
    design: Design | None
    why_not: str
    notes: tuple[str, ...]

    def row(self, table: GainTable, method: str = CLUSTERED, why_not: str = "") -> Row:
        """A row without numbers but its counts; `why_not` is put before the notes."""
        compared = self.rows
        if self.design is not None and self.rows.size:
            pair = pair_codes(table.target[self.rows], table.intermediate[self.rows])
            compared = self.rows[np.isin(pair, pair[self.design.weights != 0])]
        return Row(
            self.contrast.estimand,
            self.contrast.scope.name,
            table.scale,
            method,
            n_languages=np.unique(table.language[compared]).size,
            n_runs=np.unique(table.run[compared]).size,
            note=joined(why_not or self.why_not, *self.notes),
        )

    def few_seeds(self, table: GainTable) -> bool:
        """Whether the rows that carry the estimate are of too few seeds for an interval or a p-value."""
        used = self.rows if self.design is None else self.rows[self.design.weights != 0]
        return np.unique(table.seed[used]).size < FEWEST_SEEDS


FEW_SEEDS = f"fewer than {FEWEST_SEEDS} seeds: no interval or p-value"


def moderators(table: GainTable) -> dict[str, tuple[FloatArray, BoolArray]]:
    """Moderator and relevant languages of each estimand that compares languages. [languages], [languages]"""
    is_low, is_high, is_unseen = (table.strata == name for name in ("low", "high", "unseen"))
    low = (is_low.astype(np.float64), is_low | is_high)
    return {
        BETA: (np.nan_to_num(table.resource), np.isfinite(table.resource)),
        LOW_HIGH: low,
        UNSEEN: (is_unseen.astype(np.float64), np.ones_like(is_unseen)),
        LOW_HIGH_LEVEL: low,
    }


def slope_contrast(table: GainTable, estimand: str, scope: Scope = EVERYTHING) -> Contrast:
    """One of the contrasts per doubling, on a scope."""
    return Contrast(estimand, scope, "slope", *moderators(table)[estimand])


def all_contrasts(table: GainTable) -> Iterator[Contrast]:
    """Every contrast of a study, in the order of the table: confirmatory and maps, then levels by budget."""
    per_target = [Scope(f"target={name}", target=k) for k, name in enumerate(table.targets)]
    per_task = [Scope(f"intermediate={name}", intermediate=k) for k, name in enumerate(table.intermediates)]
    per_budget = [Scope(f"budget={budget:g}", budget=k) for k, budget in enumerate(table.budgets)]
    crossed = [
        Scope(f"{of.name};{by.name}", target=of.target, intermediate=by.intermediate)
        for of in per_target
        for by in per_task
    ]
    for estimand in (BETA, LOW_HIGH, UNSEEN):
        for scope in (EVERYTHING, *per_target, *per_task, *crossed):
            yield slope_contrast(table, estimand, scope)
    at_budgets = [
        *per_budget,
        *(
            replace(of, name=f"{at.name};{of.name}", budget=at.budget)
            for part in (per_target, per_task)
            for at in per_budget
            for of in part
        ),
    ]
    for scope in at_budgets:
        yield Contrast(LOW_HIGH_LEVEL, scope, "difference", *moderators(table)[LOW_HIGH_LEVEL])
    for name in STRATA:
        yield from (mean_contrast(table, name, scope) for scope in per_budget)
    yield from (mean_contrast(table, "all", scope) for scope in at_budgets)


def mean_contrast(table: GainTable, name: str, scope: Scope) -> Contrast:
    """The mean gain of a stratum, or of `all` languages but English, on a scope."""
    inside = np.ones_like(table.strata, dtype=bool) if name == "all" else table.strata == name
    return Contrast(f"gain_{name}", scope, "mean", np.zeros(inside.size), inside)


def prepare(table: GainTable, contrast: Contrast, covariates: FloatArray | None = None) -> Prepared:
    """The rows and the design of a contrast, or why there is none.

    `covariates` that a slope may depend on too, of every row of the table. [rows of the table, covariates]
    """
    scope, relevant = contrast.scope, contrast.relevant
    inside = table.inside(scope) & relevant[table.language]
    rows = np.flatnonzero(inside & table.defined)
    lacking = _lacking(table, *table.absent_inside(scope, relevant), int(np.count_nonzero(inside)) - rows.size)
    notes = _common_notes(table, scope, rows)
    pair = pair_codes(table.target[rows], table.intermediate[rows])
    value = contrast.moderator[table.language[rows]]
    if contrast.kind == "slope":
        x = table.x[rows]
        spread_x = rows.size > 0 and _varies_within(pair, x)
        others = None if covariates is None else covariates[rows]
        by_language = pair_codes(pair, table.language[rows])
        design = clustered.slope_design(pair, by_language, x, value, others) if rows.size else None
    elif contrast.kind == "difference":
        spread_x, design = True, clustered.difference_design(pair, value) if rows.size else None
    else:
        spread_x, design = True, clustered.mean_design(pair) if rows.size else None
    if lacking and contrast.kind != "slope":
        return Prepared(contrast, rows, None, f"{lacking}: no mean over missing cells", tuple(notes))
    if design is None or not design.identified:
        why = joined(_why_not(table, contrast, rows, value, spread_x), lacking)
        return Prepared(contrast, rows, None, why, tuple(notes))
    if lacking:
        notes.insert(0, f"{lacking}{FROM_THE_REST}")
    silent = _silent(table, contrast, rows, design)
    return Prepared(contrast, rows, design, "", tuple([silent, *notes] if silent else notes))


def _silent(table: GainTable, contrast: Contrast, rows: IntArray, design: Design) -> str:
    """Targets of the scope that the estimate says nothing about."""
    if contrast.kind == "mean":
        inside = table.inside(contrast.scope)
        absent = np.setdiff1d(table.target[inside], table.target[rows])
        words = stratum_words(contrast.estimand.removeprefix("gain_"))
        return f"no {words} language in {_listed(table.targets, absent)}" if absent.size else ""
    absent = np.setdiff1d(table.target[rows], table.target[rows][design.weights != 0])
    if not absent.size:
        return ""
    reason = (
        "no languages or budgets to compare there"
        if contrast.kind == "slope"
        else "no low- or no high-resource language there"
    )
    return f"no weight on {_listed(table.targets, absent)}: {reason}"


def _common_notes(table: GainTable, scope: Scope, rows: IntArray) -> list[str]:
    """Notes any row may carry: tasks without this budget, pairs outside the grid, chance scores, collapsed runs."""
    notes = []
    if scope.budget is not None and rows.size and scope.intermediate is None:
        task, budget = table.planned("intermediate"), table.planned("budget")
        without = np.setdiff1d(task, task[budget == scope.budget])
        if without.size:
            notes.append(f"not planned at this budget: {_listed(table.intermediates, without)}")
    if scope.target is None and scope.intermediate is None:
        pairs = np.unique(pair_codes(table.planned("target"), table.planned("intermediate"))).size
        if left_out := len(table.targets) * len(table.intermediates) - pairs:
            notes.append(f"{left_out} (target, intermediate) pairs are not part of it")
    if table.scale == LOGIT:
        chance = table.chance[rows]
        low = at_chance(table.score[rows], chance) | at_chance(table.baseline_score[rows], chance)
        if low.any():
            notes.append(f"{np.count_nonzero(low)} of {rows.size} gains have a score at or under chance")
    collapsed = np.unique(table.cell[rows][table.collapsed[rows]]).size
    if collapsed:
        notes.append(f"{collapsed} of {np.unique(table.cell[rows]).size} cells collapsed and are kept")
    return notes


def _lacking(table: GainTable, absent: int, cells: int, undefined: int) -> str:
    """What the planned grid lacks: gains that are not there, and gains that this scale has not; empty for nothing."""
    parts = []
    if absent:
        of = f"{cells} planned cells lack" if cells > 1 else "1 planned cell lacks"
        parts.append(f"{of} {absent} gain{'s' if absent > 1 else ''}")
    if undefined:
        why = f"left out ({table.gone})" if table.gone else "not defined, their baseline being at 100"
        parts.append(f"{undefined} rows are {why}")
    return " and ".join(parts)


def _why_not(table: GainTable, contrast: Contrast, rows: IntArray, moderator: FloatArray, spread_x: bool) -> str:
    """One reason why a contrast is not identified."""
    strata = set(table.strata[table.language[rows]].tolist())
    if not table.target.size:
        return "not identified: no gains at all, as no scored cell has its baseline"
    if not rows.size and contrast.kind == "slope" and table.absent_inside(contrast.scope, contrast.relevant)[0]:
        return "not identified: no gains yet"
    if contrast.kind == "mean":
        return f"no {stratum_words(contrast.estimand.removeprefix('gain_'))} language in the gains"
    if contrast.estimand in (LOW_HIGH, LOW_HIGH_LEVEL):
        absent = [name for name in ("low", "high") if name not in strata]
    elif contrast.estimand == UNSEEN:
        absent = [] if strata - {"unseen"} else ["seen"]
        absent += [] if "unseen" in strata else ["unseen"]
    else:
        absent = [] if np.unique(moderator).size > 1 else ["second seen"]
    if absent:
        return f"not identified: no {' and no '.join(stratum_words(name) for name in absent)} language"
    if not spread_x:
        return "not identified: no intermediate task has two budgets"
    return "not identified: no target has languages to compare"


def _varies_within(group: IntArray, values: FloatArray) -> bool:
    """Whether a value takes more than one value in some group; groups are coded densely."""
    _, first = np.unique(group, return_index=True)
    return bool(np.any(values != values[first][group]))


def _listed(names: Sequence[str], codes: IntArray) -> str:
    return ", ".join(names[code] for code in codes)


def stratum_words(name: str) -> str:
    """A stratum before the word "language"; "all" is any language but English."""
    return f"{name}-resource" if name in ("low", "mid", "high") else "non-English" if name == "all" else name
