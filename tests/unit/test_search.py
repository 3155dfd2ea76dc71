"""Exact search: a stable sort of all similarities, whatever the chunks."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xlift.tasks.search import search


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.integers(1, 40), st.integers(1, 25), st.integers(0, 1000))
def test_search_is_a_stable_sort_of_all_scores(queries, documents, best, seed):
    draw = np.random.default_rng(seed)
    # Small integers tie often, and their products are exact.
    left, right = draw.integers(-2, 3, (queries, 3)), draw.integers(-2, 3, (documents, 3))
    expected = np.argsort(-(left @ right.T), axis=1, kind="stable")[:, :best]
    found = search(torch.tensor(left).float(), torch.tensor(right).float(), best)
    assert found.tolist() == expected.tolist()


def test_search_over_more_queries_than_a_chunk():
    generator = torch.Generator().manual_seed(0)
    queries, documents = torch.randn(1100, 4, generator=generator), torch.randn(9, 4, generator=generator)
    assert torch.equal(search(queries, documents, 9), (queries @ documents.T).argsort(1, descending=True))
