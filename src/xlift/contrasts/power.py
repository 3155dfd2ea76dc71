"""How small an effect a grid can detect: the primary test's power from variances, without simulating.

The estimate is a weighted sum of gains, so its variance is a sum over components: each one's variance times the squared
sums of weights and loadings over its units. The test is the two-way clustered t test of `clustered.py`, with the
degrees of freedom that these variances give it, and power is that of a noncentral t. The test's own variance has the
noise of single cells twice (in the sums over languages and in those over runs), so that an estimate has to be further
from zero than its variance alone would ask for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from scipy import optimize, stats

from xlift.analysis import FEWEST_SEEDS
from xlift.columns import COUNT, NUMBER, TEXT, TRUTH, Column, schema_of
from xlift.contrasts import clustered
from xlift.contrasts.clustered import FloatArray, IntArray, pair_codes
from xlift.contrasts.mixed import MixedData, fit_mixed
from xlift.contrasts.reml import CHECKPOINT, LANGUAGE, NOISE, PAIR, TARGET, TARGET_RUN, TASK, TRUNK
from xlift.contrasts.rows import BETA, LOW_HIGH
from xlift.contrasts.structure import Grid, Spreads, build_grid
from xlift.contrasts.table import ContrastSettings, GainTable
from xlift.languages import Language
from xlift.resource import Resource

POWER = 0.8
POWERS = (
    Column("estimand", TEXT, "`beta_per_doubling` or `low_minus_high_per_doubling`."),
    Column("change", TEXT, "What differs from the planned grid: `seeds`, `budgets`, `range` or `intermediates`."),
    Column("n_intermediates", COUNT, "Intermediate tasks."),
    Column("n_budgets", COUNT, "Budgets of the main arm."),
    Column("doublings", NUMBER, "Doublings from the smallest to the largest budget."),
    Column("n_seeds", COUNT, "Seeds."),
    Column("n_runs", COUNT, "Training runs the grid has, baselines' and targets' too."),
    Column("planned", TRUTH, "Whether it is the study's own grid."),
    Column("se", NUMBER, "Standard error to be expected, in points per doubling."),
    Column("degrees_of_freedom", NUMBER, "Degrees of freedom to be expected."),
    Column("smallest_effect", NUMBER, "Smallest effect detected with 80 % power, two-sided; null: see the note."),
    Column("note", TEXT, "Why there is no number; empty where there is one."),
)
"""power.parquet."""
SCHEMA = schema_of(POWERS)
_PILOT = {
    "language_slope": LANGUAGE,
    "target_language_slope": TARGET,
    "task_language_slope": TASK,
    "pair_language_slope": PAIR,
    "trunk_tilt": TRUNK,
    "checkpoint_tilt": CHECKPOINT,
    "target_run_tilt": TARGET_RUN,
    "noise": NOISE,
}
"""Components of the mixed model that a slope's precision is made of."""


@dataclass(frozen=True)
class Precision:
    """The standard error of an estimate, and of its test the degrees of freedom and the factor by which it takes that
    error for larger than it is."""

    standard_error: float
    degrees_of_freedom: float
    overstated: float = 1.0

    def power(self, effect: float, confidence: float) -> float:
        """Probability that the two-sided test at 1 - confidence rejects "no effect"."""
        limit = self.overstated * float(stats.t.ppf(0.5 + confidence / 2, self.degrees_of_freedom))
        shift = effect / self.standard_error
        # The far tail is nil where it is not computed: scipy's noncentral t underflows there.
        tails = (
            stats.nct.sf(limit, self.degrees_of_freedom, shift),
            stats.nct.cdf(-limit, self.degrees_of_freedom, shift),
        )
        return float(sum(np.nan_to_num(tail) for tail in tails))

    def smallest_effect(self, confidence: float, power: float = POWER) -> float:
        """The effect that is detected with that power."""
        high = self.standard_error
        while self.power(high, confidence) < power:
            high *= 2
        found = optimize.brentq(lambda effect: self.power(effect, confidence) - power, 0.0, high, xtol=1e-12)
        return float(found)


def precision(grid: Grid, spreads: Spreads, estimand: str) -> Precision | str:
    """What a grid's slopes give for `beta_per_doubling` or `low_minus_high_per_doubling`, or why nothing."""
    if not grid.target.size:
        return "every pair of tasks shares training data: nothing to compare"
    if estimand == BETA:
        relevant, moderator = np.isfinite(grid.z), np.nan_to_num(grid.z)
    else:
        relevant, moderator = np.isin(grid.strata, ("low", "high")), (grid.strata == "low").astype(np.float64)
    part = grid.within(relevant)
    if not part.target.size:
        return "no such language"
    design = clustered.slope_design(part.pair, pair_codes(part.pair, part.language), part.x, moderator[part.language])
    if not design.identified:
        return "not identified"
    if np.unique(part.seed).size < FEWEST_SEEDS:
        return f"fewer than {FEWEST_SEEDS} seeds: no test"
    parts = (
        (_variance(_language_terms(part, spreads), design.weights), part.language),
        (_variance(_run_terms(part, spreads), design.weights), part.run),
    )
    # The noise of cells is in both sums.
    noise = _variance(_noise_terms(part, spreads), design.weights)
    degrees = [clustered.design_degrees(design, codes) for _, codes in parts]
    if min(degrees) == 0:
        return "rests on a single language or run: no test"
    total = sum(value for value, _ in parts) + noise
    pooled = clustered.pooled_degrees([(value + noise, own) for (value, _), own in zip(parts, degrees, strict=True)])
    if total == 0:
        return "no variance at all: no test"
    return Precision(float(np.sqrt(total)), pooled, float(np.sqrt((total + noise) / total)))


Term = tuple[float, FloatArray, tuple[IntArray, ...]]
"""A standard deviation, its loading in each row, and the codes of its units."""


def _language_terms(grid: Grid, spreads: Spreads) -> Iterator[Term]:
    yield spreads.language_slope, grid.x, (grid.language,)
    yield spreads.target_language_slope, grid.x, (grid.target, grid.language)
    yield spreads.task_language_slope, grid.x, (grid.intermediate, grid.language)
    yield spreads.pair_language_slope, grid.x, (grid.pair, grid.language)


def _run_terms(grid: Grid, spreads: Spreads) -> Iterator[Term]:
    tilt = grid.tilt[grid.language]
    if grid.shared_trunk:
        yield spreads.trunk_tilt, tilt * grid.x, (grid.run,)
    yield spreads.checkpoint_tilt, tilt, (grid.checkpoint,)
    yield spreads.target_run_tilt, tilt, (grid.target, grid.checkpoint)
    yield spreads.baseline_tilt, tilt, (grid.target, grid.seed)


def _noise_terms(grid: Grid, spreads: Spreads) -> Iterator[Term]:
    one = np.ones_like(grid.x)
    yield spreads.noise, one, (grid.target, grid.checkpoint, grid.language)
    yield spreads.noise, one, (grid.target, grid.seed, grid.language)  # of the baseline


def _variance(terms: Iterator[Term], weights: FloatArray) -> float:
    total = 0.0
    for spread, loading, codes in terms:
        units = codes[0]
        for other in codes[1:]:
            units = pair_codes(units, other)
        total += spread**2 * float(np.sum(np.bincount(units, weights * loading) ** 2))
    return total


@dataclass(frozen=True)
class Layout:
    """What of a study decides its precision."""

    targets: Mapping[str, Sequence[str]]  # languages of each
    n_trained_targets: int  # the rest is evaluated without training
    log2_budgets: tuple[tuple[float, ...], ...]  # of each intermediate task, all as many
    n_seeds: int
    # Targets, and intermediate tasks by place, whose training data overlap: run, but not in the primary analysis.
    shares_data: frozenset[tuple[str, int]] = frozenset()
    shared_trunk: bool = False

    @property
    def n_intermediates(self) -> int:
        return len(self.log2_budgets)

    @property
    def n_budgets(self) -> int:
        return len(self.log2_budgets[0])

    @property
    def doublings(self) -> float:
        """From the smallest to the largest budget, of the task of which they are furthest apart."""
        return max(max(own) - min(own) for own in self.log2_budgets)

    @property
    def n_runs(self) -> int:
        """Training runs: intermediate ones, and those of the targets after them and after none."""
        intermediate = self.n_intermediates * self.n_budgets * self.n_seeds
        return intermediate + self.n_trained_targets * (intermediate + self.n_seeds)

    def grid(self, levels: Resource) -> Grid:
        """The rows of the primary analysis."""
        whole = build_grid(self.targets, levels, self.n_intermediates, range(self.n_budgets), self.n_seeds)
        x = np.array(self.log2_budgets)[whole.intermediate, whole.budget]
        places = range(self.n_intermediates)
        apart = np.array([[(target, k) not in self.shares_data for k in places] for target in sorted(self.targets)])
        own = replace(whole, x=x, shared_trunk=self.shared_trunk)
        return own.rows(apart[whole.target, whole.intermediate])


def power_table(layout: Layout, levels: Resource, spreads: Spreads, confidence: float) -> pl.DataFrame:
    """Smallest detectable effects of a layout and of others that differ from it in one thing; columns `SCHEMA`.

    `change` is what differs: "seeds", "budgets" (as many, evenly spaced in log2 over each task's range), "range" (one
    or two more budgets, each twice the largest), "intermediates" (the first so many, or further ones like those
    planned, in turn); the planned layout is in each. Rows are sorted by estimand, change and size. Effects are in
    points per doubling, for beta per standard deviation of the resource.
    """
    rows = []
    for estimand in (BETA, LOW_HIGH):
        for change, other in _alternatives(layout):
            found = precision(other.grid(levels), spreads, estimand)
            row = {
                "estimand": estimand,
                "change": change,
                "n_intermediates": other.n_intermediates,
                "n_budgets": other.n_budgets,
                "doublings": other.doublings,
                "n_seeds": other.n_seeds,
                "n_runs": other.n_runs,
                "planned": other == layout,
                "note": found if isinstance(found, str) else "",
            }
            if isinstance(found, Precision):
                row |= {
                    "se": found.standard_error,
                    "degrees_of_freedom": found.degrees_of_freedom,
                    "smallest_effect": found.smallest_effect(confidence),
                }
            rows.append(row)
    return pl.DataFrame(rows, schema=SCHEMA)


def _alternatives(layout: Layout) -> Iterator[tuple[str, Layout]]:
    planned, tasks, budgets = layout.log2_budgets, layout.n_intermediates, layout.n_budgets
    for n in sorted({3, 5, 10, layout.n_seeds}):
        yield "seeds", replace(layout, n_seeds=n)
    if budgets > 1:
        for n in sorted({2, 3, 4, 6, 8, budgets}):
            spaced = tuple(tuple(np.linspace(min(own), max(own), n).tolist()) for own in planned)
            yield "budgets", layout if n == budgets else replace(layout, log2_budgets=spaced)
    for more in range(3):
        wider = tuple((*own, *(max(own) + step for step in range(1, more + 1))) for own in planned)
        yield "range", replace(layout, log2_budgets=wider)
    for n in sorted({1, 2, 3, 5, 10, tasks}):
        like = [k % tasks for k in range(n)]
        shared = frozenset((target, k) for k in range(n) for target, of in layout.shares_data if of == like[k])
        yield "intermediates", replace(layout, log2_budgets=tuple(planned[k] for k in like), shares_data=shared)


def pilot_spreads(gains: pl.DataFrame, languages: Mapping[str, Language], settings: ContrastSettings) -> Spreads | str:
    """Standard deviations estimated from gains at hand by the crossed mixed model, or why they cannot be.

    What the pilot's grid cannot tell apart stays together in the component that more runs help least: with one
    intermediate task, all that languages differ by is taken to be common to all intermediate tasks.
    """
    table = GainTable.read(gains, gains, languages, settings)  # whatever else was planned
    rows = np.flatnonzero(np.isfinite(table.resource[table.language]) & np.isfinite(table.treated - table.baseline))
    if not rows.size:
        return "there are no gains of languages with a resource level"
    checkpoint = pair_codes(pair_codes(table.intermediate, table.budget), table.seed)[rows]
    codes = (table.target[rows], table.intermediate[rows], table.seed[rows], table.language[rows], checkpoint)
    gain = (table.treated - table.baseline)[rows]
    fit = fit_mixed(MixedData(gain, table.x[rows], *codes, np.nan_to_num(table.resource), settings.shared_trunk))
    if fit.value is None:
        return fit.note
    found = {name: float(fit.components.get(component, 0.0)) ** 0.5 for name, component in _PILOT.items()}
    return Spreads(**found)
