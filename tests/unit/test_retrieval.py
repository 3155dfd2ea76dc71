"""Retrieval: pools, pooling, the dual encoder's loss, what is encoded."""

from __future__ import annotations

import dataclasses
import math

import polars as pl
import pytest
import torch

from encoding import encode
from toy import toy_frame, toy_task
from xlift.errors import UserError
from xlift.metrics import score_predictions
from xlift.tasks.encoded import collate
from xlift.tasks.families import FAMILIES
from xlift.tasks.retrieval import DualEncoderHead, mean_pooled, middle_layer, prefixed


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


def step_loss(encoded, frame, names):
    """Loss of one training step over queries with these ids, and the same from plain numbers over given documents."""
    family = FAMILIES["retrieval"]
    numbers = {identifier: row for row, identifier in enumerate(frame["id"]) if frame["split"][row] == "train"}
    batch = collate(encoded, family.sequences(encoded, torch.tensor([numbers[name] for name in names])), 1)
    hidden = torch.randn(*batch.tokens.shape, 5, generator=torch.Generator().manual_seed(3), requires_grad=True)
    vectors = {}
    for row, place in enumerate(batch.sequences.tolist()):
        pooled = hidden[row, : batch.lengths[row]].mean(0)
        vectors[frame["id"][place]] = (pooled / pooled.norm()).tolist()
    loss = family.loss(DualEncoderHead(), hidden, batch, encoded)
    loss.backward()
    assert torch.isfinite(hidden.grad).all()

    def plain(query, gold, documents):
        scores = {d: 20 * sum(map(float.__mul__, vectors[query], vectors[d])) for d in documents}
        return math.log(sum(map(math.exp, scores.values()))) - scores[gold]

    return loss.item(), plain


def golds_replaced(frame, name, new):
    replaced = pl.when(pl.col("id") == name).then(pl.lit(new)).otherwise("gold").alias("gold")
    return frame.with_columns(replaced)


def test_documents_with_the_same_text_are_no_negatives(tokenizer):
    frame, task = toy_frame("retrieval"), toy_task("retrieval")
    copied = frame.filter(split="train", id="d0")["text"][0]
    frame = frame.with_columns(text=pl.when(id="d2", split="train").then(pl.lit(copied)).otherwise("text"))
    encoded = encode("retrieval", tokenizer, frame, task)
    found, plain = step_loss(encoded, frame, ["q0", "q2", "q4"])
    expected = plain("q0", "d0", ("d0", "d4")) + plain("q2", "d2", ("d2", "d4")) + plain("q4", "d4", ("d0", "d2", "d4"))
    assert found == pytest.approx(expected, rel=1e-5)
    # With another context beside it the same sentence is another document.
    frame = frame.with_columns(text_b=pl.when(id="d2").then(pl.lit("near")))
    encoded = encode("retrieval", tokenizer, frame, task)
    found, plain = step_loss(encoded, frame, ["q0", "q2", "q4"])
    every = ("d0", "d2", "d4")
    assert found == pytest.approx(sum(plain(f"q{i}", f"d{i}", every) for i in (0, 2, 4)), rel=1e-5)


def test_other_right_documents_of_a_query_are_no_negatives(tokenizer):
    frame, task = toy_frame("retrieval"), toy_task("retrieval")
    frame = golds_replaced(frame, "q0", ["d0", "d2"])
    encoded = encode("retrieval", tokenizer, frame, task)
    found, plain = step_loss(encoded, frame, ["q0", "q2", "q4"])
    expected = plain("q0", "d0", ("d0", "d4")) + plain("q2", "d2", ("d2", "d4")) + plain("q4", "d4", ("d0", "d2", "d4"))
    assert found == pytest.approx(expected, rel=1e-5)


def test_right_documents_of_a_query_with_the_same_words_are_no_negatives(tokenizer):
    frame, task = toy_frame("retrieval"), toy_task("retrieval")
    words = frame.filter(split="train", id="q0")["text"][0]
    frame = frame.with_columns(text=pl.when(id="q3", split="train").then(pl.lit(words)).otherwise("text"))
    encoded = encode("retrieval", tokenizer, frame, task)
    found, plain = step_loss(encoded, frame, ["q0", "q3", "q4"])
    expected = plain("q0", "d0", ("d0", "d4")) + plain("q3", "d3", ("d3", "d4")) + plain("q4", "d4", ("d0", "d3", "d4"))
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_step_of_nothing_but_twins_has_no_loss(tokenizer):
    frame, task = toy_frame("retrieval"), toy_task("retrieval")
    frame = golds_replaced(frame, "q0", ["d0", "d2"])
    found, _ = step_loss(encode("retrieval", tokenizer, frame, task), frame, ["q0", "q2"])
    assert found == 0.0


def test_several_right_documents_in_one_pool_of_all_languages(tokenizer):
    # Right sentences in three languages, one pool: all are right, and the rank is that of the best of them.
    common = {"split": "test", "pool": "all", "gold": []}
    documents = [
        common | {"language": code, "id": f"{code}{i}", "role": "document", "text": f"{code} {i}"}
        for code in ("de", "en", "sw")
        for i in range(10)
    ]
    queries = [
        common | {"language": code, "id": "q", "role": "query", "text": "which one", "gold": ["de3", "en3", "sw3"]}
        for code in ("de", "sw")
    ]
    frame = pl.DataFrame(documents + queries).select("split", "language", "id", "role", "text", "pool", "gold")
    task = dataclasses.replace(toy_task("retrieval"), recipe=None, metrics=("map_at_20", "accuracy_at_1"))
    encoded = encode("retrieval", tokenizer, frame, task)
    test = encoded.examples("test")
    angles = torch.arange(30) * 0.05  # the documents in order of falling similarity to angle 0
    places = [*angles.tolist(), 0.0, 0.0]
    outputs = [torch.tensor([math.cos(angle), math.sin(angle)]) for angle in places]
    found = FAMILIES["retrieval"].decode(frame, task, encoded, test, outputs)
    ranking = [f"{code}{i}" for code in ("de", "en", "sw") for i in range(10)]
    assert found["prediction"].to_list() == [ranking[:20]] * 2
    assert found.select("rank", "pool_size").rows() == [(4, 30)] * 2
    # Right at ranks 4 and 14 of the first twenty, three to find: (1/4 + 2/14) / 3.
    assert score_predictions(found, "map_at_20")["score"].to_list() == pytest.approx([100 * (1 / 4 + 2 / 14) / 3] * 2)


def test_rank_and_pool_size_reach_past_the_ranking(tokenizer):
    common = {"split": "test", "language": "de", "pool": "de", "gold": []}
    rows = [common | {"id": f"d{i:02d}", "role": "document", "text": f"one {i}"} for i in range(40)]
    rows.append(common | {"id": "q", "role": "query", "text": "one", "gold": ["d33"]})
    frame = pl.DataFrame(rows).select("split", "language", "id", "role", "text", "pool", "gold")
    task = dataclasses.replace(toy_task("retrieval"), recipe=None, metrics=("accuracy_at_1", "accuracy_at_1_common"))
    encoded = encode("retrieval", tokenizer, frame, task)
    outputs = [torch.tensor([1.0, -i]) for i in range(40)] + [torch.tensor([0.0, 1.0])]
    found = FAMILIES["retrieval"].decode(frame, task, encoded, encoded.examples("test"), outputs)
    assert found.select("rank", "pool_size").rows() == [(34, 40)]
    assert len(found["prediction"][0]) == 20


def test_a_documents_id_may_stand_in_another_pool_too():
    frame = toy_frame("retrieval")
    other = frame.filter(split="test", id="d0").with_columns(pool=pl.lit("third"))
    FAMILIES["retrieval"].check(pl.concat([frame, other]), toy_task("retrieval"))
    query = frame.filter(split="test", id="q0", language="en").with_columns(pool=pl.lit("third"))
    with pytest.raises(UserError, match="an id appears twice"):
        FAMILIES["retrieval"].check(pl.concat([frame, other, query]), toy_task("retrieval"))


# --- What is encoded ---


def test_prefixes_stand_before_queries_and_documents(tokenizer):
    frame = toy_frame("retrieval").filter(split="train")
    task = toy_task("retrieval")
    texts = prefixed(frame, "which: ", "one: ")
    assert texts.drop("text").equals(frame.drop("text"))
    encoded = FAMILIES["retrieval"].encode(texts, tokenizer, task, 32, 0)
    for row, (role, text) in enumerate(frame.select("role", "text").iter_rows()):
        own = encoded.tokens[encoded.offsets[row] : encoded.offsets[row + 1]].tolist()
        assert own == tokenizer.encode(("which: " if role == "query" else "one: ") + text).ids
    assert prefixed(frame, "", "").equals(frame)


def test_a_second_text_is_encoded_as_a_pair_where_there_is_one(tokenizer):
    frame = toy_frame("retrieval").filter(split="test")
    frame = frame.with_columns(text_b=pl.when(role="document").then(pl.lit("some horse near the old goat")))
    encoded = encode("retrieval", tokenizer, frame, dataclasses.replace(toy_task("retrieval"), recipe=None))
    for row, (text, second) in enumerate(frame.select("text", "text_b").iter_rows()):
        own = encoded.tokens[encoded.offsets[row] : encoded.offsets[row + 1]].tolist()
        assert own == (tokenizer.encode(text) if second is None else tokenizer.encode(text, second)).ids
    with pytest.raises(UserError, match="column 'text_b' should be String and is Int64"):
        FAMILIES["retrieval"].check(frame.with_columns(text_b=pl.lit(1, pl.Int64)), toy_task("retrieval"))


@pytest.mark.parametrize(("document_length", "expected"), [(None, 8), (20, 20), (6, 6)])
def test_documents_have_a_length_of_their_own(tokenizer, document_length, expected):
    frame = toy_frame("retrieval").filter(split="test").with_columns(text=pl.lit("some old horse near the goat " * 9))
    task = dataclasses.replace(toy_task("retrieval"), recipe=None, document_length=document_length)
    encoded = encode("retrieval", tokenizer, frame, task, max_length=8, stride=0)
    lengths = dict(zip(["document", "query"], [expected, 8], strict=True))
    assert encoded.lengths.tolist() == [lengths[role] for role in frame["role"]]


# --- The layer ---


@pytest.mark.parametrize(("layers", "expected"), [(24, 14), (12, 8), (6, 4), (36, 21), (2, 1), (1, 1)])
def test_the_middle_layer(layers, expected):
    assert middle_layer(layers) == expected


def test_the_layer_is_the_encoders_affair_where_nothing_is_trained():
    family, trained = FAMILIES["retrieval"], toy_task("retrieval")
    direct = dataclasses.replace(trained, recipe=None)
    assert family.layer(direct, 24, sentence=False) == 14
    assert family.layer(direct, 24, sentence=True) is None
    assert family.layer(trained, 24, sentence=False) is None
    assert FAMILIES["span"].layer(toy_task("span"), 24, sentence=False) is None
