"""Readers of classification, multiple choice and tagging."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from xlift.catalog.task import Slice, Task
from xlift.errors import UserError
from xlift.sources.hub import Rows
from xlift.sources.reading import (
    CONTEXT,
    DROPPED,
    NOTE,
    column,
    frame_of,
    label_notes,
    labels,
    named,
    numbered,
    place,
    text_notes,
    texts,
)

LETTERS = "ABCDE"
_STRINGS = pl.List(pl.String())


def nli(rows: Rows, part: Slice, language: str, task: Task) -> pl.DataFrame:
    """Premise, hypothesis, label. The premise is what training and evaluation must not share."""
    first, second = texts(rows, part, "premise"), texts(rows, part, "hypothesis")
    return _pairs(first, second, labels(rows, part, "label"), first)


def paraphrase(rows: Rows, part: Slice, language: str, task: Task) -> pl.DataFrame:
    """text_a, text_b, label, of texts that say the same or not.

    Texts of these sets are in many pairs, in training and evaluation by design: what is not to be shared is a pair.
    """
    first, second = texts(rows, part, "text_a"), texts(rows, part, "text_b")
    shared = ["\n".join(sorted(pair)) for pair in zip(first, second, strict=True)]
    return _pairs(first, second, labels(rows, part, "label"), shared)


def _pairs(first: list[str], second: list[str], found: list[str | None], shared: list[str]) -> pl.DataFrame:
    return frame_of(
        {
            "id": numbered(len(first)),
            "text_a": first,
            "text_b": second,
            "label": found,
            CONTEXT: shared,
            DROPPED: label_notes(found),
            NOTE: text_notes(first, second),
        }
    )


def hellaswag(rows: Rows, part: Slice, language: str, task: Task) -> pl.DataFrame:
    """ctx, a list of endings, the right one's number as text."""
    prompts = texts(rows, part, "ctx")
    return _choices(prompts, column(rows, part, "endings").to_list(), labels(rows, part, "label"), prompts)


def commonsense_qa(rows: Rows, part: Slice, language: str, task: Task) -> pl.DataFrame:
    """question, choices {label, text}, the right one's letter."""
    prompts = texts(rows, part, "question")
    choices, found = [], []
    for answer, options in zip(labels(rows, part, "answerKey"), column(rows, part, "choices"), strict=True):
        letters = list(options["label"])
        choices.append(list(options["text"]))
        if answer and answer not in letters:
            raise UserError(f"{place(rows)}: the answer {answer!r} is none of its choices; use another revision")
        found.append(str(letters.index(answer)) if answer else answer)
    return _choices(prompts, choices, found, prompts)


def cosmos_qa(rows: Rows, part: Slice, language: str, task: Task) -> pl.DataFrame:
    """context, question, answer0 to answer3, the right one's number."""
    contexts, questions = texts(rows, part, "context"), texts(rows, part, "question")
    prompts = [f"{context} {question}" for context, question in zip(contexts, questions, strict=True)]
    return _choices(prompts, _options(rows, part, "answer", "0123"), labels(rows, part, "label"), contexts)


def social_iqa(rows: Rows, part: Slice, language: str, task: Task) -> pl.DataFrame:
    """context, question, answerA to answerC, the right one's number from 1 as text. Prompts as XTREME's."""
    contexts, questions = texts(rows, part, "context"), texts(rows, part, "question")
    prompts = [f"{context} {question}" for context, question in zip(contexts, questions, strict=True)]
    found = [str(int(label) - 1) if label else label for label in labels(rows, part, "label")]
    return _choices(prompts, _options(rows, part, "answer", LETTERS[:3]), found, contexts)


def copa(rows: Rows, part: Slice, language: str, task: Task) -> pl.DataFrame:
    """premise, question (cause or effect), choice1, choice2, label. The prompt asks in English in every language.

    As XTREME's third_party/run_xcopa.py: the premise and "What was the cause?" or "What was the effect?".
    """
    premises, questions = texts(rows, part, "premise"), texts(rows, part, "question")
    if unknown := sorted(set(questions) - {"cause", "effect"}):
        raise UserError(f"{place(rows)}: asks for {unknown[0]!r}, not for cause or effect; use another revision")
    prompts = [f"{premise} What was the {asked}?" for premise, asked in zip(premises, questions, strict=True)]
    numbers = {"choice1": "0", "choice2": "1"}  # where the label is a class label
    found = [label if label is None else numbers.get(label, label) for label in labels(rows, part, "label")]
    return _choices(prompts, _options(rows, part, "choice", "12"), found, premises)


def _options(rows: Rows, part: Slice, stem: str, ends: str) -> list[list[str]]:
    """Choices that have a column each."""
    return [list(row) for row in zip(*(texts(rows, part, stem + end) for end in ends), strict=True)]


def _choices(
    prompts: list[str], choices: Sequence[list[str]], found: list[str | None], contexts: list[str]
) -> pl.DataFrame:
    return frame_of(
        {
            "id": numbered(len(prompts)),
            "prompt": prompts,
            "choices": list(choices),
            "label": found,
            CONTEXT: contexts,
            DROPPED: label_notes(found),
            NOTE: text_notes(prompts),
        },
        {"choices": _STRINGS},
    )


def tagged(rows: Rows, part: Slice, language: str, task: Task) -> pl.DataFrame:
    """tokens and tags, one tag a token; tags are class labels or text."""
    names = rows.class_names.get(part.columns.get("tags", "tags"))
    words = column(rows, part, "tokens").to_list()
    tags = [[named(tag, names, part) for tag in sentence] for sentence in column(rows, part, "tags")]
    dropped = [
        "no words" if not s else None if all(t) else "a word without a tag" for s, t in zip(words, tags, strict=True)
    ]
    return tagged_frame(numbered(len(words)), words, tags, dropped)


def tagged_frame(
    ids: list[str],
    words: Sequence[Sequence[str]],
    tags: Sequence[Sequence[str | None]],
    dropped: Sequence[str | None] | None = None,
) -> pl.DataFrame:
    """Sentences with a tag a word."""
    return frame_of(
        {
            "id": ids,
            "tokens": [list(sentence) for sentence in words],
            "tags": [list(sentence) for sentence in tags],
            CONTEXT: [" ".join(sentence) for sentence in words],
            DROPPED: [None] * len(ids) if dropped is None else list(dropped),
        },
        {"tokens": _STRINGS, "tags": _STRINGS},
    )
