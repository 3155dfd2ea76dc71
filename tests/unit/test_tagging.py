"""Tagging by word: windows, every word's tag, loss."""

from __future__ import annotations

import dataclasses
import math

import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from encoding import SHARED, encode, everything
from toy import toy_frame, toy_task
from xlift.metrics import score_predictions
from xlift.tasks.encoded import IGNORED
from xlift.tasks.families import FAMILIES

WORDS = st.sampled_from(
    ["goat", "granite", "a", "ж", "\u200b", "\x07", " ", "antidisestablishmentarianism" * 3, "สวัสดี", "-", "old"]
)


@SHARED
@given(st.lists(st.lists(st.tuples(WORDS, st.integers(0, 2)), min_size=1, max_size=40), min_size=1, max_size=4))
def test_every_word_gets_its_own_tag_back_over_any_windows(tokenizer, sentences):
    task = toy_task("tagging")
    frame = pl.DataFrame(
        {
            "split": ["test"] * len(sentences),
            "language": ["en"] * len(sentences),
            "id": [f"{i}" for i in range(len(sentences))],
            "tokens": [[word for word, _ in sentence] for sentence in sentences],
            "tags": [[task.labels[tag] for _, tag in sentence] for sentence in sentences],
        }
    )
    encoded = FAMILIES["tagging"].encode(frame, tokenizer, task, 12, 4)
    assert int(encoded.lengths.max()) <= 12
    labels, word = encoded.by_token["label"], encoded.by_token["word"]
    # One training label a word, on the token that is read for it.
    assert ((labels != IGNORED) == (word != IGNORED)).all()
    for example, sentence in enumerate(sentences):
        places = torch.cat(
            [
                word[encoded.offsets[s] : encoded.offsets[s + 1]]
                for s in (encoded.owner == example).nonzero().flatten().tolist()
            ]
        )
        assert sorted(places[places != IGNORED].tolist()) == list(range(len(sentence)))
    # An oracle that answers the label where there is one and rubbish elsewhere.
    outputs = [
        torch.where(labels[a:b] == IGNORED, torch.full_like(labels[a:b], 1), labels[a:b])
        for a, b in zip(encoded.offsets[:-1], encoded.offsets[1:], strict=True)
    ]
    found = FAMILIES["tagging"].decode(frame, task, encoded, encoded.examples("test"), outputs)
    assert found["prediction"].to_list() == found["gold"].to_list() == frame.sort("id")["tags"].to_list()


def test_tagging_reads_the_first_token_of_a_word_and_its_widest_window(tokenizer):
    task = toy_task("tagging")
    words = ["goat", "antidisestablishmentarianism", "old", "granite", "near", "marble"]
    frame = pl.DataFrame(
        {"split": ["train"], "language": ["en"], "id": ["0"], "tokens": [words], "tags": [["O", "B-STONE"] * 3]}
    )
    encoded = FAMILIES["tagging"].encode(frame, tokenizer, task, 64, 8)
    pieces = [tokenizer.encode(word, add_special_tokens=False).ids for word in words]
    assert encoded.tokens.tolist() == [0, *(piece for word in pieces for piece in word), 2]
    expected = [IGNORED]
    for place, own in enumerate(pieces):
        expected += [place, *[IGNORED] * (len(own) - 1)]
    assert encoded.by_token["word"].tolist() == [*expected, IGNORED]
    assert FAMILIES["tagging"].units(encoded).tolist() == [6]


def test_tagging_loss_by_hand(tokenizer):
    frame, task = toy_frame("tagging").head(3), toy_task("tagging")
    encoded = FAMILIES["tagging"].encode(frame, tokenizer, task, 32, 8)
    batch = everything("tagging", encoded)
    head = torch.nn.Identity()
    hidden = torch.randn(*batch.tokens.shape, 3, generator=torch.Generator().manual_seed(2))
    expected = 0.0
    for row, labels in enumerate(batch.by_token["label"].tolist()):
        for column, label in enumerate(labels):
            if label != IGNORED:
                scores = hidden[row, column].tolist()
                expected += math.log(sum(map(math.exp, scores))) - scores[label]
    assert float(FAMILIES["tagging"].loss(head, hidden, batch, encoded)) == pytest.approx(expected, rel=1e-5)
    assert int((batch.by_token["label"] != IGNORED).sum()) == sum(len(tags) for tags in frame["tags"])


def test_bare_tags_of_every_word_are_scored_even_where_a_word_has_no_token(tokenizer):
    upos = ("ADJ", "ADP", "NOUN", "PUNCT", "VERB", "X")
    task = dataclasses.replace(toy_task("tagging"), labels=upos, metrics=("token_accuracy", "xtreme_f1"))
    sentences = [["goat", "\x07", "old"], ["\u200b"], ["\x07", "\x07", "near", " ", "granite"] * 4]
    assert tokenizer.encode("\x07", add_special_tokens=False).ids == []
    tags = [[upos[(row + place) % 6] for place in range(len(words))] for row, words in enumerate(sentences)]
    names = [str(row) for row in range(3)]
    columns = {"split": ["test"] * 3, "language": ["sw"] * 3, "id": names, "tokens": sentences, "tags": tags}
    frame = pl.DataFrame(columns)
    encoded = encode("tagging", tokenizer, frame, task, max_length=9, stride=3)
    labels = encoded.by_token["label"]
    assert int((labels != IGNORED).sum()) == sum(map(len, sentences))
    outputs = [labels[a:b].clamp(min=0) for a, b in zip(encoded.offsets[:-1], encoded.offsets[1:], strict=True)]
    found = FAMILIES["tagging"].decode(frame, task, encoded, encoded.examples("test"), outputs)
    assert found["prediction"].to_list() == tags
    assert score_predictions(found, "token_accuracy").rows() == [("sw", "token_accuracy", 100.0, 3)]
    wrong = [torch.zeros_like(output) for output in outputs]  # ADJ everywhere
    found = FAMILIES["tagging"].decode(frame, task, encoded, encoded.examples("test"), wrong)
    right = sum(tag == "ADJ" for row in tags for tag in row)
    expected = 100 * right / sum(map(len, tags))
    assert score_predictions(found, "token_accuracy")["score"][0] == pytest.approx(expected)
    # XTREME's number reads a span in each run of equal tags, and no gold sentence is one run of ADJ.
    assert score_predictions(found, "xtreme_f1")["score"][0] == 0.0
