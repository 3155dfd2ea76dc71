"""Retrieval: mean-pooled, normalised states; exact search in a pool; a dual encoder where there is training data;
bitext mining."""

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
from xlift.metrics import RANKING_DEPTH, floor, margin_threshold
from xlift.tasks.bitext import mine
from xlift.tasks.encoded import Batch, Builder, Encoded
from xlift.tasks.family import Family, permuted, prediction_frame
from xlift.tasks.search import search

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

MARGIN = "margin"
"""Column of mined pairs: their margin; null where nothing was mined."""


class DualEncoderHead(nn.Module):
    """No projection, only the learnable logit scale of the in-batch softmax (initially 20, as log)."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(20.0).log())


class Retrieval(Family):
    """Queries searched in the documents of their own split and pool.

    Without a recipe an encoder's states are read as they are, or as the task's stages leave them, at `middle_layer` or,
    of an encoder of sentences, the last; with one a dual encoder is trained. A document may have a second text beside
    its own, such as the paragraph that it stands in (`text_b`), and is then encoded as a pair. A task of the metric
    `bitext_f1` mines pairs: a query (a source sentence) may have no right document, predictions have the one that was
    mined or none, and the least margin of a mined pair is chosen on dev rows of the same language.
    """

    name = "retrieval"
    columns: ClassVar[Mapping[str, pl.DataType]] = {
        "role": pl.String(),
        "text": pl.String(),
        "pool": pl.String(),
        "gold": pl.List(pl.String()),
    }
    optional_columns: ClassVar[Mapping[str, pl.DataType]] = {"text_b": pl.String()}
    meanings: ClassVar[Mapping[str, str]] = {
        "role": "`query` or `document`.",
        "text": "The text.",
        "text_b": "Second text of a document that has one, such as the paragraph around a sentence; may be null.",
        "pool": "The pool of documents that it is of or searched in.",
        "gold": "Ids of a query's right documents in its pool; empty of a document.",
        "rank": "Place of the best right document in the whole pool, from 1.",
        "pool_size": "Documents of the pool.",
        MARGIN: "Margin of the pair; null where no pair was proposed.",
    }
    whole_batch = True
    outputs_on_device = True

    def check_values(self, frame: pl.DataFrame, task: Task) -> None:
        if unknown := sorted(set(frame["role"]) - {"query", "document"}):
            raise UserError(f"data of {task.name}: unknown role {unknown[0]!r}; use query or document")
        documents = set(frame.filter(pl.col("role") == "document").select("split", "pool", "id").rows())
        if len(documents) != (frame["role"] == "document").sum():
            raise UserError(f"data of {task.name}: a document's id appears twice in a pool; give each its own")
        for split, pool, identifier, gold in (
            frame.filter(pl.col("role") == "query").select("split", "pool", "id", "gold").iter_rows()
        ):
            if not (gold or mines(task)) or any((split, pool, name) not in documents for name in gold):
                raise UserError(
                    f"data of {task.name}: query {identifier!r} has no right document in pool {pool!r} of {split}; "
                    "add it or drop the query"
                )
        if mines(task):
            _check_pairs(frame, task)

    def encode(self, frame: pl.DataFrame, tokenizer: Tokenizer, task: Task, max_length: int, stride: int) -> Encoded:
        builder = Builder()
        place = {
            (split, pool, identifier): row
            for row, (split, pool, identifier, role) in enumerate(
                frame.select("split", "pool", "id", "role").iter_rows()
            )
            if role == "document"
        }
        roles = frame["role"].to_list()
        firsts = [
            place[split, pool, gold[0]] if role == "query" and gold else -1
            for split, pool, role, gold in frame.select("split", "pool", "role", "gold").iter_rows()
        ]
        answers = [] if task.direct else _same_answer(frame, place)
        encodings = iter(_encodings(frame, tokenizer, max_length, task.document_length or max_length))
        for row, (split, role, first) in enumerate(zip(frame["split"], roles, firsts, strict=True)):
            # A query points at the row of its (first) right document.
            facts = {} if task.direct else {"answer": answers[row]}
            builder.example(split, query=int(role == "query"), gold=first, **facts)
            encoding = next(encodings)
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
        """In-batch softmax: each query against its document and every other one of the optimiser step.

        Documents that answer the query as well as its own does (see `_same_answer`) are not among the others.
        """
        vectors = mean_pooled(hidden, batch.mask)
        rows = encoded.owner[batch.sequences]
        queries = encoded.by_example["query"][rows] == 1
        wanted = encoded.by_example["gold"][rows[queries]]
        targets = torch.searchsorted(rows[~queries], wanted).to(vectors.device)
        assert isinstance(head, DualEncoderHead)
        scores = head.log_scale.clamp(max=4.6).exp() * vectors[queries] @ vectors[~queries].T
        answer = encoded.by_example["answer"]
        twins = (answer[wanted][:, None] == answer[rows[~queries]]).to(vectors.device)
        twins[torch.arange(len(wanted), device=vectors.device), targets] = False
        scores = scores.masked_fill(twins, -torch.inf)
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
        decode = _mined if mines(task) else _ranked
        answers = []
        for (split, pool), group in queries.group_by("split", "pool", maintain_order=True):
            pooled = documents.filter((pl.col("split") == split) & (pl.col("pool") == pool)).sort("id")
            answers.append(decode(group, pooled, vectors).with_columns(place=group["place"]))
        schema = {"prediction": pl.List(pl.String()), **self.further_columns(task), "place": pl.UInt32()}
        found = pl.concat([pl.DataFrame(schema=schema), *answers])
        chosen = examples[found["place"].cast(pl.Int64).to_torch()]
        golds = frame["gold"][chosen.tolist()].to_list()
        further = [found[column] for column in self.further_columns(task)]
        return prediction_frame(frame, chosen, found["prediction"].to_list(), golds, further)

    def further_columns(self, task: Task) -> Mapping[str, pl.DataType]:
        return {MARGIN: pl.Float64()} if mines(task) else {"rank": pl.Int64(), "pool_size": pl.Int64()}

    def dev_in_every_language(self, task: Task) -> bool:
        return mines(task)

    def calibrates(self, task: Task) -> bool:
        return mines(task)

    def calibrate(self, task: Task, predictions: pl.DataFrame) -> dict[str, Any]:
        """For each language the margin from which mined pairs are kept, by which its F1 is best."""
        if not mines(task):
            return {}
        chosen = {}
        for (language,), rows in predictions.sort("language").group_by("language", maintain_order=True):
            mined = rows.filter(pl.col(MARGIN).is_not_null())
            right = [p[0] in gold for p, gold in mined.select("prediction", "gold").iter_rows()]
            total = int(rows["gold"].list.len().sum())
            chosen[str(language)] = margin_threshold(mined[MARGIN].to_list(), right, total)
        return {"margin_threshold": chosen}

    def calibrated(self, task: Task, predictions: pl.DataFrame, chosen: Mapping[str, Any]) -> pl.DataFrame:
        """Pairs below their language's threshold are not predicted; their margin stays."""
        if not mines(task):
            return predictions
        thresholds = chosen["margin_threshold"]
        if missing := sorted(set(predictions["language"]) - thresholds.keys()):
            raise UserError(f"data of {task.name}: {missing[0]} has no dev rows to choose a threshold on; add them")
        least = pl.col("language").replace_strict(thresholds, return_dtype=pl.Float64)
        nothing = pl.lit([], dtype=pl.List(pl.String()))
        kept = pl.when(pl.col(MARGIN) >= least).then("prediction").otherwise(nothing)
        return predictions.with_columns(prediction=kept)

    def layer(self, task: Task, layers: int, sentence: bool) -> int | None:
        """The last where the states were trained for it, else `middle_layer`."""
        return middle_layer(layers) if task.direct and not sentence else None

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


def _check_pairs(frame: pl.DataFrame, task: Task) -> None:
    """Refuse a mining task with training, or with a language that has no gold pairs in test or dev."""
    if not task.direct or task.metrics[0] != "bitext_f1":
        raise UserError(f"{task.name}: bitext_f1 is the first metric of a task without a recipe; correct its entry")
    pairs = frame.filter(pl.col("role") == "query").group_by("split", "language").agg(pl.col("gold").list.len().sum())
    known = {(split, language) for split, language, number in pairs.iter_rows() if number}
    for language in sorted(set(frame.filter(pl.col("role") == "query")["language"])):
        for split in ("dev", "test"):
            if (split, language) not in known:
                raise UserError(
                    f"data of {task.name}: {language} has no gold pair in {split}; add its rows or leave the language "
                    "out"
                )


def middle_layer(layers: int) -> int:
    """The layer read for retrieval where nothing was trained for it; states nearer the end are about masked words.

    14 of 24, as XTREME and jiant read XLM-R Large, and by analogy 8 of 12; of another number, seven twelfths (which 14
    of 24 is), rounded, and at least the first.
    """
    return {12: 8, 24: 14}.get(layers, max(1, round(layers * 7 / 12)))


def mines(task: Task) -> bool:
    """Whether pairs are mined from two collections, instead of each query having its right documents."""
    return task.metrics[0] == "bitext_f1"


def prefixed(frame: pl.DataFrame, query: str, document: str) -> pl.DataFrame:
    """The rows with the words that an encoder wants before queries and documents (E5's "query: ")."""
    before = pl.when(pl.col("role") == "query").then(pl.lit(query)).otherwise(pl.lit(document))
    return frame.with_columns(text=before + pl.col("text"))


def _encodings(frame: pl.DataFrame, tokenizer: Tokenizer, query: int, document: int) -> list[Encoding]:
    """Tokens of each row, of at most `query` or `document` tokens; of a pair the longer text loses its end."""
    second = frame["text_b"] if "text_b" in frame.columns else [None] * frame.height
    inputs = [a if b is None else (a, b) for a, b in zip(frame["text"], second, strict=True)]
    found: dict[int, Encoding] = {}
    for role, length in (("query", query), ("document", document)):
        rows = [row for row, name in enumerate(frame["role"]) if name == role]
        tokenizer.enable_truncation(length, strategy="longest_first")
        found |= zip(rows, tokenizer.encode_batch([inputs[row] for row in rows]), strict=True)
    return [found[row] for row in range(frame.height)]


def _same_answer(frame: pl.DataFrame, place: Mapping[tuple[str, str, str], int]) -> list[int]:
    """For each document's row the first row that answers the same questions; -1 for a query's.

    Documents with the same text answer the same, and so do all right documents of a query or of queries with the same
    words, and what is the same as the same.
    """
    same = list(range(frame.height))

    def root(row: int) -> int:
        while same[row] != row:
            same[row] = same[same[row]]
            row = same[row]
        return row

    context = frame["text_b"] if "text_b" in frame.columns else [None] * frame.height
    known: dict[tuple[Any, ...], int] = {}
    rows = frame.select("split", "pool", "role", "text", "gold").iter_rows()
    for row, ((split, pool, role, text, gold), beside) in enumerate(zip(rows, context, strict=True)):
        documents = [row] if role == "document" else [place[split, pool, name] for name in gold]
        for document in documents:
            first, second = sorted((root(known.setdefault((split, role, text, beside), document)), root(document)))
            same[second] = first
    return [root(row) if role == "document" else -1 for row, role in enumerate(frame["role"])]


def _ranked(queries: pl.DataFrame, documents: pl.DataFrame, vectors: Tensor) -> pl.DataFrame:
    """The best documents of each query, the rank of its best right one, and how many documents there are."""
    identifiers = documents["id"].to_list()
    places = {identifier: place for place, identifier in enumerate(identifiers)}
    golds = [[places[name] for name in gold] for gold in queries["gold"]]
    found = search(_rows(vectors, queries), _rows(vectors, documents), RANKING_DEPTH, golds)
    assert found.rank is not None
    return pl.DataFrame(
        {
            "prediction": [[identifiers[place] for place in ranking] for ranking in found.places.tolist()],
            "rank": found.rank.tolist(),
            "pool_size": [len(identifiers)] * len(golds),
        },
        schema={"prediction": pl.List(pl.String()), "rank": pl.Int64(), "pool_size": pl.Int64()},
    )


def _mined(queries: pl.DataFrame, documents: pl.DataFrame, vectors: Tensor) -> pl.DataFrame:
    """The document mined for each query, if any, and the margin of the two."""
    identifiers = documents["id"].to_list()
    texts = queries["text"].to_list(), documents["text"].to_list()
    pairs = {pair.source: pair for pair in mine(_rows(vectors, queries), _rows(vectors, documents), *texts)}
    found = [pairs.get(row) for row in range(queries.height)]
    return pl.DataFrame(
        {
            "prediction": [[] if pair is None else [identifiers[pair.target]] for pair in found],
            MARGIN: [None if pair is None else pair.margin for pair in found],
        },
        schema={"prediction": pl.List(pl.String()), MARGIN: pl.Float64()},
    )


def _rows(vectors: Tensor, rows: pl.DataFrame) -> Tensor:
    return vectors[rows["place"].to_list()]
