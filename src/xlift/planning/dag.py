"""A study's jobs as Snakemake would plan them: one a rule and output, in an order in which inputs come first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xlift.artifacts import fingerprint, holds
from xlift.errors import UserError
from xlift.grid import PLACE, Grid, place
from xlift.runs import Cell, Intermediate


@dataclass(frozen=True)
class Job:
    """One job.

    `needs`: the jobs (by index) whose output it is made anew for; `prepared`: those it waits for only (see `settled`
    in the workflow's rules). `path` is its output in the study's folder, `expected` the fingerprint that has to be in
    it (None: its being there is enough). `run`, `cell`, `task` and `length` say what it is of, as far as they apply.
    """

    rule: str
    path: str
    expected: str | None
    needs: tuple[int, ...] = ()
    prepared: tuple[int, ...] = ()
    run: Intermediate | None = None
    cell: Cell | None = None
    task: str | None = None
    length: int = 0


@dataclass
class _Builder:
    grid: Grid
    jobs: list[Job] = field(default_factory=list)

    def add(self, job: Job) -> int:
        self.jobs.append(job)
        return len(self.jobs) - 1


def study_jobs(grid: Grid, results: Path) -> list[Job]:
    """All jobs of a study whose results are, or will be, in `results`; a job's inputs come before it."""
    made = _Builder(grid)
    encoder = made.add(Job("prepare_encoder", "encoder/manifest.json", fingerprint(grid.encoder_specification())))
    data, encoded = _preparations(made, encoder)
    plan = made.add(Job("plan_analysis", "analysis_plan.json", None))
    runs = _intermediates(made, encoder, data, encoded, results)
    targets, predictions = _cells(made, encoder, data, encoded, runs)
    scored = (*predictions, *runs.values(), *targets)
    table = made.add(Job("score_cells", "scores.parquet", grid.scores_stamp.fingerprint, scored, (plan,)))
    everything = [index for index, job in enumerate(made.jobs) if job.rule in ("train_trunk", "train_intermediate")]
    all_runs = made.add(Job("collect_runs", "runs.parquet", None, (*everything, *targets)))
    contrasts = made.add(Job("estimate_contrasts", "contrasts.parquet", None, (table,), _of_targets(grid, encoded)))
    page = made.add(Job("render_report", "report/index.html", None, (table, contrasts, all_runs)))
    made.add(Job("all", "", None, (page,)))
    return made.jobs


def _of_targets(grid: Grid, encoded: dict[tuple[str, int], int]) -> tuple[int, ...]:
    """The targets' token ids, which tell how finely each language is cut."""
    return tuple(encoded[target, grid.target_length(target)] for target in sorted(grid.study.targets))


def _preparations(made: _Builder, encoder: int) -> tuple[dict[str, int], dict[tuple[str, int], int]]:
    grid, data, encoded = made.grid, {}, {}
    for task in grid.tasks:
        expected = fingerprint(grid.data_specification(task))
        data[task] = made.add(Job("prepare_data", f"data/{task}.json", expected, task=task))
        for length in grid.lengths[task]:
            path = f"encoded/{task}/length{length}/manifest.json"
            stamp = grid.encode_stamp(task, length).fingerprint
            before = (data[task], encoder)
            encoded[task, length] = made.add(Job("encode_task", path, stamp, prepared=before, task=task, length=length))
    return data, encoded


def _intermediates(
    made: _Builder, encoder: int, data: dict[str, int], encoded: dict[tuple[str, int], int], results: Path
) -> dict[tuple[str, str, int], int]:
    """Trunks and intermediate runs; the latter's indices by key."""
    grid = made.grid
    segments: dict[str | None, int] = {}
    runs: dict[tuple[str, str, int], int] = {}
    trunk = grid.study.schedule == "trunk"
    # A trunk's segments from its root on: runs are sorted by amount within an arm.
    for run in grid.intermediates:
        prepared = _before(encoder, data, encoded, grid.run_sets(run))
        name, label, seed = run.key
        path = f"{name}/{label}/seed{seed}/manifest.json"
        if trunk:
            start = grid.segment_start(run, results)
            needs = tuple(segments[start] for start in [start] if start in segments)
            stamp = grid.stamp("trunk", run).fingerprint
            segment = made.add(Job("train_trunk", f"trunk/{path}", stamp, needs, prepared, run))
            segments[str(results / grid.study.study / "trunk" / path)] = segment
        needs = (segment,) if trunk else ()
        stamp = grid.stamp("intermediate", run).fingerprint
        runs[run.key] = made.add(Job("train_intermediate", f"intermediate/{path}", stamp, needs, prepared, run))
    return runs


def _before(
    encoder: int, data: dict[str, int], encoded: dict[tuple[str, int], int], sets: Sequence[tuple[str, int]]
) -> tuple[int, ...]:
    """What a training job waits for: the encoder, and token ids and examples of each of its sets."""
    return (encoder, *(encoded[one] for one in sets), *(data[task] for task, _ in sets))


def _cells(
    made: _Builder,
    encoder: int,
    data: dict[str, int],
    encoded: dict[tuple[str, int], int],
    runs: dict[tuple[str, str, int], int],
) -> tuple[list[int], list[int]]:
    """Target runs and predictions: the indices of each."""
    grid = made.grid
    targets: list[int] = []
    predictions: list[int] = []
    for cell in grid.cells:
        target, (name, label, seed) = cell.target, cell.intermediate.key
        prepared = (encoder, encoded[target, grid.target_length(target)], data[target])
        before = (runs[cell.intermediate.key],) if cell.intermediate.is_run else ()
        path = f"{target}/{name}/{label}/seed{seed}"
        last = before
        if grid.study.catalog[target].trained:
            stamp = grid.stamp("target", cell).fingerprint
            taught = _before(encoder, data, encoded, grid.target_sets(target))
            job = Job("train_target", f"target/{path}/manifest.json", stamp, before, taught, cell.intermediate, cell)
            last = (made.add(job),)
            targets += last
        stamp = grid.stamp("predict", cell).fingerprint
        job = Job("predict_cell", f"predictions/{path}.parquet", stamp, last, prepared, cell.intermediate, cell)
        predictions.append(made.add(job))
    return targets, predictions


def outstanding(grid: Grid, jobs: Sequence[Job], folder: Path) -> list[bool]:
    """Which of a study's jobs a run would have now, given its results in `folder`.

    As Snakemake decides it: a job runs where its output was made for something else or of other files, where a job it
    needs runs, and where its output is missing and a job that runs asks for it. A missing file that nothing asks for
    stays missing. What the tables at the end depend on beside files is not looked at: they take seconds.
    """
    if not folder.is_dir():
        return [True] * len(jobs)
    exists = [bool(job.path) and (folder / job.path).exists() for job in jobs]
    runs = [there and not _is_current(grid, job, folder) for there, job in zip(exists, jobs, strict=True)]
    page = len(jobs) - 2
    asked = [index == page for index in range(len(jobs))]
    while True:
        before = sum(runs)
        for index, job in enumerate(jobs):
            if not runs[index]:
                # Snakemake takes an absent prepared input, `ancient` or not, for a new one once it is made.
                remade = [runs[need] and not exists[need] for need in job.prepared]
                runs[index] = any(remade) or any(runs[need] for need in job.needs)
        for index in reversed(range(len(jobs))):
            if not exists[index] and asked[index]:
                runs[index] = True
            if runs[index]:
                for need in (*jobs[index].needs, *jobs[index].prepared):
                    asked[need] = True
        runs[-1] = runs[page]
        if sum(runs) == before:
            return runs


def _is_current(grid: Grid, job: Job, folder: Path) -> bool:
    """Whether an output that is there was made for this study."""
    if job.expected is not None:
        return holds(folder / job.path, job.expected)
    if job.rule == "collect_runs":
        wanted = {place(None, run) for run in grid.intermediates}
        wanted |= {place(cell.target, cell.intermediate) for cell in grid.target_runs()}
        return _places(folder / job.path) == wanted
    return True


def _places(table: Path) -> set[tuple[Any, ...]] | None:
    """Runs that a table is of; None where it cannot be read."""
    from xlift.tables import read_table

    try:
        return set(read_table(table).select(PLACE).iter_rows())
    except UserError:
        return None


def count_by_rule(jobs: Sequence[Job], wanted: Sequence[bool]) -> dict[str, int]:
    """Jobs by rule, in the order of the workflow."""
    return dict(Counter(job.rule for job, is_wanted in zip(jobs, wanted, strict=True) if is_wanted))
