"""Where a study stands: every run and cell done, running, failed, stopped, stale or missing, from its files alone."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from xlift.artifacts import holds
from xlift.catalog.task import NONE
from xlift.grid import Grid
from xlift.planning.text import table
from xlift.runs import Cell, Intermediate


class State(Enum):
    """Of a job or a cell, by the letter that shows it; in a summary the first of these that applies."""

    FAILED = "!"
    RUNNING = ">"
    STOPPED = "|"
    STALE = "~"
    MISSING = "."
    DONE = "#"


MEANING: Mapping[State, str] = {
    State.DONE: "done",
    State.RUNNING: "running",
    State.FAILED: "failed",
    State.STOPPED: "stopped half-way",
    State.STALE: "made with other settings",
    State.MISSING: "not begun",
}

SHARED: Mapping[str, str] = {
    "prepare_encoder": "encoder/manifest.json",
    "prepare_data/*": "data/*.parquet",
    "encode_task/*/*": "encoded/*/*/manifest.json",
    "plan_analysis": "analysis_plan.json",
    "score_cells": "scores.parquet",
    "collect_runs": "runs.parquet",
    "estimate_contrasts": "contrasts.parquet",
    "render_report": "report/index.html",
}
"""Outputs of the jobs that no single run or cell owns, by their logs' names."""


@dataclass(frozen=True)
class Job:
    """One job's output, log and state; `last` is its log's last line where it is running or failed."""

    output: Path
    log: Path
    state: State
    last: str = ""


@dataclass(frozen=True)
class Status:
    """A study's jobs by what they are of; `cells` holds the jobs that a cell's predictions hang on, the last one last.

    `shared`: those of `SHARED` that failed or are running. `working`: whether a Snakemake is at work in this folder.
    """

    shared: tuple[Job, ...]
    runs: Mapping[Intermediate, Job]
    cells: Mapping[Cell, tuple[Job, ...]]
    working: bool

    def jobs(self) -> Iterator[Job]:
        """Every job once, runs before cells."""
        seen: set[Path] = set()
        for job in (*self.shared, *self.runs.values(), *(job for jobs in self.cells.values() for job in jobs)):
            if job.output not in seen:
                seen.add(job.output)
                yield job

    def failed(self) -> list[Job]:
        """Jobs that failed, in the grid's order."""
        return [job for job in self.jobs() if job.state is State.FAILED]


def study_status(grid: Grid, results: Path, snakemake: Path = Path(".snakemake")) -> Status:
    """Where a study stands whose results are in `results`, run by a Snakemake whose own files are in `snakemake`."""
    study = results / grid.study.study
    locks = list((snakemake / "locks").glob("*"))
    began = min((lock.stat().st_mtime for lock in locks), default=None)

    def job(kind: str, rule: str, path: str, stamped: Intermediate | Cell) -> Job:
        suffix = ".parquet" if kind == "predictions" else "/manifest.json"
        output, log = study / kind / f"{path}{suffix}", study / "logs" / rule / f"{path}.log"
        stamp = grid.stamp({"predictions": "predict"}.get(kind, kind), stamped)
        return job_status(output, log, stamp.fingerprint, began)

    runs = {run: job("intermediate", "train_intermediate", _path(run), run) for run in grid.intermediates}
    trunks = {run: job("trunk", "train_trunk", _path(run), run) for run in grid.segments}
    cells: dict[Cell, tuple[Job, ...]] = {}
    for cell in grid.cells:
        path = f"{cell.target}/{_path(cell.intermediate)}"
        chain = [found[cell.intermediate] for found in (trunks, runs) if cell.intermediate in found]
        if grid.study.catalog[cell.target].trained:
            chain.append(job("target", "train_target", path, cell))
        cells[cell] = (*chain, job("predictions", "predict_cell", path, cell))
    return Status(tuple(shared_jobs(grid, study, began)), runs, cells, began is not None)


def shared_jobs(grid: Grid, study: Path, began: float | None) -> Iterator[Job]:
    """Jobs of `SHARED` that failed, or that the Snakemake which began then is at.

    Logs of tasks or lengths that the study no longer has are of no job of its own.
    """
    prepared: set[tuple[str, ...]] = {(task,) for task in grid.tasks}
    prepared |= {(task, f"length{length}") for task in grid.tasks for length in grid.lengths[task]}
    for name, output in SHARED.items():
        for log in sorted((study / "logs").glob(f"{name}.log")):
            of = log.relative_to(study / "logs").with_suffix("").parts[1:]
            if of and of not in prepared:
                continue
            parts = iter(of)
            path = study / "".join(next(parts) if letter == "*" else letter for letter in output)
            last, failed = _log_end(log)
            if failed:
                yield Job(path, log, State.FAILED, last)
            elif began is not None and log.stat().st_mtime >= began and not path.exists():
                yield Job(path, log, State.RUNNING, last)


def job_status(output: Path, log: Path, expected: str, began: float | None) -> Job:
    """A job's state. `began`: when the Snakemake that is at work began (seconds since the epoch); None: none is.

    A log that is newer than that Snakemake is of a job of its own.
    """
    if holds(output, expected):
        return Job(output, log, State.DONE)
    last, failed = _log_end(log)
    fresh = log.exists() and (not output.exists() or log.stat().st_mtime > output.stat().st_mtime)
    if fresh and failed:
        return Job(output, log, State.FAILED, last)
    if fresh and began is not None and log.stat().st_mtime >= began:
        return Job(output, log, State.RUNNING, last)
    if output.exists():
        return Job(output, log, State.STALE)
    return Job(output, log, State.STOPPED if fresh else State.MISSING, last)


def cell_state(jobs: Sequence[Job]) -> State:
    """A cell is done with its predictions; before, the worst of the jobs it hangs on tells."""
    return State.DONE if jobs[-1].state is State.DONE else summary(job.state for job in jobs if not _done(job))


def summary(states: Iterator[State]) -> State:
    """The first that applies, in the order of `State`."""
    order = list(State)
    return min(states, key=order.index)


def status_lines(grid: Grid, status: Status, command: str, width: int = 120) -> str:
    """The grid as a matrix with one letter a seed, then what failed and the command that runs just that again.

    `width`: columns of the terminal, which a matrix of many targets is cut up to fit.
    """
    seeds = sorted(grid.study.seeds)
    targets = sorted(grid.study.targets)
    rows: dict[tuple[str, str], dict[str, list[str]]] = {}
    ordered = [*grid.intermediates, *_others(grid)]
    for run in sorted(dict.fromkeys(ordered), key=lambda run: (run.task != NONE, *run.order)):
        row = rows.setdefault((run.name, run.budget.label), {name: [] for name in ("run", *targets)})
        row["run"].append(status.runs[run].state.value if run in status.runs else " ")
        for target in targets:
            jobs = status.cells.get(Cell(target, run))
            row[target].append(" " if jobs is None else cell_state(jobs).value)
    counts = [cell_state(jobs) for jobs in status.cells.values()]
    shown = ", ".join(f"{counts.count(state)} {MEANING[state]}" for state in State if state in counts)
    names = [
        (name, label, *("".join(row[column]) for column in ("run", *targets))) for (name, label), row in rows.items()
    ]
    legend = "  ".join(f"{state.value} {MEANING[state]}" for state in State)
    lines = [
        f"{grid.study.study}: {len(counts)} cells: {shown}" + ("; a Snakemake is at work" if status.working else ""),
        f"one letter a seed ({', '.join(map(str, seeds))}):  {legend}",
        *matrix(("intermediate", "budget", "run", *targets), names, width),
    ]
    running = [job for job in status.jobs() if job.state is State.RUNNING and job.last]
    if running:
        lines += ["", "running:", *(f"  {job.log}: {job.last}" for job in running)]
    if failed := status.failed():
        outputs = " ".join(shlex.quote(str(job.output)) for job in failed)
        lines += [
            "",
            "failed:",
            *(f"  {job.log}: {job.last}" for job in failed),
            "",
            "to run just these again:",
            f"  {command} {outputs}",
        ]
    return "\n".join(lines)


def matrix(heads: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Rows under their heads, which are broken at underscores where they do not fit `width` columns otherwise.

    Where that is not enough, several tables, each with the first two columns. Each begins with an empty line.
    """
    whole = table([heads, *rows], left=len(heads))
    if max(map(len, whole)) <= width:
        return ["", *whole]
    pieces = [head.replace("_", "_ ").split() for head in heads]
    height = max(map(len, pieces))
    above = list(zip(*([""] * (height - len(piece)) + piece for piece in pieces), strict=True))
    columns = list(zip(*above, *rows, strict=True))
    needs = [max(map(len, column)) + 2 for column in columns]  # two blanks between columns
    blocks: list[list[int]] = [[]]
    for place in range(2, len(columns)):
        if blocks[-1] and sum(needs[column] for column in (0, 1, *blocks[-1], place)) - 2 > width:
            blocks.append([])
        blocks[-1].append(place)
    lines: list[str] = []
    for block in blocks:
        chosen = [columns[column] for column in (0, 1, *block)]
        lines += ["", *table(list(zip(*chosen, strict=True)), left=len(chosen))]
    return lines


def _others(grid: Grid) -> list[Intermediate]:
    """What stands in for intermediate runs without being one: none, and the control that trains the target longer."""
    return [cell.intermediate for cell in grid.cells if not cell.intermediate.is_run]


def _path(run: Intermediate) -> str:
    return "{inter}/{budget}/seed{seed}".format(**run.wildcards)


def _done(job: Job) -> bool:
    return job.state is State.DONE


def _log_end(log: Path) -> tuple[str, bool]:
    """A log's last line with anything on it, and whether the job that wrote it failed."""
    try:
        lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    except OSError:
        return "", False
    if not lines:
        return "", False
    return lines[-1].strip(), lines[-1].startswith("error: ") or any(line.startswith("Traceback") for line in lines)
