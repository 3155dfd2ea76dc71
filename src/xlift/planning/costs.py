"""What a job would cost, from what finished jobs took, or from stated assumptions where there are none.

A run's operations are its examples times the operations an example took in finished runs of the same task, length,
encoder and method; before there are any, those of its tokens by the formulas of `xlift.training.cost`. Its seconds are
its operations over the rate of finished runs, and what the job takes before, after and beside them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean

from xlift.artifacts import fingerprint
from xlift.catalog.task import EXTRA_TARGET, MLM, TRANSLATED
from xlift.errors import UserError
from xlift.grid import Grid
from xlift.planning.dag import Job
from xlift.planning.evidence import Evidence, RunRecord, TokenRecord, model_key
from xlift.recipes import train_examples
from xlift.training.cost import EncoderShape, forward_flops, head_flops, tied_flops, training_flops

PADDING = 1.15
"""Token positions computed for each token, where no run tells: batches are of like length."""
FILLED = 0.5
"""Share of the longest length that a sequence fills, where no token ids tell."""
CHOICES = 4
"""Sequences of a multiple-choice example, where no token ids tell."""
RATES: Mapping[str, float] = {"cpu": 5e10, "t4": 1.5e13, "v100": 3e13, "a100": 1e14, "h100": 2e14, "h200": 2e14}
"""Operations a second by device, where no run tells: roughly a third of the peak in bf16 (fp16), or a CPU core's."""
STEP_SECONDS = 0.03
"""Seconds that a step takes at least, where no run like it tells: small ones wait for the processor that feeds them."""
SECONDS: Mapping[str, float] = {
    "prepare_encoder": 10.0,
    "prepare_data": 5.0,
    "encode_task": 8.0,
    "train_trunk": 6.0,
    "train_intermediate": 8.0,
    "train_target": 8.0,
    "predict_cell": 6.0,
    "score_cells": 3.0,
    "collect_runs": 2.0,
    "plan_analysis": 1.0,
    "estimate_contrasts": 5.0,
    "render_report": 10.0,
    "all": 0.0,
}
"""Seconds of a job, of a run or prediction without its forward and backward passes, where no finished job tells."""
SCORE_SECONDS = 0.02
"""Seconds of scoring a cell beside those of the job that scores all, where no scoring tells."""
VOCABULARY = 250_000
"""Word embeddings of a multilingual encoder, where it is not at hand."""
ROW_BYTES = 40
"""Bytes of a prediction on disk, where no file tells."""


@dataclass(frozen=True)
class Estimate:
    """What one job would take; `steps` to `flops` are training, without what a trunk had done before."""

    seconds: float
    steps: int = 0
    examples: float = 0.0
    tokens: float = 0.0
    flops: float = 0.0
    bytes: float = 0.0


@dataclass(frozen=True)
class PerExample:
    """Mean cost of training on an example: tokens, and operations."""

    tokens: float
    flops: float


class CostModel:
    """Estimates of a study's jobs on a device of `rate` operations a second."""

    def __init__(self, grid: Grid, evidence: Evidence, shape: EncoderShape, device: str, rate: float) -> None:
        self.grid, self.evidence, self.shape, self.rate = grid, evidence, shape, rate
        encoder = fingerprint(self.grid.encoder_specification())
        self._model = model_key(encoder, self.grid.trainable)
        self._tokens = {(t.task, t.length): t for t in self.evidence.tokens if t.encoder == encoder}
        self._on_device = [run for run in self.evidence.runs if run.device == device]
        self._same_model = [run for run in self.evidence.runs if run.model == self._model]

    def estimate(self, job: Job) -> Estimate:
        """What a job would take."""
        if job.rule in ("train_trunk", "train_intermediate", "train_target"):
            return self._training(job)
        if job.rule == "predict_cell" and job.cell is not None:
            seconds, size = self._other("predict_cell", job.cell.target)
            return Estimate(seconds, bytes=size)
        seconds, size = self._other(job.rule, None)
        if job.rule == "score_cells":
            seconds = self._scoring()
        return Estimate(seconds, bytes=size)

    def _scoring(self) -> float:
        """Seconds of scoring all cells. What is scored already is not told apart: the job finds out itself."""
        found = self.evidence.scorings
        cells = sum(record.cells for record in found)
        each = sum(record.seconds for record in found) / cells if cells else SCORE_SECONDS
        return SECONDS["score_cells"] + len(self.grid.cells) * each

    def run_seconds(self, task: str, length: int, batch_size: int, steps: int, examples: float | None = None) -> float:
        """Seconds of a run's steps, without what it takes before and after them; `examples` None: in even batches."""
        seen = steps * batch_size if examples is None else examples
        flops = seen * self.per_example(task, length).flops
        rate = self._rate(task, length, batch_size)
        return flops / rate if rate else max(flops / self.rate, steps * STEP_SECONDS)

    def _training(self, job: Job) -> Estimate:
        run, grid = job.run, self.grid
        if run is None:
            raise ValueError(f"{job.rule} {job.path}: is of no run")
        if job.cell is not None:
            task, length = job.cell.target, grid.target_length(job.cell.target)
            by_set = grid.target_steps(task, run.budget.steps if run.control == EXTRA_TARGET else 0)
            sizes = [grid.recipes[name].batch_size for name, _ in grid.target_sets(task)]
            size, steps = sizes[-1], sum(by_set)
            examples = float(sum(own * batch for own, batch in zip(by_set, sizes, strict=True)))
        else:
            task, length, size = run.task, run.budget.max_length, run.budget.batch_size
            task = run.name if run.control in (TRANSLATED, MLM) else task
            steps = own_steps(grid, job)
            examples = float(steps * size)
        one = self.per_example(task, length)
        flops = examples * one.flops
        seconds = self.run_seconds(task, length, size, steps, examples) + self._beside(job.rule, task)
        return Estimate(seconds, steps, examples, examples * one.tokens, flops, self._checkpoint_bytes(job.rule))

    @cache  # noqa: B019 (one model a process)
    def per_example(self, task: str, length: int) -> PerExample:
        """Mean tokens and operations of training on one example."""
        found = [run for run in self._same_model if (run.task, run.length) == (task, length)]
        if found:
            examples = sum(run.examples for run in found)
            return PerExample(
                sum(run.tokens for run in found) / examples, sum(run.run_flops for run in found) / examples
            )
        weights = self._weights(task, length)
        if weights:
            whole = sum(weights.values())
            ones = {one: self.per_example(*one) for one in weights}
            return PerExample(
                sum(weights[one] * ones[one].tokens for one in weights) / whole,
                sum(weights[one] * ones[one].flops for one in weights) / whole,
            )
        record = self._tokens.get((task, length))
        if record is not None and record.examples:
            sequences, tokens = record.sequences / record.examples, record.tokens / record.examples
        else:
            sequences = CHOICES if self.grid.study.catalog[task].family == "multiple_choice" else 1.0
            tokens = sequences * FILLED * length
        trainable = self.grid.study.trainable
        # For a thousand examples, so that whole sequences are close to the mean.
        flops = training_flops(
            self.shape,
            round(1000 * sequences),
            max(1, round(PADDING * tokens / sequences)),
            trainable.method,
            trainable.rank,
        )
        return PerExample(tokens, flops / 1000 + (self._decoding(tokens) if task == MLM else 0.0))

    def _decoding(self, tokens: float) -> float:
        """Operations of the head of masked-language modelling over a sequence: all heads but this one are small."""
        study = self.grid.study
        if study.mlm is None:
            raise ValueError("a study without masked-language modelling")
        rows = study.mlm.mask * tokens
        trainable = study.trainable
        trained = trainable.method == "full" and trainable.layers is None and not trainable.freeze_word_embeddings
        return head_flops(self.shape.hidden**2, rows) + tied_flops(VOCABULARY * self.shape.hidden, rows, trained)

    def _weights(self, task: str, length: int) -> dict[tuple[str, int], float]:
        """How many of a run's examples are of each part (the cap where its size is not known) or stage, if any; or of
        its task and of the texts that are mixed in."""
        grid, mlm = self.grid, self.grid.study.mlm
        if mlm is not None and task.endswith(f".{MLM}"):
            return {(task.removesuffix(f".{MLM}"), length): 1.0, (MLM, mlm.max_length): mlm.share}
        entry = grid.study.catalog[task]
        found: dict[tuple[str, int], float] = {}
        for part in entry.parts:
            size = train_examples(grid.study, grid.study.catalog[part])
            cap = grid.study.mixture.cap
            found[part, min(grid.recipes[part].max_length, length)] = cap if size is None else min(size, cap)
        for stage in entry.stages:
            recipe = grid.recipes[stage]
            found[stage, recipe.max_length] = recipe.steps * recipe.batch_size
        return found

    @cache  # noqa: B019 (one model a process)
    def _rate(self, task: str, length: int, batch_size: int) -> float:
        """Operations a second of runs like these, best of the same batch size; 0 where there were none."""
        found = [r for r in self._on_device if (r.task, r.length, r.model) == (task, length, self._model)]
        return mean_rate([run for run in found if run.batch_size == batch_size] or found)

    @cache  # noqa: B019 (one model a process)
    def _beside(self, rule: str, task: str) -> float:
        """Seconds that a run takes before, after and beside its passes."""
        # The seconds of a run that was resumed are of all its jobs, those of the job of the last only.
        of_rule = [run for run in self._on_device if run.rule == rule and run.job_seconds >= run.seconds]
        found = [run for run in of_rule if run.task == task] or of_rule
        return fmean(run.job_seconds - run.seconds for run in found) if found else SECONDS[rule]

    @cache  # noqa: B019 (one model a process)
    def _other(self, rule: str, target: str | None) -> tuple[float, float]:
        """Seconds and bytes of a job that trains nothing; of another study's predictions nothing is concluded."""
        mine = [job for job in self.evidence.jobs if job.study == self.grid.study.study]
        found = [job for job in mine if (job.rule, job.target) == (rule, target)]
        if not found and rule != "predict_cell":
            found = [job for job in self.evidence.jobs if job.rule == rule]
        if found:
            return fmean(job.seconds for job in found), fmean(job.bytes for job in found)
        if target is not None:
            seconds, size = self._prediction(target)
            return seconds * self._prediction_scale(), size
        return SECONDS[rule], self._encoder_bytes() if rule == "prepare_encoder" else 0.0

    @cache  # noqa: B019 (one model a process)
    def _prediction_scale(self) -> float:
        """How long predictions of the study's other targets took, as a share of what their tokens tell; 1 without."""
        mine = [job for job in self.evidence.jobs if job.study == self.grid.study.study and job.rule == "predict_cell"]
        known = sorted({job.target for job in mine if job.target in self.grid.study.targets})
        told = sum(self._prediction(target)[0] for target in known)
        took = sum(fmean(job.seconds for job in mine if job.target == target) for target in known)
        return took / told if known else 1.0

    def _prediction(self, target: str) -> tuple[float, float]:
        """Seconds and bytes of predicting all languages of a target, from its tokens."""
        languages = len(self.grid.scored_languages(target))
        length = self.grid.target_length(target)
        record: TokenRecord | None = self._tokens.get((target, length))
        task, limit = self.grid.study.catalog[target], self.grid.study.data.examples.test
        most = math.inf if limit is None else limit * (2 if task.family == "retrieval" else 1)  # queries and documents
        sequences: float = min(task.test_examples, most) * languages
        tokens = sequences * FILLED * length
        if record is not None:
            sequences, tokens = record.all_sequences - record.sequences, record.all_tokens - record.tokens
        width = max(1, round(PADDING * tokens / max(1.0, sequences)))
        flops = forward_flops(self.shape, round(sequences), width)
        return SECONDS["predict_cell"] + flops / self.rate, ROW_BYTES * sequences

    def _encoder_bytes(self) -> float:
        """Bytes of the prepared encoder in fp32."""
        return 4.0 * (self.shape.linear_parameters + VOCABULARY * self.shape.hidden)

    def _checkpoint_bytes(self, rule: str) -> float:
        found = [run.bytes for run in self._same_model if run.rule == rule]
        if found:
            return fmean(found)
        # Trained weights in fp32; a trunk's state has the optimiser's two moments beside them.
        return 4.0 * trained_weights(self.shape, self.grid) * (3 if rule == "train_trunk" else 1)


def own_steps(grid: Grid, job: Job) -> int:
    """Steps that a trunk's segment or an intermediate run makes itself."""
    run = job.run
    if run is None:
        raise ValueError("a job of no run")
    steps = grid.all_steps(run, run.budget.steps)
    if grid.study.schedule != "trunk":
        return steps
    point = grid.all_steps(run, grid.branching_point(run.budget))
    if job.rule == "train_intermediate":
        return steps - point
    before = grid.trunk_before(run)
    return point - (grid.all_steps(run, grid.branching_point(before.budget)) if before is not None else 0)


def trained_weights(shape: EncoderShape, grid: Grid) -> int:
    """Encoder weights that are trained; heads, positions' embeddings and norms are left out."""
    trainable = grid.study.trainable
    layers = shape.layers if trainable.layers is None else min(trainable.layers, shape.layers)
    if trainable.method == "full":
        words = 0 if trainable.freeze_word_embeddings or trainable.layers is not None else VOCABULARY * shape.hidden
        return shape.linear_parameters * layers // shape.layers + words
    return layers * trainable.rank * (4 * 2 * shape.hidden + 2 * (shape.hidden + shape.intermediate))


def chosen_device(evidence: Evidence, wanted: str | None) -> tuple[str, float, str]:
    """Device to plan for, its operations a second, and where that number comes from.

    `wanted` is part of a device's name as finished runs tell it, or a name in `RATES`; None: the device of most
    finished runs, else one CPU core.
    """
    counts: dict[str, list[RunRecord]] = {}
    for run in evidence.runs:
        counts.setdefault(run.device, []).append(run)
    fitting = {name: runs for name, runs in counts.items() if wanted is None or wanted.lower() in name.lower()}
    for name, runs in sorted(fitting.items(), key=lambda entry: (-len(entry[1]), entry[0])):
        rate = mean_rate(runs)
        plural = "" if len(runs) == 1 else "s"
        if rate:
            return name, rate, f"The speed is that of {len(runs)} finished run{plural} on {name}"
    assumed = "cpu" if wanted is None else wanted.lower()
    if assumed not in RATES:
        known = sorted({*RATES, *counts})
        raise UserError(f"--device {wanted}: no finished run was on such a device; choose from {', '.join(known)}")
    return assumed, RATES[assumed], f"The speed is an assumed {RATES[assumed]:.0e} operations a second ({assumed})"


def mean_rate(runs: Sequence[RunRecord]) -> float:
    """Operations a second over some runs; 0 where they took no time."""
    seconds = sum(run.seconds for run in runs)
    return sum(run.flops for run in runs) / seconds if seconds > 0 else 0.0
