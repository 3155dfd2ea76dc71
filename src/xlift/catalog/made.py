"""Tasks that a study makes of the catalog's: they depend on what the study says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from xlift.catalog.task import MIXTURE, MLM, TEXTS, TRANSLATED, Recipe, Task


def mixture_task(parts: Sequence[Task]) -> Task:
    """The intermediate task that trains several at once; its recipe is worked out from theirs by the study's grid."""
    return Task(
        name=MIXTURE,
        family="mixture",
        source="parts",
        roles=("intermediate",),
        languages=("en",),
        metrics=("mean over parts",),
        training_data=tuple(sorted(frozenset[str]().union(*(part.trained_on for part in parts)))),
        parts=tuple(sorted(part.name for part in parts)),
        summary="Several intermediate tasks at once, each with its own head.",
    )


def translated_name(task: str) -> str:
    """Name of a task's translated examples."""
    return f"{task}.{TRANSLATED}"


def translated_task(task: Task) -> Task:
    """The example set of a task's translations; of no role itself, for its runs are an arm of the task's."""
    return replace(
        task,
        name=translated_name(task.name),
        source=TRANSLATED,
        roles=(),
        languages=(),
        slices=(),
        train_examples=None,
        training_data=tuple(sorted(task.trained_on)),
        summary=f"Machine translations of {task.name}.",
    )


def mlm_task(max_length: int = 0) -> Task:
    """The texts that masked-language modelling is trained on; of no role itself, for its steps are mixed into a task's.

    Of its recipe only the length is its own: steps, batch and learning rate are those of the task's run.
    """
    return Task(
        name=MLM,
        family="mlm",
        source=TEXTS,
        roles=(),
        languages=(),
        metrics=(),
        recipe=Recipe(steps=0, batch_size=0, learning_rate={}, max_length=max_length),
        summary="Plain text by language.",
    )
