"""Every task, declared once: its family, source, labels, metrics and recipe.

Adding a task of an existing family is adding an entry to one of this package's modules.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xlift.catalog.cldr import CLDR_TASKS
from xlift.catalog.declared import task_from
from xlift.catalog.intermediate import INTERMEDIATE_TASKS
from xlift.catalog.made import mlm_task, translated_task
from xlift.catalog.pins import at_revisions, pinned
from xlift.catalog.search import RETRIEVAL_TASKS
from xlift.catalog.target import TARGET_TASKS
from xlift.catalog.task import MLM, TRANSLATED, Task

CATALOG: dict[str, Task] = {
    task.name: pinned(task) for task in (*CLDR_TASKS, *INTERMEDIATE_TASKS, *TARGET_TASKS, *RETRIEVAL_TASKS)
}


def names(role: str, catalog: Mapping[str, Task] = CATALOG) -> list[str]:
    """Names of the tasks that may play a role ("intermediate", "target" or "stage"), sorted."""
    return sorted(task.name for task in catalog.values() if role in task.roles)


def task_of(specification: Mapping[str, Any]) -> Task:
    """The task that a job's specification names: the catalog's, the user's own that is declared in it, the translation
    of one, or the texts of masked-language modelling; read at the revisions that the specification gives."""
    name, _, change = specification["task"].partition(".")
    if name == MLM:
        return mlm_task()
    own = specification.get("declared")
    task = at_revisions(CATALOG[name] if own is None else task_from(own), specification.get("revisions", {}))
    return translated_task(task) if change == TRANSLATED else task
