"""All contrasts of a study: which languages gain more from English intermediate training, and by how much.

English, the source, is in none; tasks are never pooled without task terms; intermediate and target tasks are
taken as given, languages and training runs as samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import polars as pl

from xlift.contrasts.bootstrap import bootstrap_rows
from xlift.contrasts.contrast import all_contrasts, prepare
from xlift.contrasts.equivalence import equivalence_row
from xlift.contrasts.inference import adjusted, clustered_row, mixed_row
from xlift.contrasts.permutation import permutation_rows
from xlift.contrasts.rows import POINTS, SCHEMA, Row, as_table
from xlift.contrasts.sensitivity import left_out_rows, left_out_tables, sensitivity_rows, split_gains
from xlift.contrasts.table import ContrastSettings, GainTable
from xlift.languages import Language

__all__ = ["SCHEMA", "ContrastSettings", "estimate_contrasts"]


def estimate_contrasts(
    gains: pl.DataFrame,
    planned: pl.DataFrame,
    languages: Mapping[str, Language],
    settings: ContrastSettings | None = None,
) -> pl.DataFrame:
    """All contrasts of a gains table, with `SCHEMA` as columns. docs/statistics.md says what each row means.

    What is not identified, and a level over planned gains that are not all there, has a null estimate and a note; fewer
    than 3 seeds give no interval and no p. Gains of other arms than `main`, or marked `shared_data`, are in rows of
    their own only.

    Args:
        gains: as `compute_gains` gives them.
        planned: every gain that the study is to have, one row each, by target, intermediate, budget, seed and
            language, with `arm` and `shared_data` as in the gains. The gains themselves where they are all that was
            planned: what is missing cannot be told from the gains alone.

    Raises:
        UserError: a column is missing, a key occurs twice, a language is not in the table, a score is outside 0
            to 100, steps or items are not positive, a target has no chance level, or the strata make no sense.
    """
    settings = settings or ContrastSettings()
    primary, left_out = split_gains(gains)
    planned_primary, planned_others = split_gains(planned)
    table = GainTable.read(primary, planned_primary, languages, settings)
    others = left_out_tables(left_out, planned_others, languages, settings) if settings.sensitivity else {}
    scripts = {code: language.script for code, language in languages.items()}
    rows: list[Row] = []
    for scale in settings.scales:
        rows += _primary_rows(table.on(scale), scripts)
        for scope, other in others.items():
            rows += left_out_rows(other.on(scale), scope)
    if settings.sensitivity:
        rows += sensitivity_rows(table, primary, languages)
    return as_table(adjusted(rows))


def _primary_rows(table: GainTable, scripts: Mapping[str, str]) -> Iterator[Row]:
    """The rows of the primary gains on one scale, method after method: every contrast has a row by every method."""
    prepared = [prepare(table, contrast) for contrast in all_contrasts(table)]
    clustered = [clustered_row(table, each) for each in prepared]
    yield from clustered
    methods = table.settings.methods
    if "mixed" in methods:
        yield from (mixed_row(table, each, beside) for each, beside in zip(prepared, clustered, strict=True))
    if "bootstrap" in methods:
        yield from bootstrap_rows(table, prepared, clustered)
    if "permutation" in methods:
        yield from permutation_rows(table, prepared, clustered, scripts)
    if table.scale == POINTS:
        for each, beside in zip(prepared, clustered, strict=True):
            row = equivalence_row(table, each, beside) if each.contrast.scope.name == "all" else None
            if row is not None:
                yield row
