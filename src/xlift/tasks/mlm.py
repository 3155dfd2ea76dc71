"""Masked-language modelling on plain text: what an intermediate run can be co-trained on.

As in BERT and RoBERTa (Devlin et al., 2019, section 3.1; Liu et al., 2019, section 3): of the pieces of a sequence some
are to be predicted, drawn anew for each use; of these eight in ten are replaced by the mask and one in ten by another
piece, and one in ten stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xlift.catalog.task import MLM, Task
from xlift.errors import UserError
from xlift.tasks.encoded import IGNORED, Batch, Builder, Encoded
from xlift.tasks.family import Objective
from xlift.tasks.special import frame_tokens, mask_token, unknown_token

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TO_MASK, TO_OTHER = 0.8, 0.1
"""Shares of the pieces to be predicted that the mask, and any other piece, stand in for."""
SCORES_TOGETHER = 2**25
"""Scores of masked positions over the vocabulary that are held at once: those of a whole batch are gigabytes."""
TEXTS_TOGETHER = 10_000
"""Texts that the tokenizer is given at once."""


@dataclass(frozen=True)
class MaskedLanguageModelling(Objective):
    """Predicts a share `mask` of each sequence's pieces, at least one; a passage is one sequence or several.

    Special pieces and pieces that stand for unknown characters are never predicted. Each sequence is an example of its
    own, so that a batch has exactly so many.
    """

    mask: float = 0.15

    name = MLM
    columns: ClassVar[Mapping[str, pl.DataType]] = {"text": pl.String()}
    text_columns = ("text",)

    def check_values(self, frame: pl.DataFrame, task: Task) -> None:
        if (frame["text"].str.strip_chars() == "").any():
            raise UserError(f"data of {task.name}: a passage is empty; prepare it again")

    def encode(self, frame: pl.DataFrame, tokenizer: Tokenizer, task: Task, max_length: int, stride: int) -> Encoded:
        tokenizer.no_truncation()
        start, end = frame_tokens(tokenizer)
        unknown, mask = unknown_token(tokenizer), mask_token(tokenizer)
        special = {piece for piece, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        never = special | {unknown}
        builder = Builder()
        for first in range(0, frame.height, TEXTS_TOGETHER):
            texts = frame["text"][first : first + TEXTS_TOGETHER].to_list()
            for encoding in tokenizer.encode_batch(texts, add_special_tokens=False):
                # Text that spells a special token is no such token.
                pieces = [piece for piece in encoding.ids if piece == unknown or piece not in special]
                for begin in range(0, len(pieces), max_length - 2):
                    inner = pieces[begin : begin + max_length - 2]
                    labels = [IGNORED if piece in never else piece for piece in inner]
                    if any(label != IGNORED for label in labels):
                        builder.example("train")
                        row = {"label": [IGNORED, *labels, IGNORED]}
                        builder.sequence([start, *inner, end], [0] * (len(inner) + 2), row)
        encoded = builder.build()
        if not len(encoded.split):
            raise UserError(
                f"data of {task.name}: the encoder's tokenizer knows no piece of any passage; use other text or "
                "another encoder"
            )
        others = sorted(set(tokenizer.get_vocab().values()) - never)
        encoded.whole = {"mask": torch.tensor([mask]), "others": torch.tensor(others, dtype=torch.int32)}
        return encoded

    def fresh_head(self, hidden: int, words: nn.Parameter, task: Task, dropout: float) -> nn.Module:
        return MaskedHead(hidden, words)

    def drawn(self, encoded: Encoded, examples: Tensor, generator: np.random.Generator) -> tuple[Encoded, Tensor]:
        """The sequences with some pieces hidden; `label` is the piece where one is to be predicted."""
        lengths = encoded.lengths[examples]
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
        owner = torch.arange(len(examples)).repeat_interleave(lengths)
        place = encoded.offsets[examples][owner] + torch.arange(len(owner)) - offsets[owner]
        tokens, label = encoded.tokens[place].clone(), encoded.by_token["label"][place]
        open_to_it = label != IGNORED
        # In float64, where no two draws are the same.
        draw = torch.from_numpy(generator.random(len(owner))).masked_fill(~open_to_it, 2.0)
        least = torch.full((len(examples),), 2.0, dtype=torch.float64).scatter_reduce(0, owner, draw, "amin")
        predicted = open_to_it & ((draw < self.mask) | (draw == least[owner]))
        kind = torch.from_numpy(generator.random(len(owner)))
        others = encoded.whole["others"]
        other = others[torch.from_numpy(generator.integers(len(others), size=len(owner)))]
        tokens = torch.where(predicted & (kind < TO_MASK), encoded.whole["mask"].to(tokens.dtype), tokens)
        tokens = torch.where(predicted & (kind >= TO_MASK) & (kind < TO_MASK + TO_OTHER), other, tokens)
        by_token = {"label": label.masked_fill(~predicted, IGNORED)}
        places = torch.arange(len(examples))
        return Encoded(tokens, offsets, places, encoded.split[examples], by_token), places

    def units(self, encoded: Encoded) -> Tensor:
        """How many pieces of each example are to be predicted."""
        open_to_it = (encoded.by_token["label"] != IGNORED).to(torch.int64)
        owner = encoded.owner.repeat_interleave(encoded.lengths)
        return torch.zeros(len(encoded.split), dtype=torch.int64).index_add(0, owner, open_to_it)

    def head_rows(self, batch: Batch) -> int:
        return int((batch.by_token["label"] != IGNORED).sum())

    def loss(self, head: nn.Module, hidden: Tensor, batch: Batch, encoded: Encoded) -> Tensor:
        # Picking out what is predicted waits for the device: less than a vocabulary of scores for all other positions.
        label = batch.by_token["label"]
        predicted = label != IGNORED
        return cast(Tensor, head(hidden[predicted], label[predicted]))


class MaskedHead(nn.Module):
    """A transform (dense, GELU, layer norm) and the word embeddings as decoder, with a bias a piece.

    As BERT's and RoBERTa's. The embeddings are the encoder's own, so they are neither stored nor trained here a second
    time; frozen ones get no gradient.
    """

    def __init__(self, hidden: int, words: nn.Parameter) -> None:
        super().__init__()
        pieces, size = words.shape
        self.dense = nn.Linear(hidden, size)
        self.norm = nn.LayerNorm(size)
        self.bias = nn.Parameter(torch.zeros(pieces))
        self._tied = (words,)  # in a tuple, where a module does not take it for a parameter of its own
        nn.init.normal_(self.dense.weight, std=0.02)
        nn.init.zeros_(self.dense.bias)

    @property
    def words(self) -> nn.Parameter:
        """The word embeddings [pieces, size]."""
        return self._tied[0]

    def forward(self, states: Tensor, pieces: Tensor) -> Tensor:
        """Cross-entropy of `pieces` [rows] at `states` [rows, hidden], summed."""
        made = self.norm(F.gelu(self.dense(states)))
        kind = made.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else made.dtype
        return cast(Tensor, _TiedCrossEntropy.apply(made.to(dtype), self.words, self.bias, pieces))


class _TiedCrossEntropy(torch.autograd.Function):
    """Summed cross-entropy over a vocabulary, with gradients taken in the forward pass, some rows at a time.

    Autograd's own would keep the scores of all rows until the backward pass.
    """

    @staticmethod
    def forward(context: Any, states: Tensor, words: Tensor, bias: Tensor, pieces: Tensor) -> Tensor:
        decoder = words.to(states.dtype)
        of_states, of_bias = torch.empty_like(states), torch.zeros_like(bias)
        of_words = torch.zeros_like(words) if context.needs_input_grad[1] else None
        total = torch.zeros((), device=states.device)
        rows = max(1, SCORES_TOGETHER // len(words))
        for first in range(0, len(pieces), rows):
            at = slice(first, first + rows)
            scores = F.linear(states[at], decoder).float()
            scores += bias
            right = pieces[at, None]
            slopes = scores.log_softmax(-1)
            total -= slopes.gather(1, right).sum()
            slopes = slopes.exp_()
            slopes.scatter_(1, right, slopes.gather(1, right) - 1)
            of_bias += slopes.sum(0)
            slopes = slopes.to(states.dtype)
            of_states[at] = slopes @ decoder
            if of_words is not None:
                of_words += slopes.T @ states[at]
        context.save_for_backward(of_states, of_bias, of_words)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        of_states, of_bias, of_words = context.saved_tensors
        (slope,) = gradients
        return slope * of_states, None if of_words is None else slope * of_words, slope * of_bias, None
