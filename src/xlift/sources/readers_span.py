"""Readers of extractive question answering: an answer is located by its text, nearest where it is said to be."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import polars as pl

from xlift.catalog.task import Slice, Task
from xlift.errors import UserError
from xlift.sources.hub import Rows
from xlift.sources.reading import CONTEXT, DROPPED, NOTE, column, frame_of, place, texts

NOT_IN_CONTEXT = "answer not in its context"
NO_ANSWER = "no answer"
MOVED = "answer moved to its text's place nearest the stated one"
SOME_LEFT_OUT = "an alternative answer that is not in the context left out"
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


def locate(context: str, answer: str, stated: int) -> int | None:
    """Where the answer's text begins in the context, nearest to the stated offset (the earlier of equals); or None."""
    if not answer:
        return None
    if stated >= 0 and context.startswith(answer, stated):
        return stated
    before = context.rfind(answer, 0, max(stated, 0) + len(answer))
    after = context.find(answer, max(stated, 0))
    found = [place for place in (before, after) if place >= 0]
    return min(found, key=lambda place: (abs(place - stated), place)) if found else None


def squad(rows: Rows, part: Slice, language: str, task: Task) -> pl.DataFrame:
    """id, context, question, answers {text, answer_start}; no answer where the task has such questions.

    The hub's offsets are off for part of TyDi QA and XQuAD, whose scripts stripped the context and kept the offset. An
    answer that is nowhere in its context leaves the row without it, and a row without any answer is not used.
    """
    contexts = texts(rows, part, "context")
    answers, starts, dropped, notes = [], [], [], []
    for context, stated in zip(contexts, column(rows, part, "answers"), strict=True):
        found, problem, note = _located(context, stated["text"] or [], stated["answer_start"] or [])
        if not stated["text"] and not task.unanswerable:
            problem = NO_ANSWER
        answers.append([text for text, _ in found])
        starts.append([start for _, start in found])
        dropped.append(problem)
        notes.append(note)
    return frame_of(
        {
            "id": texts(rows, part, "id"),
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


def _located(
    context: str, answers: Sequence[str], stated: Sequence[int]
) -> tuple[list[tuple[str, int]], str | None, str | None]:
    """Answers with their places, why there is none, and what was done to them."""
    places = [locate(context, text, start) for text, start in zip(answers, stated, strict=True)]
    found = [(text, start) for text, start in zip(answers, places, strict=True) if start is not None]
    problem = NOT_IN_CONTEXT if answers and not found else None
    if found and len(found) < len(answers):
        return found, problem, SOME_LEFT_OUT
    return found, problem, MOVED if places != list(stated) and found else None


def tydiqa(rows: Rows, part: Slice, language: str, task: Task) -> pl.DataFrame:
    """The same, of the rows whose id begins with the language's name."""
    if language not in TYDIQA_NAMES:
        raise UserError(f"{place(rows)}: holds no language {language!r}; choose from {', '.join(sorted(TYDIQA_NAMES))}")
    mine = column(rows, part, "id").str.starts_with(f"{TYDIQA_NAMES[language]}-")
    return squad(dataclasses.replace(rows, frame=rows.frame.filter(mine)), part, language, task)
