"""Prediction and its cost: independent of batching, the same merged or not, FLOPs as torch counts them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import polars as pl
import pytest
import torch
from tokenizers import Tokenizer
from torch.nn.attention import SDPBackend, sdpa_kernel

from runs import flop_counter
from toy import toy_frame, toy_task
from xlift import predict
from xlift.encoder.adapt import Trainable, make_trainable, trained_state
from xlift.encoder.model import load_encoder
from xlift.errors import UserError
from xlift.predict import forward, predict_cell, predict_split
from xlift.tasks.encoded import collate
from xlift.tasks.families import FAMILIES
from xlift.tasks.retrieval import mean_pooled
from xlift.training.cost import EncoderShape, forward_flops, training_flops
from xlift.training.run import encoder_shape

CPU = torch.device("cpu")
FAMILY_NAMES = sorted(FAMILIES)
CELL = {"precision": "fp32", "threads": 1}


def prepared(family: str, folder: Path):
    """Task, rows, tokens, encoder and a fixed random head."""
    torch.manual_seed(3)
    task, frame = toy_task(family), toy_frame(family)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    encoded = FAMILIES[family].encode(frame, tokenizer, task, 24, 8)
    encoder = load_encoder(folder, dtype=torch.float32, device=CPU, dropout=0.0)
    head = FAMILIES[family].head(encoder.hidden_size, task, 0.0)
    return task, frame, encoded, encoder, head


def moved(folder: Path, trainable: Trainable):
    """An encoder whose trained weights are away from where they start, and their state."""
    encoder = load_encoder(folder, dtype=torch.float32, device=CPU, dropout=0.0)
    make_trainable(encoder, trainable, seed=1)
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for _, parameter in sorted(encoder.named_parameters()):
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return encoder, trained_state(encoder)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_outputs_do_not_depend_on_the_company_in_a_batch(family, tiny_encoder, compute, monkeypatch):
    _, _, encoded, encoder, head = prepared(family, tiny_encoder)
    rows = FAMILIES[family].sequences(encoded, encoded.examples("test"))
    found = {}
    for cap in (1, 90, 100_000):
        monkeypatch.setitem(predict.BATCH_TOKENS, "cpu", cap)
        found[cap] = forward(encoder, head, FAMILIES[family], encoded, rows, compute)
        shuffled = torch.randperm(len(rows), generator=torch.Generator().manual_seed(cap))
        again = forward(encoder, head, FAMILIES[family], encoded, rows[shuffled], compute)
        for place, output in zip(shuffled.tolist(), again, strict=True):
            torch.testing.assert_close(output, found[cap][place], atol=1e-5, rtol=1e-5)
    lengths = encoded.lengths[rows].tolist()
    for one, few, all_together, length in zip(*found.values(), lengths, strict=True):
        assert one.shape[:1] == (length,) or not FAMILIES[family].outputs_by_token
        torch.testing.assert_close(one, few, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(one, all_together, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_rows_are_complete_and_sorted(family, tiny_encoder, compute):
    task, frame, encoded, encoder, head = prepared(family, tiny_encoder)
    for split in ("dev", "test"):
        found = predict_split(task, encoder, head, frame, encoded, split, compute)
        expected = frame.filter(split=split)
        if family == "retrieval":
            expected = expected.filter(role="query")
        assert found.select("language", "id").rows() == sorted(expected.select("language", "id").rows())
        answers = pl.List(pl.Struct({"text": pl.String, "score": pl.Float64}))
        further = {"retrieval": {"rank": pl.Int64, "pool_size": pl.Int64}, "span": {"n_best": answers}}
        assert found.schema == {
            "language": pl.String,
            "id": pl.String,
            "prediction": pl.List(pl.String),
            "gold": pl.List(pl.String),
            **further.get(family, {}),
        }
        assert not sum(found.null_count().row(0))
    rows = frame.filter(split="train")
    tokenizer = Tokenizer.from_file(str(tiny_encoder / "tokenizer.json"))
    train_only = FAMILIES[family].encode(rows, tokenizer, task, 24, 8)
    empty = predict_split(task, encoder, head, rows, train_only, "test", compute)
    assert empty.is_empty()
    assert empty.schema == found.schema


def test_rows_of_another_file_are_refused(tiny_encoder, compute):
    task, frame, encoded, encoder, head = prepared("classification", tiny_encoder)
    with pytest.raises(UserError, match=r"39 rows but 40 encoded examples; encode the task again"):
        predict_split(task, encoder, head, frame.head(39), encoded, "test", compute)


@pytest.mark.parametrize(
    "trainable",
    [
        Trainable(rank=4, alpha=8.0),
        Trainable(method="full"),
        Trainable(method="full", freeze_word_embeddings=False),
        Trainable(rank=4, alpha=8.0, layers=1),
    ],
    ids=["lora", "full", "full with words", "lora in one layer"],
)
@pytest.mark.parametrize("family", ["classification", "retrieval"])
def test_a_cell_predicts_what_the_trained_model_does(family, trainable, tiny_encoder, compute, tmp_path):
    task, frame, encoded, _, head = prepared(family, tiny_encoder)
    encoder, state = moved(tiny_encoder, trainable)
    rows = FAMILIES[family].sequences(encoded, encoded.examples("test"))
    expected = predict_split(task, encoder, head, frame, encoded, "test", compute)
    frame.write_parquet(tmp_path / "data.parquet")
    weights = (state, head.state_dict())
    found = predict_cell(task, CELL, tiny_encoder, encoded, tmp_path / "data.parquet", weights, trainable)
    assert found.equals(expected)
    # And the states agree, not only the answers; they are not those of the encoder as it is.
    merged = load_encoder(tiny_encoder, dtype=torch.float32, device=CPU, dropout=0.0)
    outputs = forward(encoder, head, FAMILIES[family], encoded, rows, compute)
    before = forward(merged, head, FAMILIES[family], encoded, rows, compute)
    predict.merge_trained(merged, state, trainable)
    after = forward(merged, head, FAMILIES[family], encoded, rows, compute)
    torch.testing.assert_close(torch.stack(after), torch.stack(outputs), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(torch.stack(before), torch.stack(outputs), atol=1e-3)


def test_a_cell_without_weights_predicts_with_the_encoder_as_it_is(tiny_encoder, compute, tmp_path):
    task, frame, encoded, encoder, head = prepared("retrieval", tiny_encoder)
    frame.write_parquet(tmp_path / "data.parquet")
    found = predict_cell(task, CELL, tiny_encoder, encoded, tmp_path / "data.parquet", None, Trainable())
    assert found.equals(predict_split(task, encoder, head, frame, encoded, "test", compute))


def test_direct_retrieval_reads_the_layer_of_its_encoder(tiny_encoder, compute, tmp_path):
    task, frame, encoded, encoder, head = prepared("retrieval", tiny_encoder)
    direct = dataclasses.replace(task, recipe=None)
    frame.write_parquet(tmp_path / "data.parquet")

    def found(of, sentence):
        facts = {**CELL, "sentence": sentence}
        return predict_cell(of, facts, tiny_encoder, encoded, tmp_path / "data.parquet", None, Trainable())

    def expected(layer):
        return predict_split(task, encoder, head, frame, encoded, "test", compute, layer)

    # Of two layers the first is the middle one.
    assert not expected(1).equals(expected(2))
    assert found(direct, sentence=False).equals(expected(1))
    assert found(direct, sentence=True).equals(expected(None))
    assert found(task, sentence=False).equals(expected(None))
    # The layer's own states, not the last ones' mean.
    rows = encoded.examples("test")[:1]
    batch = collate(encoded, rows, 1)
    states = mean_pooled(encoder(batch.tokens, batch.mask, batch.types, layer=1), batch.mask)
    outputs = forward(encoder, head, FAMILIES["retrieval"], encoded, rows, compute, 1)
    torch.testing.assert_close(torch.stack(outputs), states)


def test_a_search_after_stages_reads_the_encoder_they_leave_and_no_head(tiny_encoder, compute, tmp_path):
    task, frame, encoded, _, head = prepared("retrieval", tiny_encoder)
    after = dataclasses.replace(task, recipe=None, stages=("toy_span",))
    encoder, state = moved(tiny_encoder, Trainable())
    frame.write_parquet(tmp_path / "data.parquet")
    answering = FAMILIES["span"].head(encoder.hidden_size, toy_task("span"), 0.0).state_dict()

    def found(weights, sentence):
        facts = {**CELL, "sentence": sentence}
        return predict_cell(after, facts, tiny_encoder, encoded, tmp_path / "data.parquet", weights, Trainable())

    for sentence, layer in ((False, 1), (True, None)):
        expected = predict_split(after, encoder, head, frame, encoded, "test", compute, layer)
        assert found((state, answering), sentence).equals(expected)
        assert not found(None, sentence).equals(expected)


def test_a_task_that_chooses_on_dev_chooses_with_its_run_or_on_its_own_dev(tiny_encoder, compute, tmp_path):
    task, frame, _, encoder, head = prepared("span", tiny_encoder)
    task = dataclasses.replace(task, unanswerable=True, metrics=("squad_v2_f1",))
    none = pl.int_range(pl.len()) % 3 == 0
    frame = frame.with_columns(
        answers=pl.when(none).then(pl.lit([], dtype=pl.List(pl.String))).otherwise("answers"),
        answer_starts=pl.when(none).then(pl.lit([], dtype=pl.List(pl.Int64))).otherwise("answer_starts"),
    )
    tokenizer = Tokenizer.from_file(str(tiny_encoder / "tokenizer.json"))
    encoded = FAMILIES["span"].encode(frame, tokenizer, task, 24, 8)
    frame.write_parquet(tmp_path / "data.parquet")
    make_trainable(encoder, Trainable(), seed=1)
    weights = (trained_state(encoder), head.state_dict())
    raw = {split: predict_split(task, encoder, head, frame, encoded, split, compute) for split in ("dev", "test")}
    arguments = (task, CELL, tiny_encoder, encoded, tmp_path / "data.parquet", weights, Trainable())
    for threshold in (-1e9, 0.0, 1e9):
        found = predict_cell(*arguments, {"no_answer_threshold": threshold})
        rows = raw["test"].select("prediction", "no_answer").iter_rows()
        expected = [[""] if score > threshold else prediction for prediction, score in rows]
        assert found["no_answer"].to_list() == pytest.approx(raw["test"]["no_answer"].to_list(), abs=1e-4)
        assert found["prediction"].to_list() == expected
    chosen = FAMILIES["span"].calibrate(task, raw["dev"])
    assert predict_cell(*arguments).equals(predict_cell(*arguments, chosen))


# --- FLOPs ---


def counted(work) -> int:
    """Operations torch counts; attention by plain products, which the counter knows on every device."""
    with sdpa_kernel(SDPBackend.MATH), flop_counter() as counter:
        work()
    return counter.get_total_flops()


SHAPES = [(3, 20), (1, 100), (8, 7)]


@pytest.mark.parametrize(("sequences", "width"), SHAPES)
def test_forward_flops_are_what_torch_counts(sequences, width, tiny_encoder):
    encoder = load_encoder(tiny_encoder, dtype=torch.float32, device=CPU, dropout=0.0)
    tokens = torch.randint(5, 400, (sequences, width))
    with torch.no_grad():
        found = counted(lambda: encoder(tokens))
    assert forward_flops(encoder_shape(tiny_encoder, None), sequences, width) == pytest.approx(found, rel=0.01)


@pytest.mark.parametrize(("sequences", "width"), SHAPES)
@pytest.mark.parametrize(
    "trainable",
    [
        Trainable(rank=4),
        Trainable(rank=4, layers=1),
        Trainable(method="full"),
        Trainable(method="full", layers=1),
        Trainable(method="full", layers=2),
    ],
    ids=lambda trainable: f"{trainable.method}-{trainable.layers}",
)
def test_training_flops_are_what_torch_counts(trainable, sequences, width, tiny_encoder):
    encoder = load_encoder(tiny_encoder, dtype=torch.float32, device=CPU, dropout=0.0)
    make_trainable(encoder, trainable, seed=0)
    tokens = torch.randint(5, 400, (sequences, width))
    found = counted(lambda: encoder(tokens).sum().backward())
    shape = encoder_shape(tiny_encoder, trainable.layers)
    expected = training_flops(shape, sequences, width, trainable.method, trainable.rank)
    assert expected == pytest.approx(found, rel=0.01)


def test_flops_by_hand():
    # One layer, hidden 2, feed-forward 3, one sequence of 5 tokens.
    shape = EncoderShape(layers=1, hidden=2, intermediate=3)
    matrices = 5 * 2 * (4 * 2 * 2 + 2 * 2 * 3)  # tokens x 2 x (four square matrices, two of 2 x 3)
    attention = 2 * (2 * 5 * 5 * 2)  # scores and mixing, each 2 x tokens x tokens x hidden
    assert forward_flops(shape, 1, 5) == matrices + attention
    assert training_flops(shape, 1, 5, "full", 8) == 3 * (matrices + attention)


def test_encoder_shape_reads_the_configuration(tiny_encoder):
    config = json.loads((tiny_encoder / "config.json").read_text())
    assert encoder_shape(tiny_encoder, 1) == EncoderShape(2, 32, config["intermediate_size"], 1)
