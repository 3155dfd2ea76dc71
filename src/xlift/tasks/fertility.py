"""How finely a tokenizer cuts a language: tokens a character, measured on a task's test examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MOST_TEXTS = 500
"""Texts of a language that are measured, the first by id."""


def tokens_per_character(frame: pl.DataFrame, columns: Sequence[str], tokenizer: Tokenizer) -> dict[str, float]:
    """Tokens a character that is no white space, by language, sorted. Special tokens do not count.

    Args:
        frame: prepared examples; a column of lists is read as words, joined by spaces.
        columns: those that hold text in the example's language; none gives an empty result.
    """
    found: dict[str, float] = {}
    if not columns:
        return found
    tokenizer.no_truncation()
    tokenizer.no_padding()
    test = frame.filter(pl.col("split") == "test")
    for language in test["language"].unique().sort():
        rows = test.filter(pl.col("language") == language).sort("id").head(MOST_TEXTS)
        texts = [_joined(value) for column in columns for value in rows[column].drop_nulls()]
        characters = sum(not character.isspace() for text in texts for character in text)
        if characters:
            encodings = tokenizer.encode_batch(texts, add_special_tokens=False)
            found[language] = sum(len(encoding.ids) for encoding in encodings) / characters
    return found


def _joined(value: str | pl.Series) -> str:
    return value if isinstance(value, str) else " ".join(value)
