"""What a run is trained on: one set of examples, several at a time (a mixture), or one after the other (stages).

A step of a mixture is a batch of one part: one head, and one mean over the terms of one kind of loss. A batch of
several parts would have to weigh their losses against each other (a tagged sentence has dozens of terms and a sentence
pair one), and that weight would be one more setting that nobody chose. Parts are drawn in proportion to their numbers
of examples up to a cap: examples-proportional mixing (Raffel et al., 2020, arXiv 1910.10683, section 3.5.2). Steps of
masked-language modelling are not drawn: they come at even distances between the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from statistics import fmean
from typing import Any

import numpy as np
from torch import Tensor, nn

from xlift.artifacts import fingerprint
from xlift.budgets import check_batch
from xlift.cotraining import steps_beside
from xlift.errors import UserError
from xlift.tasks.encoded import Batch, Encoded
from xlift.tasks.family import Objective
from xlift.training.batches import plan_batches, training_subset
from xlift.training.feed import Feed, Step, example_lengths
from xlift.training.schedule import Schedule


@dataclass(frozen=True)
class Optimisation:
    """How a run or stage is optimised: `schedule.steps` steps of `batch_size` examples.

    `seed` draws batches; `unique_fraction` of the training examples are drawn from, chosen by `subset_seed`.
    """

    schedule: Schedule
    batch_size: int
    weight_decay: float
    clip: float
    seed: int
    unique_fraction: float = 1.0
    subset_seed: int = 0


@dataclass(frozen=True)
class Part:
    """One set of examples with the head that learns from it.

    `cost(batch)`: operations of one forward and backward pass. `weight`: how likely a step of a mixture is one of this
    part, as a multiple of the other parts' weights.
    """

    name: str
    family: Objective
    head: nn.Module
    encoded: Encoded
    cost: Callable[[Batch], float]
    weight: float = 1.0


@dataclass(frozen=True)
class Stage:
    """Parts that are trained together, and how.

    `beside`: steps of the last part for each step of the others, at even distances (None: it is one of these).
    """

    parts: Sequence[Part]
    settings: Optimisation
    beside: float | None = None


class Course:
    """The steps of a stage: the batches of each of its parts, and which part each step is of.

    `first` is the run's step that the stage begins with, `first_part` the place of its parts among the run's.
    """

    def __init__(self, stage: Stage, first: int, first_part: int, pad_id: int, cap: int, name: str) -> None:
        self.settings, self.first = stage.settings, first
        self._parts, self._first_part, self._beside = stage.parts, first_part, stage.beside
        self._examples: list[Tensor] = []
        self._feeds: list[Feed] = []
        several = len(stage.parts) > 1
        for part in stage.parts:
            taught = part.family.training_examples(part.encoded)
            examples = training_subset(taught, stage.settings.unique_fraction, stage.settings.subset_seed)
            if len(examples) == 0:
                raise UserError(
                    f"{name}: {part.name if several else 'the task'} has no training examples; choose another task "
                    "or check its data"
                )
            check_batch(stage.settings.batch_size, len(examples), name, part.name if several else "it")
            self._examples.append(examples)
            self._feeds.append(Feed(part.family, part.encoded, pad_id, cap))

    @property
    def end(self) -> int:
        """The run's steps when the stage is over."""
        return self.first + self.settings.schedule.steps

    def plan(self) -> Iterator[tuple[int, Tensor]]:
        """The part (its place in the stage) and the examples of each step, from the stage's first step on."""
        steps, seed = self.settings.schedule.steps, self.settings.seed
        several = len(self._parts) > 1
        batches = [
            plan_batches(
                examples,
                example_lengths(part.encoded)[examples],
                self.settings.batch_size,
                steps,
                part_seed(seed, part.name) if several else seed,
            )
            for part, examples in zip(self._parts, self._examples, strict=True)
        ]
        weights = [part.weight for part in self._parts]
        if self._beside is None:
            draws = drawn_parts(weights, seed)
        else:
            draws = interleaved(drawn_parts(weights[:-1], seed), len(weights) - 1, self._beside)
        for _, place in zip(range(steps), draws, strict=False):
            yield place, next(batches[place])

    def step(self, number: int, place: int, chosen: Tensor) -> Step:
        """The run's step with this number, which sees the examples `chosen` of a part."""
        made = self._feeds[place].step(chosen, [self.settings.seed, number])
        return replace(made, part=self._first_part + place)


def courses(stages: Sequence[Stage], pad_id: int, cap: int, name: str) -> list[Course]:
    """Stages one after the other."""
    made: list[Course] = []
    parts = 0
    for stage in stages:
        made.append(Course(stage, made[-1].end if made else 0, parts, pad_id, cap, name))
        parts += len(stage.parts)
    return made


def planned(courses: Sequence[Course]) -> Iterator[tuple[Course, int, Tensor]]:
    """Every step of a run: its course, the part's place there, and its examples."""
    return chain.from_iterable(((course, place, chosen) for place, chosen in course.plan()) for course in courses)


def drawn_parts(weights: Sequence[float], seed: int) -> Iterator[int]:
    """Places of parts drawn without end, each with a chance in proportion to its weight.

    The n-th draw depends on the seed and the weights only, so that a longer run begins as a shorter one.
    """
    generator = np.random.Generator(np.random.PCG64([seed, 0x9A275]))
    bounds = np.cumsum(np.asarray(weights, dtype=np.float64))
    while True:
        place = int(np.searchsorted(bounds, generator.random() * bounds[-1], side="right"))
        yield min(place, len(weights) - 1)  # the product may round up to the last bound


def interleaved(places: Iterator[int], other: int, share: float) -> Iterator[int]:
    """The places with `share` times as many of `other` between them: after the n-th, `steps_beside` of n in all."""
    for number, place in enumerate(places):
        yield place
        yield from [other] * (steps_beside(number + 1, share) - steps_beside(number, share))


def part_seed(seed: int, name: str) -> int:
    """What a part's batches, or a stage, are drawn from: of its name, so that no part depends on which others are."""
    return int(fingerprint([seed, name])[:8], 16)


def dev_of_parts(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """English dev of a mixture, from that of its parts: the mean score against the mean floor, in points.

    The run is collapsed where every part is: a head that is seldom drawn may stay at its floor beside a sound encoder,
    and a collapsed encoder takes all heads with it. Parts at their floor are named either way.
    """
    return {
        "metric": "mean over parts",
        "score": fmean(float(dev["score"]) for dev in found.values()),
        "floor": fmean(float(dev["floor"]) for dev in found.values()),
        "collapsed": all(dev["collapsed"] for dev in found.values()),
        "collapsed_parts": sorted(name for name, dev in found.items() if dev["collapsed"]),
        "parts": {name: dict(dev) for name, dev in sorted(found.items())},
    }
