"""Sensitivity: what the primary contrasts become when something that could have been otherwise is otherwise.

All rows are by the clustered method and in no family of tests; their scope names what is different:

- `all;without=sw`, `all;without_family=Uralic`: without a language, or a language family and its branches;
- `all;without=collapsed`: without cells whose run or baseline collapsed (the primary analysis keeps them);
- `all;resource=joshi`: resource level and strata by another measure, at that measure's own bounds;
- `all;axis=tokens`: against log2 of the realised tokens of the intermediate run instead of its steps;
- `all;adjusted=script`: beta when the slope may also depend on the script (Latin or not), the language family, the
  tokenizer's fertility (tokens a character relative to English), or log2 of the test set's size.

Gains that the primary analysis leaves out have rows of their own: scope `shared_data`, where intermediate and target
training data overlap, and `arm=<name>` for arms other than the main one (other batch sizes, controls and the like),
with `;budget=<b>` for levels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import polars as pl

from xlift.catalog.task import MAIN
from xlift.contrasts.clustered import FloatArray
from xlift.contrasts.contrast import (
    EVERYTHING,
    Contrast,
    mean_contrast,
    moderators,
    prepare,
    slope_contrast,
)
from xlift.contrasts.inference import clustered_row
from xlift.contrasts.rows import BETA, LOW_HIGH, LOW_HIGH_LEVEL, Row, joined
from xlift.contrasts.table import NO_GAINS, ContrastSettings, GainTable, Scope
from xlift.errors import UserError
from xlift.languages import Language
from xlift.resource import MEASURES

ESTIMANDS = (BETA, LOW_HIGH)


def split_gains(gains: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, pl.DataFrame]]:
    """The gains (or planned gains) of the primary analysis, and those left out of it, by scope.

    Primary is the main arm, but for pairs of tasks whose training data overlap; an arm or `shared_data` column that is
    not there marks none.
    """
    arm = pl.col("arm") if "arm" in gains.columns else pl.lit(MAIN)
    shared = pl.col("shared_data") if "shared_data" in gains.columns else pl.lit(False)
    marked = gains.with_columns(_main=arm == MAIN, _arm=arm, _shared=shared)
    primary = marked.filter(pl.col("_main") & ~pl.col("_shared"))
    parts = {"shared_data": marked.filter(pl.col("_main") & pl.col("_shared"))}
    for name in marked.filter(~pl.col("_main"))["_arm"].unique().sort():
        parts[f"arm={name}"] = marked.filter((pl.col("_arm") == name) & ~pl.col("_shared"))
    drop = ["_main", "_arm", "_shared"]
    return primary.drop(drop), {scope: part.drop(drop) for scope, part in parts.items() if part.height}


def left_out_rows(table: GainTable, scope: str) -> Iterator[Row]:
    """Contrasts and levels of gains that the primary analysis leaves out, on the table's scale."""
    everything = Scope(scope)
    for estimand in ESTIMANDS:
        yield clustered_row(table, prepare(table, slope_contrast(table, estimand, everything)))
    for code, budget in enumerate(table.budgets):
        at = Scope(f"{scope};budget={budget:g}", budget=code)
        low_high = Contrast(LOW_HIGH_LEVEL, at, "difference", *moderators(table)[LOW_HIGH_LEVEL])
        yield clustered_row(table, prepare(table, low_high))
        yield clustered_row(table, prepare(table, mean_contrast(table, "all", at)))


def sensitivity_rows(table: GainTable, gains: pl.DataFrame, languages: Mapping[str, Language]) -> Iterator[Row]:
    """Every sensitivity row of the primary gains, in points.

    Args:
        table, gains: the primary gains, the same rows in both.
    """
    yield from _leave_one_out(table, languages)
    yield from _without_collapsed(table)
    for measure in MEASURES:
        if measure != table.settings.resource:
            yield from _other_resource(table, languages, measure)
    yield from _token_axis(table, gains)
    yield from _adjusted(table, gains, languages)


def _named(name: str) -> Scope:
    return replace(EVERYTHING, name=f"all;{name}")


def _slopes(table: GainTable, name: str) -> Iterator[Row]:
    for estimand in ESTIMANDS:
        yield clustered_row(table, prepare(table, slope_contrast(table, estimand, _named(name))))


def _leave_one_out(table: GainTable, languages: Mapping[str, Language]) -> Iterator[Row]:
    """Without each language and each language family that the contrast compares."""
    codes = np.array(table.languages)
    left_out = {f"without={code}": codes == code for code in table.languages}
    families = np.array([languages[code].language_family for code in table.languages], dtype=str)
    for family in sorted({*families.tolist(), *(name.split(":")[0] for name in families.tolist())}):
        branch = np.array([name == family or name.startswith(f"{family}:") for name in families.tolist()], dtype=bool)
        left_out[f"without_family={family}"] = branch
    for estimand in ESTIMANDS:
        moderator, relevant = moderators(table)[estimand]
        for name, gone in left_out.items():
            if np.any(relevant & gone):
                contrast = Contrast(estimand, _named(name), "slope", moderator, relevant & ~gone)
                yield clustered_row(table, prepare(table, contrast))


def _without_collapsed(table: GainTable) -> Iterator[Row]:
    if table.collapsed.any():
        kept = np.where(table.collapsed, np.nan, table.treated)
        yield from _slopes(replace(table, treated=kept, gone="collapsed"), "without=collapsed")


def _other_resource(table: GainTable, languages: Mapping[str, Language], measure: str) -> Iterator[Row]:
    settings = replace(table.settings, resource=measure, low_below=None, high_from=None, own_sizes=None)
    try:
        yield from _slopes(table.by_resource(settings.levels(languages)), f"resource={measure}")
    except UserError as error:  # the languages given do not differ by this measure, or all lie in one stratum
        for estimand in ESTIMANDS:
            scope = f"all;resource={measure}"
            yield Row(estimand, scope, table.scale, note=f"not identified: {str(error).rstrip('.')}")


def _token_axis(table: GainTable, gains: pl.DataFrame) -> Iterator[Row]:
    tokens = _in_order(gains, "tokens")
    if tokens is not None and np.all(tokens > 0):
        yield from _slopes(replace(table, x=np.log2(tokens)), "axis=tokens")


def _adjusted(table: GainTable, gains: pl.DataFrame, languages: Mapping[str, Language]) -> Iterator[Row]:
    """Beta with covariates of the slope: one by one, then all of one number each together."""
    latin = np.array([languages[code].script == "Latin" for code in table.languages], dtype=np.float64)
    families = np.array([languages[code].language_family for code in table.languages], dtype=str)
    every = np.unique(families)
    known = {
        "script": latin[table.language][:, None],
        "n": np.log2(table.n)[:, None],
    }
    fertility = _in_order(gains, "fertility")
    if fertility is not None and np.all(fertility > 0):
        known["fertility"] = np.log2(fertility)[:, None]
    together = "+".join(known)
    known[together] = np.column_stack(list(known.values()))
    known["language_family"] = (families[:, None] == every[None, :]).astype(np.float64)[table.language]
    for name, covariates in known.items():
        contrast = slope_contrast(table, BETA, _named(f"adjusted={name}"))
        row = clustered_row(table, prepare(table, contrast, _centred(covariates)))
        varies = bool(np.any(covariates != covariates[:1]))
        yield row if varies else replace(row, note=joined("the covariate does not vary: nothing is adjusted", row.note))


def _centred(columns: FloatArray) -> FloatArray:
    return columns - columns.mean(axis=0) if columns.size else columns


def _in_order(gains: pl.DataFrame, column: str) -> FloatArray | None:
    """A column of the gains in the table's order of rows; None where it is absent or has an empty value."""
    if column not in gains.columns or not gains.height:
        return None
    values = GainTable.rows_of(gains)[column]
    return None if values.null_count() else values.cast(pl.Float64).to_numpy()


def left_out_tables(
    parts: Mapping[str, pl.DataFrame],
    planned: Mapping[str, pl.DataFrame],
    languages: Mapping[str, Language],
    settings: ContrastSettings,
) -> dict[str, GainTable]:
    """Tables of the gains left out, by scope: of those too that are planned and of which there are none yet."""
    empty = pl.DataFrame(schema=NO_GAINS)
    return {
        scope: GainTable.read(parts.get(scope, empty), planned.get(scope, empty), languages, settings)
        for scope in {**planned, **parts}
    }
