"""A user's own tasks: the block `tasks` of a study file, turned into entries like the catalog's."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from xlift.blocks import Block, Count, Number
from xlift.catalog import CATALOG
from xlift.catalog.fields import OwnFamily, fields_of
from xlift.catalog.task import Recipe, Slice, Task
from xlift.languages import SOURCE_LANGUAGE
from xlift.settings import REVISION_PATTERN

SPLITS: tuple[Literal["train", "dev", "test", "validation"], ...] = ("train", "dev", "test", "validation")
METRICS: Mapping[str, tuple[str, ...]] = {
    "classification": ("accuracy",),
    "multiple_choice": ("accuracy",),
    "tagging": ("span_f1", "token_accuracy", "xtreme_f1"),
    "span": ("squad_f1", "squad_em", "squad_v2_f1", "squad_v2_em", "mlqa_f1", "mlqa_em"),
    "retrieval": ("accuracy_at_1", "accuracy_at_1_common", "map_at_20", "bitext_f1"),
}
"""Metrics that a family's predictions can be scored with."""
DEFAULT_METRICS: Mapping[str, tuple[str, ...]] = {
    "classification": ("accuracy",),
    "multiple_choice": ("accuracy",),
    "tagging": ("span_f1", "token_accuracy"),
    "span": ("squad_f1", "squad_em"),
    "retrieval": ("accuracy_at_1",),
}
MLQA_LANGUAGES = ("ar", "de", "en", "es", "hi", "vi", "zh")
CODE = "{code}"
LEFT_OUT = ""
"""What a value maps to in `Slice.labels` when rows with it are left out."""

Code = Annotated[str, Field(pattern=r"^[a-z]{2,3}$")]
Text = Annotated[str, Field(min_length=1)]


def _listed(value: Any) -> Any:
    """One entry stands for a list of one."""
    return [value] if isinstance(value, (str, Mapping)) else value


def _text_keys(value: Any) -> Any:
    """Keys and values of a mapping of labels as text; YAML reads 0 as a number, and an unquoted yes as true."""
    if not isinstance(value, Mapping):
        return value
    for entry in (*value.keys(), *value.values()):
        if isinstance(entry, bool) or not isinstance(entry, (str, int, type(None))):
            raise ValueError(f"{entry!r} is not a label; write text or a whole number, in quotes where it is a word")
    return {str(key): entry if entry is None else str(entry) for key, entry in value.items()}


Columns = Annotated[
    tuple[Text, ...], Field(min_length=1), BeforeValidator(_listed, json_schema_input_type=Text | tuple[Text, ...])
]


class OwnSlice(Block):
    """Rows of a repository that become one split of a task."""

    repository: str = Field(
        pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$",
        description="Data set on the hub, or under `data.root`, as `<org>/<name>`.",
    )
    config: Text = Field(
        "default", description="The repository's config; `{code}` in it stands for each language's code."
    )
    codes: dict[Code, Text] = Field(
        default_factory=dict, description="What `{code}` stands for, where that is not the language's own code."
    )
    rows: Text = Field(description="The repository's split, such as `train`; `{code}` as in `config`.")
    columns: dict[str, Columns] = Field(
        default_factory=dict,
        description="Column by field of the family's reader (see below), where their names differ; `a.b` is field "
        "`b` of column `a`.",
    )
    labels: Annotated[
        dict[str, str | None],
        BeforeValidator(_text_keys, json_schema_input_type=dict[str, str | int | None]),
    ] = Field(
        default_factory=dict,
        description="The task's label by the repository's value, where they differ; null leaves such rows out.",
    )
    revision: str | None = Field(
        None,
        pattern=REVISION_PATTERN,
        description="Commit, tag or branch; pin a commit for results you publish.",
    )
    languages: tuple[Code, ...] | None = Field(
        None, description="Languages that it has, where a split is put together of several repositories; unset: all."
    )

    def slices(self, split: Literal["train", "dev", "test", "validation"], languages: Sequence[str]) -> list[Slice]:
        """As the catalog's slices, with a config for each language; one a language where `rows` differ."""
        own = languages if self.languages is None else self.languages
        configs = {code: self.config.replace(CODE, self.codes.get(code, code)) for code in own}
        columns = {
            field if len(names) == 1 else f"{field}.{place}": name
            for field, names in self.columns.items()
            for place, name in enumerate(names)
        }
        labels = {value: LEFT_OUT if label is None else label for value, label in self.labels.items()}
        codes = {code: name for code, name in self.codes.items() if "language" in columns}
        parts = [(self.rows, configs)]
        if CODE in self.rows:
            parts = [(self.rows.replace(CODE, self.codes.get(code, code)), {code: configs[code]}) for code in own]
        return [
            Slice(split, self.repository, own_configs, rows, "", columns, labels, self.revision, codes)
            for rows, own_configs in parts
        ]


class OwnRecipe(Block):
    """How an own task is trained at its reference budget."""

    steps: Count | None = Field(None, ge=1, le=10_000_000, description="Optimiser steps of the reference budget.")
    epochs: Number | None = Field(
        None, gt=0, le=1e4, description="The same as passes over `train_examples`, instead of `steps`."
    )
    batch_size: Count | None = Field(None, ge=1, le=65_536, description="Examples an optimiser step.")
    learning_rate: Number | None = Field(None, gt=0, le=1, description="Peak learning rate.")
    max_length: Count | None = Field(None, ge=8, le=8192, description="Longest sequence, in tokens.")
    stride: Count | None = Field(
        None, ge=0, le=8192, description="Tokens that two windows of a long text share (span, tagging); 0 if unset."
    )


Slices = Annotated[
    tuple[OwnSlice, ...], BeforeValidator(_listed, json_schema_input_type=OwnSlice | tuple[OwnSlice, ...])
]


class OwnTask(Block):
    """A task of one's own of a family that there is. What is wrong with it is said with the key it is under."""

    like: str | None = Field(None, description="A task of the catalog to start from; what is given here replaces its.")
    family: OwnFamily | None = Field(None, description="Family; required without `like`.")
    roles: Annotated[
        tuple[Literal["intermediate", "target"], ...],
        BeforeValidator(_listed, json_schema_input_type=str | tuple[str, ...]),
    ] = Field((), description="`intermediate`, `target`, or both; required without `like`.")
    languages: tuple[Code, ...] = Field((), description="Languages (ISO 639) that it is scored in; unset: English.")
    labels: tuple[Text, ...] = Field((), description="Labels or tags (classification, tagging).")
    choices: Count | None = Field(None, ge=2, le=26, description="Choices of a question, at most (multiple choice).")
    metrics: tuple[str, ...] = Field((), description="Metrics, the primary one first; unset: the family's usual ones.")
    recipe: OwnRecipe | None = Field(None, description="How it is trained; unset: it is not (retrieval).")
    train_examples: Count | None = Field(None, ge=1, description="Training examples; needed for budgets in epochs.")
    test_examples: Count | None = Field(
        None, ge=1, description="About how many examples a language is scored on, for plans; unset: 1000."
    )
    max_length: Count | None = Field(
        None, ge=8, le=8192, description="Longest sequence, in tokens, of a task that is not trained; unset: 128."
    )
    document_length: Count | None = Field(
        None, ge=8, le=8192, description="Longest document, where it differs from the query's (retrieval)."
    )
    unanswerable: bool | None = Field(None, description="Whether a question may have no answer (span).")
    cross_lingual_only: bool | None = Field(
        None, description="Whether English is left unscored, as where the documents are English too (retrieval)."
    )
    training_data: tuple[Text, ...] = Field(
        (),
        description="English example sets it is trained on, such as `mnli`; cells whose intermediate task shares one "
        "are left out of the primary analysis. Unset: its own.",
    )
    train: Slices = Field((), description="Training rows, English: a mapping as below, or a list of such.")
    dev: Slices = Field((), description="Development rows, English.")
    test: Slices = Field((), description="Rows that a target is scored on, in every language.")
    validation: Slices = Field((), description="Rows in place of `test`'s under `data.score_on: validation`.")
    licence: str | None = Field(None, description="Licence of the data, for lists.")
    summary: str | None = Field(None, description="What it asks, in a sentence, for lists.")

    @model_validator(mode="after")
    def _makes_a_task(self) -> OwnTask:
        self.task("own")
        return self

    def task(self, name: str) -> Task:
        """The entry; `ValueError` in one sentence where the block makes none."""
        task = self._with_recipe(self._with_slices(self._basis(name)))
        problem = _family_problem(task) or _split_problem(task) or _slice_problem(self, task)
        if problem is not None:
            raise ValueError(problem)
        return task

    def _basis(self, name: str) -> Task:
        """All of the task but slices and recipe."""
        if self.like is not None:
            start = _catalog_task(self.like)
            if self.family not in (None, start.family):
                raise ValueError(f"family: {self.like} is {start.family}; remove `family`, or remove `like`")
            start = replace(start, name=name, training_data=tuple(sorted(start.trained_on)))
        elif self.family is None or not self.roles:
            missing = "family" if self.family is None else "roles"
            raise ValueError(f"{missing}: is missing; add it, or start from a task of the catalog with `like`")
        else:
            metrics = DEFAULT_METRICS[self.family]
            if self.family == "tagging" and not _is_iob2(self.labels):
                metrics = ("token_accuracy",)
            start = Task(name, self.family, "hub", self.roles, (SOURCE_LANGUAGE,), metrics)
        plain = ("roles", "languages", "labels", "choices", "metrics", "train_examples", "test_examples", "max_length")
        more = ("document_length", "unanswerable", "cross_lingual_only", "training_data", "licence", "summary")
        cleared = ("train_examples", "document_length")  # null says something there
        set_here = {name: getattr(self, name) for name in (*plain, *more) if name in self.model_fields_set}
        given = {name: value for name, value in set_here.items() if value is not None or name in cleared}
        return replace(start, **given)

    def _with_slices(self, task: Task) -> Task:
        given = {split: getattr(self, split) for split in SPLITS if getattr(self, split)}
        if not given:
            return task
        # Rows that are not a repository's have no slices that could stand beside the ones given.
        kept = [part for part in task.slices if part.split not in given] if task.source == "hub" else []
        own = [
            replace(part, reader=task.family)
            for split, blocks in given.items()
            for block in blocks
            for part in block.slices(split, _languages(task, split))
        ]
        if "train" in given:
            # Other training rows: the number of the catalog's, their stages and what shares them no longer hold.
            own_data = self.training_data or ()
            task = replace(task, train_examples=self.train_examples, stages=(), parts=(), training_data=own_data)
        ordered = sorted([*kept, *own], key=lambda part: SPLITS.index(part.split))
        return replace(task, source="hub", slices=tuple(ordered))

    def _with_recipe(self, task: Task) -> Task:
        block = self.recipe
        if block is None:
            return task
        if block.steps is not None and block.epochs is not None:
            raise ValueError("recipe: steps and epochs are both given; keep one of them")
        steps = block.steps
        if block.epochs is not None:
            size = block.batch_size or (task.recipe.batch_size if task.recipe else None)
            if task.train_examples is None or size is None:
                raise ValueError("recipe.epochs: needs train_examples and recipe.batch_size; add them, or give steps")
            steps = math.ceil(round(block.epochs * task.train_examples / size, 6))
        rate = block.learning_rate
        values = {
            "steps": steps,
            "batch_size": block.batch_size,
            "learning_rate": None if rate is None else {"lora": rate, "full": rate},
            "max_length": block.max_length,
            "stride": block.stride,
        }
        given: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
        if task.recipe is not None:
            return replace(task, recipe=replace(task.recipe, **given))
        missing = [name for name in values if name not in given and name != "stride"]
        if missing:
            raise ValueError(f"recipe.{missing[0]}: is missing; add it")
        return replace(task, recipe=Recipe(**given))


def _catalog_task(name: str) -> Task:
    if name not in CATALOG:
        close = difflib.get_close_matches(name, sorted(CATALOG), n=1)
        hint = f"did you mean {close[0]!r}?" if close else "`xlift tasks` lists it"
        raise ValueError(f"like: {name!r} is not in the catalog; {hint}")
    if CATALOG[name].family not in METRICS:
        raise ValueError(f"like: {name!r} is made of other tasks, and cannot be started from; name one of these")
    return CATALOG[name]


def _is_iob2(labels: Sequence[str]) -> bool:
    return all(label == "O" or (label[:2] in ("B-", "I-") and len(label) > 2) for label in labels)


def _languages(task: Task, split: str) -> tuple[str, ...]:
    return (SOURCE_LANGUAGE,) if split in ("train", "dev") else task.languages


def _family_problem(task: Task) -> str | None:
    """What of labels, choices, metrics or recipe does not go with the family, or None."""
    family = task.family
    labelled = family in ("classification", "tagging")
    known = METRICS[family]
    unknown = [metric for metric in task.metrics if metric not in known]
    if labelled and len(task.labels) < 2:
        return f"labels: {family} needs two labels or more; list them"
    if not labelled and task.labels:
        return f"labels: {family} has none; remove them"
    if len(set(task.labels)) < len(task.labels) or len(set(task.languages)) < len(task.languages):
        return f"{'labels' if len(set(task.labels)) < len(task.labels) else 'languages'}: one is listed twice"
    if family == "multiple_choice" and not task.choices:
        return "choices: is missing; say how many choices a question has"
    if family != "multiple_choice" and task.choices:
        return f"choices: {family} has none; remove it"
    if unknown or not task.metrics:
        return f"metrics: {unknown[0] if unknown else 'none'} is not for {family}; choose from {', '.join(known)}"
    if "span_f1" in task.metrics and not _is_iob2(task.labels):
        return "metrics: span_f1 needs IOB2 tags (O, B-type, I-type), which the labels are not; use token_accuracy"
    if any(metric.startswith("mlqa_") for metric in task.metrics) and not set(task.languages) <= set(MLQA_LANGUAGES):
        return f"metrics: those of MLQA are for {', '.join(MLQA_LANGUAGES)} only; use squad_f1 and squad_em"
    if family != "span" and task.unanswerable:
        return f"unanswerable: {family} has no questions; remove it"
    if task.unanswerable and not all(metric.startswith("squad_v2_") for metric in task.metrics):
        return "metrics: where questions may have no answer they are squad_v2_f1 and squad_v2_em; list these"
    if family != "retrieval" and (task.document_length or task.cross_lingual_only):
        return f"{'document_length' if task.document_length else 'cross_lingual_only'}: is for retrieval; remove it"
    if task.recipe is None and family != "retrieval":
        return f"recipe: is missing; {family} has to be trained"
    return None


def _split_problem(task: Task) -> str | None:
    """A split that a role needs and the task has not, or one it has no use for, or None."""
    if not task.slices:
        if task.source not in ("hub", "folder"):
            return f"like: xlift makes the rows of that task ({task.source}), and not of others; give train, dev, test"
        return None if task.parts or task.stages else "test: is missing; say where the rows are"
    there = {part.split for part in task.slices}
    if task.recipe is None and "intermediate" in task.roles:
        return "recipe: is missing; an intermediate task is trained"
    if task.recipe is None and there & {"train", "dev"}:
        return "train: the task has rows to train on and no recipe; add a recipe, or remove train and dev"
    needed = ["test"] if "target" in task.roles else []
    if task.recipe is not None and not (task.stages or task.parts):
        needed = ["train", "dev", *needed]
    missing = [split for split in needed if split not in there]
    if missing:
        return f"{missing[0]}: is missing; say where the rows are"
    for split in ("test", "validation"):
        covered = {code for part in task.slices if part.split == split for code in part.configs}
        lacking = [code for code in task.languages if code not in covered]
        if split in there and lacking:
            return f"{split}: has no rows of {', '.join(lacking)}; add them, or leave that out of languages"
    return None


def _slice_problem(block: OwnTask, task: Task) -> str | None:
    """What is wrong with a slice that was given, or None."""
    known = fields_of(task.family)
    for split in SPLITS:
        for part in getattr(block, split):
            languages = _languages(task, split)
            own = languages if part.languages is None else part.languages
            if stranger := [code for code in (*own, *part.codes) if code not in languages]:
                return f"{split}: {stranger[0]} is not a language of its rows ({', '.join(languages)}); remove it"
            for field, columns in part.columns.items():
                if field not in known:
                    return (
                        f"{split}.columns.{field}: is not a field of {task.family}; its fields are {', '.join(known)}"
                    )
                if len(columns) > 1 and known[field].several is None:
                    return f"{split}.columns.{field}: several columns are given; give one"
            told_apart = CODE in part.config or CODE in part.rows or "language" in part.columns
            if len(own) > 1 and not told_apart:
                return (
                    f"{split}.config: every language would have the same rows; write {{code}} where the language's "
                    "code belongs, or name the column of languages in columns.language"
                )
            if unknown := [label for label in part.labels.values() if label and not _fits(label, task)]:
                right = "0, 1, ..." if task.family == "multiple_choice" else ", ".join(task.labels) or "none"
                return f"{split}.labels: {unknown[0]!r} is not a label of the task ({right}); correct it"
            if task.family == "tagging" and None in part.labels.values():
                return f"{split}.labels: a tag cannot be left out of a sentence; give a label in place of null"
    return None


def _fits(label: str, task: Task) -> bool:
    if task.family == "multiple_choice":
        return label in map(str, range(task.choices))
    return label in task.labels
