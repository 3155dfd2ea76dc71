"""Examples as token ids: saved and loaded, padded, grouped under a cap."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from encoding import SHARED
from xlift.tasks.encoded import IGNORED, Builder, Encoded, collate, token_capped

ROWS = st.lists(  # examples of sequences of tokens
    st.lists(st.lists(st.integers(2, 99), min_size=1, max_size=9), min_size=1, max_size=3), min_size=1, max_size=8
)


def built(examples) -> Encoded:
    builder = Builder()
    for index, sequences in enumerate(examples):
        builder.example(("train", "dev", "test")[index % 3], label=index * 2)
        for tokens in sequences:
            builder.sequence(tokens, [t % 2 for t in tokens], {"extra": [t * 10 for t in tokens]}, size=len(tokens))
    return builder.build()


@SHARED
@given(ROWS)
def test_saved_and_loaded_is_the_same(tmp_path, examples):
    encoded = built(examples)
    encoded.save(tmp_path / "tokens.safetensors")
    found = Encoded.load(tmp_path / "tokens.safetensors")
    for name in ("tokens", "offsets", "owner", "split"):
        assert torch.equal(getattr(found, name), getattr(encoded, name))
    for level in ("by_token", "by_sequence", "by_example"):
        before, after = getattr(encoded, level), getattr(found, level)
        assert sorted(before) == sorted(after)
        assert all(torch.equal(before[name], after[name]) for name in before)
    assert found.lengths.tolist() == [len(tokens) for sequences in examples for tokens in sequences]
    assert found.examples("dev").tolist() == list(range(1, len(examples), 3))


@SHARED
@given(ROWS, st.data())
def test_collate_pads_and_masks_exactly(examples, data):
    encoded = built(examples)
    flat = [tokens for sequences in examples for tokens in sequences]
    chosen = data.draw(st.lists(st.integers(0, len(flat) - 1), min_size=1, max_size=6))
    batch = collate(encoded, torch.tensor(chosen), pad_id=1)
    width = max(len(flat[i]) for i in chosen)
    assert batch.tokens.tolist() == [flat[i] + [1] * (width - len(flat[i])) for i in chosen]
    expected = [[True] * len(flat[i]) + [False] * (width - len(flat[i])) for i in chosen]
    assert (batch.mask.tolist() == expected) if batch.mask is not None else all(map(all, expected))
    assert batch.by_token["extra"].tolist() == [
        [t * 10 for t in flat[i]] + [IGNORED] * (width - len(flat[i])) for i in chosen
    ]
    if batch.types is not None:
        assert batch.types.tolist() == [[t % 2 for t in flat[i]] + [0] * (width - len(flat[i])) for i in chosen]
    else:
        assert not any(t % 2 for tokens in flat for t in tokens)
    assert batch.padded_tokens == width * len(chosen)
    assert batch.lengths.tolist() == [len(flat[i]) for i in chosen]


@SHARED
@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 5)), min_size=1, max_size=40),
    st.integers(1, 200),
)
def test_token_capped_holds_every_index_once_under_the_cap(items, cap):
    lengths, counts = (torch.tensor(column) for column in zip(*items, strict=True))
    groups = token_capped(lengths, counts, cap)
    assert sorted(torch.cat(groups).tolist()) == list(range(len(items)))
    for group in groups:
        positions = int(counts[group].sum()) * int(lengths[group].max())
        assert positions <= cap or len(group) == 1
    longest = [int(lengths[group].max()) for group in groups]
    assert longest == sorted(longest, reverse=True)


def test_a_row_of_another_length_than_its_tokens_is_refused():
    builder = Builder()
    builder.example("train")
    with pytest.raises(ValueError, match="extra has 1 entries for 2 tokens"):
        builder.sequence([5, 6], [0, 0], {"extra": [1]})
