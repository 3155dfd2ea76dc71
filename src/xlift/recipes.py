"""How a study trains each of its tasks: the catalog's recipes with the study's departures from them."""

from __future__ import annotations

from dataclasses import asdict

from xlift.catalog.made import translated_name
from xlift.catalog.task import MIXTURE, MLM, Recipe, Task
from xlift.mixtures import capped_sum, mixture_recipe
from xlift.study import Study


def study_recipes(study: Study, file: str) -> dict[str, Recipe]:
    """Recipes by task, those of a mixture, of translations and of texts that are mixed in among them."""
    recipes = {
        task: resolved_recipe(study, study.catalog[task])
        for task in study.used
        if study.catalog[task].recipe is not None
    }
    if study.mixed:
        recipes[MIXTURE] = mixture_recipe(
            study.mixture,
            study.recipes.get(MIXTURE),
            {part: recipes[part] for part in study.mixed},
            {part: train_examples(study, study.catalog[part]) for part in study.mixed},
            study.trainable.method,
            file,
        )
    for task in study.translated:
        recipes[translated_name(task)] = recipes[task]
    if study.mlm is not None:
        recipes[MLM] = resolved_recipe(study, study.catalog[MLM])
    return recipes


def resolved_recipe(study: Study, task: Task) -> Recipe:
    """The task's recipe with the study's departures from it."""
    if task.recipe is None:
        raise ValueError(f"{task.name} has no training examples of its own")
    change = study.recipes.get(task.name)
    values = asdict(task.recipe)
    if change is not None:
        method = study.trainable.method
        plain = change.model_dump(exclude_none=True, exclude={"learning_rate", "train_examples"})
        values.update(plain)
        if change.learning_rate is not None:
            others = {key: rate for key, rate in values["learning_rate"].items() if key.split(".")[0] != method}
            values["learning_rate"] = {**others, method: change.learning_rate}
    return Recipe(**values)


def train_examples(study: Study, task: Task) -> int | None:
    """Training examples of a task, at most the study's limit, of a mixture up to its cap; None where neither the
    catalog nor the study knows."""
    if task.parts:
        sizes = {part: train_examples(study, study.catalog[part]) for part in task.parts}
        return capped_sum(sizes, study.mixture.cap)
    change = study.recipes.get(task.name)
    found = task.train_examples if change is None or change.train_examples is None else change.train_examples
    limit = study.data.examples.train
    return found if found is None or limit is None else min(found, limit)
