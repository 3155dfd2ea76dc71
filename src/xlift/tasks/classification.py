"""Classification of a text or a pair of texts by the first token's state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xlift.catalog.task import Task
from xlift.tasks.encoded import SPLITS, Batch, Builder, Encoded
from xlift.tasks.family import Family, LinearHead, label_index, permuted, prediction_frame, varied

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class Classification(Family):
    """One label for a text (`text_b` null) or a pair."""

    name = "classification"
    columns: ClassVar[Mapping[str, pl.DataType]] = {"text_a": pl.String(), "text_b": pl.String(), "label": pl.String()}
    meanings: ClassVar[Mapping[str, str]] = {
        "text_a": "Text, or the first of a pair.",
        "text_b": "Second of a pair; null where there is one text.",
        "label": "The right class, by name.",
    }
    text_columns = ("text_a", "text_b")

    def check_values(self, frame: pl.DataFrame, task: Task) -> None:
        for value in sorted(set(frame["label"])):
            label_index(task, value, "label")
        for split in SPLITS:
            varied(frame.filter(pl.col("split") == split)["label"], task, f"{split} label")

    def encode(self, frame: pl.DataFrame, tokenizer: Tokenizer, task: Task, max_length: int, stride: int) -> Encoded:
        # Of a pair that is too long the longer text loses its end, token by token, as in the reference recipes.
        tokenizer.enable_truncation(max_length, strategy="longest_first")
        builder = Builder()
        texts = [a if b is None else (a, b) for a, b in frame.select("text_a", "text_b").iter_rows()]
        encodings = tokenizer.encode_batch(texts)
        for split, label, encoding in zip(frame["split"], frame["label"], encodings, strict=True):
            builder.example(split, label=label_index(task, label, "label"))
            builder.sequence(encoding.ids, encoding.type_ids, {})
        return builder.build()

    def head(self, hidden: int, task: Task, dropout: float) -> nn.Module:
        return LinearHead(hidden, len(task.labels), dropout)

    def loss(self, head: nn.Module, hidden: Tensor, batch: Batch, encoded: Encoded) -> Tensor:
        labels = encoded.by_example["label"][encoded.owner[batch.sequences]].to(hidden.device)
        return F.cross_entropy(head(hidden[:, 0]).float(), labels, reduction="sum")

    def without_content(self, encoded: Encoded, examples: Tensor, generator: torch.Generator) -> dict[str, Any]:
        """Labels permuted among the examples."""
        labels = permuted(encoded.by_example["label"], examples, generator)
        return {"by_example": {**encoded.by_example, "label": labels}}

    def outputs(self, head: nn.Module, hidden: Tensor, batch: Batch) -> Tensor:
        return head(hidden[:, 0]).float()

    def decode(
        self, frame: pl.DataFrame, task: Task, encoded: Encoded, examples: Tensor, outputs: list[Tensor]
    ) -> pl.DataFrame:
        best = torch.stack(outputs).argmax(-1).tolist()
        golds = [[label] for label in frame["label"][examples.tolist()]]
        return prediction_frame(frame, examples, [[task.labels[index]] for index in best], golds)
