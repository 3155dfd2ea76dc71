"""Metrics of rankings: accuracy@1, the same at a common pool size, mAP@20."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb, fsum

from xlift.errors import UserError
from xlift.metrics.rows import Rows, mean_points, require

RANKING_DEPTH = 20
"""Documents of a ranking that are kept and scored."""
COMMON_POOL = 200
"""Documents in a pool of the common size: a little below the smallest of Tatoeba's (205, Javanese)."""


def accuracy_at_1(rankings: Rows, golds: Rows) -> float:
    """Share of queries whose first document is right, in points. Rankings are document ids, best first."""
    require("ranking", rankings, golds)
    return mean_points([float(ranking[0] in gold) for ranking, gold in zip(rankings, golds, strict=True)])


def accuracy_at_1_common(ranks: Sequence[int], pool_sizes: Sequence[int], common: int = COMMON_POOL) -> float:
    """Accuracy@1 in a pool of `common` documents, in points: each query's own and others drawn at random from its pool.

    The expectation over all draws, exactly. The right document is at rank r of N (`ranks`, `pool_sizes`, one a query),
    so r - 1 documents beat it, and it is first where none of them is among the m - 1 that are drawn from the N - 1
    others: C(N - r, m - 1) / C(N - 1, m - 1). A pool of no more than `common` documents is taken whole. Pools of
    different sizes are not equally hard, and the small ones are mostly low-resource languages'.
    """
    if len(ranks) != len(pool_sizes) or not ranks:
        raise UserError(f"{len(ranks)} ranks for {len(pool_sizes)} pool sizes: give one of each a query.")
    shares = []
    for rank, size in zip(ranks, pool_sizes, strict=True):
        if not 1 <= rank <= size:
            raise UserError(f"Rank {rank} in a pool of {size}: give ranks from 1 to the pool's size.")
        drawn = min(common, size) - 1
        shares.append(comb(size - rank, drawn) / comb(size - 1, drawn))
    return mean_points(shares)


def map_at_20(rankings: Rows, golds: Rows) -> float:
    """Mean over queries of AP@20 / min(number of right documents, 20), in points.

    AP@20 is the sum, over the ranks k <= 20 that hold a right document, of the precision at k. A query whose
    20 best are all right scores 100 however many right documents the pool has. XTREME-R (Ruder et al. 2021)
    computes it so for LAReQA: google-research/xtreme, third_party/utils_lareqa.py, commit e23cf42f. With one
    right document, as in Mewsli-X, it is MRR@20, which that repository's evaluate.py (commit da430dd0) prints as
    map@20; it has no metric for LAReQA.
    """
    require("ranking", rankings, golds)
    shares = []
    for ranking, gold in zip(rankings, golds, strict=True):
        right, hits, precision_sum = set(gold), 0, 0.0
        for rank, document in enumerate(ranking[:RANKING_DEPTH], start=1):
            if document in right:
                hits += 1
                precision_sum += hits / rank
        shares.append(precision_sum / min(len(right), RANKING_DEPTH))
    return mean_points(shares)


def random_ranking(metric: str, golds: Rows, pool_sizes: Sequence[int]) -> float:
    """Expected score of ranking each query's pool at random, in points."""
    if metric == "accuracy_at_1_common":
        pool_sizes = [min(size, COMMON_POOL) for size in pool_sizes]
    shares = []
    for gold, pool in zip(golds, pool_sizes, strict=True):
        right = len(gold)
        if pool < right:
            raise UserError(f"{right} right documents in a pool of {pool}: give the whole pool's size.")
        if metric != "map_at_20":
            shares.append(right / pool)
            continue
        # A right document at rank k (probability right / pool) has precision 1/k times itself and the right
        # ones expected among the k - 1 before it.
        others = (right - 1) / (pool - 1) if pool > 1 else 0.0
        ranks = range(1, min(pool, RANKING_DEPTH) + 1)
        expected = fsum(right / pool * (1 + (k - 1) * others) / k for k in ranks)
        shares.append(expected / min(right, RANKING_DEPTH))
    return mean_points(shares)
