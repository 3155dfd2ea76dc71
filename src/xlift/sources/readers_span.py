"""Readers of extractive question answering: an answer is located by its text, nearest where it is said to be.

Answers are scored by their texts, as in the official scripts: one that is not in its context stays a right answer, with
`NOWHERE` for its place. Only training needs to know where an answer is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import polars as pl

from xlift.catalog.task import Slice, Task
from xlift.errors import UserError
from xlift.sources.hub import Rows
from xlift.sources.reading import (
    BY_TEXT,
    CONTEXT,
    DROPPED,
    NOT_IN_CONTEXT,
    NOTE,
    NOWHERE,
    column,
    frame_of,
    locate,
    place,
    texts,
)

NO_ANSWER = "no answer"
MOVED = "answer moved to its text's place nearest the stated one"
SOME_BY_TEXT = "an alternative answer that is not in the context, scored by its text"
# TyDi QA's ids begin with the language's name.
TYDIQA_NAMES = {
    "ar": "arabic",
    "bn": "bengali",
    "en": "english",
    "fi": "finnish",
    "id": "indonesian",
    "ko": "korean",
    "ru": "russian",
    "sw": "swahili",
    "te": "telugu",
}


def squad(rows: Rows, part: Slice, language: str, task: Task) -> pl.DataFrame:
    """id, context, question, answers {text, answer_start}; no answer where the task has such questions.

    The hub's offsets are off for part of TyDi QA and XQuAD, whose scripts stripped the context and kept the offset. A
    training row none of whose answers is in its context is not used; in evaluation it is scored by its texts.
    """
    contexts, ids = texts(rows, part, "context"), texts(rows, part, "id")
    answers, starts, dropped, notes = [], [], [], []
    for identifier, context, stated in zip(ids, contexts, column(rows, part, "answers"), strict=True):
        found, said = (list((stated or {}).get(name) or []) for name in ("text", "answer_start"))
        if len(found) != len(said):
            raise UserError(
                f"{place(rows)}: {identifier!r} has {len(found)} answers and {len(said)} offsets; use another revision"
            )
        places = [locate(context, text, start) for text, start in zip(found, said, strict=True)]
        problem, note = _remarks(found, said, places, part.split == "train")
        if not task.unanswerable and not found:
            problem = NO_ANSWER
        answers.append(found)
        starts.append(places)
        dropped.append(problem)
        notes.append(note)
    return frame_of(
        {
            "id": ids,
            "context": contexts,
            "question": texts(rows, part, "question"),
            "answers": answers,
            "answer_starts": starts,
            CONTEXT: contexts,
            DROPPED: dropped,
            NOTE: notes,
        },
        {"answers": pl.List(pl.String()), "answer_starts": pl.List(pl.Int64())},
    )


def _remarks(
    answers: Sequence[str], stated: Sequence[int], places: Sequence[int], training: bool
) -> tuple[str | None, str | None]:
    """Why a question cannot be used, and what was done to its answers."""
    if not all((text or "").strip() for text in answers):
        return NO_ANSWER, None
    if answers and max(places) == NOWHERE:
        return (NOT_IN_CONTEXT, None) if training else (None, BY_TEXT)
    if NOWHERE in places:
        return None, SOME_BY_TEXT
    return None, MOVED if list(places) != list(stated) else None


def tydiqa(rows: Rows, part: Slice, language: str, task: Task) -> pl.DataFrame:
    """The same, of the rows whose id begins with the language's name."""
    if language not in TYDIQA_NAMES:
        raise UserError(f"{place(rows)}: holds no language {language!r}; choose from {', '.join(sorted(TYDIQA_NAMES))}")
    mine = column(rows, part, "id").str.starts_with(f"{TYDIQA_NAMES[language]}-")
    return squad(dataclasses.replace(rows, frame=rows.frame.filter(mine)), part, language, task)
