"""Fertility: tokens a character by hand, and its mean over tasks relative to English."""

from __future__ import annotations

import math

import polars as pl
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from xlift.jobs.report import fertility
from xlift.tasks.families import FAMILIES
from xlift.tasks.fertility import tokens_per_character


@pytest.fixture
def words() -> Tokenizer:
    """Whole words, and single characters of words it does not know."""
    vocabulary = {"<unk>": 0, "Haus": 1, "house": 2, "n": 3, "y": 4, "u": 5, "m": 6, "b": 7, "a": 8}
    vocabulary |= {f"##{character}": 9 + place for place, character in enumerate("nyumba")}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.enable_padding(length=40)
    tokenizer.enable_truncation(2)
    return tokenizer


def test_tokens_a_character_by_hand(words: Tokenizer) -> None:
    frame = pl.DataFrame(
        [
            ("test", "en", "1", "house house", None),
            ("test", "sw", "1", "nyumba", "Haus"),
            ("train", "en", "2", "nyumba", None),  # not a test example
        ],
        schema=["split", "language", "id", "text_a", "text_b"],
        orient="row",
    )
    found = tokens_per_character(frame, ("text_a", "text_b"), words)
    assert found == {"en": 2 / 10, "sw": (6 + 1) / (6 + 4)}
    assert tokens_per_character(frame, (), words) == {}


def test_lists_are_words(words: Tokenizer) -> None:
    frame = pl.DataFrame({"split": ["test"], "language": ["de"], "id": ["1"], "tokens": [["Haus", "house"]]})
    assert tokens_per_character(frame, ("tokens",), words) == {"de": 2 / 9}


def test_every_family_names_columns_of_its_own() -> None:
    for family in FAMILIES.values():
        assert set(family.text_columns) <= set(family.columns)
    assert FAMILIES["retrieval"].text_columns == ()  # its documents are in another language than its queries


def test_fertility_is_the_geometric_mean_over_tasks_that_have_english() -> None:
    found = fertility([{"en": 0.2, "sw": 0.4, "de": 0.2}, {"en": 0.5, "sw": 4.0}, {"ta": 9.0}, {}])
    rows = dict(found.iter_rows())
    assert rows == pytest.approx({"de": 1.0, "en": 1.0, "sw": math.sqrt(2 * 8)})
    assert fertility([]).height == 0
