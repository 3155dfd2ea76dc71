"""One row of contrasts.parquet, and the names it is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from xlift.analysis import CONFIRMATORY
from xlift.columns import COUNT, NUMBER, TEXT, Column, schema_of

BETA, LOW_HIGH, UNSEEN = CONFIRMATORY
LOW_HIGH_LEVEL = "low_minus_high"
POINTS, CLUSTERED = "points", "clustered"
METHODS = (CLUSTERED, "mixed", "bootstrap", "permutation")
"""How a contrast is estimated and tested, primary first; `tost` rows stand beside the clustered ones."""
TOST = "tost"

CONTRASTS = (
    Column("estimand", TEXT, "What is estimated (docs/statistics.md); `beta_per_doubling` is primary."),
    Column("scope", TEXT, "`all`, or the part of the grid or the sensitivity analysis, such as `target=panx`."),
    Column("scale", TEXT, "Unit of estimate, se and interval: `points`, `logit` or `error_reduction`."),
    Column("method", TEXT, "`clustered` (primary), `mixed`, `bootstrap`, `permutation` or `tost`."),
    Column("estimate", NUMBER, "Slopes per doubling of steps, beta also per standard deviation; null: see the note."),
    Column("se", NUMBER, "Standard error; null where there is none."),
    Column("ci_low", NUMBER, "Lower end of the interval at the study's confidence; null where there is none."),
    Column("ci_high", NUMBER, "Its upper end."),
    Column("p", NUMBER, "Two-sided p of no difference, of `tost` of one that matters; null where there is no test."),
    Column("p_adjusted", NUMBER, "p adjusted within the row's family of tests; null outside of any."),
    Column("n_languages", COUNT, "Languages that are compared."),
    Column("n_runs", COUNT, "Intermediate checkpoints that are compared."),
    Column("note", TEXT, "Why something is null, and what a reader has to know; empty where there is nothing."),
)
"""contrasts.parquet."""
SCHEMA = schema_of(CONTRASTS)


@dataclass(frozen=True)
class Row:
    """One row of the contrasts table; effects in units of the scale (per doubling of steps, for beta per SD too).

    `n_languages` and `n_runs` count the clusters that the estimate compares.
    """

    estimand: str
    scope: str
    scale: str = POINTS
    method: str = CLUSTERED
    estimate: float | None = None
    se: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    p: float | None = None
    p_adjusted: float | None = None
    n_languages: int = 0
    n_runs: int = 0
    note: str = ""


FROM_THE_REST = ": estimated from the rest"
"""Ends what the note of an estimate says of planned gains that are missing."""


def as_table(rows: Sequence[Row]) -> pl.DataFrame:
    """Rows as a table with `SCHEMA`, in their order."""
    return pl.DataFrame([vars(row) for row in rows], schema=SCHEMA, orient="row")


def joined(*notes: str) -> str:
    """Notes that say something, in one text."""
    return "; ".join(note for note in notes if note)
