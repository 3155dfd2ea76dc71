"""Retrieval: mean-pooled, normalised states; exact search in a pool; a dual encoder where there is training data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xlift.catalog.task import Task
from xlift.errors import UserError
from xlift.languages import SOURCE_LANGUAGE
from xlift.metrics import RANKING_DEPTH, floor
from xlift.tasks.encoded import Batch, Builder, Encoded
from xlift.tasks.family import Family, permuted, prediction_frame

if TYPE_CHECKING:
    from tokenizers import Tokenizer

QUERY_ROWS = 512
"""Queries searched at a time."""


class DualEncoderHead(nn.Module):
    """No projection, only the learnable logit scale of the in-batch softmax (initially 20, as log)."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(20.0).log())


class Retrieval(Family):
    """Queries searched in the documents of their own split and pool."""

    name = "retrieval"
    columns: ClassVar[Mapping[str, pl.DataType]] = {
        "role": pl.String(),
        "text": pl.String(),
        "pool": pl.String(),
        "gold": pl.List(pl.String()),
    }
    whole_batch = True

    def check_values(self, frame: pl.DataFrame, task: Task) -> None:
        if unknown := sorted(set(frame["role"]) - {"query", "document"}):
            raise UserError(f"data of {task.name}: unknown role {unknown[0]!r}; use query or document")
        documents = set(frame.filter(pl.col("role") == "document").select("split", "pool", "id").rows())
        if len(documents) != (frame["role"] == "document").sum():
            raise UserError(f"data of {task.name}: a document's id appears twice in a pool; give each its own")
        for split, pool, identifier, gold in (
            frame.filter(pl.col("role") == "query").select("split", "pool", "id", "gold").iter_rows()
        ):
            if not gold or any((split, pool, g) not in documents for g in gold):
                raise UserError(
                    f"data of {task.name}: query {identifier!r} has no right document in pool {pool!r} of {split}; "
                    "add it or drop the query"
                )

    def encode(self, frame: pl.DataFrame, tokenizer: Tokenizer, task: Task, max_length: int, stride: int) -> Encoded:
        tokenizer.enable_truncation(max_length)
        builder = Builder()
        place = {
            (split, pool, identifier): row
            for row, (split, pool, identifier, role) in enumerate(
                frame.select("split", "pool", "id", "role").iter_rows()
            )
            if role == "document"
        }
        encodings = tokenizer.encode_batch([task.query_prefix + text for text in frame["text"]])
        for (split, pool, role, gold), encoding in zip(
            frame.select("split", "pool", "role", "gold").iter_rows(), encodings, strict=True
        ):
            # A document points at itself, a query at the row of its (first) right document.
            builder.example(
                split, query=int(role == "query"), gold=place[split, pool, gold[0]] if role == "query" else -1
            )
            builder.sequence(encoding.ids, encoding.type_ids, {})
        return builder.build()

    def head(self, hidden: int, task: Task, dropout: float) -> nn.Module:
        return DualEncoderHead()

    def training_examples(self, encoded: Encoded) -> Tensor:
        train = encoded.examples("train")
        return train[encoded.by_example["query"][train] == 1]

    def sequences(self, encoded: Encoded, examples: Tensor) -> Tensor:
        """The given rows, then each right document that is not among them, once and in order."""
        gold = encoded.by_example["gold"][examples].unique()
        return torch.cat([examples, gold[(gold >= 0) & ~torch.isin(gold, examples)]])

    def loss(self, head: nn.Module, hidden: Tensor, batch: Batch, encoded: Encoded) -> Tensor:
        """In-batch softmax: each query against every document of the optimiser step."""
        vectors = mean_pooled(hidden, batch.mask)
        rows = encoded.owner[batch.sequences]
        queries = encoded.by_example["query"][rows] == 1
        wanted = encoded.by_example["gold"][rows[queries]]
        targets = torch.searchsorted(rows[~queries], wanted).to(vectors.device)
        assert isinstance(head, DualEncoderHead)
        scores = head.log_scale.clamp(max=4.6).exp() * vectors[queries] @ vectors[~queries].T
        return F.cross_entropy(scores, targets, reduction="sum")

    def without_content(self, encoded: Encoded, examples: Tensor, generator: torch.Generator) -> dict[str, Any]:
        """Right documents permuted among the queries."""
        gold = permuted(encoded.by_example["gold"], examples, generator)
        return {"by_example": {**encoded.by_example, "gold": gold}}

    def outputs(self, head: nn.Module, hidden: Tensor, batch: Batch) -> Tensor:
        return mean_pooled(hidden, batch.mask)

    def decode(
        self, frame: pl.DataFrame, task: Task, encoded: Encoded, examples: Tensor, outputs: list[Tensor]
    ) -> pl.DataFrame:
        vectors = torch.stack(outputs)
        rows = frame[examples.tolist()].with_row_index("place")
        documents = rows.filter(pl.col("role") == "document")
        queries = rows.filter(pl.col("role") == "query")
        predictions: list[list[str]] = []
        places: list[int] = []
        for (split, pool), group in queries.group_by("split", "pool", maintain_order=True):
            pooled = documents.filter((pl.col("split") == split) & (pl.col("pool") == pool)).sort("id")
            best = search(vectors[group["place"].to_list()], vectors[pooled["place"].to_list()], RANKING_DEPTH)
            identifiers = pooled["id"].to_list()
            predictions += [[identifiers[i] for i in ranking] for ranking in best.tolist()]
            places += group["place"].to_list()
        chosen = examples[torch.tensor(places, dtype=torch.int64)]
        return prediction_frame(frame, chosen, predictions, frame["gold"][chosen.tolist()].to_list())

    def floor(self, frame: pl.DataFrame, task: Task, predictions: pl.DataFrame) -> float:
        """Ranking each query's pool at random."""
        documents = frame.filter(pl.col("role") == "document").group_by("pool").agg(size=pl.len())
        queries = frame.filter(pl.col("role") == "query").select("language", "id", "pool")
        sizes = predictions.join(queries, on=["language", "id"], maintain_order="left").join(
            documents, on="pool", maintain_order="left"
        )
        return floor(
            task.metrics[0],
            predictions["gold"].to_list(),
            SOURCE_LANGUAGE,
            pool_sizes=sizes["size"].to_list(),
        )


def mean_pooled(hidden: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over all tokens, special ones included, L2-normalised, in fp32: [sequences, hidden]."""
    hidden = hidden.float()
    if mask is None:
        return F.normalize(hidden.mean(1), dim=-1)
    weights = mask[..., None].to(hidden.dtype)
    return F.normalize((hidden * weights).sum(1) / weights.sum(1), dim=-1)


def search(queries: Tensor, documents: Tensor, best: int) -> Tensor:
    """Indices of the `best` most similar documents of each query, best first: [queries, min(best, documents)].

    Exact search by dot product in chunks of queries; ties go to the earlier document.
    """
    found = []
    for chunk in queries.split(QUERY_ROWS):
        scores = chunk @ documents.T
        found.append(scores.sort(dim=1, descending=True, stable=True).indices[:, :best])
    return torch.cat(found)
