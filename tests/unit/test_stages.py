"""Runs on one task after another with the same head: each its own recipe, schedule and optimiser; going on."""

from __future__ import annotations

import dataclasses
import json
import random
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import runs
from runs import FULL, LORA, decaying, settings
from stopping import StopAfter, out_of, published
from toy import toy_frame, toy_task
from xlift.artifacts import read_manifest
from xlift.encoder.adapt import Trainable
from xlift.errors import UserError
from xlift.jobs.score import before_target
from xlift.jobs.train import state_folder
from xlift.training import build as building
from xlift.training import run
from xlift.training.loop import TrainingLoop
from xlift.training.parts import Part, Stage, part_seed

STAGES = [("classification", 9), ("classification", 14)]
FAMILIES_OF_STAGES = tuple(family for family, _ in STAGES)


@pytest.fixture
def inputs(tiny_encoder, tmp_path):
    """A first stage on half of the examples, a second on all."""
    frame = toy_frame("classification")
    given = []
    for name, kept in (("first", 12), ("second", 24)):
        (tmp_path / name).mkdir()
        rows = frame.filter((frame["split"] != "train") | (frame["id"] < f"{kept:03d}"))
        given.append(runs.publish_inputs("classification", tiny_encoder, tmp_path / name, rows))
    return runs.joined(given)


def start(inputs, out: Path, stages: Any = STAGES, **changes: Any) -> dict[str, Any]:
    kept = dataclasses.replace(inputs, state=state_folder(out, "target"))
    made = runs.staged_specification(stages, **changes)
    return runs.start_several([family for family, _ in stages], made, kept, out)


def loops(folder: Path, trainable: Trainable, compute, settings_of_stages) -> tuple[Any, list[Part]]:
    encoded, model = runs.prepared("classification", folder, trainable, dropout=0.1)
    part = Part("toy", model.family, model.head, encoded, lambda batch: 1.0)
    return model, [Stage([part], optimisation) for optimisation in settings_of_stages]


@pytest.mark.parametrize("trainable", [LORA, FULL], ids=["lora", "full"])
def test_stages_are_one_run_after_the_other_on_the_same_weights(trainable, tiny_encoder, compute):
    """The oracle: two loops of one stage each, the second with a new optimiser on what the first left."""
    each = [settings(7, 1e-2, batch_size=4, seed=5), settings(12, 3e-3, 0.3, batch_size=8, seed=6)]
    model, stages = loops(tiny_encoder, trainable, compute, each)
    torch.manual_seed(9)
    at_once = TrainingLoop(model.encoder, model.head, stages, compute, 4000, "toy").run()
    found = {name: weight.clone() for name, weight in model.trained().items()}

    model, stages = loops(tiny_encoder, trainable, compute, each)
    torch.manual_seed(9)
    one_by_one = [TrainingLoop(model.encoder, model.head, [stage], compute, 4000, "toy").run() for stage in stages]
    for name, weight in model.trained().items():
        assert torch.equal(found[name], weight), name
    assert at_once.losses == [loss for realised in one_by_one for loss in realised.losses]
    assert at_once.total.steps == 19
    assert at_once.total.examples == 7 * 4 + 12 * 8
    for amounts, realised in zip(at_once.parts, one_by_one, strict=True):
        assert dataclasses.replace(realised.total, seconds=0.0) == amounts


def test_each_stage_has_its_own_schedule(tiny_encoder, compute):
    each = [settings(4, 8.0, 0.0), settings(4, 24.0, 0.5)]
    model, stages = loops(tiny_encoder, LORA, compute, each)
    found = TrainingLoop(model.encoder, model.head, stages, compute, 4000, "toy")
    # Quarters of 8 down; then thirds of 24 up over two steps, and halves down.
    assert [found._rate(step) for step in range(8)] == pytest.approx([8, 6, 4, 2, 8, 16, 24, 12])
    assert decaying(24.0, 4, 0.5).rate(2) == 24


def test_a_stages_batches_are_drawn_by_its_own_name(inputs, compute):
    made = runs.staged_specification(STAGES)
    tasks = [toy_task("classification"), dataclasses.replace(toy_task("classification"), name="other")]
    built = building.build(tasks, made, inputs, compute)
    stages = building.stages_of(tasks, made, built, lambda family, head: lambda batch: 0.0)
    assert [stage.settings.seed for stage in stages] == [part_seed(1, "toy_classification"), part_seed(1, "other")]
    assert [stage.settings.batch_size for stage in stages] == [4, 5]
    assert stages[0].parts[0].head is stages[1].parts[0].head


def test_the_last_stage_is_what_a_run_is_looked_at_and_counted_by(inputs, tmp_path, compute):
    found = start(inputs, out_of(tmp_path, "target"))
    assert found["steps"] == 9 + 14
    assert found["examples"] == 9 * 4 + 14 * 5
    assert [(part["steps"], part["examples"]) for part in found["parts"]] == [(9, 36), (14, 70)]
    assert sum(part["tokens"] for part in found["parts"]) == found["tokens"]
    weights = (out_of(tmp_path, "target") / "weights.safetensors").read_bytes()
    assert b"head.linear.weight" in weights
    # Its dev is the last stage's: another first stage's dev rows change nothing of it.
    seen = []
    sound = run.evaluate_dev
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "evaluate_dev", lambda *args: seen.append(args[4]) or sound(*args))
        start(inputs, out_of(tmp_path / "again", "target"))
    assert seen == [inputs.data[1]]


def test_a_single_stage_is_counted_too(inputs, tmp_path):
    """`extra_target` looks for the last stage, whatever their number."""
    one = dataclasses.replace(inputs, encoded=inputs.encoded[1:], data=inputs.data[1:])
    found = start(one, out_of(tmp_path, "target"), STAGES[1:])
    assert [(part["steps"], part["examples"]) for part in found["parts"]] == [(14, 56)]
    assert before_target({"extra_steps": 7}, None, found)["steps"] == 7


def test_extra_steps_are_the_last_stages(inputs, tmp_path):
    """What a score says was spent on the control `extra_target`: a share of what the last stage spent."""
    found = start(inputs, out_of(tmp_path, "target"))
    last = found["parts"][1]
    spent = before_target({"extra_steps": 7}, None, found)
    assert (spent["steps"], spent["examples"], spent["batch_size"]) == (7, 35, found["batch_size"])
    assert spent["tokens"] == round(last["tokens"] / 2)
    assert spent["flops"] == pytest.approx(last["flops"] / 2)


@pytest.mark.parametrize("seed", [1, 2])
def test_told_to_stop_it_goes_on_to_the_same_bytes(seed, inputs, tmp_path, monkeypatch):
    """At the seam too: after the last step of the first stage, and after the first of the second."""
    changes = {"training__dropout": 0.2, "draw": seed}
    whole = start(inputs, out_of(tmp_path / "whole", "target"), **changes)
    out = out_of(tmp_path / "stopped", "target")
    for step in sorted({9, 10, random.Random(seed).randrange(1, 9), random.Random(seed).randrange(11, 23)}):
        with monkeypatch.context() as patch:
            StopAfter(patch, step, signal.SIGTERM)
            with pytest.raises(UserError, match=f"after step {step} of 23"):
                start(inputs, out, **changes)
    found = start(inputs, out, **changes)
    assert published(out) == published(out_of(tmp_path / "whole", "target"))
    for fact in ("steps", "tokens", "flops", "final_loss", "dev", "parts"):
        assert found[fact] == whole[fact], fact
    entries = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in entries] == [10, 20, 23]
    assert read_manifest(out)["parts"][0]["steps"] == 9


def test_the_best_step_is_looked_for_in_the_last_stage_only(inputs, tmp_path):
    found = start(inputs, out_of(tmp_path, "target"), select="best_dev")
    assert found["best_step"] > 9
