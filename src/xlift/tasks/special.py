"""The special tokens of a tokenizer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xlift.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def frame_tokens(tokenizer: Tokenizer) -> tuple[int, int]:
    """The special tokens the tokenizer puts before and after one text."""
    ids = tokenizer.encode("").ids
    if len(ids) != 2:
        raise UserError(
            "the encoder's tokenizer does not put one special token before and one after a text; use another encoder"
        )
    return ids[0], ids[1]


def unknown_token(tokenizer: Tokenizer) -> int:
    """The token of what the vocabulary lacks."""
    return _named(tokenizer, "<unk>", "[UNK]", "use another encoder")


def mask_token(tokenizer: Tokenizer) -> int:
    """The token that stands for a masked one."""
    return _named(tokenizer, "<mask>", "[MASK]", "use another encoder, or remove mlm")


def _named(tokenizer: Tokenizer, first: str, second: str, remedy: str) -> int:
    for name in (first, second):
        if (found := tokenizer.token_to_id(name)) is not None:
            return found
    raise UserError(f"the encoder's tokenizer has neither {first} nor {second}; {remedy}")
