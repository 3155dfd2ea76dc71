"""Retrieval: pools, pooling, the dual encoder's loss, what is encoded."""

from __future__ import annotations

import dataclasses
import math

import polars as pl
import pytest
import torch

from encoding import encode
from toy import toy_frame, toy_task
from xlift.metrics import score_predictions
from xlift.tasks.encoded import collate
from xlift.tasks.families import FAMILIES
from xlift.tasks.retrieval import DualEncoderHead, mean_pooled


def test_mean_pooling_by_hand():
    hidden = torch.tensor([[[3.0, 0.0], [0.0, 4.0], [9.0, 9.0]]])
    mask = torch.tensor([[True, True, False]])
    expected = torch.tensor([[0.6, 0.8]])  # mean (1.5, 2), norm 2.5
    torch.testing.assert_close(mean_pooled(hidden, mask), expected)
    torch.testing.assert_close(mean_pooled(hidden[:, :2], None), expected)


def test_retrieval_keeps_pools_and_splits_apart(tokenizer):
    frame, task = toy_frame("retrieval"), toy_task("retrieval")
    encoded = encode("retrieval", tokenizer, frame, task)
    test = encoded.examples("test")
    # Every vector is the same: only pool and order decide.
    outputs = [torch.ones(4) / 2] * len(test)
    found = FAMILIES["retrieval"].decode(frame, task, encoded, test, outputs)
    assert found.height == frame.filter(split="test", role="query").height
    for identifier, prediction in found.select("id", "prediction").iter_rows():
        parity = int(identifier[1:]) % 2
        assert prediction == [f"d{i}" for i in range(4) if i % 2 == parity]
    assert found.select("language", "id").rows() == sorted(found.select("language", "id").rows())


def test_splits_searched_together_stay_apart(tokenizer):
    # The pools of all splits have the same names and ids.
    frame, task = toy_frame("retrieval"), toy_task("retrieval")
    encoded = encode("retrieval", tokenizer, frame, task)
    rows = torch.cat([encoded.examples("dev"), encoded.examples("test")])
    found = FAMILIES["retrieval"].decode(frame, task, encoded, rows, [torch.ones(4) / 2] * len(rows))
    expected = {
        (split, parity): [f"d{i}" for i in range(size) if i % 2 == parity]
        for split, size in (("dev", 8), ("test", 4))
        for parity in (0, 1)
    }
    queries = frame.filter(pl.col("split") != "train", role="query").sort("language", "id", maintain_order=True)
    assert sorted(found["prediction"].to_list()) == sorted(
        expected[split, int(identifier[1:]) % 2] for split, identifier in queries.select("split", "id").rows()
    )


def test_an_oracle_finds_every_document(tokenizer):
    frame, task = toy_frame("retrieval"), toy_task("retrieval")
    encoded = encode("retrieval", tokenizer, frame, task)
    test = encoded.examples("test")
    rows = frame[test.tolist()]
    outputs = [torch.nn.functional.one_hot(torch.tensor(int(i[1:])), 8).float() for i in rows["id"]]
    found = FAMILIES["retrieval"].decode(frame, task, encoded, test, outputs)
    assert score_predictions(found, "accuracy_at_1")["score"].to_list() == [100.0, 100.0]


def test_retrieval_loss_is_the_softmax_over_the_steps_documents(tokenizer):
    frame, task, family = toy_frame("retrieval"), toy_task("retrieval"), FAMILIES["retrieval"]
    # Two queries with one and the same document: it stands in the softmax once.
    shared = pl.col("gold").list.eval(pl.when(pl.element() == "d2").then(pl.lit("d0")).otherwise(pl.element()))
    frame = frame.with_columns(gold=shared)
    encoded = encode("retrieval", tokenizer, frame, task)
    numbers = {identifier: row for row, identifier in enumerate(frame["id"]) if frame["split"][row] == "train"}
    queries = ["q0", "q2", "q5", "q1", "q5"]
    chosen = torch.tensor([numbers[name] for name in queries])
    batch = collate(encoded, family.sequences(encoded, chosen), 1)
    assert sorted(frame["id"][batch.sequences.tolist()]) == sorted([*queries, "d0", "d1", "d5"])
    hidden = torch.randn(*batch.tokens.shape, 5, generator=torch.Generator().manual_seed(3))
    vectors = {}
    for row, place in enumerate(batch.sequences.tolist()):
        pooled = hidden[row, : batch.lengths[row]].mean(0)
        vectors.setdefault(frame["id"][place], []).append((pooled / pooled.norm()).tolist())
    expected = 0.0
    for query, gold in (("q0", "d0"), ("q2", "d0"), ("q5", "d5"), ("q1", "d1"), ("q5", "d5")):
        vector = vectors[query].pop(0)
        scores = {d: 20 * sum(map(float.__mul__, vector, vectors[d][0])) for d in ("d0", "d1", "d5")}
        expected += math.log(sum(map(math.exp, scores.values()))) - scores[gold]
    assert family.loss(DualEncoderHead(), hidden, batch, encoded).item() == pytest.approx(expected, rel=1e-5)


def test_queries_carry_the_tasks_prefix(tokenizer):
    frame = toy_frame("retrieval").filter(split="train")
    task = dataclasses.replace(toy_task("retrieval"), query_prefix="query: ")
    encoded = FAMILIES["retrieval"].encode(frame, tokenizer, task, 32, 0)
    expected = tokenizer.encode(f"query: {frame['text'][0]}").ids
    assert encoded.tokens[: len(expected)].tolist() == expected
