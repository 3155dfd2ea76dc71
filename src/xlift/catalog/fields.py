"""What the generic reader of each family reads: its fields, which a user's own task maps to a repository's columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

OwnFamily = Literal["classification", "multiple_choice", "tagging", "span", "retrieval"]
"""Families that a task of a user's own can be of."""


@dataclass(frozen=True)
class Field:
    """One field of a reader.

    `several` says what becomes of more than one column: `text`, joined by a space; `list`, its items in that order;
    None, no more than one can be given.
    """

    name: str
    meaning: str
    required: bool = True
    several: Literal["text", "list"] | None = None


COMMON = (
    Field("id", "A name of the row, unlike all others of its split and language; without it the row's number.", False),
    Field("language", "The language's code, as `codes` has it; rows of other languages are left out.", False),
)
"""Fields of every reader. Neither is read unless the task names its column."""

READER_FIELDS: Mapping[OwnFamily, tuple[Field, ...]] = {
    "classification": (
        Field("text_a", "Text, or the first of a pair.", several="text"),
        Field("text_b", "Second text of a pair; without it there is one text.", False, several="text"),
        Field("label", "A class's name or number, or text; see `labels`."),
    ),
    "multiple_choice": (
        Field("prompt", "What every choice is read after.", several="text"),
        Field("choices", "A column of lists, or a list of columns.", several="list"),
        Field("label", "Place of the right choice, counted from 0; see `labels`."),
    ),
    "tagging": (
        Field("tokens", "A column of lists of words."),
        Field("tags", "A column of lists of tags, by name or number; see `labels`."),
    ),
    "span": (
        Field("context", "Text that the answer is in."),
        Field("question", "The question.", several="text"),
        Field("answers", "A text, a list of texts, or SQuAD's `{text, answer_start}`; empty: no answer."),
        Field("answer_starts", "Where each answer is, in characters; without it the first place that fits.", False),
    ),
    "retrieval": (
        Field("source", "The query.", several="text"),
        Field("target", "Its one right document, searched among the split's in that language.", several="text"),
    ),
}
"""By reader, which has its family's name. A field's column is of the same name unless `columns` gives another."""


def fields_of(family: str) -> dict[str, Field]:
    """Every field of a family's reader, by name."""
    known = next(fields for name, fields in READER_FIELDS.items() if name == family)
    return {field.name: field for field in (*known, *COMMON)}
