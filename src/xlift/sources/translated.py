"""Machine-translated training examples of an intermediate task, from a folder of the user's own.

Every `.parquet` file of the folder holds prepared examples of the task's family, one row an example: `split` (train or
dev), `language` (ISO 639-1), `id` (unlike all others of its split and language), and the family's own columns as in
`results/<study>/data/<task>.parquet`. Any language may be trained on, English too. Where a span's answer is, and which
tags a sentence has, is the translator's affair: the rows are checked as those of every task are.
"""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl

from xlift.catalog.task import Task
from xlift.errors import UserError
from xlift.languages import SOURCE_LANGUAGE


def read(folder: Path, task: Task) -> pl.DataFrame:
    """All rows of a folder, sorted by split, language and id; `UserError` where they cannot be a run's examples."""
    paths = sorted(folder.glob("*.parquet"))
    if not paths:
        raise UserError(
            f"{folder}: has no .parquet files, where the examples of {task.name} are read from; give another folder as "
            f"translated.{task.name.partition('.')[0]}"
        )
    frames: list[pl.DataFrame] = []
    for path in paths:
        try:
            frame = pl.read_parquet(path)
        except (OSError, pl.exceptions.PolarsError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{path}: is not a whole parquet file ({reason}); write it again") from None
        if frames and frame.schema != frames[0].schema:
            raise UserError(
                f"{path}: has other columns or types than {paths[0].name}; all files of the folder need the same"
            )
        frames.append(frame)
    rows = pl.concat(frames)
    for column in ("split", "language", "id"):
        if column not in rows.columns or rows.schema[column] != pl.String:
            raise UserError(f"{folder}: needs a column {column!r} of text; add it")
    _check(rows, folder)
    return rows.sort("split", "language", "id")


def _check(rows: pl.DataFrame, folder: Path) -> None:
    for split in ("train", "dev"):
        if rows.filter(pl.col("split") == split).is_empty():
            raise UserError(f"{folder}: has no rows with split {split!r}; a translated task needs train and dev")
    other = sorted(set(rows["split"].drop_nulls()) - {"train", "dev"})
    if other:
        raise UserError(f"{folder}: has rows with split {other[0]!r}; an intermediate task is not tested: drop them")
    for code in sorted(set(rows["language"].drop_nulls())):
        if not re.fullmatch("[a-z]{2,3}", code):
            raise UserError(f"{folder}: {code!r} is not a language's code; write it in two or three small letters")
    if set(rows["language"]) == {SOURCE_LANGUAGE}:
        raise UserError(f"{folder}: every row is English, so nothing is translated; add rows of other languages")
