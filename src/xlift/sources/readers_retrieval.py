"""Readers of retrieval from repositories: Tatoeba, and SQuAD's questions with the sentences that answer them."""

from __future__ import annotations

import re

import polars as pl

from xlift.catalog.task import Slice, Task
from xlift.errors import UserError
from xlift.sources.alignment import check_aligned
from xlift.sources.hub import Rows
from xlift.sources.reading import (
    CONTEXT,
    DROPPED,
    NOT_IN_CONTEXT,
    NOWHERE,
    column,
    frame_of,
    locate,
    numbered,
    place,
    texts,
)

GOLD = {"gold": pl.List(pl.String())}
_END = re.compile(r"""[.!?]["'”’)\]]*\s+(?=["'“‘(\[]*[A-Z0-9])""")
_ABBREVIATION = re.compile(
    r"(?:\b(?:[A-Z]|Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|Gen|Col|Lt|Sgt|Rev|Sen|Gov|vs|ca|cf|etc|approx|Inc|Ltd|Co|Corp"
    r"|Jan|Feb|Mar|Apr|Aug|Sept|Sep|Oct|Nov|Dec|e\.g|i\.e|U\.S|U\.K|a\.m|p\.m))\.$"
)


def tatoeba(rows: Rows, part: Slice, language: str, task: Task) -> pl.DataFrame:
    """sentence1 in the language, sentence2 in English, row by row a pair; each ends in a newline.

    English sentences are the queries, those of the language the documents, and each language is a pool. Rows are of
    the other language on both sides, since it is that language's score they make.
    """
    documents = [text.strip() for text in texts(rows, part, "sentence1")]
    queries = [text.strip() for text in texts(rows, part, "sentence2")]
    for row, pair in enumerate(zip(documents, queries, strict=True)):
        if not all(pair):
            raise UserError(
                f"{place(rows)}: row {row} has a sentence on one side only, so that its pairs do not align; use "
                "another revision"
            )
    check_aligned(place(rows), documents, queries)
    ids = numbered(len(queries))
    return pl.concat(
        [
            retrieval_frame("query", ids, queries, [language] * len(ids), [[identifier] for identifier in ids]),
            retrieval_frame("document", ids, documents, [language] * len(ids), [[] for _ in ids]),
        ]
    )


def squad_sentences_in_context(rows: Rows, part: Slice, language: str, task: Task) -> pl.DataFrame:
    """SQuAD's questions as queries, the sentences that hold the answers as documents, with their paragraph as text_b.

    In evaluation every sentence of a paragraph is a document, in training only those that answer a question. Sentences
    are cut by `sentences`; one that is twice in a paragraph is one document.
    """
    contexts, questions, ids = (texts(rows, part, name) for name in ("context", "question", "id"))
    found: dict[tuple[str, str], str] = {}
    paragraphs = {context: number for number, context in enumerate(dict.fromkeys(contexts))}
    gold, dropped = [], []
    for context, stated in zip(contexts, column(rows, part, "answers"), strict=True):
        first = (stated["text"] or [None])[0]
        start = NOWHERE if first is None else locate(context, first, stated["answer_start"][0])
        spans = sentences(context)
        right = None if start == NOWHERE else next((context[a:b] for a, b in spans if start < b), None)
        for number, (a, b) in enumerate(spans):
            if part.split != "train" or context[a:b] == right:
                found.setdefault((context[a:b], context), f"{paragraphs[context]:06d}-{number:03d}")
        gold.append([] if right is None else [found[right, context]])
        dropped.append(NOT_IN_CONTEXT if right is None else None)
    queries = retrieval_frame("query", ids, questions, [part.split] * len(ids), gold)
    documents = retrieval_frame(
        "document",
        list(found.values()),
        [sentence for sentence, _ in found],
        [part.split] * len(found),
        [[] for _ in found],
        [context for _, context in found],
    )
    shared = pl.Series(CONTEXT, [*contexts, *(context for _, context in found)], pl.String)
    why = pl.Series(DROPPED, [*dropped, *(None for _ in found)], pl.String)
    return pl.concat([queries, documents]).with_columns(shared, why)


def sentences(text: str) -> list[tuple[int, int]]:
    """Where the sentences of an English text begin and end, white space between them left out.

    One ends at a full stop, question or exclamation mark before white space and a capital or digit, unless the full
    stop is that of an initial or a common abbreviation. A rule, not a model: good enough to train on.
    """
    found, start = [], len(text) - len(text.lstrip())
    for end in _END.finditer(text):
        stop = end.start() + 1
        if text[end.start()] == "." and _ABBREVIATION.search(text[max(start, stop - 12) : stop]):
            continue
        found.append((start, start + len(text[start : end.end()].rstrip())))
        start = end.end()
    if text[start:].strip():
        found.append((start, start + len(text[start:].rstrip())))
    return found


def retrieval_frame(
    role: str,
    ids: list[str],
    passages: list[str],
    pools: list[str],
    gold: list[list[str]],
    contexts: list[str] | None = None,
) -> pl.DataFrame:
    """Queries or documents; `contexts`: the second text of a document, where it has one."""
    return frame_of(
        {
            "id": ids,
            "role": [role] * len(ids),
            "text": passages,
            "text_b": [None] * len(ids) if contexts is None else contexts,
            "pool": pools,
            "gold": gold,
        },
        GOLD,
    )
