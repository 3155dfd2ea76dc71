"""A user's own task inside a job's specification: what of it that job depends on, and the task made of that again."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import MISSING, asdict, fields, replace
from typing import Any

from xlift.catalog.task import Recipe, Slice, Task

# Budgets and the recipe are in the specifications themselves; the rest is for plans, tables and readers.
_PLANNING = ("recipe", "train_examples", "test_examples", "training_data", "max_length")
_OF_NO_JOB = (*_PLANNING, "roles", "licence", "provenance", "summary")
_ELSEWHERE = Recipe(steps=0, batch_size=0, learning_rate={}, max_length=0)


def declared(task: Task, languages: Collection[str]) -> dict[str, Any]:
    """What a job on some languages depends on in a task, as JSON: only what is not the default.

    Of the metrics only the primary one: further ones matter to scoring, whose specification names them itself.
    """
    slices = []
    for part in task.slices:
        configs = {code: part.configs[code] for code in sorted(part.configs) if code in languages}
        if configs:
            slices.append(replace(part, configs=configs))
    kept = tuple(code for code in task.languages if code in languages)
    cut = asdict(replace(task, languages=kept, metrics=task.metrics[:1], slices=()))
    defaults = {field.name: field.default for field in fields(Task) if field.default is not MISSING}
    facts = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in cut.items()
        if name not in _OF_NO_JOB and (name not in defaults or value != defaults[name])
    }
    return {**facts, "trained": not task.direct, "slices": [_slice_facts(part) for part in slices]}


def task_from(facts: Mapping[str, Any]) -> Task:
    """The task that `declared` described, as far as a job needs it: of a recipe only whether there is one."""
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in facts.items()}
    slices = tuple(Slice(**part) for part in values.pop("slices"))
    recipe = _ELSEWHERE if values.pop("trained") else None
    return Task(**values, roles=(), recipe=recipe, slices=slices)


def _slice_facts(part: Slice) -> dict[str, Any]:
    facts = asdict(part)
    return {name: facts[name] for name in sorted(facts) if facts[name] or name == "configs"}
