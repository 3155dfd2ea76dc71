"""Plans: the jobs of a study, how they are scheduled, and what they cost by finished runs or by assumption."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlift.artifacts import fingerprint, publish_folder
from xlift.catalog import CATALOG
from xlift.cli import main
from xlift.errors import UserError
from xlift.grid import PLACE, Grid, place
from xlift.planning.costs import RATES, SECONDS, STEP_SECONDS, CostModel, chosen_device, own_steps, trained_weights
from xlift.planning.dag import count_by_rule, outstanding, study_jobs
from xlift.planning.evidence import Evidence, JobRecord, RunRecord, TokenRecord, model_key, read_evidence
from xlift.planning.plan import PACKAGED, encoder_shape, make_plan, trunk_ratio
from xlift.planning.scheduling import list_schedule, longest_chain
from xlift.planning.text import scaled
from xlift.study import parse_study
from xlift.tables import publish_table
from xlift.training.cost import EncoderShape, training_flops
from xlift.training.progress import duration

SETTINGS: dict[str, Any] = {
    "study": "planned",
    "intermediates": ["cldr_pairs", "cldr_choice"],
    "budgets": [1, 2, 4, 8],
    "seeds": [1, 2],
    "targets": ["cldr_kind", "cldr_retrieval"],
    "languages": ["de", "sw"],
    "recipes": {"cldr_pairs": {"steps": 40, "batch_size": 10}},
}


NOWHERE = Path("no/results")


def make(**changes: Any) -> Grid:
    return Grid(parse_study({**SETTINGS, **changes}, "my.yaml"), "my.yaml")


# --- Scheduling ---


@pytest.mark.parametrize(
    ("seconds", "needs", "workers", "expected"),
    [
        ([], [], 1, 0.0),
        ([3.0], [()], 4, 3.0),
        ([3.0, 2.0, 1.0], [(), (), ()], 1, 6.0),
        ([3.0, 2.0, 1.0], [(), (), ()], 2, 3.0),
        ([1.0, 2.0, 3.0], [(), (), ()], 2, 4.0),  # in order of readiness: 3 begins when 1 ends
        ([1.0, 2.0, 3.0], [(), (0,), (1,)], 8, 6.0),
        # A diamond: two middle jobs at once, the last when both are done.
        ([1.0, 4.0, 2.0, 1.0], [(), (0,), (0,), (1, 2)], 2, 6.0),
        ([1.0, 4.0, 2.0, 1.0], [(), (0,), (0,), (1, 2)], 1, 8.0),
        # A chain beside free jobs: 0 and 2 begin, 3 waits for a worker, 1 for 0.
        ([2.0, 2.0, 3.0, 1.0], [(), (0,), (), ()], 2, 5.0),
        ([1.0, 1.0], [(), (0, 0)], 2, 2.0),  # named twice, waited for once
        ([0.0, 0.0, 5.0], [(), (0,), (1,)], 2, 5.0),
    ],
)
def test_schedules_by_hand(seconds, needs, workers, expected):
    assert list_schedule(seconds, needs, workers) == expected


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[float], list[tuple[int, ...]]]:
    size = draw(st.integers(1, 12))
    seconds = draw(st.lists(st.integers(0, 20).map(float), min_size=size, max_size=size))
    needs = [tuple(sorted(draw(st.sets(st.integers(0, job - 1), max_size=3)))) if job else () for job in range(size)]
    return seconds, needs


@settings(deadline=None)
@given(graphs(), st.integers(1, 5))
def test_no_schedule_beats_the_bounds_or_breaks_grahams(graph, workers):
    seconds, needs = graph
    found = list_schedule(seconds, needs, workers)
    chain, work = longest_chain(seconds, needs), sum(seconds) / workers
    assert max(chain, work) <= found <= work + chain * (1 - 1 / workers) + 1e-9
    assert list_schedule(seconds, needs, 1) == sum(seconds)
    assert list_schedule(seconds, needs, len(seconds)) == chain


@settings(max_examples=50, deadline=None)
@given(graphs())
def test_a_schedule_is_that_of_a_plain_simulation(graph):
    """Second by second: workers take the jobs that became ready first, lower numbers first."""
    seconds, needs = graph
    workers, left, done = 2, dict(enumerate(seconds)), set[int]()
    ready_at: dict[int, float] = {}
    running: list[int] = []
    now = 0.0
    while len(done) < len(seconds):
        while True:
            for job in range(len(seconds)):
                if job not in ready_at and set(needs[job]) <= done:
                    ready_at[job] = now
            waiting = sorted((at, job) for job, at in ready_at.items() if job not in done and job not in running)
            running += [job for _, job in waiting[: workers - len(running)]]
            ended = [job for job in running if left[job] <= 0]
            if not ended:
                break
            done.add(min(ended, key=lambda job: (ready_at[job], job)))
            running = [job for job in running if job not in done]
        if len(done) < len(seconds):
            now += 1
            for job in running:
                left[job] -= 1
    chain = longest_chain(seconds, needs)
    assert abs(list_schedule(seconds, needs, workers) - now) <= chain  # ties may fall otherwise, never by more


def test_a_schedule_needs_a_worker_and_an_order():
    with pytest.raises(ValueError, match="at least one worker"):
        list_schedule([1.0], [()], 0)
    with pytest.raises(ValueError, match="wait for one another"):
        list_schedule([1.0, 1.0], [(1,), (0,)], 1)


# --- Jobs ---


def test_jobs_of_a_study_by_hand():
    jobs = study_jobs(make(schedule="trunk", controls=["extra_target"]), NOWHERE)
    runs = 2 * 4 * 2  # tasks, budgets, seeds
    assert count_by_rule(jobs, [True] * len(jobs)) == {
        "prepare_encoder": 1,
        "prepare_data": 4,
        "encode_task": 4,
        "plan_analysis": 1,
        "train_trunk": runs,
        "train_intermediate": runs,
        "train_target": 2 + 2 * runs,
        "predict_cell": (2 + 2 * runs) + (2 + runs),
        "score_cells": 1,
        "collect_runs": 1,
        "estimate_contrasts": 1,
        "render_report": 1,
        "all": 1,
    }
    assert all(need < index for index, job in enumerate(jobs) for need in (*job.needs, *job.prepared))
    by_path = {job.path: job for job in jobs}
    assert len(by_path) == len(jobs)

    def needs(path: str) -> list[str]:
        return [jobs[need].path for need in by_path[path].needs]

    assert needs("trunk/cldr_pairs/x1/seed2/manifest.json") == []
    assert needs("trunk/cldr_pairs/x8/seed2/manifest.json") == ["trunk/cldr_pairs/x4/seed2/manifest.json"]
    assert needs("intermediate/cldr_pairs/x4/seed2/manifest.json") == ["trunk/cldr_pairs/x4/seed2/manifest.json"]
    assert needs("target/cldr_kind/cldr_pairs/x4/seed2/manifest.json") == [
        "intermediate/cldr_pairs/x4/seed2/manifest.json"
    ]
    assert needs("target/cldr_kind/cldr_pairs.extra_target/x4/seed2/manifest.json") == []
    assert needs("predictions/cldr_retrieval/none/x0/seed1.parquet") == []
    assert needs("predictions/cldr_retrieval/cldr_pairs/x1/seed1.parquet") == [
        "intermediate/cldr_pairs/x1/seed1/manifest.json"
    ]
    rules = ("predict_cell", "train_intermediate", "train_target")
    assert sorted(needs("scores.parquet")) == sorted(job.path for job in jobs if job.rule in rules)
    assert [jobs[need].path for need in by_path["scores.parquet"].prepared] == ["analysis_plan.json"]


def publish(grid: Grid, folder: Path) -> None:
    """Files that say they were made for this grid."""
    runs = [(None, run) for run in grid.intermediates]
    trained = [(cell.target, cell.intermediate) for cell in grid.target_runs()]
    places = [place(target, run) for target, run in runs + trained]
    publish_table(folder / "runs.parquet", pl.DataFrame(places, schema=list(PLACE), orient="row"))
    for job in study_jobs(grid, NOWHERE):
        if job.path and not (folder / job.path).exists():
            path = folder / job.path
            path.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps({"fingerprint": job.expected})
            if path.suffix == ".parquet":
                content = f"PAR1{text}".encode()
                path.write_bytes(content + len(content).to_bytes(4, "little") + b"PAR1")
            else:
                path.write_text(text, encoding="utf-8")


def test_what_is_outstanding_by_hand(tmp_path):
    grid = make(seeds=[1], intermediates=["cldr_pairs"], budgets=[1, 2])
    jobs = study_jobs(grid, NOWHERE)

    def left(other: Grid | None = None) -> dict[str, int]:
        planned = study_jobs(other or grid, NOWHERE)
        return count_by_rule(planned, outstanding(other or grid, planned, tmp_path))

    tables = {"score_cells": 1, "collect_runs": 1, "estimate_contrasts": 1, "render_report": 1, "all": 1}
    assert left() == count_by_rule(jobs, [True] * len(jobs))
    assert outstanding(grid, jobs, tmp_path / "none") == [True] * len(jobs)
    publish(grid, tmp_path)
    assert left() == {}
    more = make(seeds=[1], intermediates=["cldr_pairs"], budgets=[1, 2, 4])
    assert left(more) == {"train_intermediate": 1, "train_target": 1, "predict_cell": 2, **tables}
    fewer = make(seeds=[1], intermediates=["cldr_pairs"], budgets=[1, 2], targets=["cldr_kind"])
    assert left(fewer) == {rule: 1 for rule in tables if rule != "collect_runs"}  # it had no run of its own
    # What is missing and not asked for stays so; where it is asked for, what was made of it is made again.
    (tmp_path / "intermediate/cldr_pairs/x1/seed1/manifest.json").unlink()
    assert left() == {}
    (tmp_path / "predictions/cldr_retrieval/cldr_pairs/x1/seed1.parquet").unlink()
    assert left() == {}
    (tmp_path / "report/index.html").unlink()
    assert left() == {"render_report": 1, "all": 1}
    (tmp_path / "scores.parquet").unlink()
    assert left() == {"train_intermediate": 1, "train_target": 1, "predict_cell": 2, **tables}


# --- Costs ---


DEVICE = "Some CPU"


def record(**changes: Any) -> RunRecord:
    """A run of cldr_pairs over the packaged encoder: 400 examples in 10 s of passes, 6 s beside."""
    grid = make()
    plain = RunRecord(
        rule="train_intermediate",
        task="cldr_pairs",
        length=64,
        batch_size=10,
        model=model_key(fingerprint(grid.encoder_specification()), grid.trainable),
        device=DEVICE,
        steps=40,
        examples=400,
        tokens=8000,
        padded_tokens=9000,
        run_flops=4e12,
        flops=4e12,
        seconds=10.0,
        job_seconds=16.0,
        bytes=1000,
    )
    return replace(plain, **changes)


def model(
    grid: Grid, *runs: RunRecord, jobs: tuple[JobRecord, ...] = (), tokens: tuple[TokenRecord, ...] = ()
) -> CostModel:
    evidence = Evidence(runs, jobs, tokens)
    device, rate, _ = chosen_device(evidence, None)
    return CostModel(grid, evidence, PACKAGED, device, rate)


def job_of(grid: Grid, path: str) -> Any:
    return next(job for job in study_jobs(grid, NOWHERE) if job.path == path)


def test_an_estimate_by_hand():
    grid = make()
    runs = [
        record(),
        record(steps=80, examples=800, tokens=16400, run_flops=8.3e12, flops=8.3e12, seconds=20.0, job_seconds=28.0),
    ]
    found = model(grid, *runs).estimate(job_of(grid, "intermediate/cldr_pairs/x4/seed1/manifest.json"))
    # 160 steps of 10; 24,400 tokens and 12.3e12 operations over 1,200 examples; 30 s for them; 6 and 8 s beside.
    assert (found.steps, found.examples) == (160, 1600)
    assert found.tokens == pytest.approx(1600 * 24_400 / 1200)
    assert found.flops == pytest.approx(1600 * 12.3e12 / 1200)
    assert found.seconds == pytest.approx(found.flops / (12.3e12 / 30) + 7)
    assert found.bytes == 1000


def test_a_resumed_run_does_not_tell_what_a_run_takes_beside_its_passes():
    """Its ten seconds of passes are of all its jobs, and the four of the job of its last only."""
    resumed, job = record(job_seconds=4.0), job_of(make(), "intermediate/cldr_pairs/x1/seed1/manifest.json")
    assert model(make(), record(), resumed).estimate(job).seconds == pytest.approx(10 + 6)
    assert model(make(), resumed).estimate(job).seconds == pytest.approx(10 + SECONDS["train_intermediate"])


def test_an_encoder_prepared_before_the_study_was_changed_is_not_planned_with(tmp_path):
    grid = make()
    config = {"num_hidden_layers": 3, "hidden_size": 60, "intermediate_size": 90}

    def prepare(stamp: str) -> EncoderShape:
        publish_folder(
            tmp_path / "planned" / "encoder",
            lambda folder: (folder / "config.json").write_text(json.dumps(config), encoding="utf-8"),
            {"fingerprint": stamp},
        )
        return encoder_shape(grid, tmp_path)[0]

    assert prepare("of another") == PACKAGED
    assert prepare(fingerprint(grid.encoder_specification())) == EncoderShape(3, 60, 90)


def test_a_trunk_costs_what_it_adds():
    grid = make(schedule="trunk")
    assert [
        own_steps(grid, job_of(grid, f"{kind}/cldr_pairs/{budget}/seed1/manifest.json"))
        for budget in ("x1", "x2", "x4", "x8")
        for kind in ("trunk", "intermediate")
    ] == [32, 8, 32, 16, 64, 32, 128, 64]
    # 256 and 8 + 16 + 32 + 64 of 600; of 24, 48, 96 and 192 steps, 153 and 5 + 10 + 20 + 39 of 360.
    assert trunk_ratio(make(schedule="trunk", intermediates=["cldr_pairs"])) == 376 / 600
    assert trunk_ratio(grid) == (376 + 227) / 960
    assert trunk_ratio(grid) <= 0.65


def test_another_device_lends_its_operations_but_not_its_speed():
    grid = make()
    fast = record(device="Fast GPU", seconds=0.1, job_seconds=5.1)
    evidence = Evidence((fast, record()), (), ())
    for wanted, rate, passes, beside in (
        ("fast", 4e13, 0.1, 5.0),
        ("some", 4e11, 10.0, 6.0),
        # Of no run: its rate is assumed, and that 40 steps take a while however fast it is.
        ("h100", RATES["h100"], 40 * STEP_SECONDS, SECONDS["train_intermediate"]),
    ):
        device, found, _ = chosen_device(evidence, wanted)
        assert found == rate
        estimate = CostModel(grid, evidence, PACKAGED, device, found).estimate(
            job_of(grid, "intermediate/cldr_pairs/x1/seed1/manifest.json")
        )
        assert estimate.flops == 4e12
        assert estimate.seconds == pytest.approx(passes + beside)
    with pytest.raises(
        UserError, match=r"--device abacus: no finished run was on such a device; choose from .*Fast GPU"
    ):
        chosen_device(evidence, "abacus")


def test_the_device_of_most_runs_is_planned_for():
    runs = (record(), record(), record(device="Fast GPU"))
    assert chosen_device(Evidence(runs, (), ()), None)[:2] == (DEVICE, 4e11)
    assert chosen_device(Evidence((), (), ()), None) == (
        "cpu",
        RATES["cpu"],
        "The speed is an assumed 5e+10 operations a second (cpu)",
    )


def test_the_speed_is_best_that_of_the_same_batch_size():
    grid = make(cross={"batch_size": [40, 5]})
    runs = (record(), record(batch_size=40, seconds=5.0))
    costs = model(grid, *runs)
    assert costs.run_seconds("cldr_pairs", 64, 10, 40) == pytest.approx(10.0)
    assert costs.run_seconds("cldr_pairs", 64, 40, 10) == pytest.approx(5.0)
    assert costs.run_seconds("cldr_pairs", 64, 5, 80) == pytest.approx(7.5)  # of both: 8e12 operations in 15 s


def test_runs_of_another_encoder_lend_only_their_speed():
    grid = make()
    key, passes = model_key("another", grid.trainable), 9e15 / 1e11
    other = record(model=key, run_flops=9e15, flops=9e15, seconds=passes, job_seconds=passes + 6)
    found = model(grid, other).estimate(job_of(grid, "intermediate/cldr_pairs/x1/seed1/manifest.json"))
    alone = model(grid).estimate(job_of(grid, "intermediate/cldr_pairs/x1/seed1/manifest.json"))
    assert found.flops == alone.flops
    assert found.seconds == pytest.approx(found.flops / 1e11 + 6)


def test_without_runs_token_ids_tell_the_lengths():
    grid = make()
    encoder = fingerprint(grid.encoder_specification())
    tokens = TokenRecord("cldr_choice", 64, encoder, 1000, 4000, 80_000, 4400, 88_000)
    one = model(grid, tokens=(tokens,)).per_example("cldr_choice", 64)
    assert one.tokens == 80
    assert one.flops == training_flops(PACKAGED, 4000, 23, "lora", 8) / 1000  # 20 tokens and 15 % of padding
    assumed = model(grid, tokens=(replace(tokens, encoder="another"),)).per_example("cldr_choice", 64)
    assert assumed.tokens == 4 * 32


def test_predictions_by_their_seconds_and_before_by_their_tokens():
    grid = make()
    job = job_of(grid, "predictions/cldr_kind/cldr_pairs/x1/seed1.parquet")
    jobs = (
        JobRecord("predict_cell", "cldr_kind", "planned", 7.0, 500),
        JobRecord("predict_cell", "cldr_kind", "planned", 9.0, 700),
    )
    found = model(grid, jobs=jobs).estimate(job)
    assert (found.seconds, found.bytes, found.steps) == (8.0, 600, 0)
    before = model(grid).estimate(job)
    assert before.seconds > SECONDS["predict_cell"]
    others = model(grid, jobs=(replace(jobs[0], study="another"),)).estimate(job)
    assert others == before


def test_predictions_of_other_targets_tell_how_far_the_tokens_are_off():
    grid = make()
    kind, retrieval = (
        job_of(grid, f"predictions/{target}/cldr_pairs/x1/seed1.parquet") for target in ("cldr_kind", "cldr_retrieval")
    )
    before = model(grid)
    half = before.estimate(kind).seconds / 2
    jobs = tuple(JobRecord("predict_cell", "cldr_kind", "planned", seconds, 500) for seconds in (half - 1, half + 1))
    after = model(grid, jobs=jobs).estimate(retrieval)
    assert after.seconds == pytest.approx(before.estimate(retrieval).seconds / 2)
    assert after.bytes == before.estimate(retrieval).bytes


def test_trained_weights_by_hand():
    # Six matrices a layer: four of 384 x 384, two between 384 and 1,536; rank 8 on both sides of each.
    assert trained_weights(PACKAGED, make()) == 12 * 8 * (4 * (384 + 384) + 2 * (384 + 1536))
    assert trained_weights(PACKAGED, make(trainable={"layers": 6})) == trained_weights(PACKAGED, make()) // 2
    assert trained_weights(PACKAGED, make(trainable={"method": "full"})) == 12 * (4 * 384**2 + 2 * 384 * 1536)
    words = {"method": "full", "freeze_word_embeddings": False}
    assert trained_weights(PACKAGED, make(trainable=words)) == 12 * (4 * 384**2 + 2 * 384 * 1536) + 250_000 * 384
    assert EncoderShape(12, 384, 1536).linear_parameters == PACKAGED.linear_parameters


# --- What is read from disk ---


def write_run(folder: Path, rule: str, kind: str, place: str, benchmark: float | None = None, **changes: Any) -> None:
    grid = make()
    manifest = {
        "specification": {
            "task": "cldr_pairs",
            "recipe": {"max_length": 64, "batch_size": 10},
            "encoder": fingerprint(grid.encoder_specification()),
            "trainable": grid.trainable,
        },
        "device": DEVICE,
        "examples": 400,
        "tokens": 8000,
        "padded_tokens": 9000,
        "flops": 4e12,
        "job_steps": 40,
        "job_flops": 4e12,
        "seconds": 10.0,
        "seconds_job": 15.0,
        "files": {"weights.safetensors": {"bytes": 900}, "log.jsonl": {"bytes": 100}},
        **changes,
    }
    path = folder / kind / place / "manifest.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(manifest), encoding="utf-8")
    if benchmark is not None:
        file = folder / "benchmarks" / rule / f"{place}.tsv"
        file.parent.mkdir(parents=True)
        file.write_text(f"s\th:m:s\tmax_rss\n{benchmark}\t0:00:16\t-\n", encoding="utf-8")


def test_records_are_what_is_on_disk(tmp_path):
    folder = tmp_path / "planned"
    write_run(folder, "train_intermediate", "intermediate", "cldr_pairs/x1/seed1", benchmark=16.0)
    write_run(folder, "train_intermediate", "intermediate", "cldr_pairs/x1/seed2")
    write_run(folder, "train_intermediate", "intermediate", "cldr_pairs/x1/seed3", device=None, job_flops=None)
    (folder / "target").mkdir()
    (folder / "target" / "manifest.json").write_text("{", encoding="utf-8")
    for name, seconds in (("prepare_encoder.tsv", 12.5), ("predict_cell/cldr_kind/none/x0/seed1.tsv", 6.5)):
        path = folder / "benchmarks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"s\n{seconds}\n", encoding="utf-8")
    (folder / "encoder").mkdir()
    (folder / "encoder" / "model.safetensors").write_bytes(b"x" * 70)
    (folder / "predictions/cldr_kind/none/x0").mkdir(parents=True)
    (folder / "predictions/cldr_kind/none/x0/seed1.parquet").write_bytes(b"x" * 30)
    (folder / "benchmarks" / "render_report.tsv").write_text("nothing", encoding="utf-8")
    found = read_evidence(tmp_path, ["planned"])
    assert found.runs == (record(), record(job_seconds=15.0))
    assert set(found.jobs) == {
        JobRecord("prepare_encoder", None, "planned", 12.5, 70),
        JobRecord("predict_cell", "cldr_kind", "planned", 6.5, 30),
    }
    assert read_evidence(tmp_path, ["none"]) == Evidence((), (), ())


def test_a_plan_from_made_up_runs(tmp_path):
    grid = make()
    empty = make_plan(grid, tmp_path / "results", 2, None)
    assert empty.jobs == empty.outstanding
    assert empty.total == empty.remaining
    assert any("No finished run is at hand" in line for line in empty.basis)
    write_run(tmp_path / "results" / "another", "train_intermediate", "intermediate", "cldr_pairs/x1/seed1", 16.0)
    lent = make_plan(grid, tmp_path / "results", 2, None)
    assert lent.basis[0] == f"The speed is that of 1 finished run on {DEVICE}, in the results of another."
    row = next(row for row in lent.budgets if (row.task, row.budget) == ("cldr_pairs", "x2"))
    assert (row.steps, row.examples, row.tokens, row.flops) == (80, 800, 16_000, 8e12)
    assert row.hours == pytest.approx(20 / 3600)
    one, two = (make_plan(grid, tmp_path / "results", workers, None) for workers in (1, 2))
    assert two.total.wall_hours < one.total.wall_hours <= 2 * two.total.wall_hours
    assert one.total.device_hours == two.total.device_hours < one.total.wall_hours


def test_the_command(tmp_path, monkeypatch, capsys):
    import yaml

    monkeypatch.chdir(tmp_path)
    Path("study.yaml").write_text(yaml.safe_dump({**SETTINGS, "schedule": "trunk"}), encoding="utf-8")
    assert main(["plan", "study.yaml", "--workers", "3"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("planned: 16 intermediate runs, 18 target runs, 36 cells; ")
    assert "wall time on 3 workers" in said
    assert "Trunks take 0.6" in said
    assert main(["plan", "study.yaml", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cells"] == 36
    assert main(["plan", "study.yaml", "--workers", "0"]) == 1
    assert capsys.readouterr().err == "error: --workers 0: is no number of workers; give 1 or more\n"
    assert main(["plan", "study.yaml", "--device", "abacus"]) == 1
    assert capsys.readouterr().err.startswith("error: --device abacus: no finished run was on such a device; choose")


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (950, "950"), (1234, "1.23k"), (4.56e6, "4.56M"), (7.8e9, "7.8G"), (2e12, "2T")]
)
def test_large_numbers_by_hand(value, text):
    assert scaled(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(1, "1 s"), (90, "90 s"), (1800, "30 min"), (7140, "119 min"), (30 * 3600, "30.0 h")]
)
def test_times_by_hand(seconds, text):
    assert duration(seconds) == text


def test_a_large_grid_is_planned_in_seconds(monkeypatch, tmp_path):
    """10 tasks x 6 budgets x 10 seeds x 12 targets, in processor time: others may use the machine, too."""
    intermediates, targets = ([f"made_up_{kind}{i}" for i in range(n)] for kind, n in (("i", 10), ("t", 12)))
    for name, like in (*((n, "cldr_pairs") for n in intermediates), *((n, "cldr_kind") for n in targets)):
        monkeypatch.setitem(CATALOG, name, replace(CATALOG[like], name=name))
    started = time.process_time()
    grid = make(
        intermediates=intermediates, targets=targets, budgets=[0.25, 0.5, 1, 2, 4, 8], seeds=list(range(10)), recipes={}
    )
    plan = make_plan(grid, tmp_path, 16, None)
    assert plan.cells == (10 * 6 * 10 + 10) * 12
    assert plan.total.jobs > 15_000
    assert time.process_time() - started < 15


def test_a_current_segment_stays_with_its_start(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    results = Path("results")
    before, after = (make(schedule="trunk", budgets=budgets) for budgets in ([1, 2, 4], [1, 2, 3, 4]))

    def path(label: str) -> str:
        return f"results/planned/trunk/cldr_pairs/{label}/seed1/manifest.json"

    def start(grid: Grid, label: str) -> str | None:
        return grid.segment_start(grid.run("cldr_pairs", label, "1"), results)

    assert [start(before, label) for label in ("x1", "x2", "x4")] == [None, path("x1"), path("x2")]
    assert [start(after, label) for label in ("x1", "x2", "x3", "x4")] == [None, path("x1"), path("x2"), path("x3")]
    for label, recorded in (("x1", None), ("x2", path("x1")), ("x4", path("x2"))):
        stamp = before.stamp("trunk", before.run("cldr_pairs", label, "1"))
        Path(path(label)).parent.mkdir(parents=True)
        Path(path(label)).write_text(
            json.dumps({"fingerprint": stamp.fingerprint, "start": recorded}), encoding="utf-8"
        )
    # x3 is added: it goes on from x2, and x4 stays where it is.
    assert [start(after, label) for label in ("x1", "x2", "x3", "x4")] == [None, path("x1"), path("x2"), path("x2")]
    # x2 is dropped, but its state is there: x4 is what it was made of.
    without = make(schedule="trunk", budgets=[1, 4])
    assert start(without, "x4") == path("x2")
    jobs = study_jobs(without, results)
    segment = next(job for job in jobs if job.path == "trunk/cldr_pairs/x4/seed1/manifest.json")
    assert segment.needs == ()
    Path(path("x2")).unlink()
    assert start(without, "x4") == path("x1")
    # Made for other settings, it says nothing.
    other = make(schedule="trunk", budgets=[1, 2, 3, 4], training={"weight_decay": 0.5})
    assert start(other, "x4") == path("x3")
