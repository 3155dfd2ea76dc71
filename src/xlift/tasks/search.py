"""Exact nearest-neighbour search by dot product, on the vectors' device, in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

QUERY_ROWS = 512
DOCUMENT_ROWS = 16384
"""Queries and documents compared at a time: 64 MiB of similarities."""
_PLACES = 2**32
"""More than any pool's documents."""


@dataclass(frozen=True)
class Found:
    """The best documents of each query, best first: `places` int64 and `similarity` float32 [queries, best].

    `rank` int64 [queries]: place of the best right document in the whole ranking, from 1, where right ones were given.
    """

    places: Tensor
    similarity: Tensor
    rank: Tensor | None


def search(queries: Tensor, documents: Tensor, best: int, golds: Sequence[Sequence[int]] | None = None) -> Found:
    """The `best` most similar documents (or all, where there are fewer) of each query. Results are on the CPU.

    `queries` [queries, size], `documents` [documents, size] float32; `golds`: places of each query's right documents.
    Ties go to the earlier document. Products are summed in float64 and rounded to float32 once, so that neither equal
    documents nor equal searches in other chunks differ by the order of summation.
    """
    found = [
        _search_rows(chunk, documents, min(best, len(documents)), rows)
        for chunk, rows in zip(queries.split(QUERY_ROWS), _gold_chunks(golds, len(queries)), strict=True)
    ]
    keys = torch.cat([keys for keys, _ in found])
    ranks = [rank for _, rank in found if rank is not None]
    places, similarity = _from_keys(keys.cpu())
    return Found(places, similarity, torch.cat(ranks).cpu() if ranks else None)


def _gold_chunks(golds: Sequence[Sequence[int]] | None, queries: int) -> list[Sequence[Sequence[int]] | None]:
    starts = range(0, queries, QUERY_ROWS)
    return [None if golds is None else golds[start : start + QUERY_ROWS] for start in starts]


def _search_rows(
    queries: Tensor, documents: Tensor, best: int, golds: Sequence[Sequence[int]] | None
) -> tuple[Tensor, Tensor | None]:
    """Keys of the best documents [queries, best], sorted, and ranks [queries] of the best right ones."""
    queries = queries.double()
    top = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    gold_keys = None if golds is None else _gold_keys(queries, documents, golds)
    better = torch.zeros(len(queries), dtype=torch.int64, device=queries.device)
    for first in range(0, len(documents), DOCUMENT_ROWS):
        chunk = documents[first : first + DOCUMENT_ROWS]
        similarity = (queries @ chunk.double().T).float()
        keys = _keys(similarity, torch.arange(first, first + len(chunk), device=queries.device))
        top = torch.cat([top, keys], 1)
        top = top.topk(min(best, top.shape[1]), dim=1).values
        if gold_keys is not None:
            better += (keys > gold_keys[:, None]).sum(1)
    return top, None if gold_keys is None else better + 1


def _gold_keys(queries: Tensor, documents: Tensor, golds: Sequence[Sequence[int]]) -> Tensor:
    """Key of each query's best right document [queries]."""
    best = torch.full((len(queries),), torch.iinfo(torch.int64).min, device=queries.device)
    rows = torch.tensor([row for row, gold in enumerate(golds) for _ in gold], device=queries.device)
    places = torch.tensor([place for gold in golds for place in gold], device=queries.device)
    similarity = (queries[rows] * documents[places].double()).sum(1).float()
    return best.scatter_reduce(0, rows, _keys(similarity, places), "amax")


def _keys(similarity: Tensor, places: Tensor) -> Tensor:
    """One whole number a document that is larger for a larger similarity and, among equals, for an earlier place."""
    # The bits of a positive float sort as whole numbers do; those of a negative one the other way round. + 0.0: no -0.
    bits = (similarity + 0.0).view(torch.int32).to(torch.int64)
    return torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits) * _PLACES + (_PLACES - 1 - places)


def _from_keys(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Places and similarities of keys."""
    bits = keys >> 32
    similarity = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).to(torch.int32).view(torch.float32)
    return _PLACES - 1 - (keys & (_PLACES - 1)), similarity
