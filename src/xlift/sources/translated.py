"""Machine-translated training examples of an intermediate task, from a folder of the user's own.

Every `.parquet` file of the folder holds prepared examples of the task's family, one row an example: `split` (train or
dev), `language` (ISO 639-1), `id` (unlike all others of its split and language), and the family's own columns as in
`results/<study>/data/<task>.parquet`. Any language may be trained on, English too. Where a span's answer is, and which
tags a sentence has, is the translator's affair: the rows are checked as those of every task are. Training rows whose
context is in dev, in whatever language, are left out and counted.
"""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl

from xlift.catalog import CATALOG
from xlift.catalog.task import Task
from xlift.errors import UserError
from xlift.languages import SOURCE_LANGUAGE
from xlift.sources.reading import CONTEXT
from xlift.sources.sharing import Counts, contexts, left_apart, plain

CONTEXT_COLUMNS = {
    "classification": "text_a",
    "multiple_choice": "prompt",
    "tagging": "tokens",
    "span": "context",
    "retrieval": "text",
}
"""By family, what training and dev must not share: of paraphrases the pair, as their readers have it, and of retrieval
the query."""


def prepare(folder: Path, task: Task) -> tuple[pl.DataFrame, dict[str, dict[str, dict[str, int]]]]:
    """The rows of a folder without training rows whose context is in dev; what was left out and what was noted."""
    rows, dropped, notes = read(folder, task), Counts(), Counts()
    marked = rows.with_columns(_contexts(rows, task))
    dev = contexts(marked.filter(pl.col("split") == "dev"))
    kept = left_apart(task, marked, {"train": dev}, dropped, notes).drop(CONTEXT)
    if kept.filter(pl.col("split") == "train").is_empty():
        raise UserError(f"{folder}: every context of train is in dev too; translate other rows for dev")
    return kept, {"dropped": plain(dropped), "notes": plain(notes)}


def _contexts(rows: pl.DataFrame, task: Task) -> pl.Series:
    """Contexts of rows; null where a column is not as the family has it, which its own check says."""
    base = CATALOG.get(task.name.partition(".")[0])
    pairs = base is not None and any(part.reader == "paraphrase" for part in base.slices)
    names = ("text_a", "text_b") if pairs else (CONTEXT_COLUMNS[task.family],)
    if any(rows.schema.get(name) not in (pl.String, pl.List(pl.String)) for name in names):
        return pl.Series(CONTEXT, [None] * rows.height, dtype=pl.String)
    texts = pl.concat_list(names)
    joined = (texts.list.sort() if pairs else texts).list.join("\n")
    if "role" in rows.columns:
        joined = pl.when(pl.col("role") == "query").then(joined)
    return rows.select(joined.alias(CONTEXT)).to_series()


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
