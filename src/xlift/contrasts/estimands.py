"""All contrasts of a study: which languages gain more from English intermediate training, and by how much.

English, the source, is in none; tasks are never pooled without task terms; intermediate and target tasks are
taken as given, languages and training runs as samples.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from xlift.contrasts.contrast import all_contrasts, prepare
from xlift.contrasts.inference import adjusted, clustered_row
from xlift.contrasts.rows import CLUSTERED, SCHEMA, as_table
from xlift.contrasts.table import ContrastSettings, GainTable
from xlift.languages import Language

__all__ = ["SCHEMA", "ContrastSettings", "estimate_contrasts"]


def estimate_contrasts(
    gains: pl.DataFrame, languages: Mapping[str, Language], settings: ContrastSettings | None = None
) -> pl.DataFrame:
    """All contrasts of a gains table, with `SCHEMA` as columns. docs/statistics.md says what each row means.

    What is not identified, and a level with rows missing, has a null estimate and a note; fewer than 3
    seeds give no interval and no p.

    Raises:
        UserError: a column is missing, a key occurs twice, a language is not in the table, a score is outside 0
            to 100, steps or items are not positive, a target has no chance level, or the strata make no sense.
    """
    settings = settings or ContrastSettings()
    table = GainTable.read(gains, languages, settings)
    rows = []
    for scale in settings.scales:
        scaled = table.on(scale)
        prepared = [prepare(scaled, contrast) for contrast in all_contrasts(scaled)]
        if CLUSTERED in settings.methods:
            rows += [clustered_row(scaled, each) for each in prepared]
    return as_table(adjusted(rows))
