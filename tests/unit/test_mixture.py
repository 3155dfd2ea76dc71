"""Runs on several tasks at once: which part a step is of, exact gradients, heads, dev, and going on after a stop."""

from __future__ import annotations

import dataclasses
import random
import signal
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import runs
from runs import CPU, LORA, settings
from stopping import StopAfter, out_of, published, server_train
from toy import toy_frame, toy_task
from xlift.artifacts import read_manifest
from xlift.compute import Compute
from xlift.encoder.adapt import Trainable
from xlift.errors import UserError
from xlift.jobs.train import state_folder
from xlift.tasks.families import FAMILIES
from xlift.training import build as building
from xlift.training import loop, run
from xlift.training.batches import plan_batches
from xlift.training.execution import Execution
from xlift.training.feed import example_lengths, prefetched
from xlift.training.loop import TrainingLoop
from xlift.training.optimiser import AdamW
from xlift.training.parts import Course, Part, Stage, dev_of_parts, drawn_parts, part_seed
from xlift.training.state import read_state

MIXED = ("classification", "span", "tagging")


@pytest.fixture
def inputs(tiny_encoder, tmp_path):
    """Publishes the inputs of a mixture of families, some with fewer training examples."""
    folder = tmp_path / "inputs"
    folder.mkdir()

    def make(families=MIXED, fewer: dict[str, int] | None = None, **places: Path):
        given = []
        for family in families:
            frame = toy_frame(family)
            if family in (fewer or {}):
                frame = frame.filter((frame["split"] != "train") | (frame["id"] < f"{(fewer or {})[family]:03d}"))
            given.append(runs.publish_inputs(family, tiny_encoder, folder, frame))
        return runs.joined(given, **places)

    return make


def start(families, inputs, out: Path, execution: Any = None, **changes: Any) -> dict[str, Any]:
    kept = dataclasses.replace(inputs, state=state_folder(out, changes.get("kind", "intermediate")))
    return runs.start_several(families, runs.mixture_specification(families, **changes), kept, out, execution)


def parts_of(folder: Path, weights: dict[str, float] | None = None, trainable: Trainable = LORA, dropout: float = 0.0):
    """An encoder with a head for each family of `weights`, and the parts."""
    weights = weights or dict.fromkeys(MIXED, 1.0)
    made = {family: runs.prepared(family, folder, trainable, dropout=dropout) for family in weights}
    encoder = next(iter(made.values()))[1].encoder
    heads = torch.nn.ModuleDict({family: model.head for family, (_, model) in made.items()})
    parts = [
        Part(family, FAMILIES[family], heads[family], made[family][0], lambda batch: 1.0, weight)
        for family, weight in weights.items()
    ]
    return encoder, heads, parts


# --- Which part a step is of ---


def test_parts_are_drawn_in_proportion():
    weights = [8.0, 1.0, 16.0, 7.0]
    draws = 20_000
    found = Counter(islice(drawn_parts(weights, 3), draws))
    for place, weight in enumerate(weights):
        share = weight / 32
        # Within five standard errors.
        assert abs(found[place] / draws - share) < 5 * (share * (1 - share) / draws) ** 0.5
    assert list(islice(drawn_parts(weights, 3), 50)) == list(islice(drawn_parts(weights, 3), 90))[:50]
    assert list(islice(drawn_parts(weights, 3), 50)) != list(islice(drawn_parts(weights, 4), 50))
    assert set(islice(drawn_parts([1.0], 0), 50)) == {0}


def test_a_parts_weight_is_its_examples_up_to_the_cap(inputs, tiny_encoder, compute):
    """All of its examples, whatever share of them the run draws from."""
    given = inputs(fewer={"span": 6, "tagging": 16})
    tasks = [toy_task(family) for family in MIXED]
    for changes, expected in (
        ({"cap": 1000}, [24, 6, 16]),
        ({"cap": 10}, [10, 6, 10]),
        ({"cap": 10, "unique_fraction": 0.5}, [10, 6, 10]),
    ):
        made = runs.mixture_specification(MIXED, **changes)
        built = building.build(tasks, made, given, compute)
        (stage,) = building.stages_of(tasks, made, built, lambda family, head: lambda batch: 0.0)
        assert [(part.name, part.weight) for part in stage.parts] == [
            (task.name, weight) for task, weight in zip(tasks, expected, strict=True)
        ]


def test_a_parts_batches_depend_on_no_other_part(tiny_encoder):
    def batches(families: tuple[str, ...], name: str) -> list[list[int]]:
        _, _, parts = parts_of(tiny_encoder, dict.fromkeys(families, 1.0))
        course = Course(Stage(parts, settings(40)), 0, 0, 1, 100, "toy")
        place = families.index(name)
        return [chosen.tolist() for found, chosen in course.plan() if found == place]

    both, other = batches(("classification", "span"), "span"), batches(("span", "tagging", "retrieval"), "span")
    shared = min(len(both), len(other))
    assert shared > 3
    assert both[:shared] == other[:shared]
    # And they are what a run on that part alone would plan with the same number.
    encoded, model = runs.prepared("span", tiny_encoder)
    examples = model.family.training_examples(encoded)
    alone = plan_batches(examples, example_lengths(encoded)[examples], 8, 40, part_seed(1, "span"))
    assert both == [chosen.tolist() for chosen in islice(alone, len(both))]


def test_a_longer_run_begins_as_a_shorter_one(tiny_encoder):
    def plan(steps: int) -> list[tuple[int, list[int]]]:
        _, _, parts = parts_of(tiny_encoder)
        course = Course(Stage(parts, settings(steps)), 0, 0, 1, 100, "toy")
        return [(place, chosen.tolist()) for place, chosen in course.plan()]

    assert plan(31)[:13] == plan(13)


# --- Gradients ---


class Recorder(AdamW):
    """Keeps each step's gradients instead of making the step."""

    def step(self, rate: float) -> None:
        self.seen = [
            *getattr(self, "seen", []),
            {n: p.grad.clone() for n, p in self.parameters.items() if p.grad is not None},
        ]


@pytest.mark.parametrize("cap", [20, 4000], ids=["micro-batches", "at once"])
def test_a_steps_gradient_is_that_of_its_part_alone(cap, tiny_encoder, compute, monkeypatch):
    """Of the same batch, in one pass without our loop: one head, one mean over the terms of one loss."""
    monkeypatch.setattr(loop, "AdamW", Recorder)
    encoder, heads, parts = parts_of(tiny_encoder)
    optimisation = settings(14, batch_size=6, clip=1e9)
    found = TrainingLoop(encoder, heads, [Stage(parts, optimisation)], compute, cap, "toy")
    plan = list(Course(Stage(parts, optimisation), 0, 0, encoder.pad_id, 4000, "toy").plan())
    assert len({place for place, _ in plan}) == 3
    found.run()
    for (place, chosen), gradients in zip(plan, found._optimiser.seen, strict=True):
        part = parts[place]
        encoder.zero_grad()
        heads.zero_grad()
        batch = runs.whole_batch(part.encoded, part.family, chosen, encoder.pad_id)
        loss = part.family.loss(part.head, encoder(batch.tokens, batch.mask, batch.types), batch, part.encoded)
        (loss / part.family.units(part.encoded)[chosen].sum()).backward()
        expected = {
            f"{where}.{name}": p.grad
            for where, module in (("encoder", encoder), ("head", heads))
            for name, p in module.named_parameters()
            if p.grad is not None
        }
        assert expected.keys() == gradients.keys()
        assert {name.split(".")[1] for name in gradients if name.startswith("head.")} == {part.name}
        for name, gradient in expected.items():
            torch.testing.assert_close(gradients[name], gradient, atol=1e-6, rtol=1e-4)


def test_a_head_moves_only_in_its_own_steps(tiny_encoder, compute):
    encoder, heads, parts = parts_of(tiny_encoder)
    found = TrainingLoop(encoder, heads, [Stage(parts, settings(8))], compute, 4000, "toy")
    for step in found._steps():
        before = {name: weight.clone() for name, weight in heads.state_dict().items()}
        found._advance(step)
        moved = {
            name.split(".")[0] for name, weight in heads.state_dict().items() if not torch.equal(weight, before[name])
        }
        assert moved == {parts[step.part].name}


# --- What a run publishes ---


def test_a_mixtures_manifest_log_and_weights(inputs, tmp_path):
    found = start(MIXED, inputs(fewer={"span": 8}), out_of(tmp_path), recipe__steps=30)
    of_parts = found["parts"]
    assert [part["task"] for part in of_parts] == [f"toy_{family}" for family in MIXED]
    for name in ("steps", "examples", "tokens", "padded_tokens"):
        assert sum(part[name] for part in of_parts) == found[name]
    assert sum(part["flops"] for part in of_parts) == pytest.approx(found["flops"], rel=1e-12)
    assert found["steps"] == 30
    assert all(part["examples"] == 4 * part["steps"] > 0 for part in of_parts)
    weights = load_file(out_of(tmp_path) / "weights.safetensors")
    assert {".".join(name.split(".")[:2]) for name in weights if name.startswith("head.")} == {
        f"head.toy_{family}" for family in MIXED
    }
    assert weights["head.toy_tagging.linear.weight"].shape == (3, 32)
    log = (out_of(tmp_path) / "log.jsonl").read_text()
    assert log.count('"task": "toy_') == 3
    dev = found["dev"]
    assert dev["parts"].keys() == {f"toy_{family}" for family in MIXED}
    assert dev["score"] == pytest.approx(sum(part["score"] for part in dev["parts"].values()) / 3)
    assert dev["parts"]["toy_span"]["metric"] == "squad_f1"


def test_each_part_is_scored_with_its_own_head(inputs, tmp_path, compute):
    """The dev score of a part is what its head in the checkpoint scores on its own."""
    given = inputs()
    found = start(MIXED, given, out_of(tmp_path), recipe__steps=40, recipe__learning_rate=2e-2)
    made = runs.mixture_specification(MIXED)
    tasks = [toy_task(family) for family in MIXED]
    parent = out_of(tmp_path)
    again = building.build(
        tasks, {**made, "parent": found["fingerprint"]}, dataclasses.replace(given, parent=parent), compute
    )
    heads = {
        name.removeprefix("head."): t
        for name, t in load_file(parent / "weights.safetensors").items()
        if "head." in name
    }
    again.head.load_state_dict(heads)
    for task, head, encoded, data in zip(tasks, again.heads, again.encoded, given.data, strict=True):
        dev = run.evaluate_dev(task, again.encoder, head, encoded, data, compute)
        assert dev == found["dev"]["parts"][task.name]


def test_the_dev_of_a_mixture_by_hand():
    def dev(score: float, floor: float) -> dict[str, Any]:
        return {"metric": "accuracy", "score": score, "floor": floor, "collapsed": score <= floor}

    found = dev_of_parts({"b": dev(50, 50), "a": dev(90, 30)})
    assert (found["score"], found["floor"], found["collapsed"]) == (70, 40, False)
    assert found["collapsed_parts"] == ["b"]
    assert list(found["parts"]) == ["a", "b"]
    both = dev_of_parts({"b": dev(50, 50), "a": dev(10, 30)})
    assert (both["collapsed"], both["collapsed_parts"]) == (True, ["a", "b"])


def test_the_control_without_content_shuffles_every_part(inputs, compute):
    given = inputs()
    tasks = [toy_task(family) for family in MIXED]
    made = runs.mixture_specification(MIXED)
    plain = building.build(tasks, made, given, compute)
    shuffled = building.build(tasks, {**made, "control": "shuffled_labels"}, given, compute)
    for family, before, after in zip(plain.families, plain.encoded, shuffled.encoded, strict=True):
        expected = family.shuffled(before, made["draw"])
        for level in ("by_token", "by_sequence", "by_example"):
            for name, values in getattr(expected, level).items():
                assert torch.equal(getattr(after, level)[name], values)
        assert any(
            not torch.equal(getattr(after, level)[name], values)
            for level in ("by_token", "by_sequence", "by_example")
            for name, values in getattr(before, level).items()
        )


def test_memory_is_planned_for_the_part_that_needs_most(inputs, tmp_path, monkeypatch):
    families = ("classification", "multiple_choice", "retrieval")
    given, seen = inputs(families), []
    sound = run.memory_plan

    def plan(execution, compute, shape, weights, longest):
        seen.append(longest)
        return sound(execution, compute, shape, weights, longest)

    monkeypatch.setattr(run, "memory_plan", plan)
    start(families, given, out_of(tmp_path), recipe__steps=3)
    built = building.build(
        [toy_task(family) for family in families],
        runs.mixture_specification(families),
        given,
        Compute(CPU, torch.float32),
    )
    each = [
        run.positions_together(family, encoded, 4)
        for family, encoded in zip(built.families, built.encoded, strict=True)
    ]
    assert len(set(each)) == 3
    assert seen == [max(each)]


def test_prepared_ahead_the_steps_are_the_same(tiny_encoder, compute):
    encoder, heads, parts = parts_of(tiny_encoder)
    plain = TrainingLoop(encoder, heads, [Stage(parts, settings(12))], compute, 60, "toy")
    steps, ahead = list(plain._steps()), list(prefetched(plain._steps()))
    assert [step.part for step in ahead] == [step.part for step in steps]
    for one, other in zip(steps, ahead, strict=True):
        assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(one.batches, other.batches, strict=True))


@pytest.mark.parametrize("fewer", [0, 3])
def test_a_part_without_enough_examples_is_named(fewer, inputs, tmp_path):
    expected = (
        "toy_span has no training examples" if fewer == 0 else r"larger than the 3 training examples that toy_span"
    )
    with pytest.raises(UserError, match=expected):
        start(MIXED, inputs(fewer={"span": fewer}), out_of(tmp_path))


# --- Going on after a stop ---


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_told_to_stop_at_random_steps_it_goes_on_to_the_same_bytes(seed, inputs, tmp_path, monkeypatch):
    given, changes = inputs(), {"training__dropout": 0.2, "recipe__steps": 25, "draw": seed}
    whole = start(MIXED, given, out_of(tmp_path / "whole"), **changes)
    draw = random.Random(seed)
    out = out_of(tmp_path / "stopped")
    for step in sorted(draw.sample(range(1, 25), 3)):
        with monkeypatch.context() as patch:
            StopAfter(patch, step, draw.choice([signal.SIGTERM, signal.SIGINT]))
            with pytest.raises(UserError, match=f"after step {step} of 25"):
                start(MIXED, given, out, **changes)
    found = start(MIXED, given, out, **changes)
    assert published(out) == published(out_of(tmp_path / "whole"))
    for fact in ("steps", "tokens", "flops", "final_loss", "dev", "parts"):
        assert found[fact] == whole[fact], fact


def _train(families: tuple[str, ...], given: runs.Inputs, out: Path) -> None:
    torch.set_num_threads(1)
    start(families, given, out, Execution(save_every=0.0), recipe__steps=50)


def test_killed_at_random_points_it_goes_on_to_the_same_bytes(inputs, tmp_path):
    server_train(_train, (MIXED, inputs()), tmp_path, kills=3)


def test_a_branch_of_a_mixtures_trunk_is_the_schedule_run_in_one_go(inputs, tmp_path):
    given = inputs()
    constant = {"schedule": {"kind": "constant", "warmup_steps": 2}, "kind": "trunk"}

    def segment(steps: int, before: Path | None) -> Path:
        out = tmp_path / "a" / "trunk" / "toy" / f"s{steps}" / "seed1"
        start(MIXED, dataclasses.replace(given, start=before), out, recipe__steps=steps, **constant)
        return out

    second = segment(16, segment(7, None))
    branch = {"schedule": {"kind": "cooldown", "warmup_steps": 2, "branch": 16}, "recipe__steps": 21}
    branched = start(MIXED, dataclasses.replace(given, start=second), out_of(tmp_path / "a"), **branch)
    at_once = start(MIXED, given, out_of(tmp_path / "b"), **branch)
    assert published(out_of(tmp_path / "a")) == published(out_of(tmp_path / "b"))
    for fact in ("steps", "tokens", "flops", "parts", "fingerprint"):
        assert branched[fact] == at_once[fact], fact
    assert (branched["job_steps"], read_manifest(second)["steps"]) == (5, 16)
    assert sum(amounts["steps"] for amounts in read_state(second / "state.safetensors").facts["parts"]) == 16


def test_the_best_weights_on_dev_are_those_of_the_mean_over_parts(inputs, tmp_path):
    changes = {"select": "best_dev", "recipe__steps": 40, "recipe__learning_rate": 0.5}
    found = start(MIXED, inputs(), out_of(tmp_path / "best"), **changes)
    last = start(MIXED, inputs(), out_of(tmp_path / "last"), **changes | {"select": "last"})
    assert found["dev"]["score"] >= last["dev"]["score"]
    assert found["best_step"] in range(4, 41, 4)
