"""From a task's declaration to its prepared examples: rows read, what they share taken out, their number limited.

Checked here, for every task that is read from repositories or folders: what is scored is scored whole, of what is
trained on hardly a row is unusable, labels vary, answers are in their contexts, training and evaluation share no
contexts, no split is empty. What is left out is counted with its reason.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from xlift.catalog.task import ENGLISH, Slice, Task
from xlift.errors import UserError
from xlift.sources.generic import GENERIC_READERS
from xlift.sources.hub import Rows
from xlift.sources.readers_folder import bucc, ccg, lareqa, mewslix
from xlift.sources.readers_labelled import (
    commonsense_qa,
    copa,
    cosmos_qa,
    hellaswag,
    nli,
    paraphrase,
    social_iqa,
    tagged,
)
from xlift.sources.readers_retrieval import squad_sentences_in_context, tatoeba
from xlift.sources.readers_span import squad, tydiqa
from xlift.sources.reading import BY_TEXT, CONTEXT, DROPPED, LEFT_OUT, NOT_IN_CONTEXT, NOTE, Reading
from xlift.sources.sharing import Counts, contexts, left_apart, plain

Reader = Callable[[Rows, Slice, str, Task], pl.DataFrame]
FolderReader = Callable[[Reading, Slice, Sequence[str], Task], pl.DataFrame]

_OF_DATA_SETS = (
    commonsense_qa,
    copa,
    cosmos_qa,
    hellaswag,
    nli,
    paraphrase,
    social_iqa,
    squad,
    squad_sentences_in_context,
    tagged,
    tatoeba,
    tydiqa,
)
READERS: Mapping[str, Reader] = {**GENERIC_READERS, **{reader.__name__: reader for reader in _OF_DATA_SETS}}
"""By the `reader` of a `Slice` of a repository."""
FOLDER_READERS: Mapping[str, FolderReader] = {reader.__name__: reader for reader in (bucc, ccg, lareqa, mewslix)}
"""By the `reader` of a `Slice` of a folder."""

MOST_LEFT_OUT = 0.01
"""Largest share of a split's rows that may be unusable, or whose answers may be outside their contexts."""
_HELPERS = (CONTEXT, DROPPED, NOTE)


@dataclass(frozen=True)
class Prepared:
    """A task's examples (split, language, id and the family's columns) and what its manifest says of them.

    `dropped` and `notes`: numbers of rows by `<split>/<language>` and reason.
    """

    frame: pl.DataFrame
    sources: list[dict[str, str]]
    dropped: dict[str, dict[str, int]]
    notes: dict[str, dict[str, int]]
    facts: dict[str, Any]


def read_task(
    task: Task,
    languages: Sequence[str],
    *,
    score_on: str = "test",
    examples: Mapping[str, int] | None = None,
    root: Path | None = None,
    folders: Mapping[str, str] | None = None,
) -> Prepared:
    """Read a task's slices. `examples`: at most so many a split and language; the rest as the study's `data` block."""
    reading = Reading(task.name, root, folders or {})
    chosen = task.read(languages, score_on)
    if missing := sorted(set(languages) - {code for part in task.slices for code in part.configs}):
        raise UserError(
            f"data of {task.name}: has no language {missing[0]!r}; its languages are {', '.join(task.languages)}"
        )
    several = {place for place, n in Counter((split, c) for _, split, cs in chosen for c in cs).items() if n > 1}
    frames = []
    for number, (part, split, asked) in enumerate(chosen):
        frame = _of_slice(reading, part, asked, task).with_columns(split=pl.lit(split))
        _check_usable(task, frame)
        if any((split, code) in several for code in asked):
            mark = f"{number}-"
            frame = frame.with_columns(id=pl.lit(mark) + pl.col("id"))
            if "gold" in frame.columns:
                frame = frame.with_columns(gold=pl.col("gold").list.eval(pl.lit(mark) + pl.element()))
        frames.append(frame)
    frame = pl.concat(frames, how="diagonal")
    dropped, notes = _counted(frame, DROPPED), _counted(frame.filter(pl.col(DROPPED).is_null()), NOTE)
    frame = frame.filter(pl.col(DROPPED).is_null())
    frame = _without_shared(task, frame, chosen, dropped, notes)
    for _, split, asked in chosen:
        for code in asked:
            _check_rows(task, frame.filter((pl.col("split") == split) & (pl.col("language") == code)), split, code)
    frame = limited(frame, examples or {}).drop(_HELPERS)
    ordered = ["split", "language", "id"]
    return Prepared(
        frame.select(*ordered, pl.exclude(ordered)), reading.sources, plain(dropped), plain(notes), reading.facts
    )


def _of_slice(reading: Reading, part: Slice, languages: Sequence[str], task: Task) -> pl.DataFrame:
    """Examples of a slice, with `language` and the helping columns."""
    if part.in_folder:
        frame = FOLDER_READERS[part.reader](reading, part, languages, task)
    else:
        read = READERS[part.reader]
        frame = pl.concat(
            [
                read(reading.rows(part, part.configs[code]), part, code, task).with_columns(language=pl.lit(code))
                for code in languages
            ]
        )
    missing = [name for name in _HELPERS if name not in frame.columns]
    return frame.with_columns(pl.lit(None, pl.String).alias(name) for name in missing)


def _counted(frame: pl.DataFrame, what: str) -> Counts:
    """Rows by place and reason."""
    found: Counts = {}
    for split, language, reason in frame.select("split", "language", what).drop_nulls(what).iter_rows():
        found.setdefault(f"{split}/{language}", Counter())[reason] += 1
    return found


def _check_usable(task: Task, frame: pl.DataFrame) -> None:
    """Refuse rows of a slice that its reader cannot use: any of what is scored, and elsewhere more than 1 %.

    Rows that the task's labels leave out are left out on purpose. Answers that are not in their contexts are right
    answers all the same, but a source with many of them is broken.
    """
    asked = frame.filter(pl.col("role") != "document") if "role" in frame.columns else frame
    for (split, language), rows in asked.group_by("split", "language", maintain_order=True):
        bad = rows.filter(pl.col(DROPPED) != LEFT_OUT)
        astray = rows.filter((pl.col(DROPPED) == NOT_IN_CONTEXT) | (pl.col(NOTE) == BY_TEXT))
        where = f"{rows.height:,} rows of {split} in {language!r}"
        if split == "test" and bad.height:
            raise UserError(
                f"data of {task.name}: {bad.height:,} of {where} cannot be scored (the first is {bad['id'][0]!r}: "
                f"{bad[DROPPED][0]}), and what is scored has to be whole; use another revision or leave the language "
                "out"
            )
        if astray.height > MOST_LEFT_OUT * rows.height:
            raise UserError(
                f"data of {task.name}: the answers of {astray.height:,} of {where} are not in their contexts (the "
                f"first is that of {astray['id'][0]!r}), and at most {MOST_LEFT_OUT:.0%} may be; use another revision"
            )
        if bad.height > MOST_LEFT_OUT * rows.height:
            raise UserError(
                f"data of {task.name}: {bad.height:,} of {where} cannot be used (the first is {bad['id'][0]!r}: "
                f"{bad[DROPPED][0]}), and at most {MOST_LEFT_OUT:.0%} may be left out; use another revision"
            )


def _without_shared(
    task: Task,
    frame: pl.DataFrame,
    chosen: Sequence[tuple[Slice, str, tuple[str, ...]]],
    dropped: Counts,
    notes: Counts,
) -> pl.DataFrame:
    """Leave out training rows whose context is evaluated on, and dev rows whose context is scored.

    Contexts of English rows are compared. A dev split that is itself what English is scored on stays whole.
    """
    if frame[CONTEXT].null_count() == frame.height:
        return frame
    # English rows only, so that no other language that is scored changes what is trained on.
    dev, test = (contexts(frame.filter(split=split, language=ENGLISH)) for split in ("dev", "test"))
    origins: dict[str, set[tuple[str, str, str]]] = {"train": set(), "dev": set(), "test": set()}
    for part, split, codes in chosen:
        origins[split] |= {(part.repository, part.configs[code], part.rows) for code in codes}
    same_rows = bool(origins["dev"] & origins["test"])
    return left_apart(task, frame, {"train": dev | test, "dev": set() if same_rows else test}, dropped, notes)


def _check_rows(task: Task, rows: pl.DataFrame, split: str, language: str) -> None:
    """Refuse a split without rows and labels that are all the same."""
    if rows.is_empty():
        raise UserError(
            f"data of {task.name}: {split} has no usable row in {language!r}; use another revision or leave the "
            "language out"
        )
    for name in ("label", "tags"):
        if name in rows.columns and rows.height > 1:
            values = rows[name].explode() if name == "tags" else rows[name]
            if values.n_unique() < 2:
                raise UserError(
                    f"data of {task.name}: every {name.removesuffix('s')} of {split} in {language!r} is {values[0]!r}; "
                    "this copy has no real labels, use another one"
                )


def limited(frame: pl.DataFrame, examples: Mapping[str, int]) -> pl.DataFrame:
    """At most so many examples a split and language, chosen by a hash of their ids: more hold the fewer.

    Of retrieval, so many queries, and the documents that are right for one of them: pools become as small. Where
    sentences have no counterpart (bitext mining), they are limited like all queries, and as many documents that are
    right for no query stay beside the right ones.
    """
    if not any(split in examples for split in frame["split"].unique()):
        return frame
    keys = ["split", "language"]
    limits = pl.col("split").replace_strict(dict(examples), default=None, return_dtype=pl.Int64)
    order = [hashlib.sha256(identifier.encode()).hexdigest() for identifier in frame["id"]]
    ranked = frame.with_columns(pl.Series("_hash", order), _limit=limits, _row=pl.int_range(pl.len()))
    retrieval = "role" in frame.columns
    group = [*keys, "_document", "_free"] if retrieval else keys
    if retrieval:
        ranked = _with_freedom(ranked)
    ranked = ranked.with_columns(_rank=pl.struct("_hash", "id").rank("ordinal").over(group))
    kept = pl.col("_limit").is_null() | (pl.col("_rank") <= pl.col("_limit"))
    if retrieval:
        queries = ranked.filter(~pl.col("_document") & kept)
        right = queries.select("split", "pool", id=pl.col("gold")).explode("id", empty_as_null=False, keep_nulls=False)
        needed = ranked.filter(pl.col("_document")).join(right, on=["split", "pool", "id"], how="semi")
        mining = ranked.filter(~pl.col("_document") & (pl.col("gold").list.len() == 0)).select("split").unique()
        free = ranked.filter(pl.col("_document") & pl.col("_free") & kept).join(mining, on="split", how="semi")
        whole = ranked.filter(pl.col("_document") & pl.col("_limit").is_null())
        found = pl.concat([queries, needed, free, whole]).unique("_row")
    else:
        found = ranked.filter(kept)
    return found.sort("_row").select(frame.columns)


def _with_freedom(frame: pl.DataFrame) -> pl.DataFrame:
    """Mark documents, and those of them that are right for no query."""
    right = frame.select("split", "pool", id=pl.col("gold")).explode("id", empty_as_null=False, keep_nulls=False)
    right = right.unique().with_columns(_right=pl.lit(value=True))
    document = pl.col("role") == "document"
    joined = frame.join(right, on=["split", "pool", "id"], how="left", maintain_order="left")
    return joined.with_columns(_document=document, _free=document & pl.col("_right").is_null()).drop("_right")
