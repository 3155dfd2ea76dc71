"""What every task family provides, from prepared rows to predictions; and what it shares with other objectives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from xlift.catalog.task import Task
from xlift.columns import TEXT, Column, schema_of
from xlift.errors import UserError
from xlift.languages import SOURCE_LANGUAGE
from xlift.metrics import floor
from xlift.tasks.encoded import Batch, Encoded

if TYPE_CHECKING:
    from tokenizers import Tokenizer

COMMON = (
    Column("split", TEXT, "`train`, `dev` or `test`; test is what a target is scored on."),
    Column("language", TEXT, "Language of the row, ISO 639-1."),
    Column("id", TEXT, "Name of the row, unlike all others of its split and language."),
)
"""Columns of prepared examples of every family."""
COMMON_COLUMNS: Mapping[str, pl.DataType] = schema_of(COMMON)


class Objective(ABC):
    """What a run can be trained on, from prepared rows to a loss. Stateless: heads hold all that is trained."""

    name: str
    columns: ClassVar[Mapping[str, pl.DataType]]
    """Its own columns of prepared examples."""
    optional_columns: ClassVar[Mapping[str, pl.DataType]] = {}
    """Columns that rows may have, too, and that may be null."""
    meanings: ClassVar[Mapping[str, str]] = {}
    """What each of these columns holds, and each further one of the predictions."""
    text_columns: ClassVar[tuple[str, ...]] = ()
    """Those of them that hold text in the example's language, and in no other."""
    whole_batch = False
    """Whether the loss needs all sequences of an optimiser step in one forward pass."""

    def check(self, frame: pl.DataFrame, task: Task) -> None:
        """Refuse prepared rows with missing columns, other types, nulls, repeated ids or an unknown split."""
        for column, dtype in {**COMMON_COLUMNS, **self.columns}.items():
            if column not in frame.columns or frame.schema[column] != dtype:
                found = frame.schema.get(column, "no such column")
                raise UserError(
                    f"data of {task.name}: column {column!r} should be {dtype} and is {found}; prepare it again"
                )
        for column in sorted(self.optional_columns.keys() & set(frame.columns)):
            if frame.schema[column] != self.optional_columns[column]:
                raise UserError(
                    f"data of {task.name}: column {column!r} should be {self.optional_columns[column]} and is "
                    f"{frame.schema[column]}; prepare it again"
                )
        required = [column for column in (*COMMON_COLUMNS, *self.columns) if column != "text_b"]
        for column in required:
            values = frame[column]
            inner = isinstance(values.dtype, pl.List) and values.list.contains(None).any()
            if values.null_count() or inner:
                raise UserError(f"data of {task.name}: column {column!r} has empty values; prepare it again")
        # A document's id belongs to its pool; the family looks at that.
        identified = frame.filter(pl.col("role") != "document") if "role" in self.columns else frame
        if identified.select([*COMMON_COLUMNS]).is_duplicated().any():
            raise UserError(f"data of {task.name}: an id appears twice in a split and language; prepare it again")
        if unknown := sorted(set(frame["split"]) - {"train", "dev", "test"}):
            raise UserError(f"data of {task.name}: unknown split {unknown[0]!r}; use train, dev or test")
        free = self.dev_in_every_language(task)
        english, hold = (["train"], "train holds") if free else (["train", "dev"], "train and dev hold")
        taught = frame.filter(pl.col("split").is_in(english) & (pl.col("language") != SOURCE_LANGUAGE))
        if taught.height and task.english_only:
            raise UserError(
                f"data of {task.name}: {hold} English only, and {taught['id'][0]!r} is "
                f"{taught['language'][0]!r}; move it to test"
            )
        self.check_values(frame, task)

    def dev_in_every_language(self, task: Task) -> bool:
        """Whether something is chosen on dev rows of each language, by the task's official protocol."""
        return False

    @abstractmethod
    def check_values(self, frame: pl.DataFrame, task: Task) -> None:
        """Refuse rows whose values make no sense here."""

    @abstractmethod
    def encode(self, frame: pl.DataFrame, tokenizer: Tokenizer, task: Task, max_length: int, stride: int) -> Encoded:
        """Token sequences of every row, in order."""

    @abstractmethod
    def fresh_head(self, hidden: int, words: nn.Parameter, task: Task, dropout: float) -> nn.Module:
        """A fresh head over hidden states of size `hidden` of an encoder with these word embeddings."""

    @abstractmethod
    def loss(self, head: nn.Module, hidden: Tensor, batch: Batch, encoded: Encoded) -> Tensor:
        """Loss summed over the batch's units (see `units`). `hidden` [sequences, tokens, hidden]."""

    def units(self, encoded: Encoded) -> Tensor:
        """How many loss terms each example has [examples]; the loss is a mean over an optimiser step's terms."""
        return torch.ones(len(encoded.split), dtype=torch.int64)

    def drawn(self, encoded: Encoded, examples: Tensor, generator: np.random.Generator) -> tuple[Encoded, Tensor]:
        """Some examples as one step sees them, and which they are there: as they are, if nothing is drawn anew for each
        use."""
        return encoded, examples

    @abstractmethod
    def head_rows(self, batch: Batch) -> int:
        """Token positions or sequences of a batch that the head computes with."""

    def training_examples(self, encoded: Encoded) -> Tensor:
        """Indices of the examples a run draws from."""
        return encoded.examples("train")

    def sequences(self, encoded: Encoded, examples: Tensor) -> Tensor:
        """Sequences that belong to the given examples, example by example."""
        first = encoded.first_sequence()
        return torch.cat([torch.arange(int(first[e]), int(first[e + 1])) for e in examples.tolist()])


class Family(Objective):
    """One task family."""

    outputs_by_token = False
    """Whether `outputs` run along tokens."""
    outputs_on_device = False
    """Whether `decode` computes on the device with all outputs."""

    @abstractmethod
    def head(self, hidden: int, task: Task, dropout: float) -> nn.Module:
        """A fresh head over hidden states of size `hidden`."""

    def fresh_head(self, hidden: int, words: nn.Parameter, task: Task, dropout: float) -> nn.Module:
        return self.head(hidden, task, dropout)

    def head_rows(self, batch: Batch) -> int:
        return batch.padded_tokens if self.outputs_by_token else len(batch.tokens)

    @abstractmethod
    def outputs(self, head: nn.Module, hidden: Tensor, batch: Batch) -> Tensor:
        """What `decode` needs of each sequence: [sequences, ...] or [sequences, tokens, ...]."""

    @abstractmethod
    def decode(
        self, frame: pl.DataFrame, task: Task, encoded: Encoded, examples: Tensor, outputs: list[Tensor]
    ) -> pl.DataFrame:
        """Predictions (language, id, prediction, gold) of examples from the outputs of all their sequences, in order.

        `outputs` has one tensor a sequence, cut to the sequence's own tokens where it runs along tokens.
        """

    def further_columns(self, task: Task) -> Mapping[str, pl.DataType]:
        """Columns of the task's predictions after language, id, prediction and gold."""
        return {}

    def calibrates(self, task: Task) -> bool:
        """Whether predictions depend on something that is chosen on dev."""
        return False

    def calibrate(self, task: Task, predictions: pl.DataFrame) -> dict[str, Any]:
        """What is chosen on dev's predictions, as JSON has it; kept with the run where there is one."""
        return {}

    def calibrated(self, task: Task, predictions: pl.DataFrame, chosen: Mapping[str, Any]) -> pl.DataFrame:
        """The predictions that follow from what was chosen."""
        return predictions

    def layer(self, task: Task, layers: int, sentence: bool) -> int | None:
        """The encoder's layer that is read; None: the last.

        `layers`: how many it has. `sentence`: whether it was made for sentence vectors.
        """
        return None

    def floor(self, frame: pl.DataFrame, task: Task, predictions: pl.DataFrame) -> float:
        """Score in points, on the primary metric, of the best English answer that ignores the input.

        `frame` holds the rows of the split that `predictions` are of.
        """
        return floor(task.metrics[0], predictions["gold"].to_list(), SOURCE_LANGUAGE)

    def shuffled(self, encoded: Encoded, seed: int) -> Encoded:
        """The control without content: the same training examples with labels that say nothing about them."""
        generator = torch.Generator().manual_seed(seed)
        return replace(encoded, **self.without_content(encoded, self.training_examples(encoded), generator))

    @abstractmethod
    def without_content(self, encoded: Encoded, examples: Tensor, generator: torch.Generator) -> dict[str, Any]:
        """Fields of `encoded` to replace so that the labels of `examples` tell nothing: drawn anew or permuted."""


def permuted(values: Tensor, places: Tensor, generator: torch.Generator) -> Tensor:
    """A copy of `values` with those at `places` in another order."""
    changed = values.clone()
    changed[places] = values[places[torch.randperm(len(places), generator=generator)]]
    return changed


PREDICTIONS = (
    Column("language", TEXT, "Language of the row, ISO 639-1."),
    Column("id", TEXT, "The example's name, as in the prepared examples."),
    Column("prediction", pl.List(pl.String()), "What the model answered; what an entry is depends on the family."),
    Column("gold", pl.List(pl.String()), "What is right, in the same form."),
)
"""Columns of predictions of every family."""
PREDICTION_COLUMNS: Mapping[str, pl.DataType] = schema_of(PREDICTIONS)


def prediction_frame(
    frame: pl.DataFrame,
    examples: Tensor,
    predictions: list[list[str]],
    golds: list[list[str]],
    further: Sequence[pl.Series] = (),
) -> pl.DataFrame:
    """Predictions in the artifact's columns and the family's further ones, sorted by language and id."""
    rows = frame[examples.tolist()].select("language", "id")
    schema = pl.List(pl.String)
    columns = pl.Series("prediction", predictions, schema), pl.Series("gold", golds, schema)
    return rows.with_columns(*columns, *further).sort("language", "id")


def label_index(task: Task, value: str, where: str) -> int:
    """Position of a label in the task's list; `UserError` for a label the catalog does not know."""
    try:
        return task.labels.index(value)
    except ValueError:
        raise UserError(
            f"data of {task.name}: {where} {value!r} is not one of its labels ({', '.join(task.labels)}); "
            "correct the data or the catalog"
        ) from None


def varied(values: pl.Series, task: Task, what: str) -> None:
    """Refuse training labels that are all the same, as stripped or placeholder labels are."""
    if len(values) and values.n_unique() < 2:
        raise UserError(
            f"data of {task.name}: every {what} is {values[0]!r}; the source has no real labels, use another copy"
        )


class LinearHead(nn.Module):
    """Dropout and one linear layer, initialised as the encoders' own (normal, sd 0.02; bias 0)."""

    def __init__(self, hidden: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(hidden, outputs)
        nn.init.normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)

    def forward(self, states: Tensor) -> Tensor:
        """[..., hidden] -> [..., outputs]."""
        return self.linear(self.dropout(states))
