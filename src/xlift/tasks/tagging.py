"""Tagging by word: the first token of a word carries its tag; long sentences are read in windows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xlift.catalog.task import Task
from xlift.errors import UserError
from xlift.tasks.encoded import IGNORED, SPLITS, Batch, Builder, Encoded
from xlift.tasks.family import Family, LinearHead, label_index, permuted, prediction_frame, varied
from xlift.tasks.special import frame_tokens, unknown_token
from xlift.tasks.windows import home_window, windows

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class Tagging(Family):
    """One tag a word. Every word gets exactly one prediction, from the window where it has most context."""

    name = "tagging"
    outputs_by_token = True
    columns: ClassVar[Mapping[str, pl.DataType]] = {"tokens": pl.List(pl.String()), "tags": pl.List(pl.String())}
    meanings: ClassVar[Mapping[str, str]] = {
        "tokens": "Words of the sentence.",
        "tags": "One tag a word, by name.",
    }
    text_columns = ("tokens",)

    def check_values(self, frame: pl.DataFrame, task: Task) -> None:
        for identifier, words, tags in frame.select("id", "tokens", "tags").iter_rows():
            if not words or len(words) != len(tags):
                raise UserError(
                    f"data of {task.name}: sentence {identifier!r} has {len(words)} words and {len(tags)} tags; "
                    "give one tag a word and at least one word"
                )
        for value in sorted(set(frame["tags"].explode())):
            label_index(task, value, "tag")
        for split in SPLITS:
            varied(frame.filter(pl.col("split") == split)["tags"].explode(), task, f"{split} tag")

    def encode(self, frame: pl.DataFrame, tokenizer: Tokenizer, task: Task, max_length: int, stride: int) -> Encoded:
        tokenizer.no_truncation()
        start, end = frame_tokens(tokenizer)
        unknown = unknown_token(tokenizer)
        vocabulary = sorted(set(frame["tokens"].explode()))
        pieces = {
            # A word the tokenizer deletes (a control character) still needs a place for its prediction.
            word: (encoding.ids or [unknown])[: max_length - 2]
            for word, encoding in zip(
                vocabulary, tokenizer.encode_batch(vocabulary, add_special_tokens=False), strict=True
            )
        }
        builder = Builder()
        for split, words, tags in frame.select("split", "tokens", "tags").iter_rows():
            builder.example(split, words=len(words))
            found = windows([len(pieces[word]) for word in words], max_length - 2, stride)
            home = home_window(found, len(words))
            for index, window in enumerate(found):
                ids, word_row, label_row = [start], [IGNORED], [IGNORED]
                for place in window:
                    ids += pieces[words[place]]
                    mine = home[place] == index
                    rest = [IGNORED] * (len(pieces[words[place]]) - 1)
                    word_row += [place if mine else IGNORED, *rest]
                    label_row += [label_index(task, tags[place], "tag") if mine else IGNORED, *rest]
                rows = {"word": [*word_row, IGNORED], "label": [*label_row, IGNORED]}
                builder.sequence([*ids, end], [0] * (len(ids) + 1), rows)
        return builder.build()

    def head(self, hidden: int, task: Task, dropout: float) -> nn.Module:
        return LinearHead(hidden, len(task.labels), dropout)

    def loss(self, head: nn.Module, hidden: Tensor, batch: Batch, encoded: Encoded) -> Tensor:
        # Over all tokens: picking out the labelled ones would wait for the device.
        scores, labels = head(hidden).float().flatten(0, 1), batch.by_token["label"].flatten()
        return F.cross_entropy(scores, labels, ignore_index=IGNORED, reduction="sum")

    def without_content(self, encoded: Encoded, examples: Tensor, generator: torch.Generator) -> dict[str, Any]:
        """Tags permuted among all words of the examples."""
        labels = encoded.by_token["label"]
        owner = encoded.owner.repeat_interleave(encoded.lengths)
        words = ((labels != IGNORED) & torch.isin(owner, examples)).nonzero().flatten()
        return {"by_token": {**encoded.by_token, "label": permuted(labels, words, generator)}}

    def outputs(self, head: nn.Module, hidden: Tensor, batch: Batch) -> Tensor:
        return head(hidden).argmax(-1)

    def decode(
        self, frame: pl.DataFrame, task: Task, encoded: Encoded, examples: Tensor, outputs: list[Tensor]
    ) -> pl.DataFrame:
        word = encoded.by_token["word"]
        position = iter(zip(self.sequences(encoded, examples).tolist(), outputs, strict=True))
        first = encoded.first_sequence()
        predictions = []
        for example in examples.tolist():
            tags = [""] * int(encoded.by_example["words"][example])
            for _ in range(int(first[example]), int(first[example + 1])):
                sequence, best = next(position)
                places = word[encoded.offsets[sequence] : encoded.offsets[sequence + 1]]
                for place, label in zip(places.tolist(), best.tolist(), strict=True):
                    if place != IGNORED:
                        tags[place] = task.labels[label]
            if "" in tags:
                raise RuntimeError(f"{task.name}: a word of example {example} got no prediction")
            predictions.append(tags)
        return prediction_frame(frame, examples, predictions, frame["tags"][examples.tolist()].to_list())

    def units(self, encoded: Encoded) -> Tensor:
        return encoded.by_example["words"]
