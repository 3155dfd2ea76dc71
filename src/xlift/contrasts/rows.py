"""One row of contrasts.parquet, and the names it is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from xlift.analysis import CONFIRMATORY

BETA, LOW_HIGH, UNSEEN = CONFIRMATORY
LOW_HIGH_LEVEL = "low_minus_high"
POINTS, CLUSTERED = "points", "clustered"
METHODS = (CLUSTERED, "mixed", "bootstrap", "permutation")
"""How a contrast is estimated and tested, primary first; `tost` rows stand beside the clustered ones."""
TOST = "tost"

SCHEMA = {
    "estimand": pl.String, "scope": pl.String, "scale": pl.String, "method": pl.String,
    "estimate": pl.Float64, "se": pl.Float64, "ci_low": pl.Float64, "ci_high": pl.Float64,
    "p": pl.Float64, "p_adjusted": pl.Float64, "n_languages": pl.Int64, "n_runs": pl.Int64, "note": pl.String,
}  # fmt: skip


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
