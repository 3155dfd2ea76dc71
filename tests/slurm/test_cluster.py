"""`snakemake --profile slurm` on a real cluster of two nodes: what is asked for, what comes out, what it survives."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from itertools import combinations
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from cluster import NODES, Cluster, ClusterJob, run, wait_for
from harness import STUDY_FILE, Ended, Finished, Workspace, tiny_study

from xlift.artifacts import sha256_of

PROFILE = ("--profile", "slurm")
QUICK = (
    *("--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "2"),
    *("--seconds-between-status-checks", "2", "--latency-wait", "10"),
)
"""No accounting here, and no need to spare a controller: a site's polling is in the profile."""
LONG_STEPS = 60
LONG_RUNS = {task: f"results/tiny/intermediate/{task}/x1/seed1/manifest.json" for task in ("cldr_choice", "cldr_qa")}
SCORES = "results/tiny/scores.parquet"
Longer = tuple[dict[str, Any], dict[str, str]]
ON_THE_CLUSTER = {"train_intermediate": 2, "train_target": 3, "predict_cell": 6}


def command(*arguments: str) -> tuple[str, ...]:
    return (*PROFILE, *QUICK, *arguments, "--configfile", STUDY_FILE)


def slowed(seconds: float) -> dict[str, str]:
    """Environment in which every training step takes this many seconds longer."""
    return {"XLIFT_TEST_HOOKS": "1", "XLIFT_TEST_SLEEP": str(seconds)}


def of(workspace: Workspace, cluster: Cluster) -> list[ClusterJob]:
    """The cluster's jobs of a workspace, in order of submission."""
    mine = [job for job in cluster.jobs() if job.fields["WorkDir"] == str(workspace.folder)]
    return sorted(mine, key=lambda job: int(job.id))


def of_task(workspace: Workspace, cluster: Cluster, task: str) -> list[ClusterJob]:
    """The jobs that trained an intermediate task, in order of submission."""
    return [job for job in of(workspace, cluster) if f"_{task}_x1_" in job.of and "train_intermediate" in job.of]


def log(workspace: Workspace, task: str) -> str:
    path = workspace.results() / "logs" / "train_intermediate" / task / "x1" / "seed1.log"
    return path.read_text(encoding="utf-8") if path.exists() else ""


def steps_done(workspace: Workspace, task: str) -> int:
    """The last step that a training job's log tells of; 0 before it is some steps in."""
    found = re.findall(rf"^step (\d+)/{LONG_STEPS} ", log(workspace, task), re.MULTILINE)
    return int(found[-1]) if found else 0


def rule_of(job: ClusterJob) -> str:
    """The rule a cluster job is of."""
    found = re.match(r"rule_([a-z_]+?)(?:_wildcards|$)", job.of)
    assert found is not None, job.of
    return found[1]


def wait_for_steps(process: subprocess.Popen[str], workspace: Workspace, *tasks: str) -> None:
    """Wait until training is some steps in and has saved its state at least once."""

    def begun() -> bool:
        assert process.poll() is None, process.communicate()[0]
        states = [workspace.results() / "state" / "intermediate" / task / "x1" / "seed1" for task in tasks]
        saved = all(list(folder.glob("*.safetensors")) for folder in states)
        return saved and all(0 < steps_done(workspace, task) < LONG_STEPS for task in tasks)

    wait_for(begun, 120, f"training of {tasks} does not begin")


def end(process: subprocess.Popen[str]) -> Ended:
    started = time.monotonic()
    output, _ = process.communicate(timeout=400)
    return Ended(process.returncode, output, time.monotonic() - started)


def started_at(job: ClusterJob) -> datetime:
    return datetime.fromisoformat(job.fields["StartTime"])


def ended_at(job: ClusterJob) -> datetime:
    return datetime.fromisoformat(job.fields["EndTime"])


def devices(workspace: Workspace) -> dict[str, tuple[str, str]]:
    """Node and CUDA_VISIBLE_DEVICES of each cluster job, as its log tells, by job id."""
    logs = sorted((workspace.results() / "logs").rglob("*.log"))
    found = re.findall(
        r"^runs on (\S+), SLURM job (\d+), GPU (\S+)$", "\n".join(p.read_text() for p in logs), re.MULTILINE
    )
    return {job: (node, device) for node, job, device in found}


def asked_for(workspace: Workspace, *arguments: str) -> dict[str, tuple[str, ...]]:
    """GPUs, MB and minutes of a cluster job by its rule, as a dry-run lists them: here alike for all of a rule's."""
    ended = workspace.snakemake("--dry-run", *command(*arguments))
    jobs = re.findall(r"^rule (\w+):\n(?: .*\n)*? +resources: (.*gpu=.*)$", ended.output, re.MULTILINE)
    assert Counter(rule for rule, _ in jobs) == ON_THE_CLUSTER
    sizes = [(rule, dict(re.findall(r"(\w+)=(\d+)(?:,|$)", asked))) for rule, asked in jobs]
    found = {rule: tuple(size[name] for name in ("gpu", "mem_mb", "runtime")) for rule, size in sizes}
    assert len({(rule, *found[rule]) for rule, _ in jobs}) == len(found)
    return found


@pytest.fixture(scope="module")
def longer(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Longer:
    """Settings with longer intermediate runs that save often, and sha256 of the weights they come to undisturbed."""
    root = Path(finished.settings["data"]["root"])
    settings = tiny_study(
        root,
        targets=finished.settings["targets"],
        recipes={task: {"steps": LONG_STEPS} for task in LONG_RUNS},
        training={"save_every": 0.5},
    )
    workspace = finished.workspace.copy(tmp_path_factory.mktemp("undisturbed") / "work")
    workspace.write_study(settings)
    ended = workspace.run()
    assert ended.code == 0, ended.output
    return settings, weights(workspace) | scores(workspace)


def scores(workspace: Workspace) -> dict[str, str]:
    """sha256 of the study's scores."""
    return {SCORES: sha256_of(workspace.folder / SCORES)}


def weights(workspace: Workspace) -> dict[str, str]:
    """sha256 of the longer runs' weights."""
    names = [path.replace("manifest.json", "weights.safetensors") for path in LONG_RUNS.values()]
    return {name: sha256_of(workspace.folder / name) for name in names}


def test_a_study_comes_out_as_it_does_on_one_machine(cluster: Cluster, finished: Finished, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "work")
    workspace.write_study(finished.settings)
    # Sizes that tell the rules apart, which in so small a study are those of the least.
    sizes = ("--set-resources", "train_target:runtime=25", "predict_cell:mem_mb=1234")
    asked = asked_for(workspace, *sizes)
    assert len(set(asked.values())) == 3
    ended = workspace.snakemake(*command(*sizes))
    assert ended.code == 0, ended.output
    assert ended.jobs == finished.ended.jobs

    jobs = of(workspace, cluster)
    assert Counter(map(rule_of, jobs)) == ON_THE_CLUSTER  # all else ran where snakemake did
    assert {job.state for job in jobs} == {"COMPLETED"}
    assert {job.node for job in jobs} == set(NODES)

    for job in jobs:
        hours, minutes, seconds = map(int, job.fields["TimeLimit"].split(":"))
        assert seconds == 0
        gpus = job.fields["TresPerJob"].removeprefix("gres:gpu:")
        found = (gpus, job.fields["MinMemoryNode"].removesuffix("M"), str(60 * hours + minutes))
        assert found == asked[rule_of(job)]

    on = devices(workspace)
    assert sorted(on) == sorted(job.id for job in jobs)
    assert all(on[job.id][0] == job.node for job in jobs)
    together = [
        (on[one.id], on[two.id])
        for one, two in combinations(jobs, 2)
        if started_at(one) < ended_at(two) and started_at(two) < ended_at(one)
    ]
    assert any(one[0] == two[0] for one, two in together)
    assert all(one != two for one, two in together)

    for name in ("scores.parquet", "gains.parquet", "contrasts.parquet"):
        assert sha256_of(workspace.results() / name) == sha256_of(finished.workspace.results() / name), name
    cells = sorted(
        path.relative_to(workspace.results()) for path in workspace.results().glob("predictions/**/*.parquet")
    )
    assert len(cells) == ON_THE_CLUSTER["predict_cell"]
    for name in cells:
        assert sha256_of(workspace.results() / name) == sha256_of(finished.workspace.results() / name), name
    assert workspace.plan(*PROFILE) == {}


def test_a_node_that_dies(cluster: Cluster, copied: Workspace, longer: Longer) -> None:
    settings, undisturbed = longer
    copied.write_study(settings)
    process = copied.start(*command(*LONG_RUNS.values()), **slowed(0.4))
    wait_for_steps(process, copied, *LONG_RUNS)
    before = of(copied, cluster)
    node = before[0].node
    lost = [job.id for job in before if job.node == node]
    cluster.crash_node(node)
    try:
        ended = end(process)
    finally:
        cluster.start_node(node)
    assert ended.code == 0, ended.output
    states = {job.id: job.state for job in of(copied, cluster)}
    assert {states[job] for job in lost} == {"NODE_FAIL"}
    again = [job for job in of(copied, cluster) if job.id not in {job.id for job in before}]
    assert len(again) == len(lost)
    assert {job.node for job in again} == set(NODES) - {node}
    assert "goes on after step" in "".join(log(copied, task) for task in LONG_RUNS)
    ended = copied.snakemake(*command())
    assert ended.code == 0, ended.output
    assert weights(copied) | scores(copied) == undisturbed
    assert copied.plan(*PROFILE) == {}


def test_gpus_as_a_generic_resource(cluster: Cluster, copied: Workspace) -> None:
    """`profiles/slurm-gres`, for a site where --gpus is not to be had."""
    cells = [f"results/tiny/predictions/cldr_kind/{run}/x1/seed1.parquet" for run in ("cldr_choice", "cldr_qa")]
    made = {cell: sha256_of(copied.folder / cell) for cell in cells}
    for cell in cells:
        (copied.folder / cell).unlink()
    ended = copied.snakemake("--profile", "profiles/slurm-gres", *QUICK, *cells, "--configfile", STUDY_FILE)
    assert ended.code == 0, ended.output
    assert {cell: sha256_of(copied.folder / cell) for cell in cells} == made
    jobs = of(copied, cluster)
    assert [rule_of(job) for job in jobs] == ["predict_cell"] * 2
    assert {job.fields["TresPerNode"] for job in jobs} == {"gres:gpu:1"}
    assert all("TresPerJob" not in job.fields for job in jobs)
    on = devices(copied)
    assert {on[job.id][1] for job in jobs} <= {"0", "1"}


@pytest.fixture(scope="module")
def limited(
    cluster: Cluster, finished: Finished, longer: Longer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Workspace, subprocess.Popen[str]]]:
    """Two runs whose first time limit is too short, under way while other tests run.

    SLURM looks at limits every half minute: the one is told to stop 85 to 115 s in, the other ends 60 to 90 s in.
    """
    workspace = finished.workspace.copy(tmp_path_factory.mktemp("limited") / "work")
    workspace.write_study(longer[0])
    told = "wildcards.inter == 'cldr_choice'"
    sizes = (
        f"train_intermediate:slurm_extra='--signal=TERM@5' if {told} else ''",
        f"train_intermediate:runtime=10 if attempt > 1 else 2 if {told} else 1",
    )
    process = workspace.start(*command(*LONG_RUNS.values(), "--set-resources", *sizes), **slowed(2))
    yield workspace, process
    process.kill()
    process.communicate()


@pytest.mark.usefixtures("limited")
def test_a_cancelled_job_and_a_killed_snakemake(cluster: Cluster, copied: Workspace, longer: Longer) -> None:
    settings, undisturbed = longer
    copied.write_study(settings)
    # As if nothing had been trained with other settings before.
    shutil.rmtree(copied.results() / "intermediate")
    shutil.rmtree(copied.folder / ".snakemake" / "metadata")
    process = copied.start(*command(*LONG_RUNS.values()), **slowed(0.5))
    wait_for_steps(process, copied, *LONG_RUNS)
    run("scancel", of_task(copied, cluster, "cldr_choice")[0].id)
    # Run again from where it was, while the other one ends.
    wait_for(lambda: "goes on after" in log(copied, "cldr_choice"), 120, "the cancelled job is not run again")
    wait_for(lambda: of_task(copied, cluster, "cldr_qa")[-1].state == "COMPLETED", 120, "the other job does not end")
    process.kill()
    cancelled, again = of_task(copied, cluster, "cldr_choice")
    assert (cancelled.state, again.state) == ("CANCELLED", "RUNNING")
    process.communicate(timeout=60)

    # What it had submitted runs on without it: docs/cluster.md says how to end that.
    run("scancel", "--name", again.fields["JobName"])
    wait_for(lambda: of_task(copied, cluster, "cldr_choice")[-1].state == "CANCELLED", 60, "scancel does not cancel")
    assert "--unlock" in copied.snakemake(*command(*LONG_RUNS.values())).output
    assert copied.snakemake("--unlock", "--configfile", STUDY_FILE).code == 0
    done = sha256_of(copied.folder / LONG_RUNS["cldr_qa"])
    # Snakemake never heard that the other one ended; what is published is whole, and --ignore-incomplete says so.
    ended = copied.snakemake(*command(*LONG_RUNS.values(), "--ignore-incomplete"))
    assert ended.code == 0, ended.output
    assert ended.jobs == {"train_intermediate": 1}
    assert len(of_task(copied, cluster, "cldr_qa")) == 1
    assert sha256_of(copied.folder / LONG_RUNS["cldr_qa"]) == done
    assert "goes on after step" in log(copied, "cldr_choice")
    assert weights(copied).items() <= undisturbed.items()
    # A manifest says where a test slowed the run down.
    made = {task: json.loads((copied.folder / path).read_text()) for task, path in LONG_RUNS.items()}
    assert made["cldr_qa"]["versions"]["test_hooks"] == "XLIFT_TEST_SLEEP=0.5"
    assert "test_hooks" not in made["cldr_choice"]["versions"]


def cells_of(scores: Path) -> set[tuple[str, str]]:
    return set(pl.read_parquet(scores).select("target", "intermediate").iter_rows())


@pytest.mark.usefixtures("limited")
def test_one_cell_that_always_fails(cluster: Cluster, copied: Workspace, finished: Finished) -> None:
    root = Path(finished.settings["data"]["root"])
    changed = {"cldr_kind": {"learning_rate": 0.0017}}
    copied.write_study(tiny_study(root, targets=finished.settings["targets"], recipes=changed))
    fails = "target/cldr_kind/cldr_qa/x1/seed1"
    page = sha256_of(copied.results() / "report" / "index.html")
    ended = copied.snakemake(*command("--retries", "1"), XLIFT_TEST_HOOKS="1", XLIFT_TEST_FAIL=fails)
    assert ended.code != 0
    assert f"results/tiny/{fails}/manifest.json: fails because XLIFT_TEST_FAIL is set" in ended.output
    counts = Counter(job.state for job in of(copied, cluster))
    assert counts == {"COMPLETED": 4, "FAILED": 2}  # two targets and their predictions; one target, tried twice
    assert sha256_of(copied.results() / "report" / "index.html") == page
    # What is left is that cell and what is made of all cells.
    left = copied.plan(*PROFILE)
    assert (left["train_target"], left["predict_cell"]) == (1, 1)
    assert "train_intermediate" not in left

    ended = copied.run("report_available")
    assert ended.code == 0, ended.output
    available = copied.results() / "available"
    everything = cells_of(finished.workspace.results() / "scores.parquet")
    assert everything - cells_of(available / "scores.parquet") == {("cldr_kind", "cldr_qa")}
    text = (available / "index.html").read_text(encoding="utf-8")
    assert "1 cell missing or partial" in text
    assert copied.plan("report_available") == {}


def test_time_limit(cluster: Cluster, longer: Longer, limited: tuple[Workspace, subprocess.Popen[str]]) -> None:
    """Told to save before its limit, or killed at it: both go on, with more time."""
    workspace, process = limited
    ended = end(process)
    assert ended.code == 0, ended.output
    for task, state, limit in (("cldr_choice", "FAILED", "00:02:00"), ("cldr_qa", "TIMEOUT", "00:01:00")):
        first, *rest = of_task(workspace, cluster, task)
        assert (first.state, first.fields["TimeLimit"]) == (state, limit)
        assert [(job.state, job.fields["TimeLimit"]) for job in rest] == [("COMPLETED", "00:10:00")]
        gone_on = re.search(r"^goes on after step (\d+)$", log(workspace, task), re.MULTILINE)
        assert gone_on is not None
        assert 0 < int(gone_on[1]) < LONG_STEPS
    assert "stopped by SIGTERM" in ended.output
    assert weights(workspace).items() <= longer[1].items()
