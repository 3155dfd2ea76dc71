"""A study's grid: which runs and cells there are, what each depends on, and the fingerprint of that.

What a job depends on is its *specification*: a JSON object with everything that decides its output, the
fingerprints of what it starts from included, and nothing else. The specification's canonical JSON is the one
`params` string of the job's rule, so a job is repeated when, and only when, what it depends on changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from xlift.analysis import analysis_plan, analysis_settings
from xlift.artifacts import MANIFEST, canonical_json, current_manifest, fingerprint, sha256_of, text_fingerprint
from xlift.budgets import share_of_steps
from xlift.catalog.made import translated_name
from xlift.catalog.task import ANSWERS_KEPT, EXTRA_TARGET, MAIN, MLM, SHUFFLED_LABELS, TRANSLATED
from xlift.example_sets import STAGE_VERSIONS, ExampleSets, Specification
from xlift.runs import Cell, Intermediate, shares_data
from xlift.settings import PackagedEncoder
from xlift.study import Study

PLACE = ("target", "intermediate", "arm", "budget", "seed")
"""Columns that tell the cells of a study's tables apart."""
FINGERPRINT_LETTERS = 16
"""Of each run's fingerprint, in the params of the rule that collects them all."""


@dataclass(frozen=True)
class Stamp:
    """A specification as the one string in a rule's `params`, and its fingerprint."""

    text: str
    fingerprint: str


class Grid(ExampleSets):
    """The runs and cells of a study, each with its specification. Raises `UserError` where budgets make no sense."""

    def __init__(self, study: Study, file: str) -> None:
        super().__init__(study, file)
        self._stamps: dict[tuple[Any, ...], Stamp] = {}

    # Specifications, from what depends on nothing to what depends on all.

    def trunk_specification(self, run: Intermediate) -> Specification:
        """What the state at a budget's branching point depends on: not on where the run was cut on the way there."""
        point = self.all_steps(run, self.branching_point(run.budget))
        schedule = {"kind": "constant", "warmup_steps": self._trunk_warmup_of(run)}
        return self._of_intermediate("trunk", run, point, schedule)

    def intermediate_specification(self, run: Intermediate) -> Specification:
        """What an intermediate run's weights depend on."""
        steps = self.all_steps(run, run.budget.steps)
        schedule: dict[str, Any] = self._decaying(run.task, steps)
        if self.study.schedule == "trunk":
            point = self.all_steps(run, self.branching_point(run.budget))
            schedule = {"kind": "cooldown", "warmup_steps": self._trunk_warmup_of(run), "branch": point}
        return self._of_intermediate("intermediate", run, steps, schedule)

    def target_specification(self, cell: Cell) -> Specification:
        """What a target run's weights depend on; the control `extra_target` has the intermediate's steps on top."""
        run = cell.intermediate
        by_stage = self.target_steps(cell.target, run.budget.steps if run.control == EXTRA_TARGET else 0)
        steps = sum(by_stage)
        specification = self._training("target", cell.target, run)
        specification["parent"] = self.stamp("intermediate", run).fingerprint if run.is_run else None
        specification["draw"] = _draw("target", cell.target, run)
        if self.study.catalog[cell.target].stages:
            return specification | self._in_stages(cell.target, by_stage)
        specification["recipe"] = self._recipe_facts(cell.target, steps)
        specification["schedule"] = self._decaying(cell.target, steps)
        return specification

    def prediction_specification(self, cell: Cell) -> Specification:
        """What a cell's predictions depend on: weights, examples in every language, precision."""
        run = cell.intermediate
        if self.study.catalog[cell.target].trained:
            weights: str | None = self.stamp("target", cell).fingerprint
        else:
            weights = self.stamp("intermediate", run).fingerprint if run.is_run else None
        facts: Specification = {
            "kind": "predict",
            "version": STAGE_VERSIONS["predict"],
            "task": cell.target,
            "weights": weights,
            "encoded": self.encode_stamp(cell.target, self.target_length(cell.target)).fingerprint,
            "precision": self.study.training.precision,
            "threads": self.study.training.threads,
            **self._declared(cell.target, self._data_languages(cell.target)),
        }
        entry = self.study.catalog[cell.target]
        if entry.family == "span":
            facts["answers_kept"] = ANSWERS_KEPT
        if entry.family == "retrieval" and entry.direct:
            facts["sentence"] = self.study.encoder.sentence
        return facts

    def score_specification(self, cell: Cell) -> Specification:
        """What a cell's scores depend on: predictions and metrics, and where the cell stands in the grid."""
        run = cell.intermediate
        return {
            "kind": "score",
            "version": STAGE_VERSIONS["score"],
            "predictions": self.stamp("predict", cell).fingerprint,
            "before": self.stamp("intermediate", run).fingerprint if run.is_run else None,
            "after": self.stamp("target", cell).fingerprint if self.study.catalog[cell.target].trained else None,
            "metrics": list(self.study.catalog[cell.target].metrics),
            "study": self.study.study,
            "target": cell.target,
            "intermediate": run.task,
            "arm": run.arm,
            "budget": run.budget.times,
            "seed": run.seed,
            "shared_data": shares_data(self.study.catalog, run.task, cell.target),
            "extra_steps": run.budget.steps if run.control == EXTRA_TARGET else 0,
        }

    def scores_specification(self) -> Specification:
        """What the table of all scores depends on, in few bytes: the fingerprint of what every cell's depend on."""
        cells = [self.stamp("score", cell).fingerprint for cell in self.cells]
        return {"kind": "scores", "cells": fingerprint(cells)}

    @cached_property
    def scores_stamp(self) -> Stamp:
        """Params string and fingerprint of the table of all scores."""
        return _stamp(self.scores_specification())

    @cache  # noqa: B019 (one grid a process)
    def encode_stamp(self, task: str, length: int) -> Stamp:
        """Params string and fingerprint of a task's token ids."""
        return _stamp(self.encode_specification(task, length))

    def stamp(self, kind: str, job: Intermediate | Cell) -> Stamp:
        """Params string and fingerprint of a job (`trunk`, `intermediate`, `target`, `predict`, `score`), made once."""
        key = (kind, *job.key)
        if key not in self._stamps:
            specify: dict[str, Callable[[Any], Specification]] = {
                "trunk": self.trunk_specification,
                "intermediate": self.intermediate_specification,
                "target": self.target_specification,
                "predict": self.prediction_specification,
                "score": self.score_specification,
            }
            self._stamps[key] = _stamp(specify[kind](job))
        return self._stamps[key]

    def segment_start(self, run: Intermediate, results: Path) -> str | None:
        """Path of the manifest of the state that a trunk's segment goes on from; None for the first of a trunk.

        A segment that is current stays with the state it did go on from, while that is there: a budget added in between
        makes no later segment anew.
        """
        folder = results / self.study.study / "trunk"
        name, label, seed = run.key
        made = current_manifest(folder / name / label / f"seed{seed}" / MANIFEST, self.stamp("trunk", run).fingerprint)
        if made is not None and (made["start"] is None or Path(made["start"]).exists()):
            return None if made["start"] is None else str(made["start"])
        before = self.trunk_before(run)
        return None if before is None else str(folder / name / before.budget.label / f"seed{seed}" / MANIFEST)

    def _of_intermediate(self, kind: str, run: Intermediate, steps: int, schedule: Mapping[str, Any]) -> Specification:
        budget = run.budget
        shared = self.study.schedule == "trunk"
        specification = self._training(kind, run.task, run)
        if run.control == TRANSLATED:
            specification |= self.example_set(translated_name(run.task))
        specification["recipe"] = self._recipe_facts(
            run.task, steps, budget.batch_size, budget.rate_factor, budget.max_length
        )
        specification["schedule"] = dict(schedule)
        specification["unique_fraction"] = budget.unique_fraction
        specification["control"] = SHUFFLED_LABELS if run.control == SHUFFLED_LABELS else None
        if self.study.catalog[run.task].parts:
            specification["cap"] = self.study.mixture.cap
            specification["parts"] = [
                {**self.example_set(part), "max_length": length, "stride": self.recipes[part].stride}
                for part, length in self.run_sets(run)
                if part != MLM
            ]
        if run.control == MLM and self.study.mlm is not None:
            specification["mlm"] = {
                **self.example_set(MLM),
                **self.study.mlm.model_dump(include={"share", "mask", "max_length"}),
            }
        # A trunk and its branches are one stream of examples, whatever the budgets.
        specification["draw"] = _draw("trunk", run.task, run, shared) if shared else _draw(kind, run.task, run)
        return specification

    def _trunk_warmup_of(self, run: Intermediate) -> int:
        return self.all_steps(run, self.trunk_warmup(run.task, run.budget))

    def _in_stages(self, target: str, steps: Sequence[int]) -> Specification:
        """The stages of a target's run, each with its recipe and schedule; the run's own recipe is the last one's, but
        for its steps, which are all, and its length, which is that of the target's own examples."""
        stages = [
            {
                **self.example_set(stage),
                "recipe": self._recipe_facts(stage, own),
                "schedule": self._decaying(stage, own),
            }
            for (stage, _), own in zip(self.target_sets(target), steps, strict=True)
        ]
        whole = {"steps": sum(steps), "max_length": self.target_length(target)}
        return {"stages": stages, "recipe": {**stages[-1]["recipe"], **whole}, "schedule": {"kind": "stages"}}

    def _decaying(self, task: str, steps: int) -> dict[str, Any]:
        return {"kind": "linear", "warmup_steps": share_of_steps(self.warmup(task), steps)}

    def _recipe_facts(
        self,
        task: str,
        steps: int,
        batch_size: int | None = None,
        rate_factor: float = 1.0,
        max_length: int | None = None,
    ) -> dict[str, Any]:
        recipe = self.recipes[task]
        return {
            "batch_size": recipe.batch_size if batch_size is None else batch_size,
            "learning_rate": self.learning_rate(task) * rate_factor,
            "max_length": recipe.max_length if max_length is None else max_length,
            "stride": recipe.stride,
            "steps": steps,
        }

    def _training(self, kind: str, task: str, run: Intermediate) -> Specification:
        training = self.study.training
        return {
            "kind": kind,
            # The English rows and their tokens, without the languages that only scoring reads.
            "version": {stage: STAGE_VERSIONS[stage] for stage in ("data", "encode", "train")},
            **self.example_set(task),
            "encoder": self._encoder_fingerprint,
            "parent": None,
            "trainable": self.trainable,
            "training": {
                name: getattr(training, name) for name in ("weight_decay", "clip", "dropout", "precision", "threads")
            },
            "unique_fraction": 1.0,
            "control": None,
            "select": training.select,
            "seed": run.seed,
        }

    @cached_property
    def trainable(self) -> dict[str, Any]:
        """The settings that matter to the study's method."""
        idle = {"lora": {"freeze_word_embeddings"}, "full": {"rank", "alpha", "dropout"}}
        return self.study.trainable.model_dump(exclude=idle[self.study.trainable.method])


def _stamp(specification: Specification) -> Stamp:
    text = as_param(specification)
    return Stamp(text, text_fingerprint(text))


def _draw(kind: str, task: str, run: Intermediate, shared: bool = False) -> int:
    """What a run draws from. Runs that share a seed share nothing they draw: the analysis takes runs as independent.

    `shared`: the same number for all amounts of one arm.
    """
    where = [kind, task, run.task, None if shared else run.budget.times, run.seed]
    return int(fingerprint(where if run.arm == MAIN else [*where, run.arm])[:8], 16)


def execution_param(study: Study) -> str:
    """Settings that change a run's speed and memory and not its result, for the job and for no fingerprint."""
    training = study.training
    tokens = training.micro_batch_tokens
    return canonical_json(
        {
            "save_every": training.save_every,
            "compile": training.compile,
            "gradient_checkpointing": training.gradient_checkpointing,
            "micro_batch_tokens": None if tokens == "auto" else tokens,
        }
    )


def as_param(specification: Specification) -> str:
    """A specification as the one string in a rule's `params`."""
    return canonical_json(specification)


def analysis_specification(grid: Grid) -> Specification:
    """What the contrasts depend on beside the scores; their code too, since estimating again costs seconds."""
    planned = planned_gains_specification(grid)
    return {**analysis_settings(grid.study), "planned": planned, "code": package_fingerprint("contrasts")}


def planned_gains_specification(grid: Grid) -> Specification:
    """Every gain that the study is to have, in few bytes: the runs before each target, which all have every seed, its
    languages, and the pairs of tasks whose training data overlap."""
    runs: dict[str, dict[tuple[str, str, float], None]] = {}
    shared: dict[tuple[str, str], None] = {}
    for cell in grid.cells:
        run = cell.intermediate
        if not run.is_none:
            runs.setdefault(cell.target, {})[run.task, run.arm, run.budget.times] = None
            if shares_data(grid.study.catalog, run.task, cell.target):
                shared[cell.target, run.task] = None
    return {
        "runs": {target: [list(run) for run in before] for target, before in runs.items()},
        "seeds": sorted(grid.study.seeds),
        "languages": {target: grid.scored_languages(target) for target in runs},
        "shared_data": [list(pair) for pair in shared],
    }


def plan_specification(grid: Grid) -> Specification:
    """The plan of the analysis, from the settings as they are now."""
    languages = {target: grid.scored_languages(target) for target in grid.study.targets}
    return analysis_plan(grid.study, languages)


def runs_specification(grid: Grid) -> Specification:
    """Where in the grid the runs stand, in the order of their manifests, and the beginnings of their fingerprints."""

    def row(kind: str, target: str | None, job: Intermediate | Cell, run: Intermediate) -> list[Any]:
        return [*place(target, run), grid.stamp(kind, job).fingerprint[:FINGERPRINT_LETTERS]]

    return {
        "trunks": [row("trunk", None, run, run) for run in grid.segments],
        "intermediates": [row("intermediate", None, run, run) for run in grid.intermediates],
        "targets": [row("target", cell.target, cell, cell.intermediate) for cell in grid.target_runs()],
    }


def report_specification(grid: Grid) -> Specification:
    """What the page shows beside the tables: plain settings, the expected cells, and the page's own code."""
    study = grid.study
    target_languages = {target: grid.scored_languages(target) for target in study.targets}
    encoder = study.encoder
    return {
        "analysis": analysis_settings(study),
        "plan": plan_specification(grid),
        "name": study.study,
        "encoder": "multilingual-e5-small (packaged, 4-bit)"
        if isinstance(encoder, PackagedEncoder)
        else f"{encoder.id}, {encoder.revision or 'main'}",
        "trainable": grid.trainable,
        "intermediates": list(study.intermediates),
        "budgets": sorted(
            {budget.times for budgets in grid.budgets.values() for budget in budgets if budget.arm == MAIN}
        ),
        "seeds": list(study.seeds),
        "targets": list(study.targets),
        "languages": sorted({language for codes in target_languages.values() for language in codes}),
        "target_languages": target_languages,
        "cells": [list(place(cell.target, cell.intermediate)) for cell in grid.cells],
        "examples": grid.tasks,
        "code": package_fingerprint("report"),
    }


def place(target: str | None, run: Intermediate) -> tuple[Any, ...]:
    """Where a run or cell stands in the grid: the columns `PLACE` of the tables; no target: an intermediate run."""
    return target, run.task, run.arm, run.budget.times, run.seed


@cache
def package_fingerprint(package: str) -> str:
    """sha256 over the files of one of xlift's packages: for stages that are cheap to repeat when their code changes."""
    folder = Path(__file__).parent / package
    files = sorted(path for path in folder.rglob("*") if path.suffix in {".py", ".html", ".css", ".js"})
    return fingerprint({str(path.relative_to(folder)): sha256_of(path) for path in files})
