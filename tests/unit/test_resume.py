"""A stopped run goes on to the bytes of an uninterrupted one; a trunk's branch is the schedule run in one go."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import runs
from runs import FAMILY_NAMES, FULL, LORA
from stopping import StopAfter, logged, out_of, published, states
from xlift.artifacts import read_manifest
from xlift.errors import UserError
from xlift.jobs.train import state_folder
from xlift.training.execution import Execution
from xlift.training.state import State, StateFolder, read_state

EVERY_STEP = Execution(save_every=0.0)


def start_run(family: str, inputs: runs.Inputs, out: Path, execution: Any = None, **changes: Any) -> dict[str, Any]:
    """Train a toy run of a study to its end, with its state where a job would keep it."""
    kept = dataclasses.replace(inputs, state=state_folder(out, changes.get("kind", "intermediate")))
    return runs.start_run(family, kept, out, execution, **changes)


@pytest.fixture
def inputs(tiny_encoder, tmp_path):
    def make(family: str, **places: Path):
        return runs.publish_inputs(family, tiny_encoder, tmp_path / "inputs", **places)

    (tmp_path / "inputs").mkdir()
    return make


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("trainable", [LORA, FULL], ids=["lora", "full"])
@pytest.mark.parametrize("step", [7, 12], ids=["on the way", "after the last step"])
@pytest.mark.fault("SIGTERM or SIGINT in a training run")
def test_a_run_told_to_stop_saves_and_goes_on_to_the_same_bytes(
    number, trainable, step, inputs, tmp_path, monkeypatch, capsys, fault
):
    given, changes = inputs("tagging"), {"trainable": dataclasses.asdict(trainable), "training__dropout": 0.2}
    whole = start_run("tagging", given, out_of(tmp_path / "whole"), **changes)
    out = out_of(tmp_path / "stopped")
    with monkeypatch.context() as patch:
        StopAfter(patch, step, number)
        expected = (
            rf"toy/x1/seed1: stopped by {number.name} after step {step} of 12; its state is saved: run the workflow"
        )
        with pytest.raises(UserError, match=expected):
            start_run("tagging", given, out, **changes)
    assert [path.name for path in out.iterdir()] == ["log.jsonl"]
    assert [entry["step"] for entry in logged(out)] == ([] if step == 7 else [10, 12])
    (state,) = states(tmp_path / "stopped")
    assert read_state(state).facts["step"] == step
    found = start_run("tagging", given, out, **changes)
    assert (found["seconds_to_first_step"] is None) == (step == 12)
    assert f"goes on after step {step}" in capsys.readouterr().out
    assert published(out) == published(out_of(tmp_path / "whole"))
    for fact in ("steps", "examples", "tokens", "padded_tokens", "flops", "final_loss", "dev", "job_steps"):
        assert found[fact] == whole[fact], fact
    assert not states(tmp_path / "stopped")
    fault.survives()


def _train(family: str, given: runs.Inputs, out: Path) -> None:
    torch.set_num_threads(1)
    start_run(family, given, out, EVERY_STEP, recipe__steps=60)


def _nothing() -> None:
    pass


@pytest.fixture(scope="module")
def server():
    """Processes that have imported everything already, so that a kill falls into the work."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["xlift.training.run"])
    warm = context.Process(target=_nothing)
    warm.start()
    warm.join()
    return context


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.fault("kill -9 of a training run, at a random point")
def test_killed_at_random_points_and_started_again(family, inputs, tmp_path, server, fault):
    """Four kills a family, twenty in all, spread over the time that a run takes."""
    given, draw = inputs(family), random.Random(FAMILY_NAMES.index(family))
    reference = out_of(tmp_path / "whole")
    started = time.monotonic()
    process = server.Process(target=_train, args=(family, given, reference))
    process.start()
    process.join()
    needed = time.monotonic() - started
    assert process.exitcode == 0
    out, kills, starts, reached = out_of(tmp_path / "killed"), 0, 0, []
    while kills < 4:
        starts += 1
        assert starts < 40, "the run never gets killed: it ends too early"
        process = server.Process(target=_train, args=(family, given, out))
        process.start()
        process.join(draw.uniform(0.2, 0.7) * needed)
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            kills += 1
            whole = [path for path in states(tmp_path / "killed") if path.suffix == ".safetensors"]
            reached.append(max((read_state(path).facts["step"] for path in whole), default=0))
        elif (out / "manifest.json").exists():
            # It got to its end between two kills: the next ones hit a fresh run.
            assert published(out) == published(reference)
            out = out_of(tmp_path / f"killed{starts}")
            needed *= 0.7  # the machine has become faster since
    process = server.Process(target=_train, args=(family, given, out))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert published(out) == published(reference)
    assert max(reached) > 0, "every kill came before the first state was saved"
    fault.survives(4)


@pytest.mark.fault("a damaged or foreign state of a run in progress")
def test_a_state_of_other_settings_or_a_damaged_one_is_not_used(inputs, tmp_path, monkeypatch, capsys, fault):
    given, out = inputs("classification"), out_of(tmp_path / "a")

    def stop(**changes) -> Path:
        with monkeypatch.context() as patch:
            StopAfter(patch, 5, signal.SIGTERM)
            with pytest.raises(UserError, match="stopped by SIGTERM after step 5"):
                start_run("classification", given, out, **changes)
        return states(tmp_path / "a")[0]

    stop(recipe__learning_rate=1e-3)
    start_run("classification", given, out)
    assert "is of a run with other settings" in capsys.readouterr().out
    reference = start_run("classification", given, out_of(tmp_path / "whole"))
    assert published(out) == published(out_of(tmp_path / "whole"))
    (out / "manifest.json").unlink()
    path = stop()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    capsys.readouterr()
    again = start_run("classification", given, out)
    assert "is damaged, so the run does not go on from it" in capsys.readouterr().out
    assert published(out) == published(out_of(tmp_path / "whole"))
    assert again["files"]["weights.safetensors"] == reference["files"]["weights.safetensors"]
    fault.refuses()


def test_the_state_before_stays_until_the_next_is_whole(tmp_path, monkeypatch):
    folder = StateFolder(tmp_path, "mine", 0.0)
    folder.save(State({"a": torch.ones(3)}, {"step": 1}))
    monkeypatch.setattr("xlift.training.state.sha256_of", lambda path: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        folder.save(State({"a": torch.zeros(3)}, {"step": 2}))
    monkeypatch.undo()
    found = folder.load()
    assert found is not None
    assert found.facts == {"step": 1, "fingerprint": "mine"}
    assert torch.equal(found.tensors["a"], torch.ones(3))
    folder.save(State({"a": torch.zeros(3)}, {"step": 2}))
    assert len(list(tmp_path.iterdir())) == 1
    assert StateFolder(tmp_path, "another", 0.0).load() is None


def test_saves_are_as_far_apart_as_asked(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("xlift.training.state.time.monotonic", lambda: now[0])
    folder = StateFolder(tmp_path, "mine", 60.0)
    assert not folder.due
    now[0] += 60
    assert folder.due
    folder.save(State({"a": torch.ones(1)}, {"step": 1}))
    assert not folder.due


def test_states_lie_beside_the_studys_other_folders():
    out = Path("results/s/target/t/i/x1/seed3")
    assert state_folder(out, "target") == Path("results/s/state/target/t/i/x1/seed3")


# --- Trunks ---

TRUNK = {"schedule": {"kind": "constant", "warmup_steps": 2}, "kind": "trunk"}


def segment(family, given, study: Path, steps: int, before: Path | None, **changes) -> Path:
    out = study / "trunk" / "toy" / f"s{steps}" / "seed1"
    found = dataclasses.replace(given, start=before)
    start_run(family, found, out, recipe__steps=steps, **TRUNK, **changes)
    return out


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_a_branch_of_a_trunk_is_the_same_schedule_run_in_one_go(family, inputs, tmp_path):
    given = inputs(family)
    first = segment(family, given, tmp_path / "a", 7, None)
    second = segment(family, given, tmp_path / "a", 16, first)
    branch = {"schedule": {"kind": "cooldown", "warmup_steps": 2, "branch": 16}, "recipe__steps": 21}
    from_trunk = dataclasses.replace(given, start=second)
    branched = start_run(family, from_trunk, out_of(tmp_path / "a"), **branch)
    at_once = start_run(family, given, out_of(tmp_path / "b"), **branch)
    assert published(out_of(tmp_path / "a")) == published(out_of(tmp_path / "b"))
    for fact in ("steps", "examples", "tokens", "padded_tokens", "flops", "fingerprint"):
        assert branched[fact] == at_once[fact], fact
    assert (branched["job_steps"], at_once["job_steps"]) == (5, 21)
    assert branched["start"] == str(second / "manifest.json")
    made = read_manifest(second)
    assert (made["steps"], made["job_steps"], made["dev"]) == (16, 9, None)
    assert branched["job_flops"] == pytest.approx(branched["flops"] - made["flops"])
    # An in-between segment changes nothing after it.
    between = segment(family, given, tmp_path / "c", 10, first)
    again = segment(family, given, tmp_path / "c", 16, between)
    assert (again / "state.safetensors").read_bytes() != b""
    one, other = (read_state(folder / "state.safetensors") for folder in (second, again))
    assert sorted(one.tensors) == sorted(other.tensors)
    assert all(torch.equal(one.tensors[name], other.tensors[name]) for name in one.tensors.keys() - {"seconds_at"})


def test_a_stopped_branch_goes_on_from_its_own_state(inputs, tmp_path, monkeypatch):
    given = inputs("classification")
    start = segment("classification", given, tmp_path / "a", 6, None)
    branch = {"schedule": {"kind": "cooldown", "warmup_steps": 2, "branch": 6}, "recipe__steps": 12}
    from_trunk = dataclasses.replace(given, start=start)
    whole = start_run("classification", from_trunk, out_of(tmp_path / "whole"), **branch)
    with monkeypatch.context() as patch:
        StopAfter(patch, 9, signal.SIGTERM)
        with pytest.raises(UserError, match="after step 9"):
            start_run("classification", from_trunk, out_of(tmp_path / "a"), **branch)
    found = start_run("classification", from_trunk, out_of(tmp_path / "a"), **branch)
    assert published(out_of(tmp_path / "a")) == published(out_of(tmp_path / "whole"))
    assert found["job_steps"] == whole["job_steps"] == 6


def test_nothing_goes_on_over_another_encoder(inputs, tmp_path, monkeypatch, capsys):
    """An encoder without a pinned revision can be another one under the same settings."""
    given = dataclasses.replace(inputs("classification"), encoder_sha256="aaa")
    other = dataclasses.replace(given, encoder_sha256="bbb")
    with monkeypatch.context() as patch:
        StopAfter(patch, 5, signal.SIGTERM)
        with pytest.raises(UserError, match="after step 5"):
            start_run("classification", given, out_of(tmp_path))
    start_run("classification", other, out_of(tmp_path))
    assert "goes on after" not in capsys.readouterr().out
    start = segment("classification", given, tmp_path, 6, None)
    branch = {"schedule": {"kind": "cooldown", "warmup_steps": 2, "branch": 6}, "recipe__steps": 12}
    with pytest.raises(UserError, match=r"was trained over encoder weights with sha256 aaa, and the prepared .* bbb"):
        start_run("classification", dataclasses.replace(other, start=start), out_of(tmp_path / "b"), **branch)


def test_without_a_place_for_its_state_a_signal_stops_at_once(tiny_encoder, compute, monkeypatch):
    encoded, model = runs.prepared("classification", tiny_encoder)
    StopAfter(monkeypatch, 3, signal.SIGINT)
    found = runs.loop_of(model, encoded, runs.settings(20), compute, tiny_encoder)
    with pytest.raises(KeyboardInterrupt):
        found.run()
    assert found.realised.total.steps == 3


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"draw": 2}, "draw"), ({"recipe__learning_rate": 1e-4}, "recipe.learning_rate"), ({"seed": 5}, "seed")],
)
def test_a_trunk_of_other_settings_is_refused(changes, named, inputs, tmp_path):
    given = inputs("classification")
    start = segment("classification", given, tmp_path, 6, None, **changes)
    branch = {"schedule": {"kind": "cooldown", "warmup_steps": 2, "branch": 6}, "recipe__steps": 12}
    with pytest.raises(UserError, match=rf"is a trunk with another {named} than this run's; run the workflow again"):
        start_run("classification", dataclasses.replace(given, start=start), out_of(tmp_path), **branch)


# --- The best weights on English dev ---


def test_the_best_weights_on_dev_are_kept_and_survive_a_stop(inputs, tmp_path, monkeypatch):
    given = inputs("classification")
    # A rate that learns and then destroys: the end is not the best.
    changes = {"select": "best_dev", "recipe__steps": 40, "recipe__learning_rate": 0.5, "training__dropout": 0.0}
    found = start_run("classification", given, out_of(tmp_path / "a"), **changes)
    looks = [json.loads(line)["step"] for line in (out_of(tmp_path / "a") / "log.jsonl").read_text().splitlines()]
    assert looks[-1] == 40
    assert found["best_step"] in range(4, 41, 4)
    last = start_run("classification", given, out_of(tmp_path / "last"), **changes | {"select": "last"})
    assert found["dev"]["score"] >= last["dev"]["score"]
    assert last["best_step"] is None
    with monkeypatch.context() as patch:
        StopAfter(patch, found["best_step"] + 2, signal.SIGTERM)
        with pytest.raises(UserError, match="stopped by SIGTERM"):
            start_run("classification", given, out_of(tmp_path / "b"), **changes)
    again = start_run("classification", given, out_of(tmp_path / "b"), **changes)
    assert again["best_step"] == found["best_step"]
    assert published(out_of(tmp_path / "b")) == published(out_of(tmp_path / "a"))


def test_of_equal_dev_scores_the_earliest_is_best(tiny_encoder, compute):
    encoded, model = runs.prepared("classification", tiny_encoder)
    given = iter([50.0, 75.0, 60.0, 75.0, 10.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    found = runs.loop_of(model, encoded, runs.settings(20, 1e-2), compute, tiny_encoder, dev_score=lambda: next(given))
    kept = []
    sound = found._look

    def look(done: int) -> None:
        sound(done)
        kept.append({name: parameter.detach().clone() for name, parameter in model.trained().items()})

    found._look = look
    assert found.run().best_step == 4
    assert all(torch.equal(parameter, kept[1][name]) for name, parameter in model.trained().items())
    assert any(not torch.equal(kept[1][name], kept[9][name]) for name in kept[1])
