"""Training runs: exact steps, exact gradients, repeatable bytes, and nothing published where a run fails."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import load_file

import runs
from runs import (
    CPU,
    FAMILY_NAMES,
    FULL,
    LORA,
    decaying,
    loop_of,
    prepared,
    run_loop,
    settings,
    specification,
    start_run,
)
from stopping import logged
from toy import toy_frame
from xlift.artifacts import fingerprint, read_manifest
from xlift.encoder.adapt import Trainable, adapted_layers
from xlift.encoder.model import WORD_EMBEDDINGS, load_encoder
from xlift.errors import UserError
from xlift.tasks.encoded import Encoded, collate
from xlift.tasks.families import FAMILIES
from xlift.training import loop
from xlift.training.batches import plan_batches
from xlift.training.checkpoint import read_weights, split_weights
from xlift.training.cost import training_flops
from xlift.training.feed import example_lengths
from xlift.training.optimiser import AdamW
from xlift.training.run import encoder_shape
from xlift.training.schedule import Schedule

FULL_WITH_WORDS = Trainable(method="full", freeze_word_embeddings=False)
ONE_STEP = {"recipe__steps": 1, "schedule__warmup_steps": 0}
TOP = Trainable(method="full", layers=1)
TRAINABLES = pytest.mark.parametrize(
    "trainable", [LORA, FULL, FULL_WITH_WORDS, TOP], ids=["lora", "full", "full with words", "uppermost layer"]
)


@pytest.fixture
def publish_inputs(tiny_encoder, tmp_path):
    """Writes a toy task's rows and tokens as the jobs do and says where."""

    def publish(family: str, frame: pl.DataFrame | None = None, **places: Path):
        return runs.publish_inputs(family, tiny_encoder, tmp_path, frame, **places)

    return publish


# --- Schedule and optimiser ---


def rates(schedule: Schedule) -> list[float]:
    return [schedule.rate(step) for step in range(schedule.steps)]


def test_learning_rate_by_hand():
    # Ten steps, a fifth of them rising: thirds of the peak, then eighths of it down to one eighth.
    assert rates(decaying(24.0, 10, 0.2)) == pytest.approx([8, 16, 24, 21, 18, 15, 12, 9, 6, 3])
    assert rates(decaying(1.0, 4, 0.0)) == pytest.approx([1, 0.75, 0.5, 0.25])
    assert rates(decaying(1.0, 1, 0.0)) == [1]
    assert all(rate > 0 for rate in rates(decaying(1.0, 3, 0.99)))
    # A branch at step 5 of a trunk that rises over one step: the peak up to there, then quarters of it.
    assert rates(Schedule(8.0, steps=9, warmup_steps=1, hold_until=5)) == pytest.approx([4, 8, 8, 8, 8, 8, 6, 4, 2])
    assert rates(Schedule(8.0, steps=4, warmup_steps=1, hold_until=4)) == pytest.approx([4, 8, 8, 8])


@pytest.mark.parametrize("trainable", [LORA, FULL], ids=["lora", "full"])
def test_the_optimiser_is_torchs_adamw_without_decay_on_biases_norms_and_scalars(trainable, tiny_encoder):
    models = [prepared("retrieval", tiny_encoder, trainable)[1].trained() for _ in range(2)]
    ours = AdamW(models[0].items(), 0.1)
    plain = [name for name in models[1] if name.endswith("bias") or "LayerNorm" in name or name == "head.log_scale"]
    assert len(plain) == (1 if trainable is LORA else 2 + 2 * (6 + 4) + 1)
    groups = [
        {
            "params": [p for name, p in models[1].items() if (name in plain) == free],
            "weight_decay": 0.0 if free else 0.1,
        }
        for free in (True, False)
    ]
    theirs = torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.999), eps=1e-8)
    generator = torch.Generator().manual_seed(0)
    for step in range(4):
        for name in models[0]:
            gradient = torch.randn(models[0][name].shape, generator=generator)
            for model in models:
                model[name].grad = gradient.clone()
        if step == 2:
            models[0]["head.log_scale"].grad = models[1]["head.log_scale"].grad = None
        for group in theirs.param_groups:
            group["lr"] = 0.01 * (step + 1)
        ours.step(0.01 * (step + 1))
        theirs.step()
        for name, parameter in models[0].items():
            torch.testing.assert_close(parameter, models[1][name], atol=1e-6, rtol=1e-5)
    ours.zero_grad()
    assert all(parameter.grad is None for parameter in models[0].values())


# --- Gradients ---


class Recorder(AdamW):
    """Keeps the gradients of the only step instead of making it."""

    def step(self, rate: float) -> None:
        self.gradients = {name: parameter.grad.clone() for name, parameter in self.parameters.items()}


def gradients_of_a_step(model, encoded, compute, folder, monkeypatch, cap):
    monkeypatch.setattr(loop, "AdamW", Recorder)
    found = loop_of(model, encoded, settings(1, batch_size=12, clip=1e9), compute, folder, cap=cap)
    realised = found.run()
    return found._optimiser.gradients, realised


@pytest.mark.parametrize("family", [name for name in FAMILY_NAMES if not FAMILIES[name].whole_batch])
def test_micro_batches_add_up_to_the_mean_over_the_whole_step(family, tiny_encoder, compute, monkeypatch):
    lengths = {"tagging": 7, "span": 18}
    encoded, model = prepared(family, tiny_encoder, max_length=lengths.get(family, 20))
    encoder, head = model.encoder, model.head
    # Choices, and more than one window of some sentences and contexts.
    assert (len(encoded.owner) > len(encoded.split)) == (family != "classification")
    with torch.no_grad():  # adapters start with B at zero, where A has no gradient
        for name, parameter in encoder.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05, generator=torch.Generator().manual_seed(len(name)))
    arguments = (model, encoded, compute, tiny_encoder, monkeypatch)
    whole, in_one = gradients_of_a_step(*arguments, cap=1_000_000)
    split, in_many = gradients_of_a_step(*arguments, cap=1)
    assert in_one.losses[0] == pytest.approx(in_many.losses[0], rel=1e-5)
    assert in_many.total.padded_tokens <= in_one.total.padded_tokens

    # The mean by hand: one example at a time, divided by all the terms of the step.
    taught = FAMILIES[family].training_examples(encoded)
    chosen = next(plan_batches(taught, example_lengths(encoded)[taught], 12, 1, settings().seed))
    terms = {
        "classification": lambda e: 1,
        "multiple_choice": lambda e: 1,
        "tagging": lambda e: len(toy_frame(family)["tokens"][e]),
        "span": lambda e: int((encoded.owner == e).sum()),
    }[family]
    total = sum(terms(example) for example in chosen.tolist())
    loss = torch.tensor(0.0)
    for example in chosen.tolist():
        rows = (encoded.owner == example).nonzero().flatten()
        batch = collate(encoded, rows, encoder.pad_id)
        loss = loss + FAMILIES[family].loss(head, encoder(batch.tokens, batch.mask, batch.types), batch, encoded)
    (loss / total).backward()
    assert in_one.losses[0] == pytest.approx(loss.item() / total, rel=1e-5)
    assert sorted(whole) == sorted(split)
    for place, module in (("encoder", encoder), ("head", head)):
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                expected = parameter.grad
                assert expected is not None
                for found in (whole, split):
                    torch.testing.assert_close(found[f"{place}.{name}"], expected, atol=1e-5, rtol=1e-5)
    assert max(float(gradient.abs().max()) for gradient in whole.values()) > 1e-3


# --- Learning ---


@TRAINABLES
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_every_family_learns_its_toy_task(family, trainable, tiny_encoder, compute):
    encoded, model = prepared(family, tiny_encoder, trainable)
    encoder = model.encoder
    before = {name: parameter.clone() for name, parameter in encoder.named_parameters()}
    rate = 1e-2 if trainable.method == "lora" else 5e-3
    realised = run_loop(model, encoded, settings(60, rate), compute, tiny_encoder, trainable)
    assert sum(realised.losses[-5:]) < 0.6 * sum(realised.losses[:5]), realised.losses
    changed = {name for name, parameter in encoder.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed == {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    if trainable.method == "lora":
        assert len(changed) == 2 * len(adapted_layers_of(tiny_encoder)) == 2 * 2 * 6
    elif trainable.layers:
        assert changed == {name for name in before if name.startswith("encoder.layer.1.")}
    else:
        assert (WORD_EMBEDDINGS in changed) == (not trainable.freeze_word_embeddings)
        assert len(changed) == len(before) - trainable.freeze_word_embeddings


def adapted_layers_of(folder: Path) -> list[str]:
    return adapted_layers(load_encoder(folder, dtype=torch.float32, device=CPU, dropout=0.0))


def test_realised_amounts_by_hand(tiny_encoder, compute):
    # One example of 5 tokens and two of 7 in a batch of three: 19 tokens, padded to 7 each 21.
    _, model = prepared("classification", tiny_encoder)
    rows = [torch.arange(10, 10 + size, dtype=torch.int32) for size in (5, 7, 7)]
    tiny = Encoded(
        torch.cat(rows),
        torch.tensor([0, 5, 12, 19]),
        torch.arange(3),
        torch.zeros(3, dtype=torch.uint8),
        by_example={"label": torch.tensor([0, 1, 0])},
    )
    four = settings(4, batch_size=3)
    together = run_loop(model, tiny, four, compute, tiny_encoder).total
    assert (together.steps, together.examples, together.tokens, together.padded_tokens) == (4, 12, 76, 84)
    # Under a cap of 14 positions the two of 7 go together and the 5 alone, without padding.
    realised = run_loop(model, tiny, four, compute, tiny_encoder, cap=14)
    apart = realised.total
    assert (apart.steps, apart.examples, apart.tokens, apart.padded_tokens) == (4, 12, 76, 76)
    assert len(realised.losses) == 4
    shape = encoder_shape(tiny_encoder, None)
    one = training_flops(shape, 2, 7, "lora", LORA.rank) + training_flops(shape, 1, 5, "lora", LORA.rank)
    assert apart.flops == pytest.approx(4 * one)
    assert [json.loads(line)["step"] for line in realised.log_lines().splitlines()] == [4]


def test_no_training_examples_is_one_sentence(tiny_encoder, compute):
    encoded, model = prepared("classification", tiny_encoder)
    encoded.split[:] = 2
    with pytest.raises(UserError, match=r"^toy run: the task has no training examples; "):
        run_loop(model, encoded, settings(), compute, tiny_encoder)


def test_a_batch_larger_than_the_data_is_one_sentence(tiny_encoder, compute):
    encoded, model = prepared("classification", tiny_encoder)
    with pytest.raises(UserError, match=r"^toy run: a batch of 25 is larger than the 24 .*; use a smaller"):
        loop_of(model, encoded, settings(batch_size=25), compute, tiny_encoder)
    with pytest.raises(UserError, match=r"^toy run: a batch of 8 is larger than the 6 .*; use a smaller"):
        loop_of(model, encoded, settings(unique_fraction=0.25), compute, tiny_encoder)


# --- Whole runs ---


@pytest.mark.parametrize(
    ("family", "trainable"),
    [(family, LORA) for family in FAMILY_NAMES] + [("tagging", FULL), ("classification", FULL_WITH_WORDS)],
)
def test_the_same_run_twice_is_the_same_bytes(family, trainable, publish_inputs, tmp_path):
    inputs = publish_inputs(family)
    changes = {"trainable": dataclasses.asdict(trainable)}
    manifests = [start_run(family, inputs, tmp_path / name, **changes) for name in ("a", "b")]
    files = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("a", "b")]
    assert files[0] == files[1]
    assert logged(tmp_path / "a") == logged(tmp_path / "b")
    other = start_run(family, inputs, tmp_path / "c", seed=2, draw=2, **changes)
    assert other["files"]["weights.safetensors"]["sha256"] != manifests[0]["files"]["weights.safetensors"]["sha256"]
    assert other["fingerprint"] != manifests[0]["fingerprint"]


def test_the_manifest_says_what_ran(publish_inputs, tmp_path):
    before = time.time()
    found = start_run("classification", publish_inputs("classification"), tmp_path / "out")
    assert found == read_manifest(tmp_path / "out")
    assert found["fingerprint"] == fingerprint(specification("classification"))
    assert (found["steps"], found["examples"], found["batch_size"], found["threads"]) == (12, 48, 4, 1)
    assert found["tokens"] <= found["padded_tokens"]
    assert 0 < found["seconds"] <= found["seconds_job"] <= time.time() - before + 1
    assert 0 < found["seconds_to_first_step"] <= found["seconds_job"]
    assert found["peak_memory_mib"] > 50
    assert found["dtype"] == "fp32"
    assert found["versions"]["torch"].startswith("2.")
    assert (found["dev"]["metric"], found["dev"]["floor"]) == ("accuracy", 50.0)
    log = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log] == [10, 12]
    assert log[-1]["loss"] == found["final_loss"]
    assert log[-1]["tokens"] == found["tokens"]
    assert all(math.isfinite(entry["gradient_norm"]) for entry in log)


@TRAINABLES
def test_a_checkpoint_holds_what_was_trained_and_no_more(trainable, publish_inputs, tiny_encoder, tmp_path):
    changes = {"trainable": dataclasses.asdict(trainable), **ONE_STEP}
    start_run("classification", publish_inputs("classification"), tmp_path / "out", **changes)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "log.jsonl",
        "manifest.json",
        "weights.safetensors",
    ]
    names = set(load_file(tmp_path / "out" / "weights.safetensors"))
    stored = set(load_file(tiny_encoder / "model.safetensors"))
    if trainable.method == "lora":
        expected = {f"{layer}.lora_{part}.weight" for layer in adapted_layers_of(tiny_encoder) for part in "AB"}
    elif trainable.layers:
        expected = {name for name in stored if name.startswith("encoder.layer.1.")}
    else:
        expected = stored - ({WORD_EMBEDDINGS} if trainable.freeze_word_embeddings else set())
    assert names == {f"encoder.{name}" for name in expected} | {"head.linear.weight", "head.linear.bias"}


@pytest.mark.parametrize("trainable", [LORA, FULL], ids=["lora", "full"])
def test_a_target_starts_from_its_parent_with_a_fresh_head(trainable, publish_inputs, tmp_path):
    changes = {"trainable": dataclasses.asdict(trainable)}
    parent = start_run("span", publish_inputs("span"), tmp_path / "parent", **changes)
    inputs = publish_inputs("classification", parent=tmp_path / "parent")
    still = changes | {
        "recipe__learning_rate": 1e-12,
        "training__weight_decay": 0.0,
        "recipe__steps": 1,
        "schedule__warmup_steps": 0,
    }
    found = start_run("classification", inputs, tmp_path / "child", parent=parent["fingerprint"], **still)
    assert found["parent"] == parent["fingerprint"]
    before, _ = split_weights(load_file(tmp_path / "parent" / "weights.safetensors"))
    after, head = split_weights(load_file(tmp_path / "child" / "weights.safetensors"))
    assert sorted(before) == sorted(after)
    for name, weight in before.items():
        torch.testing.assert_close(after[name], weight, atol=1e-8, rtol=1e-6)
    assert head["linear.weight"].shape == (2, 32)


def test_the_head_is_drawn_from_the_runs_seed_whatever_is_trained(publish_inputs, tmp_path):
    inputs = publish_inputs("classification")
    still = {
        "recipe__learning_rate": 1e-12,
        "training__weight_decay": 0.0,
        "recipe__steps": 1,
        "schedule__warmup_steps": 0,
    }
    heads = []
    for name, trainable, seed in (("a", LORA, 1), ("b", FULL, 1), ("c", Trainable(rank=2), 1), ("d", LORA, 2)):
        start_run(
            "classification", inputs, tmp_path / name, trainable=dataclasses.asdict(trainable), draw=seed, **still
        )
        heads.append(load_file(tmp_path / name / "weights.safetensors")["head.linear.weight"])
    for same in heads[1:3]:
        torch.testing.assert_close(same, heads[0], atol=1e-8, rtol=1e-6)
    assert not torch.allclose(heads[3], heads[0], atol=1e-4)


def test_a_parent_of_another_study_is_refused(publish_inputs, tmp_path):
    start_run("span", publish_inputs("span"), tmp_path / "parent", **ONE_STEP)
    inputs = publish_inputs("classification", parent=tmp_path / "parent")
    with pytest.raises(UserError, match=r"holds a run with other settings .* expected 0123\); run the workflow again"):
        start_run("classification", inputs, tmp_path / "child", parent="0123")
    assert not (tmp_path / "child").exists()
    with (tmp_path / "parent" / "weights.safetensors").open("r+b") as stream:
        stream.seek(-3, 2)
        stream.write(b"\x00\x01\x02")
    with pytest.raises(UserError, match=r"weights.safetensors: sha256 is"):
        read_weights(tmp_path / "parent", None)


@pytest.mark.parametrize("way", ["nan loss", "huge rate"])
def test_a_run_that_diverges_names_its_step_and_publishes_nothing(way, publish_inputs, tmp_path, monkeypatch):
    inputs = publish_inputs("classification")
    family, changes = FAMILIES["classification"], {}
    expected = r"step \d+ of 12"
    if way == "nan loss":
        sound, calls = type(family).loss, []

        def loss(self, *arguments):
            calls.append(1)
            return sound(self, *arguments) * (math.nan if len(calls) == 4 else 1.0)

        monkeypatch.setattr(type(family), "loss", loss)
        expected = "step 4 of 12"
    else:
        changes = {"recipe__learning_rate": 1e38, "trainable": dataclasses.asdict(FULL)}
    out = tmp_path / "intermediate" / "toy_classification" / "x1" / "seed1"
    with pytest.raises(UserError, match=rf"toy_classification/x1/seed1: {expected} .* not finite") as caught:
        start_run("classification", inputs, out, **changes)
    assert "\n" not in str(caught.value)
    assert "lower the learning rate" in str(caught.value)
    assert [path.name for path in out.iterdir()] == ["log.jsonl"]


@pytest.mark.fault("a run that learns nothing")
def test_a_run_that_cannot_learn_is_marked_as_collapsed(publish_inputs, tmp_path, fault):
    # Every text is the same: there is nothing to tell the labels by.
    frame = toy_frame("classification").with_columns(text_a=pl.lit("old"), text_b=pl.lit(None, pl.String))
    found = start_run("classification", publish_inputs("classification", frame), tmp_path / "out")
    assert found["dev"] == {"metric": "accuracy", "score": 50.0, "floor": 50.0, "collapsed": True}
    changes = {
        "trainable": dataclasses.asdict(FULL),
        "recipe": {"steps": 80, "batch_size": 8, "learning_rate": 5e-3},
        "schedule__warmup_steps": 8,
        "training__dropout": 0.0,
    }
    learnt = start_run("classification", publish_inputs("classification"), tmp_path / "learnt", **changes)
    assert learnt["dev"]["score"] > 70
    assert not learnt["dev"]["collapsed"]
    fault.refuses()  # flagged, and kept


def test_no_dev_examples_is_one_sentence(publish_inputs, tmp_path):
    frame = toy_frame("classification").filter(pl.col("split") != "dev")
    with pytest.raises(UserError, match="no English dev examples"):
        start_run(
            "classification",
            publish_inputs("classification", frame),
            tmp_path / "out",
            recipe__steps=1,
            schedule__warmup_steps=0,
        )
    assert not (tmp_path / "out" / "manifest.json").exists()
