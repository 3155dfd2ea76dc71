"""What a task's declaration holds. Pure data without heavy imports: the Snakefile reads it while it is parsed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Family = Literal["classification", "multiple_choice", "tagging", "span", "retrieval", "mixture"]

NONE = "none"
"""The intermediate "task" of the baseline: straight from the encoder to the target."""

MAIN = "main"
"""The arm of the primary analysis; every other arm is a sensitivity or a control."""
EXTRA_TARGET = "extra_target"
SHUFFLED_LABELS = "shuffled_labels"
"""Control arms: the intermediate run's steps spent on the target instead; an intermediate task without content."""
TRANSLATED = "translated"
"""The arm that trains on machine translations of an intermediate task's examples."""
MIXTURE = "mixture"
"""The intermediate task that a study makes of several: they are trained together, with a head each."""
LABELLED_FAMILIES = ("classification", "multiple_choice", "tagging", "span")
"""Families whose training examples have labels that can be permuted among them."""

# Version of what a source's reader makes out of the same raw data; raise it when prepared rows change.
READER_VERSIONS: Mapping[str, int] = {"cldr": 1, "translated": 1}
# The installed package whose version pins a source's raw data.
SOURCE_PACKAGES: Mapping[str, str] = {"cldr": "babel"}


@dataclass(frozen=True)
class Recipe:
    """How a task is trained at its reference budget.

    `steps` optimiser steps of exactly `batch_size` examples; learning rate by what is trained; lengths in tokens;
    `stride` tokens shared by two windows of a long context (span) or sentence (tagging).
    """

    steps: int
    batch_size: int
    learning_rate: Mapping[str, float]
    max_length: int
    stride: int = 0


@dataclass(frozen=True)
class Slice:
    """Rows of a repository that become one split of a task.

    `split`: train, dev or test, or `validation`: what is scored in place of test where a study asks for it.
    `repository`: hub id `<org>/<name>`; of a task whose source is `folder`, the name that the study gives a folder
    under. `configs`: the repository's config by language; `rows`: its split; `reader`: the function in
    `sources.readers` that makes examples of its rows; `columns`: the repository's column by the reader's field;
    `labels`: the task's label by the repository's value, where they differ; `revision`: commit, tag or branch.
    """

    split: Literal["train", "dev", "test", "validation"]
    repository: str
    configs: Mapping[str, str]
    rows: str
    reader: str
    columns: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    revision: str | None = None


@dataclass(frozen=True)
class Task:
    """One task: `metrics` primary first; `labels` where the family has a closed set; `recipe` None if never trained.

    `train_examples` English training examples (None: not known); `test_examples` about how many are scored in a
    language, for plans; `training_data` names the English example sets that they come from, the task's own by default:
    two tasks that share one are not independent evidence of transfer. `choices`: answers to choose from, of a
    multiple-choice task. `parts`: tasks trained together, with a head each (none: the task itself). `stages`: tasks
    trained one after the other with the same head, each by its own recipe, the last one's dev data being the task's
    (none: the task itself). `unanswerable`: whether a question may have no answer (span). `max_length`: of a task that
    is never trained; `document_length`: longest document where it differs from the query's (retrieval). `slices`: where
    its rows are (none: its source makes them); `licence` of the data; `provenance`: where each number comes from.
    """

    name: str
    family: Family
    source: str
    roles: tuple[str, ...]
    languages: tuple[str, ...]
    metrics: tuple[str, ...]
    labels: tuple[str, ...] = ()
    choices: int = 0
    recipe: Recipe | None = None
    train_examples: int | None = None
    test_examples: int = 1000
    training_data: tuple[str, ...] = ()
    max_length: int = 128
    query_prefix: str = ""
    cross_lingual_only: bool = False
    parts: tuple[str, ...] = ()
    stages: tuple[str, ...] = ()
    unanswerable: bool = False
    document_length: int | None = None
    slices: tuple[Slice, ...] = ()
    licence: str = ""
    provenance: str = ""
    summary: str = ""

    @property
    def trained(self) -> bool:
        """Whether the task has English training data (direct retrieval has none)."""
        return self.recipe is not None or bool(self.parts or self.stages)

    @property
    def english_only(self) -> bool:
        """Whether it is trained on English alone, as all tasks but translated ones are."""
        return self.source != TRANSLATED

    @property
    def trained_on(self) -> frozenset[str]:
        """Names of the English example sets that the task is trained on."""
        return frozenset(self.training_data or (self.name,)) if self.trained else frozenset()

    @property
    def chance(self) -> float:
        """What guessing scores, as a share, where an accuracy has k classes or choices: 1 / k. Else 0."""
        classes = {"classification": len(self.labels), "multiple_choice": self.choices}.get(self.family, 0)
        return 1 / classes if self.metrics[0] == "accuracy" and classes else 0.0


def codes(text: str) -> tuple[str, ...]:
    """Language codes separated by spaces."""
    return tuple(text.split())
