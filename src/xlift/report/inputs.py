"""What the report is made of, and its descriptive means, which refuse to skip a missing cell.

Every mean here is over a complete set of seeds (and, over all targets, over every target): where one cell is
missing the mean is null. Uncertainty is not computed here: it comes from the contrasts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from xlift.catalog.task import NONE
from xlift.errors import UserError
from xlift.languages import SOURCE_LANGUAGE, STRATA, Language
from xlift.resource import Resource

ALL_TARGETS = ""
"""The key of the mean over every target of the study, beside the targets' names."""
GROUPS = (*STRATA, "source")
OFFLINE_PREFIX = "cldr_"
"""How the tasks of the offline benchmark are called."""


@dataclass(frozen=True)
class ReportInputs:
    """Everything the page is made of; the same inputs give the same bytes.

    study: plain settings `name`, `encoder`, `trainable`, `intermediates`, `budgets`, `seeds`, `targets`, `languages`,
    and `analysis`, the contrasts' settings; optionally `confidence` (of the intervals, 0.95) and `target_languages`,
    target -> languages, where the languages a target should have are not simply those it has scores for. resource:
    the levels that the contrasts used. plan: whether the analysis is as planned, in a sentence. scores, gains,
    contrasts, runs: the study's tables. completeness: one row a cell (target, intermediate, budget, seed, present,
    languages, expected_languages). provenance: versions, hardware and the like, free of dates.
    """

    study: Mapping[str, Any]
    answer: str
    scores: pl.DataFrame
    gains: pl.DataFrame
    contrasts: pl.DataFrame
    runs: pl.DataFrame
    languages: Mapping[str, Language]
    resource: Resource
    plan: str
    completeness: pl.DataFrame
    provenance: Mapping[str, Any]

    @property
    def intermediates(self) -> list[str]:
        """The intermediate tasks in the study's order, without the baseline."""
        return [str(name) for name in self.study["intermediates"] if name != NONE]

    @property
    def budgets(self) -> list[float]:
        """The budgets, smallest first, as multiples of the reference steps."""
        return sorted(float(budget) for budget in self.study["budgets"] if budget > 0)

    @property
    def confidence(self) -> str:
        """The level of the intervals as text: 95 %."""
        return f"{100 * self.study.get('confidence', 0.95):g} %"

    @property
    def targets(self) -> list[str]:
        """The target tasks in the study's order."""
        return [str(name) for name in self.study["targets"]]


def parse_scope(scope: str) -> dict[str, str]:
    """ "budget=1;target=xnli" -> {"budget": "1", "target": "xnli"}; "all" -> {}; "shared" -> {"shared": ""}."""
    parts = (part.partition("=") for part in scope.split(";") if part.strip() not in ("", "all"))
    return {key.strip(): value.strip() for key, _, value in parts}


def primary_method(contrasts: pl.DataFrame) -> str | None:
    """The method the page draws: two-way clustering, which stays primary beside any other."""
    methods = contrasts["method"].unique(maintain_order=True).to_list()
    return next((name for name in methods if "cluster" in name), methods[0] if methods else None)


def contrast_rows(contrasts: pl.DataFrame, estimand: str, keys: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of one estimand in points by the primary method whose scope names exactly `keys`, scope parsed."""
    method = pl.lit(primary_method(contrasts), dtype=pl.String)
    rows = contrasts.filter(
        (pl.col("estimand") == estimand) & (pl.col("scale") == "points") & (pl.col("method") == method)
    )
    parsed = [row | {"where": parse_scope(row["scope"])} for row in rows.iter_rows(named=True)]
    return [row for row in parsed if sorted(row["where"]) == sorted(keys)]


def group_of(inputs: ReportInputs, iso2: str) -> str:
    """The stratum of a language, with English apart as `source`. UserError for an unknown code."""
    if iso2 not in inputs.languages:
        raise UserError(
            f"The language '{iso2}' has scores but no row in the table of languages; add it to config/languages.csv."
        )
    if iso2 == SOURCE_LANGUAGE:
        return "source"
    return inputs.resource.strata[iso2]


def expected_pairs(inputs: ReportInputs) -> pl.DataFrame:
    """The sorted (target, language) pairs of the design: as declared, else every pair with some score."""
    declared = inputs.study.get("target_languages")
    if declared is not None:
        pairs = sorted((str(target), str(language)) for target in declared for language in declared[target])
        return pl.DataFrame(pairs, schema={"target": pl.String, "language": pl.String}, orient="row")
    primary = inputs.scores.filter(pl.col("is_primary") & pl.col("target").is_in(inputs.targets))
    return primary.select("target", "language").unique().sort("target", "language")


def ordered_languages(inputs: ReportInputs) -> list[str]:
    """The study's languages by stratum, then by size, then by code."""
    codes = set(expected_pairs(inputs)["language"]) | {str(code) for code in inputs.study["languages"]}

    def place(iso2: str) -> tuple[int, float, str]:
        return GROUPS.index(group_of(inputs, iso2)), inputs.resource.sizes.get(iso2, 0.0), iso2

    return sorted(codes, key=place)


def gain_by_cell(inputs: ReportInputs) -> pl.DataFrame:
    """Mean gain over seeds: target, language, intermediate, budget, gain; null unless every seed is there.

    The target "" holds the mean over all targets, null unless the language is in every target of the study:
    languages differ in their targets, and a mean over whatever is there would compare tasks instead of
    languages.
    """
    design = (
        expected_pairs(inputs)
        .join(
            pl.DataFrame({"intermediate": inputs.intermediates}, schema={"intermediate": pl.String}),
            how="cross",
        )
        .join(pl.DataFrame({"budget": inputs.budgets}, schema={"budget": pl.Float64}), how="cross")
    )
    keys = ["target", "language", "intermediate", "budget"]
    means = (
        inputs.gains.filter(pl.col("is_primary"))
        .sort(*keys, "seed")  # a sum in another order differs in its last bits, and so would the page
        .group_by(keys, maintain_order=True)
        .agg(pl.col("gain").mean(), pl.col("seed").n_unique().alias("seeds"))
    )
    by_target = design.join(means, on=keys, how="left", maintain_order="left").select(
        *keys, pl.when(pl.col("seeds") == len(inputs.study["seeds"])).then("gain").alias("gain")
    )
    overall = (
        by_target.group_by(keys[1:], maintain_order=True)
        .agg(pl.col("gain").mean().alias("mean"), pl.col("gain").count().alias("complete"))
        .select(
            pl.lit(ALL_TARGETS).alias("target"),
            *keys[1:],
            pl.when(pl.col("complete") == len(inputs.targets)).then("mean").alias("gain"),
        )
    )
    return pl.concat([overall, by_target]).sort(keys)


def gain_by_budget(inputs: ReportInputs) -> pl.DataFrame:
    """target, language, budget, gain: the mean over intermediate tasks, null unless every one is complete."""
    cells = gain_by_cell(inputs).group_by("target", "language", "budget", maintain_order=True)
    complete = pl.col("gain").count() == len(inputs.intermediates)
    return cells.agg(pl.when(complete).then(pl.col("gain").mean()).alias("gain")).sort("target", "language", "budget")


def slopes(inputs: ReportInputs) -> pl.DataFrame:
    """target, language, slope: least-squares gain per doubling, in points; null if any budget is missing."""
    logs = [math.log2(budget) for budget in inputs.budgets]
    centre = sum(logs) / len(logs) if logs else 0.0
    spread = sum((x - centre) ** 2 for x in logs)
    weights = {b: (x - centre) / spread if spread else math.nan for b, x in zip(inputs.budgets, logs, strict=True)}
    weight = pl.col("budget").replace_strict(weights, default=None, return_dtype=pl.Float64)
    complete = (pl.col("gain").count() == len(weights)) & pl.lit(spread > 0)
    return (
        gain_by_budget(inputs)
        .group_by("target", "language", maintain_order=True)
        .agg(pl.when(complete).then((weight * pl.col("gain")).sum()).alias("slope"))
        .sort("target", "language")
    )


def default_target(inputs: ReportInputs) -> str:
    """The view shown first: the first choice in which at least half the languages have a slope, or else a "
    "gain."""
    choices = targets_shown(inputs)
    for means, value in ((slopes(inputs), "slope"), (gain_by_cell(inputs), "gain")):
        for target in choices:
            column = means.filter(pl.col("target") == target)[value]
            if len(column) and 2 * column.null_count() <= len(column):
                return target
    return choices[0] if choices else ALL_TARGETS


def targets_shown(inputs: ReportInputs) -> list[str]:
    """The choices of the page: the mean first, if there is more than one target to average."""
    return [ALL_TARGETS, *inputs.targets] if len(inputs.targets) > 1 else inputs.targets
