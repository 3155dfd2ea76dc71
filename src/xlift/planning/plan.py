"""A study's plan: resolved budgets, jobs by rule, what they cost, and how long they take on some workers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import fsum
from pathlib import Path

from xlift.artifacts import MANIFEST, fingerprint, holds
from xlift.budgets import Budget
from xlift.grid import Grid
from xlift.planning.costs import CostModel, Estimate, chosen_device
from xlift.planning.dag import Job, count_by_rule, outstanding, study_jobs
from xlift.planning.evidence import Evidence, read_evidence, studies_at_hand
from xlift.planning.scheduling import list_schedule, longest_chain
from xlift.settings import HubEncoder
from xlift.training.cost import EncoderShape

PACKAGED = EncoderShape(layers=12, hidden=384, intermediate=1536)
ASSUMED = {"base": EncoderShape(layers=12, hidden=768, intermediate=3072), "large": EncoderShape(24, 1024, 4096, None)}
"""XLM-R's sizes, where an encoder is not at hand: layers, hidden, inner."""
COMPUTING = ("train_trunk", "train_intermediate", "train_target", "predict_cell")
"""Rules whose jobs hold a device."""


@dataclass(frozen=True)
class BudgetRow:
    """A budget of one task, for one run of it; `hours` of training alone, as if it were trained from its first step."""

    task: str
    budget: str
    arm: str
    steps: int
    batch_size: int
    examples: int
    tokens: float
    flops: float
    learning_rate: float
    hours: float


@dataclass(frozen=True)
class Totals:
    """Sums over jobs; `wall_hours` on `workers`, never less than `chain_hours`, the longest chain of jobs."""

    jobs: int
    steps: int
    examples: float
    tokens: float
    flops: float
    disk_bytes: float
    device_hours: float
    wall_hours: float
    chain_hours: float


@dataclass(frozen=True)
class Plan:
    """What a study would do and cost: `jobs` all of it, `outstanding` what is not done yet. `basis`: what the
    estimates rest on."""

    study: str
    budgets: tuple[BudgetRow, ...]
    intermediate_runs: int
    target_runs: int
    cells: int
    jobs: dict[str, int]
    outstanding: dict[str, int]
    workers: int
    device: str
    total: Totals
    remaining: Totals
    trunk_ratio: float | None
    basis: tuple[str, ...]

    def as_json(self) -> str:
        """All numbers as JSON."""
        return json.dumps(asdict(self), indent=2)


def make_plan(grid: Grid, results: Path, workers: int, device: str | None) -> Plan:
    """Plan a study whose results are, or will be, in `results`/<study>."""
    name = grid.study.study
    at_hand = studies_at_hand(results)
    evidence = read_evidence(results, [name] if name in at_hand else [])
    source = f"results of {name}"
    if not evidence.runs:
        others = [study for study in at_hand if study != name]
        more = read_evidence(results, others)
        evidence = Evidence(more.runs, (*evidence.jobs, *more.jobs), (*evidence.tokens, *more.tokens), more.scorings)
        source = f"results of {', '.join(others)}"
    shape, about_shape = encoder_shape(grid, results)
    chosen, rate, about_rate = chosen_device(evidence, device)
    model = CostModel(grid, evidence, shape, chosen, rate)
    jobs = study_jobs(grid, results)
    estimates = [model.estimate(job) for job in jobs]
    todo = outstanding(grid, jobs, results / name)
    basis = [f"{about_rate}, in the {source}." if evidence.runs else f"{about_rate}.", *about_shape]
    if not evidence.runs:
        basis.append("No finished run is at hand: all seconds are assumed; plan again after the first runs.")
    return Plan(
        study=name,
        budgets=tuple(_budget_row(grid, model, task, budget) for task in grid.budgets for budget in grid.budgets[task]),
        intermediate_runs=len(grid.intermediates),
        target_runs=len(list(grid.target_runs())),
        cells=len(grid.cells),
        jobs=count_by_rule(jobs, [True] * len(jobs)),
        outstanding=count_by_rule(jobs, todo),
        workers=workers,
        device=chosen,
        total=_totals(jobs, estimates, [True] * len(jobs), workers),
        remaining=_totals(jobs, estimates, todo, workers),
        trunk_ratio=trunk_ratio(grid) if grid.study.schedule == "trunk" else None,
        basis=tuple(basis),
    )


def trunk_ratio(grid: Grid) -> float:
    """Intermediate steps of a study with trunks over those of independent runs at the same budgets."""
    trunks = branches = independent = 0
    furthest: dict[tuple[str, str, int], int] = {}
    for run in grid.intermediates:
        point, steps = (grid.all_steps(run, n) for n in (grid.branching_point(run.budget), run.budget.steps))
        trunk = (run.name, run.arm, run.seed)
        furthest[trunk] = max(point, furthest.get(trunk, 0))
        branches += steps - point
        independent += steps
    trunks = sum(furthest.values())
    return (trunks + branches) / independent


def encoder_shape(grid: Grid, results: Path) -> tuple[EncoderShape, list[str]]:
    """Sizes of the study's encoder: prepared, packaged or in the folder of hub repositories, else assumed."""
    study = grid.study
    prepared = results / study.study / "encoder"
    of_this_study = holds(prepared / MANIFEST, fingerprint(grid.encoder_specification()))
    folders = [prepared] if of_this_study else []  # before an edit of `encoder` it was another one
    if isinstance(study.encoder, HubEncoder):
        folders += [Path(study.data.root) / study.encoder.id] if study.data.root else []
        size = study.encoder.size
        fallback, said = ASSUMED[size], [f"The encoder is not at hand: XLM-R {size.capitalize()}'s sizes are assumed."]
    else:
        fallback, said = PACKAGED, []
    for folder in folders:
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            sizes = [
                next(int(config[name]) for name in names if name in config)
                for names in (
                    ("num_hidden_layers", "n_layers"),
                    ("hidden_size", "dim"),
                    ("intermediate_size", "hidden_dim"),
                )
            ]
        except (OSError, ValueError, TypeError, StopIteration):
            continue
        fallback, said = EncoderShape(*sizes), []
        break
    layers = study.trainable.layers
    trained = None if layers is None else min(layers, fallback.layers)
    return EncoderShape(fallback.layers, fallback.hidden, fallback.intermediate, trained), said


def _budget_row(grid: Grid, model: CostModel, task: str, budget: Budget) -> BudgetRow:
    one = model.per_example(task, budget.max_length)
    flops = budget.examples * one.flops
    return BudgetRow(
        task=task,
        budget=budget.label,
        arm=budget.arm,
        steps=budget.steps,
        batch_size=budget.batch_size,
        examples=budget.examples,
        tokens=budget.examples * one.tokens,
        flops=flops,
        learning_rate=grid.learning_rate(task) * budget.rate_factor,
        hours=model.run_seconds(task, budget.max_length, budget.batch_size, budget.steps) / 3600,
    )


def _totals(jobs: Sequence[Job], estimates: Sequence[Estimate], wanted: Sequence[bool], workers: int) -> Totals:
    """Sums over the wanted jobs; what is done already takes no time."""
    chosen = [estimate if is_wanted else Estimate(0.0) for estimate, is_wanted in zip(estimates, wanted, strict=True)]
    seconds = [estimate.seconds for estimate in chosen]
    needs = [(*job.needs, *job.prepared) for job in jobs]
    held = [estimate.seconds for estimate, job in zip(chosen, jobs, strict=True) if job.rule in COMPUTING]
    return Totals(
        jobs=sum(wanted),
        steps=sum(estimate.steps for estimate in chosen),
        examples=fsum(estimate.examples for estimate in chosen),
        tokens=fsum(estimate.tokens for estimate in chosen),
        flops=fsum(estimate.flops for estimate in chosen),
        disk_bytes=fsum(estimate.bytes for estimate in chosen),
        device_hours=fsum(held) / 3600,
        wall_hours=list_schedule(seconds, needs, workers) / 3600,
        chain_hours=longest_chain(seconds, needs) / 3600,
    )
