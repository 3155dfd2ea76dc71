"""Budgets: how much of an intermediate task a run sees, and in what way, as the study says and as a task resolves it.

A budget is an *amount* and an *arm*. The amount is a multiple of the task's reference examples, epochs, examples or
optimiser steps. The arm is all else in which runs of one task may differ: batch size with its learning-rate rule,
sequence length, share of the data. The arm `main` (the recipe's own batch and length, all data) is the primary one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from xlift.blocks import Block, Count, Number, plain_number
from xlift.catalog.task import MAIN
from xlift.errors import UserError

Scaling = Literal["none", "sqrt", "linear"]
EXPONENTS: Mapping[str, float] = {"none": 0.0, "sqrt": 0.5, "linear": 1.0}
"""Power of (batch size / the recipe's) that the learning rate is multiplied by; the root is Adam's own (Malladi et al.,
2022, arXiv 2205.10287), the first power is that of plain SGD (Goyal et al., 2017, arXiv 1706.02677)."""
DEFAULT_SCALING: Scaling = "sqrt"
PREFIXES: Mapping[str, str] = {"times": "x", "epochs": "e", "steps": "s", "examples": "n"}
"""Kinds of amount, and how a path's label says which one it is."""
LARGEST_TIMES = 10_000.0

BatchSize = Annotated[Count, Field(ge=1, le=65_536)]
Length = Annotated[Count, Field(ge=8, le=8192)]
Fraction = Annotated[Number, Field(gt=0, le=1)]


class BudgetEntry(Block):
    """One entry of `budgets`: exactly one amount, and where it departs from the task's recipe."""

    times: Number | None = Field(
        None, description="Multiple of each task's reference examples; a plain number is this."
    )
    epochs: Number | None = Field(None, gt=0, le=1e6, description="Passes' worth of examples over the training data.")
    steps: Count | None = Field(None, ge=1, le=10_000_000, description="Optimiser steps, whatever the batch size.")
    examples: Count | None = Field(None, ge=1, description="Training examples, repetitions counted.")
    batch_size: BatchSize | None = Field(
        None, description="Examples an optimiser step; steps change so that the examples stay, unless `steps` is given."
    )
    lr_scaling: Scaling | None = Field(
        None,
        description="Learning rate at another batch size: times the ratio's power 0, 0.5 or 1; unset: as `cross` says.",
    )
    max_length: Length | None = Field(None, description="Longest sequence, in tokens.")
    unique_fraction: Fraction | None = Field(
        None, description="Share of the training examples that the run draws from, above 0 and at most 1."
    )

    @model_validator(mode="after")
    def _one_amount(self) -> BudgetEntry:
        given = [name for name in PREFIXES if getattr(self, name) is not None]
        if not given:
            raise ValueError(f"gives no amount; add one of {', '.join(PREFIXES)}")
        if len(given) > 1:
            raise ValueError(f"gives {len(given)} amounts, {' and '.join(given)}; keep one of them")
        return self

    @property
    def kind(self) -> str:
        """Which amount is given."""
        return next(name for name in PREFIXES if getattr(self, name) is not None)

    @property
    def amount(self) -> float:
        """The amount, of its kind."""
        return float(getattr(self, self.kind))

    @property
    def text(self) -> str:
        """The entry as it would be written in a study file, short."""
        given = {name: value for name, value in self.model_dump(exclude_none=True).items()}
        if list(given) == ["times"]:
            return f"{self.amount:g}"
        return "{" + ", ".join(f"{k}: {v:g}" if isinstance(v, float) else f"{k}: {v}" for k, v in given.items()) + "}"


def as_entry(value: Any) -> Any:
    """A plain number is a multiple of the reference."""
    return value if isinstance(value, (Mapping, BudgetEntry)) else {"times": plain_number(value)}


Entry = Annotated[BudgetEntry, BeforeValidator(as_entry, json_schema_input_type=float | BudgetEntry)]


class Cross(Block):
    """What every budget is crossed with, beside its own way: each further level is an arm of its own."""

    batch_size: tuple[BatchSize, ...] = Field((), description="Batch sizes, at the same examples.")
    lr_scaling: tuple[Scaling, ...] = Field(
        (DEFAULT_SCALING,), min_length=1, description="Rules for the learning rate at another batch size."
    )
    max_length: tuple[Length, ...] = Field((), description="Longest sequences, in tokens.")
    unique_fraction: tuple[Fraction, ...] = Field((), description="Shares of the training examples to draw from.")

    @model_validator(mode="after")
    def _no_repeats(self) -> Cross:
        for name in type(self).model_fields:
            values = getattr(self, name)
            for index, value in enumerate(values):
                if value in values[:index]:
                    raise ValueError(f"{name}: {value} is listed twice; list it once")
        return self


@dataclass(frozen=True)
class Reference:
    """What a task's amounts refer to: its recipe, and how many training examples it has (None: not known)."""

    task: str
    steps: int
    batch_size: int
    max_length: int
    train_examples: int | None

    @property
    def examples(self) -> int:
        """Examples of the reference budget."""
        return self.steps * self.batch_size


@dataclass(frozen=True)
class Budget:
    """A budget as one task resolves it.

    `label` names it in paths, `arm` all of it but the amount, `text` as the study file has it. `times` is the amount
    as a multiple of the task's reference examples; `steps` optimiser steps of `batch_size` examples; the peak learning
    rate is the recipe's times `rate_factor`.
    """

    label: str
    arm: str
    text: str
    times: float
    steps: int
    batch_size: int
    rate_factor: float
    max_length: int
    unique_fraction: float

    @property
    def examples(self) -> int:
        """Examples of the run, repetitions counted."""
        return self.steps * self.batch_size


NO_BUDGET = Budget("x0", MAIN, "none", 0.0, 0, 0, 1.0, 0, 1.0)
"""What the baseline, which has no intermediate task, spends on one."""


def number_text(value: float) -> str:
    """A number in a path, the shortest that reads back the same: 0.25, 1, 32000."""
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))


def resolved(entries: Sequence[BudgetEntry], cross: Cross, reference: Reference, file: str) -> list[Budget]:
    """All budgets of one task, in the order of the study file, each entry's own way before its crossings.

    Raises:
        UserError: a budget of no step, two that come to the same, a batch larger than the data, epochs of data of
            unknown size, or no budget in the primary arm.
    """
    found: list[Budget] = []
    for entry in entries:
        ways = {way.label: way for way in _ways(entry, cross, reference, file)}  # a crossing may be the recipe's own
        for way in ways.values():
            _check(way, entry, found, reference, file)
            found.append(way)
    if not any(budget.arm == MAIN for budget in found):
        raise UserError(
            f"{file}: budgets: none of {reference.task}'s has the recipe's own batch size ({reference.batch_size}) and "
            f"length ({reference.max_length}) and all data, which is the primary arm; add one, or change "
            f"recipes.{reference.task}"
        )
    return found


def _ways(entry: BudgetEntry, cross: Cross, reference: Reference, file: str) -> Iterator[Budget]:
    """The entry's own way and all crossings; an axis that the entry sets itself is not crossed."""
    own = reference.batch_size
    sizes = [entry.batch_size] if entry.batch_size is not None else [own, *cross.batch_size]
    scalings = [entry.lr_scaling] if entry.lr_scaling is not None else list(cross.lr_scaling)
    lengths = [entry.max_length] if entry.max_length is not None else [reference.max_length, *cross.max_length]
    fractions = [entry.unique_fraction] if entry.unique_fraction is not None else [1.0, *cross.unique_fraction]
    for size, scaling, length, fraction in product(sizes, scalings, lengths, fractions):
        parts, label = [], PREFIXES[entry.kind] + number_text(entry.amount)
        if size != own:
            parts.append(f"b{size}-{scaling}")
            label += f"-b{size}" + ("" if scaling == DEFAULT_SCALING else f"-lr_{scaling}")
        for level, standard, sign in ((length, reference.max_length, "l"), (fraction, 1.0, "u")):
            if level != standard:
                parts.append(f"{sign}{number_text(level)}")
                label += f"-{parts[-1]}"
        examples = _examples(entry, size, reference, file)
        yield Budget(
            label=label,
            arm="-".join(parts) or MAIN,
            text=entry.text + (f" at {' '.join(parts)}" if parts else ""),
            times=entry.amount if entry.kind == "times" else examples / reference.examples,
            steps=int(entry.amount) if entry.kind == "steps" else round(examples / size),
            batch_size=size,
            rate_factor=(size / own) ** EXPONENTS[scaling] if size != own else 1.0,
            max_length=length,
            unique_fraction=fraction,
        )


def _examples(entry: BudgetEntry, batch_size: int, reference: Reference, file: str) -> float:
    """Examples that an amount comes to, before they are cut into whole batches."""
    if entry.kind == "steps":
        return entry.amount * batch_size
    if entry.kind == "examples":
        return entry.amount
    if entry.kind == "times":
        return entry.amount * reference.examples
    if reference.train_examples is None:
        raise UserError(
            f"{file}: budgets: {entry.text} counts passes over {reference.task}'s training data, whose size is not "
            f"known; set recipes.{reference.task}.train_examples"
        )
    return entry.amount * reference.train_examples


def _check(way: Budget, entry: BudgetEntry, before: Sequence[Budget], reference: Reference, file: str) -> None:
    task = reference.task
    if way.steps < 1:
        whole = {"times": reference.examples, "epochs": reference.train_examples}.get(entry.kind) or 1
        plain = entry.kind == "times" and way.arm == MAIN
        of = f"{task}'s {reference.steps} reference steps" if plain else task
        least = f"{'a budget of' if entry.kind == 'times' else f'{entry.kind}:'} {way.batch_size / whole:.3g}"
        raise UserError(f"{file}: budgets: {way.text} of {of} rounds to zero steps; one step is {least}")
    if way.times > LARGEST_TIMES:
        raise UserError(
            f"{file}: budgets: {way.text} is {way.times:g} times {task}'s reference; a budget is at most "
            f"{LARGEST_TIMES:g} times it"
        )
    for other in before:
        if other.arm == way.arm and other.steps == way.steps:
            raise UserError(
                f"{file}: budgets: {other.text} and {way.text} both come to {way.steps} steps of {task}; "
                "drop one of them"
            )
    if reference.train_examples is not None:
        drawn_from = unique_examples(way.unique_fraction, reference.train_examples)
        check_batch(way.batch_size, drawn_from, f"{file}: budgets: {way.text}", task)


def unique_examples(fraction: float, train_examples: int) -> int:
    """How many of a task's training examples a run with this `unique_fraction` draws from: at least the share."""
    return math.ceil(round(fraction * train_examples, 6))  # 0.07 * 100 is a little over 7


def check_batch(batch_size: int, examples: int, where: str, task: str) -> None:
    """Refuse a batch that would hold some examples twice."""
    if batch_size > examples:
        raise UserError(
            f"{where}: a batch of {batch_size} is larger than the {examples} training examples that {task} draws from; "
            "use a smaller batch size"
        )


def share_of_steps(share: float, steps: float) -> int:
    """A share of a number of steps, in whole steps, rounded up (but 0.1 of 70 is 7, whatever floats make of it)."""
    return math.ceil(round(share * steps, 6))


def branching_point(steps: int, cooldown: float) -> int:
    """The step at which a branch of `steps` steps leaves its trunk, so that a share `cooldown` of them is left."""
    return steps - share_of_steps(cooldown, steps)
