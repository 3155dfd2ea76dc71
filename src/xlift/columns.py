"""Tables as they are published: each column's name, type and meaning.

Writers bring a table into the columns that are declared, and docs/artifacts.md lists the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

TEXT, NUMBER, COUNT, TRUTH = pl.String(), pl.Float64(), pl.Int64(), pl.Boolean()


@dataclass(frozen=True)
class Column:
    """One column of a published table; `meaning` has its unit, and when it is null."""

    name: str
    dtype: pl.DataType
    meaning: str


def schema_of(columns: Sequence[Column]) -> dict[str, pl.DataType]:
    """Types by name, in order."""
    return {column.name: column.dtype for column in columns}


def in_columns(frame: pl.DataFrame, columns: Sequence[Column]) -> pl.DataFrame:
    """The frame with exactly these columns, in their order and types; `ValueError` where it has others."""
    schema = schema_of(columns)
    if differing := sorted(schema.keys() ^ set(frame.columns)):
        raise ValueError(f"a table has other columns than were declared for it: {', '.join(differing)}")
    return frame.select(pl.col(name).cast(dtype) for name, dtype in schema.items())
