"""Exact search: a stable sort of all similarities, whatever the chunks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xlift.tasks import search as search_module
from xlift.tasks.search import search

SIZES = st.tuples(st.integers(1, 30), st.integers(1, 40), st.integers(1, 25), st.integers(0, 1000))
CHUNKS = st.tuples(st.integers(1, 7), st.integers(1, 9))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SIZES, CHUNKS)
def test_search_is_a_stable_sort_of_all_scores_in_any_chunks(monkeypatch, sizes, chunks):
    queries, documents, best, seed = sizes
    draw = np.random.default_rng(seed)
    # Small integers tie often, and their products are exact.
    left, right = draw.integers(-2, 3, (queries, 3)), draw.integers(-2, 3, (documents, 3))
    golds = [draw.choice(documents, draw.integers(1, documents + 1), replace=False).tolist() for _ in range(queries)]
    order = np.argsort(-(left @ right.T), axis=1, kind="stable")
    monkeypatch.setattr(search_module, "QUERY_ROWS", chunks[0])
    monkeypatch.setattr(search_module, "DOCUMENT_ROWS", chunks[1])
    found = search(torch.tensor(left).float(), torch.tensor(right).float(), best, golds)
    assert found.places.tolist() == order[:, :best].tolist()
    assert found.similarity.tolist() == np.take_along_axis(left @ right.T, order, 1)[:, :best].tolist()
    # The rank of the best right document, counted in the whole order.
    ranks = [min(row.tolist().index(place) for place in gold) + 1 for row, gold in zip(order, golds, strict=True)]
    assert found.rank.tolist() == ranks
    assert search(torch.tensor(left).float(), torch.tensor(right).float(), best).rank is None


@pytest.mark.parametrize("size", [4, 384])
def test_real_vectors_give_the_same_in_any_chunks(monkeypatch, size):
    generator = torch.Generator().manual_seed(0)
    queries = torch.nn.functional.normalize(torch.randn(60, size, generator=generator), dim=-1)
    documents = torch.nn.functional.normalize(torch.randn(230, size, generator=generator), dim=-1)
    documents[200:230] = documents[:30]  # the very same again, far away: their ties go to the earlier one
    golds = [[199 - row, 201] for row in range(60)]
    found = {}
    for chunks in ((512, 16384), (1, 230), (60, 1), (7, 11)):
        monkeypatch.setattr(search_module, "QUERY_ROWS", chunks[0])
        monkeypatch.setattr(search_module, "DOCUMENT_ROWS", chunks[1])
        found[chunks] = search(queries, documents, 20, golds)
    first = found[512, 16384]
    for other in found.values():
        assert torch.equal(other.places, first.places)
        assert torch.equal(other.similarity, first.similarity)
        assert torch.equal(other.rank, first.rank)
    exact = queries.double() @ documents.double().T
    assert torch.equal(first.places, exact.float().sort(dim=1, descending=True, stable=True).indices[:, :20])
    torch.testing.assert_close(first.similarity.double(), exact.gather(1, first.places), atol=1e-6, rtol=0)
    for row in first.places.tolist():
        for place, twin in ((p, p - 200) for p in row if p >= 200):
            assert row.index(twin) < row.index(place)
