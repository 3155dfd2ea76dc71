"""What a training run says on its way: log.jsonl, and lines for readers."""

from __future__ import annotations

import dataclasses
import json
import re
import signal

import pytest
import torch

import runs
from stopping import StopAfter, out_of, states
from xlift.errors import UserError
from xlift.jobs.train import state_folder
from xlift.training import loop, progress
from xlift.training.execution import Execution
from xlift.training.progress import Pace, progress_line, speeds
from xlift.training.state import read_state

FIELDS = {"step", "steps", "loss", "gradient_norm", "lr", "tokens", "tokens_per_s", "seconds", "seconds_left"}


def test_speeds_by_hand():
    # Four of ten steps: 60 tokens in 8 seconds, 2 a step, so that six steps are left at 2 seconds each.
    assert speeds(4, 10, [10, 30, 45, 60], [2.0, 4.0, 6.0, 8.0]) == {
        "step": 4,
        "steps": 10,
        "tokens": 60,
        "tokens_per_s": 7.5,
        "seconds": 8.0,
        "seconds_left": 12.0,
    }


def test_speed_is_that_of_the_last_hundred_steps():
    # 50 steps of a second and 10 tokens, then 100 of four seconds: a busy machine.
    seconds = [float(step) for step in range(1, 51)] + [50.0 + 4 * step for step in range(1, 101)]
    found = speeds(150, 200, [10 * step for step in range(1, 151)], seconds)
    assert (found["tokens_per_s"], found["seconds_left"], found["seconds"]) == (2.5, 200.0, 450.0)


def test_lines_for_readers():
    entry = {"step": 120, "steps": 400, "loss": 0.53124, "tokens_per_s": 1234.4, "seconds": 60.0, "seconds_left": 200.0}
    assert progress_line(entry) == "step 120/400  loss 0.5312  1,234 tokens/s  3.33 min left"
    assert progress_line({**entry, "step": 400}) == "step 400/400  loss 0.5312  1,234 tokens/s  60 s in all"


def test_when_lines_are_written(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    pace = Pace()
    assert (pace.due(False), pace.due(True)) == (False, True)
    pace.spoken()
    now[0] += 9.9
    assert (pace.due(False), pace.due(True)) == (False, False)
    now[0] += 0.1
    assert (pace.due(False), pace.due(True)) == (True, True)


@pytest.fixture
def inputs(tiny_encoder, tmp_path):
    (tmp_path / "inputs").mkdir()
    given = runs.publish_inputs("classification", tiny_encoder, tmp_path / "inputs")
    return dataclasses.replace(given, state=state_folder(out_of(tmp_path), "intermediate"))


def entries(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_the_log_of_a_run(inputs, tmp_path, capsys):
    found = runs.start_run("classification", inputs, out_of(tmp_path), recipe__steps=24)
    log = entries(out_of(tmp_path))
    assert [entry["step"] for entry in log] == [10, 20, 24]
    assert all(entry.keys() == FIELDS and entry["steps"] == 24 for entry in log)
    seconds = [entry["seconds"] for entry in log]
    assert seconds == sorted(seconds)
    assert log[-1]["seconds"] == found["seconds"]
    assert log[-1]["seconds_left"] == 0
    assert log[-1]["tokens_per_s"] == pytest.approx(found["tokens"] / found["seconds"])
    assert log[-1]["loss"] == found["final_loss"]
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]
    # A run of under ten seconds: its first entry and its end.
    number = r"[0-9.,]+(?:e[+-][0-9]+)?"
    assert len(lines) == 2
    assert re.fullmatch(rf"step 10/24  loss {number}  {number} tokens/s  {number} s left", lines[0])
    assert re.fullmatch(rf"step 24/24  loss {number}  {number} tokens/s  {number} s in all", lines[1])


def test_slow_steps_have_a_line_each_and_the_log_stays_as_it_is(inputs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    runs.start_run("classification", inputs, out_of(tmp_path), recipe__steps=12)
    lines = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]
    assert lines == [f"{step}/12" for step in range(1, 13)]
    assert [entry["step"] for entry in entries(out_of(tmp_path))] == [10, 12]


def test_the_log_can_be_read_while_the_run_goes_on(inputs, tmp_path, monkeypatch):
    seen = []
    sound = loop.TrainingLoop._advance

    def advance(this, step):
        sound(this, step)
        seen.append([entry["step"] for entry in entries(out_of(tmp_path))])

    monkeypatch.setattr(loop.TrainingLoop, "_advance", advance)
    runs.start_run("classification", inputs, out_of(tmp_path), recipe__steps=21)
    assert (seen[9], seen[10], seen[20]) == ([], [10], [10, 20])


def test_the_clock_goes_on_where_a_stopped_run_left_it(inputs, tmp_path, monkeypatch):
    out = out_of(tmp_path)
    with monkeypatch.context() as patch:
        StopAfter(patch, 15, signal.SIGTERM)
        with pytest.raises(UserError, match="after step 15"):
            runs.start_run("classification", inputs, out, Execution(), recipe__steps=20)
    before = entries(out)
    (state,) = states(tmp_path)
    at = read_state(state).tensors["seconds_at"]
    assert at.dtype == torch.float64
    assert len(at) == 15
    assert (at.diff() > 0).all()
    runs.start_run("classification", inputs, out, Execution(), recipe__steps=20)
    after = entries(out)
    assert after[0] == before[0]
    assert after[1]["seconds"] > at[-1].item()


def test_a_state_of_another_precision_is_refused(tiny_encoder, compute):
    encoded, model = runs.prepared("classification", tiny_encoder)
    first = runs.loop_of(model, encoded, runs.settings(20), compute, tiny_encoder)
    first.run()
    state = first.state()
    assert state.facts["dtype"] == "fp32"
    other = dataclasses.replace(state, facts={**state.facts, "dtype": "bf16"})
    again = runs.loop_of(model, encoded, runs.settings(20), compute, tiny_encoder)
    with pytest.raises(UserError, match="was computed in bf16 up to step 20, and this machine computes in fp32"):
        again.restore(other)
