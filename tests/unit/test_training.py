"""Training runs: exact steps, exact gradients, repeatable bytes, and nothing published where a run fails."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import nn

from toy import toy_frame, toy_task
from xlift.artifacts import fingerprint, publish_folder, read_manifest
from xlift.encoder.adapt import Trainable, adapted_layers, make_trainable
from xlift.encoder.model import WORD_EMBEDDINGS, load_encoder
from xlift.errors import UserError
from xlift.tasks.encoded import TOKENS, Encoded, collate
from xlift.tasks.families import FAMILIES
from xlift.training import loop
from xlift.training.checkpoint import read_weights, split_weights
from xlift.training.loop import Optimisation, build_optimiser, train
from xlift.training.run import Inputs, encoder_shape, train_run
from xlift.training.schedule import learning_rate

CPU = torch.device("cpu")
FAMILY_NAMES = sorted(FAMILIES)
SETTINGS = Optimisation(steps=30, batch_size=8, learning_rate=5e-3, warmup=0.1, weight_decay=0.01, clip=1.0, seed=1)
LORA, FULL = Trainable(rank=4, alpha=16.0), Trainable(method="full")
FULL_WITH_WORDS = Trainable(method="full", freeze_word_embeddings=False)
TOP = Trainable(method="full", layers=1)
TRAINABLES = pytest.mark.parametrize(
    "trainable", [LORA, FULL, FULL_WITH_WORDS, TOP], ids=["lora", "full", "full with words", "uppermost layer"]
)


def prepared(family: str, folder: Path, trainable: Trainable = LORA, max_length: int = 32):
    """Task, tokens, and a trainable encoder with its head."""
    torch.manual_seed(3)
    task = toy_task(family)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    encoded = FAMILIES[family].encode(toy_frame(family), tokenizer, task, max_length, 8)
    encoder = load_encoder(folder, dtype=torch.float32, device=CPU, dropout=0.0)
    make_trainable(encoder, trainable, seed=1)
    head = FAMILIES[family].head(encoder.hidden_size, task, 0.0)
    return encoded, encoder, head


def run(family, encoded, encoder, head, settings, compute, folder, trainable=LORA):
    return train(
        encoder,
        head,
        FAMILIES[family],
        encoded,
        settings,
        compute,
        encoder_shape(folder, trainable.layers),
        trainable.method,
        trainable.rank,
        "toy run",
    )


# --- Schedule and optimiser ---


def test_learning_rate_by_hand():
    # Ten steps, a fifth of them rising: thirds of the peak, then eighths of it down to one eighth.
    found = [learning_rate(step, 10, 24.0, 0.2) for step in range(10)]
    assert found == pytest.approx([8, 16, 24, 21, 18, 15, 12, 9, 6, 3])
    assert [learning_rate(step, 4, 1.0, 0.0) for step in range(4)] == pytest.approx([1, 0.75, 0.5, 0.25])
    assert learning_rate(0, 1, 1.0, 0.0) == 1
    assert all(learning_rate(step, 3, 1.0, 0.99) > 0 for step in range(3))


def test_no_decay_on_biases_norms_and_scalars(tiny_encoder):
    encoder = load_encoder(tiny_encoder, dtype=torch.float32, device=CPU, dropout=0.0)
    make_trainable(encoder, FULL, seed=0)
    head = FAMILIES["classification"].head(32, toy_task("classification"), 0.0)
    optimiser = build_optimiser(encoder, head, SETTINGS)
    decays = {id(p): group["weight_decay"] for group in optimiser.param_groups for p in group["params"]}
    named = {**dict(encoder.named_parameters()), **{f"head.{n}": p for n, p in head.named_parameters()}}
    trained = {name: p for name, p in named.items() if name != WORD_EMBEDDINGS}
    assert {id(p) for p in trained.values()} == set(decays)
    for name, parameter in trained.items():
        free = name.endswith("bias") or "LayerNorm" in name
        assert decays[id(parameter)] == (0.0 if free else SETTINGS.weight_decay), name
    assert sum(decay == 0.0 for decay in decays.values()) == 2 + 2 * (6 + 4) + 1
    scale = build_optimiser(encoder, FAMILIES["retrieval"].head(32, toy_task("retrieval"), 0.0), SETTINGS)
    assert [p.ndim for p in scale.param_groups[1]["params"]].count(0) == 1


# --- Gradients ---


class Recorder:
    """Stands in for the optimiser: keeps the gradients of the only step."""

    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        self.named = {
            f"{place}.{name}": parameter
            for place, module in (("encoder", encoder), ("head", head))
            for name, parameter in module.named_parameters()
            if parameter.requires_grad
        }
        self.param_groups: list[dict[str, Any]] = [{"lr": 0.0}]
        self.gradients: dict[str, torch.Tensor] = {}

    def step(self) -> None:
        self.gradients = {name: parameter.grad.clone() for name, parameter in self.named.items()}

    def zero_grad(self, set_to_none: bool) -> None:
        for parameter in self.named.values():
            parameter.grad = None


def gradients_of_a_step(family, encoded, encoder, head, compute, folder, monkeypatch, cap):
    recorder = Recorder(encoder, head)
    monkeypatch.setattr(loop, "build_optimiser", lambda *_: recorder)
    monkeypatch.setitem(loop.MICRO_BATCH_TOKENS, "cpu", cap)
    settings = dataclasses.replace(SETTINGS, steps=1, batch_size=12, clip=1e9)
    realised = run(family, encoded, encoder, head, settings, compute, folder)
    return recorder.gradients, realised


@pytest.mark.parametrize("family", [name for name in FAMILY_NAMES if not FAMILIES[name].whole_batch])
def test_micro_batches_add_up_to_the_mean_over_the_whole_step(family, tiny_encoder, compute, monkeypatch):
    lengths = {"tagging": 7, "span": 18}
    encoded, encoder, head = prepared(family, tiny_encoder, max_length=lengths.get(family, 20))
    # Choices, and more than one window of some sentences and contexts.
    assert (len(encoded.owner) > len(encoded.split)) == (family != "classification")
    with torch.no_grad():  # adapters start with B at zero, where A has no gradient
        for name, parameter in encoder.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05, generator=torch.Generator().manual_seed(len(name)))
    arguments = (family, encoded, encoder, head, compute, tiny_encoder, monkeypatch)
    whole, in_one = gradients_of_a_step(*arguments, cap=1_000_000)
    split, in_many = gradients_of_a_step(*arguments, cap=1)
    assert in_one.losses[0] == pytest.approx(in_many.losses[0], rel=1e-5)
    assert in_many.padded_tokens <= in_one.padded_tokens

    # The mean by hand: one example at a time, divided by all the terms of the step.
    chosen = next(
        loop.plan_batches(
            FAMILIES[family].training_examples(encoded),
            loop.example_lengths(encoded)[FAMILIES[family].training_examples(encoded)],
            12,
            1,
            SETTINGS.seed,
        )
    )
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
        batch = collate(encoded, rows, encoder.pad_id, CPU)
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
    encoded, encoder, head = prepared(family, tiny_encoder, trainable)
    before = {name: parameter.clone() for name, parameter in encoder.named_parameters()}
    rate = 1e-2 if trainable.method == "lora" else 5e-3
    settings = dataclasses.replace(SETTINGS, learning_rate=rate, steps=60)
    realised = run(family, encoded, encoder, head, settings, compute, tiny_encoder, trainable)
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


def test_realised_amounts_by_hand(tiny_encoder, compute, monkeypatch):
    # One example of 5 tokens and two of 7 in a batch of three: 19 tokens, padded to 7 each 21.
    _, encoder, head = prepared("classification", tiny_encoder)
    rows = [torch.arange(10, 10 + size, dtype=torch.int32) for size in (5, 7, 7)]
    tiny = Encoded(
        torch.cat(rows),
        torch.tensor([0, 5, 12, 19]),
        torch.arange(3),
        torch.zeros(3, dtype=torch.uint8),
        by_example={"label": torch.tensor([0, 1, 0])},
    )
    settings = dataclasses.replace(SETTINGS, steps=4, batch_size=3)
    together = run("classification", tiny, encoder, head, settings, compute, tiny_encoder)
    assert (together.steps, together.examples, together.tokens, together.padded_tokens) == (4, 12, 76, 84)
    assert len(together.losses) == 4
    # Under a cap of 14 positions the two of 7 go together and the 5 alone, without padding.
    monkeypatch.setitem(loop.MICRO_BATCH_TOKENS, "cpu", 14)
    apart = run("classification", tiny, encoder, head, settings, compute, tiny_encoder)
    assert (apart.steps, apart.examples, apart.tokens, apart.padded_tokens) == (4, 12, 76, 76)
    shape = encoder_shape(tiny_encoder, None)
    one = loop.training_flops(shape, 2, 7, "lora", LORA.rank) + loop.training_flops(shape, 1, 5, "lora", LORA.rank)
    assert apart.flops == pytest.approx(4 * one)
    assert [json.loads(line)["step"] for line in apart.log_lines().splitlines()] == [4]


def test_no_training_examples_is_one_sentence(tiny_encoder, compute):
    encoded, encoder, head = prepared("classification", tiny_encoder)
    encoded.split[:] = 2
    with pytest.raises(UserError, match=r"^toy run: the task has no training examples; "):
        run("classification", encoded, encoder, head, SETTINGS, compute, tiny_encoder)


# --- Whole runs ---


def specification(family: str, **changes: Any) -> dict[str, Any]:
    """A run's specification as the grid makes it; dotted names change entries of its blocks."""
    found: dict[str, Any] = {
        "kind": "intermediate",
        "task": f"toy_{family}",
        "parent": None,
        "trainable": dataclasses.asdict(LORA),
        "training": {
            "warmup": 0.1,
            "weight_decay": 0.01,
            "clip": 1.0,
            "dropout": 0.1,
            "precision": "fp32",
            "threads": 1,
        },
        "recipe": {"steps": 12, "batch_size": 4, "learning_rate": 5e-3, "max_length": 32, "stride": 8},
        "seed": 1,
        "draw": 1,
    }
    for name, value in changes.items():
        block, _, key = name.partition("__")
        if key:
            found[block] = {**found[block], key: value}
        else:
            found[block] = value
    return found


@pytest.fixture
def publish_inputs(tiny_encoder, tmp_path):
    """Writes a toy task's rows and tokens as the jobs do and says where."""

    def publish(family: str, frame: pl.DataFrame | None = None, parent: Path | None = None) -> Inputs:
        rows = toy_frame(family) if frame is None else frame
        tokenizer = Tokenizer.from_file(str(tiny_encoder / "tokenizer.json"))
        encoded = FAMILIES[family].encode(rows, tokenizer, toy_task(family), 32, 8)
        folder, data = tmp_path / "encoded" / family, tmp_path / f"{family}.parquet"
        publish_folder(folder, lambda out: encoded.save(out / TOKENS), {})
        rows.write_parquet(data)
        return Inputs(encoder=tiny_encoder, encoded=folder, data=data, parent=parent)

    return publish


def start(family: str, inputs: Inputs, out: Path, **changes: Any) -> dict[str, Any]:
    return train_run(toy_task(family), specification(family, **changes), inputs, out, time.time())


@pytest.mark.parametrize(
    ("family", "trainable"),
    [(family, LORA) for family in FAMILY_NAMES] + [("tagging", FULL), ("classification", FULL_WITH_WORDS)],
)
def test_the_same_run_twice_is_the_same_bytes(family, trainable, publish_inputs, tmp_path):
    inputs = publish_inputs(family)
    changes = {"trainable": dataclasses.asdict(trainable)}
    manifests = [start(family, inputs, tmp_path / name, **changes) for name in ("a", "b")]
    files = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("a", "b")]
    assert files[0] == files[1]
    assert manifests[0]["files"]["log.jsonl"] == manifests[1]["files"]["log.jsonl"]
    other = start(family, inputs, tmp_path / "c", seed=2, draw=2, **changes)
    assert other["files"]["weights.safetensors"]["sha256"] != manifests[0]["files"]["weights.safetensors"]["sha256"]
    assert other["fingerprint"] != manifests[0]["fingerprint"]


def test_the_manifest_says_what_ran(publish_inputs, tmp_path):
    before = time.time()
    found = start("classification", publish_inputs("classification"), tmp_path / "out")
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
    changes = {"trainable": dataclasses.asdict(trainable), "recipe__steps": 1}
    start("classification", publish_inputs("classification"), tmp_path / "out", **changes)
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
    parent = start("span", publish_inputs("span"), tmp_path / "parent", **changes)
    inputs = publish_inputs("classification", parent=tmp_path / "parent")
    still = changes | {"recipe__learning_rate": 1e-12, "training__weight_decay": 0.0, "recipe__steps": 1}
    found = start("classification", inputs, tmp_path / "child", parent=parent["fingerprint"], **still)
    assert found["parent"] == parent["fingerprint"]
    before, _ = split_weights(load_file(tmp_path / "parent" / "weights.safetensors"))
    after, head = split_weights(load_file(tmp_path / "child" / "weights.safetensors"))
    assert sorted(before) == sorted(after)
    for name, weight in before.items():
        torch.testing.assert_close(after[name], weight, atol=1e-8, rtol=1e-6)
    assert head["linear.weight"].shape == (2, 32)


def test_the_head_is_drawn_from_the_runs_seed_whatever_is_trained(publish_inputs, tmp_path):
    inputs = publish_inputs("classification")
    still = {"recipe__learning_rate": 1e-12, "training__weight_decay": 0.0, "recipe__steps": 1}
    heads = []
    for name, trainable, seed in (("a", LORA, 1), ("b", FULL, 1), ("c", Trainable(rank=2), 1), ("d", LORA, 2)):
        start("classification", inputs, tmp_path / name, trainable=dataclasses.asdict(trainable), draw=seed, **still)
        heads.append(load_file(tmp_path / name / "weights.safetensors")["head.linear.weight"])
    for same in heads[1:3]:
        torch.testing.assert_close(same, heads[0], atol=1e-8, rtol=1e-6)
    assert not torch.allclose(heads[3], heads[0], atol=1e-4)


def test_a_parent_of_another_study_is_refused(publish_inputs, tmp_path):
    start("span", publish_inputs("span"), tmp_path / "parent", recipe__steps=1)
    inputs = publish_inputs("classification", parent=tmp_path / "parent")
    with pytest.raises(UserError, match=r"holds a run with other settings .* expected 0123\); run the workflow again"):
        start("classification", inputs, tmp_path / "child", parent="0123")
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
        start("classification", inputs, out, **changes)
    assert "\n" not in str(caught.value)
    assert "lower the learning rate" in str(caught.value)
    assert not out.exists()


def test_a_run_that_cannot_learn_is_marked_as_collapsed(publish_inputs, tmp_path):
    # Every text is the same: there is nothing to tell the labels by.
    frame = toy_frame("classification").with_columns(text_a=pl.lit("old"), text_b=pl.lit(None, pl.String))
    found = start("classification", publish_inputs("classification", frame), tmp_path / "out")
    assert found["dev"] == {"metric": "accuracy", "score": 50.0, "floor": 50.0, "collapsed": True}
    changes = {
        "trainable": dataclasses.asdict(FULL),
        "recipe": {"steps": 80, "batch_size": 8, "learning_rate": 5e-3},
        "training__dropout": 0.0,
    }
    learnt = start("classification", publish_inputs("classification"), tmp_path / "learnt", **changes)
    assert learnt["dev"]["score"] > 70
    assert not learnt["dev"]["collapsed"]


def test_no_dev_examples_is_one_sentence(publish_inputs, tmp_path):
    frame = toy_frame("classification").filter(pl.col("split") != "dev")
    with pytest.raises(UserError, match="no English dev examples"):
        start("classification", publish_inputs("classification", frame), tmp_path / "out", recipe__steps=1)
    assert not (tmp_path / "out").exists()
