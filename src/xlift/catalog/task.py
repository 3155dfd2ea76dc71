"""What a task's declaration holds. Pure data without heavy imports: the Snakefile reads it while it is parsed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Family = Literal["classification", "multiple_choice", "tagging", "span", "retrieval", "mixture", "mlm"]
Split = Literal["train", "dev", "test", "validation"]

ENGLISH = "en"
"""The language of all training data, but of translations and texts."""

NONE = "none"
"""The intermediate "task" of the baseline: straight from the encoder to the target."""

MAIN = "main"
"""The arm of the primary analysis; every other arm is a sensitivity or a control."""
EXTRA_TARGET = "extra_target"
SHUFFLED_LABELS = "shuffled_labels"
"""Control arms: the intermediate run's steps spent on the target instead; an intermediate task without content."""
TRANSLATED = "translated"
"""The arm that trains on machine translations of an intermediate task's examples."""
MLM = "mlm"
"""The arm whose runs have steps of masked-language modelling mixed in; the set of its texts, and their family."""
TEXTS = "texts"
"""The source of plain text by language, in a folder of the user's own."""
MIXTURE = "mixture"
"""The intermediate task that a study makes of several: they are trained together, with a head each."""
LABELLED_FAMILIES = ("classification", "multiple_choice", "tagging", "span")
"""Families whose training examples have labels that can be permuted among them."""

ANSWERS_KEPT = 5
"""Best answers that predictions keep of a question (span)."""

# Version of what a source's reader makes out of the same raw data; raise it when prepared rows change.
READER_VERSIONS: Mapping[str, int] = {"cldr": 1, "folder": 2, "hub": 2, "texts": 1, "translated": 2}
# The installed package whose version pins a source's raw data, where one does.
SOURCE_PACKAGES: Mapping[str, str] = {"cldr": "babel"}


@dataclass(frozen=True)
class Recipe:
    """How a task is trained at its reference budget.

    `steps` optimiser steps of exactly `batch_size` examples; learning rate by what is trained (`lora`, `full`) and,
    where encoders of a size have their own, by that too (`full.large`); lengths in tokens; `stride` tokens shared by
    two windows of a long context (span) or sentence (tagging); `warmup` share of the steps over which the learning rate
    rises (None: the study's).
    """

    steps: int
    batch_size: int
    learning_rate: Mapping[str, float]
    max_length: int
    stride: int = 0
    warmup: float | None = None

    def rate(self, method: str, size: str) -> float:
        """Peak learning rate of what is trained in an encoder of a size."""
        return self.learning_rate.get(f"{method}.{size}", self.learning_rate[method])


@dataclass(frozen=True)
class Slice:
    """Rows of a repository that become one split of a task.

    `split`: train, dev or test, or `validation`: what is scored in place of test where a study asks for it.
    `repository`: hub id `<org>/<name>`, or a name without a slash that the study gives a folder under. `configs`: the
    repository's config by language; `rows`: its split; `reader`: the function of `sources.readers` that makes examples
    of its rows; `columns`: the repository's column by the reader's field, where they differ; `labels`: the task's label
    by the repository's value, where they differ (empty: rows of that value are left out); `revision`: commit, tag or
    branch (None: the main branch); `codes`: what a column of languages calls a language, where that is not its code.
    """

    split: Split
    repository: str
    configs: Mapping[str, str]
    rows: str
    reader: str
    columns: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    revision: str | None = None
    codes: Mapping[str, str] = field(default_factory=dict)

    @property
    def in_folder(self) -> bool:
        """Whether the rows are in a folder of the user's own."""
        return "/" not in self.repository


@dataclass(frozen=True)
class Task:
    """One task: `metrics` primary first; `labels` where the family has a closed set; `recipe` None if it has no
    training examples of its own.

    `train_examples` English training examples (None: not known); `test_examples` about how many are scored in a
    language, for plans; `training_data` names the English example sets that they come from, the task's own by default:
    two tasks that share one are not independent evidence of transfer. `choices`: answers to choose from, of a
    multiple-choice task. `parts`: tasks trained together, with a head each (none: the task itself). `stages`: tasks
    trained one after the other with the same head, each by its own recipe, the last one's dev data being the task's
    (none: the task itself); a task without a recipe takes the encoder from them and not the head, which may be of
    another family. `unanswerable`: whether a question may have no answer (span). `max_length`: of a task without a
    recipe; `document_length`: longest document where it differs from the query's (retrieval). `slices`: where
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
        """Whether there is English training for the task (there is none for `tatoeba_direct`)."""
        return self.recipe is not None or bool(self.parts or self.stages)

    @property
    def direct(self) -> bool:
        """Whether it learns nothing of its own, and reads the encoder as it is or as its stages leave it."""
        return self.recipe is None and not self.parts

    @property
    def english_only(self) -> bool:
        """Whether it is trained on English alone, as all tasks but translated ones and texts are."""
        return self.source not in (TRANSLATED, TEXTS)

    @property
    def trained_on(self) -> frozenset[str]:
        """Names of the English example sets that the task is trained on."""
        return frozenset(self.training_data or (self.name,)) if self.trained else frozenset()

    def read(self, languages: Iterable[str], score_on: str = "test") -> list[tuple[Slice, str, tuple[str, ...]]]:
        """The slices that a study reads, each with the split its rows become and the languages read.

        `languages` are those to score. With `score_on` validation a language's validation rows take the place of its
        test rows; a language without any keeps its test rows.
        """
        wanted = set(languages)
        held = {code for part in self.slices if part.split == "validation" for code in part.configs}
        of_test = wanted - held if score_on == "validation" else wanted
        of_split = {
            "train": {ENGLISH},
            "dev": wanted | {ENGLISH},
            "test": of_test,
            "validation": wanted - of_test,
        }
        found: list[tuple[Slice, str, tuple[str, ...]]] = []
        for part in self.slices:
            chosen = tuple(sorted(set(part.configs) & of_split[part.split]))
            if chosen:
                found.append((part, "test" if part.split == "validation" else part.split, chosen))
        return found

    @property
    def folders(self) -> tuple[str, ...]:
        """Names of the folders that a study has to give, sorted."""
        return tuple(sorted({part.repository for part in self.slices if part.in_folder}))

    @property
    def chance(self) -> float:
        """What guessing scores, as a share, where an accuracy has k classes or choices: 1 / k. Else 0."""
        classes = {"classification": len(self.labels), "multiple_choice": self.choices}.get(self.family, 0)
        return 1 / classes if self.metrics[0] == "accuracy" and classes else 0.0


def codes(text: str) -> tuple[str, ...]:
    """Language codes separated by spaces."""
    return tuple(text.split())


def renamed(text: str) -> dict[str, str]:
    """Another name by language code, written as `de:German` and separated by spaces."""
    return dict(entry.split(":", 1) for entry in text.split())
