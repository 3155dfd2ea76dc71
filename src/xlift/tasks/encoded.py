"""Examples as token ids: the flat form that jobs load in milliseconds, and padded batches of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

SPLITS = ("train", "dev", "test")
TOKENS = "tokens.safetensors"
"""The file in a task's folder of token ids."""
IGNORED = -100
"""Label of a token that takes no part in the loss."""


@dataclass
class Encoded:
    """A task's examples in the order of its prepared rows, as flat arrays.

    An example owns one or more sequences (a choice, a window); sequences follow the order of their examples.
    `tokens` [all tokens] int32, `offsets` [sequences + 1] int64, `owner` [sequences] int64 (example of a sequence),
    `split` [examples] uint8 (index into SPLITS), `by_token` arrays run along `tokens`, `by_sequence` along sequences,
    `by_example` along examples; `whole` ones are of all examples together.
    """

    tokens: Tensor
    offsets: Tensor
    owner: Tensor
    split: Tensor
    by_token: dict[str, Tensor] = field(default_factory=dict)
    by_sequence: dict[str, Tensor] = field(default_factory=dict)
    by_example: dict[str, Tensor] = field(default_factory=dict)
    whole: dict[str, Tensor] = field(default_factory=dict)

    @property
    def lengths(self) -> Tensor:
        """Tokens of each sequence [sequences]."""
        return self.offsets[1:] - self.offsets[:-1]

    def examples(self, split: str) -> Tensor:
        """Indices of the examples of a split, in order."""
        return (self.split == SPLITS.index(split)).nonzero().flatten()

    def first_sequence(self) -> Tensor:
        """Index of the first sequence of each example, and one past the last [examples + 1]."""
        return torch.searchsorted(self.owner, torch.arange(len(self.split) + 1))

    def save(self, path: Path) -> None:
        """Write all arrays to one safetensors file."""
        tensors = {"tokens": self.tokens, "offsets": self.offsets, "owner": self.owner, "split": self.split}
        for level in ("by_token", "by_sequence", "by_example", "whole"):
            tensors.update({f"{level}.{name}": tensor for name, tensor in getattr(self, level).items()})
        path.write_bytes(save({name: tensors[name].contiguous() for name in sorted(tensors)}))

    @classmethod
    def load(cls, path: Path) -> Encoded:
        """Read what `save` wrote."""
        with safe_open(path, framework="pt") as stored:
            tensors = {name: stored.get_tensor(name) for name in sorted(stored.keys())}
        encoded = cls(*(tensors.pop(name) for name in ("tokens", "offsets", "owner", "split")))
        for name, tensor in tensors.items():
            level, _, key = name.partition(".")
            getattr(encoded, level)[key] = tensor
        return encoded


class Builder:
    """Collects sequences example by example and turns them into an `Encoded`."""

    def __init__(self) -> None:
        self._tokens: list[int] = []
        self._offsets: list[int] = [0]
        self._owner: list[int] = []
        self._split: list[int] = []
        self._by_token: dict[str, list[int]] = {}
        self._by_sequence: dict[str, list[int]] = {}
        self._by_example: dict[str, list[int]] = {}

    def example(self, split: str, **values: int) -> None:
        """Begin an example."""
        self._split.append(SPLITS.index(split))
        for name, value in values.items():
            self._by_example.setdefault(name, []).append(value)

    def sequence(
        self,
        tokens: Sequence[int],
        types: Sequence[int],
        by_token: Mapping[str, Sequence[int]],
        **values: int,
    ) -> None:
        """Add a sequence to the example begun last; `types` are its token types."""
        self._tokens.extend(tokens)
        self._offsets.append(len(self._tokens))
        self._owner.append(len(self._split) - 1)
        for name, row in {**by_token, "types": types}.items():
            if len(row) != len(tokens):
                raise ValueError(f"{name} has {len(row)} entries for {len(tokens)} tokens")
            self._by_token.setdefault(name, []).extend(row)
        for name, value in values.items():
            self._by_sequence.setdefault(name, []).append(value)

    def build(self) -> Encoded:
        """All that was added, as arrays; token types are left out where all are 0."""
        by_token = {name: torch.tensor(row, dtype=torch.int32) for name, row in self._by_token.items()}
        if "types" in by_token and not by_token["types"].any():
            del by_token["types"]
        return Encoded(
            torch.tensor(self._tokens, dtype=torch.int32),
            torch.tensor(self._offsets, dtype=torch.int64),
            torch.tensor(self._owner, dtype=torch.int64),
            torch.tensor(self._split, dtype=torch.uint8),
            by_token,
            {name: torch.tensor(row, dtype=torch.int64) for name, row in self._by_sequence.items()},
            {name: torch.tensor(row, dtype=torch.int64) for name, row in self._by_example.items()},
        )


@dataclass
class Batch:
    """Padded sequences: `tokens` [sequences, tokens], `mask` the same (None without padding), and their extras."""

    sequences: Tensor
    tokens: Tensor
    mask: Tensor | None
    types: Tensor | None
    lengths: Tensor
    by_token: dict[str, Tensor]

    @property
    def padded_tokens(self) -> int:
        """Token positions computed, padding included."""
        return self.tokens.numel()

    def pinned(self) -> Batch:
        """The same in page-locked memory, from which a copy to a CUDA device does not wait."""
        return self._each(Tensor.pin_memory)

    def on(self, device: torch.device) -> Batch:
        """The same with what a forward pass reads on `device`; `sequences` and `lengths` stay on the CPU."""
        return self if device.type == "cpu" else self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return replace(
            self,
            tokens=change(self.tokens),
            mask=None if self.mask is None else change(self.mask),
            types=None if self.types is None else change(self.types),
            by_token={name: change(tensor) for name, tensor in self.by_token.items()},
        )


def collate(encoded: Encoded, sequences: Tensor, pad_id: int) -> Batch:
    """Pad the given sequences into one batch; extras are padded with IGNORED."""
    lengths = encoded.lengths[sequences]
    width = int(lengths.max())
    column = torch.arange(width)
    real = column < lengths[:, None]
    # Positions past a sequence's end read its last token; `real` blanks them.
    index = encoded.offsets[sequences][:, None] + torch.minimum(column, lengths[:, None] - 1)
    padded = not bool(real.all())

    def gather(flat: Tensor, fill: int) -> Tensor:
        values = flat[index].to(torch.int64)
        return values.masked_fill(~real, fill) if padded else values

    extras = {name: gather(flat, IGNORED) for name, flat in sorted(encoded.by_token.items()) if name != "types"}
    types = gather(encoded.by_token["types"], 0) if "types" in encoded.by_token else None
    mask = real if padded else None
    return Batch(sequences, gather(encoded.tokens, pad_id), mask, types, lengths, extras)


def token_capped(lengths: Tensor, counts: Tensor, cap: int) -> list[Tensor]:
    """Group items of like length so that no group computes more than `cap` token positions.

    Item i has `counts[i]` sequences of at most `lengths[i]` tokens that stay together. Returns index tensors, longest
    group first; an item larger than `cap` is alone.
    """
    order = np.argsort(-lengths.numpy(), kind="stable")
    groups: list[list[int]] = []
    width = rows = 0
    for index in order.tolist():
        if not groups or (rows + int(counts[index])) * width > cap:
            groups.append([])
            width, rows = int(lengths[index]), 0
        groups[-1].append(index)
        rows += int(counts[index])
    return [torch.tensor(group) for group in groups]
