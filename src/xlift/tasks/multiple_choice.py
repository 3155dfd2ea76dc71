"""Multiple choice: each choice is paired with the prompt and scored by the first token's state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import polars as pl
import torch
from torch import Tensor, nn

from xlift.catalog.task import Task
from xlift.errors import UserError
from xlift.tasks.encoded import SPLITS, Batch, Builder, Encoded
from xlift.tasks.family import Family, LinearHead, permuted, prediction_frame, varied

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer


class MultipleChoice(Family):
    """The index of the right one of two or more choices; examples may differ in their number."""

    name = "multiple_choice"
    columns: ClassVar[Mapping[str, pl.DataType]] = {
        "prompt": pl.String(),
        "choices": pl.List(pl.String()),
        "label": pl.String(),
    }
    meanings: ClassVar[Mapping[str, str]] = {
        "prompt": "What every choice is read after.",
        "choices": "The choices, two or more.",
        "label": "Place of the right choice, from 0, as text.",
    }
    text_columns = ("prompt", "choices")

    def check_values(self, frame: pl.DataFrame, task: Task) -> None:
        for identifier, choices, label in frame.select("id", "choices", "label").iter_rows():
            if len(choices) < 2 or label not in map(str, range(len(choices))):
                raise UserError(
                    f"data of {task.name}: example {identifier!r} has {len(choices)} choices and label {label!r}; "
                    "give at least two choices and the index of the right one"
                )
        for split in SPLITS:
            varied(frame.filter(pl.col("split") == split)["label"], task, f"{split} label")

    def encode(self, frame: pl.DataFrame, tokenizer: Tokenizer, task: Task, max_length: int, stride: int) -> Encoded:
        builder = Builder()
        pairs = [
            (prompt, choice) for prompt, choices in frame.select("prompt", "choices").iter_rows() for choice in choices
        ]
        encodings = iter(_encoded_pairs(tokenizer, pairs, max_length))
        for split, choices, label in frame.select("split", "choices", "label").iter_rows():
            builder.example(split, label=int(label))
            for _ in choices:
                encoding = next(encodings)
                builder.sequence(encoding.ids, encoding.type_ids, {})
        return builder.build()

    def head(self, hidden: int, task: Task, dropout: float) -> nn.Module:
        return LinearHead(hidden, 1, dropout)

    def loss(self, head: nn.Module, hidden: Tensor, batch: Batch, encoded: Encoded) -> Tensor:
        """Cross-entropy over each example's choices; all choices of an example are in the batch."""
        scores = head(hidden[:, 0]).float().squeeze(-1)
        owner = encoded.owner[batch.sequences]
        place = batch.sequences - encoded.first_sequence()[owner]
        # Choices follow one another, so each first choice begins an example, even one that is here twice.
        examples = owner[place == 0]
        group = (place == 0).cumsum(0) - 1
        table = scores.new_full((len(examples), int(place.max()) + 1), -torch.inf)
        table = table.index_put((group.to(scores.device), place.to(scores.device)), scores)
        labels = encoded.by_example["label"][examples].to(scores.device)
        return nn.functional.cross_entropy(table, labels, reduction="sum")

    def without_content(self, encoded: Encoded, examples: Tensor, generator: torch.Generator) -> dict[str, Any]:
        """Labels permuted among the examples with the same number of choices."""
        labels = encoded.by_example["label"]
        first = encoded.first_sequence()
        choices = first[examples + 1] - first[examples]
        for number in choices.unique().tolist():
            labels = permuted(labels, examples[choices == number], generator)
        return {"by_example": {**encoded.by_example, "label": labels}}

    def outputs(self, head: nn.Module, hidden: Tensor, batch: Batch) -> Tensor:
        return head(hidden[:, 0]).float()

    def decode(
        self, frame: pl.DataFrame, task: Task, encoded: Encoded, examples: Tensor, outputs: list[Tensor]
    ) -> pl.DataFrame:
        first = encoded.first_sequence()
        counts = (first[examples + 1] - first[examples]).tolist()
        scores = torch.cat(outputs).split(counts)
        golds = [[label] for label in frame["label"][examples.tolist()]]
        return prediction_frame(frame, examples, [[str(int(s.argmax()))] for s in scores], golds)


def _encoded_pairs(tokenizer: Tokenizer, pairs: list[tuple[str, str]], max_length: int) -> list[Encoding]:
    """Prompts with their choices. A prompt is cut; where a choice alone is too long, the longer of both is."""
    tokenizer.enable_truncation(max_length, strategy="only_first")
    try:
        return list(tokenizer.encode_batch(pairs))
    except Exception:  # the one class that tokenizers raises, where a choice leaves no room for its prompt
        tokenizer.no_truncation()
        longest = max_length - tokenizer.num_special_tokens_to_add(is_pair=True) - 1
        too_long = [len(choice.ids) > longest for choice in _plain(tokenizer, [choice for _, choice in pairs])]
        found: list[Encoding] = [None] * len(pairs)  # type: ignore[list-item]
        for strategy, long in (("only_first", False), ("longest_first", True)):
            places = [place for place, is_long in enumerate(too_long) if is_long == long]
            tokenizer.enable_truncation(max_length, strategy=strategy)
            for place, encoding in zip(places, tokenizer.encode_batch([pairs[p] for p in places]), strict=True):
                found[place] = encoding
        return found


def _plain(tokenizer: Tokenizer, texts: list[str]) -> list[Encoding]:
    return list(tokenizer.encode_batch(texts, add_special_tokens=False))
