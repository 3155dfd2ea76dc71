"""Every task, declared once: its family, source, labels, metrics and recipe.

Pure data without heavy imports: the Snakefile reads it while it is parsed. Adding a task of an existing family is
adding an entry here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Family = Literal["classification", "multiple_choice", "tagging", "span", "retrieval"]

NONE = "none"
"""The intermediate "task" of the baseline: straight from the encoder to the target."""

MAIN = "main"
"""The arm of the primary analysis; every other arm is a sensitivity or a control."""
EXTRA_TARGET = "extra_target"
SHUFFLED_LABELS = "shuffled_labels"
"""Control arms: the intermediate run's steps spent on the target instead; an intermediate task without content."""
LABELLED_FAMILIES = ("classification", "multiple_choice", "tagging", "span")
"""Families whose training examples have labels that can be permuted among them."""

# Version of what a source's reader makes out of the same raw data; raise it when prepared rows change.
READER_VERSIONS: Mapping[str, int] = {"cldr": 1}
# The installed package whose version pins a source's raw data.
SOURCE_PACKAGES: Mapping[str, str] = {"cldr": "babel"}


# CLDR covers every language of XTREME-R with names of its own but Haitian Creole (`ht` inherits from French).
_CLDR_LANGUAGES = tuple(
    [
        "af",
        "ar",
        "az",
        "bg",
        "bn",
        "de",
        "el",
        "en",
        "es",
        "et",
        "eu",
        "fa",
        "fi",
        "fr",
        "gu",
        "he",
        "hi",
        "hu",
        "id",
        "it",
        "ja",
        "jv",
        "ka",
        "kk",
        "ko",
        "lt",
        "ml",
        "mr",
        "ms",
        "my",
        "nl",
        "pa",
        "pl",
        "pt",
        "qu",
        "ro",
        "ru",
        "sw",
        "ta",
        "te",
        "th",
        "tl",
        "tr",
        "uk",
        "ur",
        "vi",
        "wo",
        "yo",
        "zh",
    ]
)


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
class Task:
    """One task: `metrics` primary first; `labels` where the family has a closed set; `recipe` None if never trained.

    `train_examples` English training examples (None: not known); `test_examples` about how many are scored in a
    language, for plans; `training_data` names the English example sets that they come from, the task's own by default:
    two tasks that share one are not independent evidence of transfer. `choices`: answers to choose from, of a
    multiple-choice task.
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
    summary: str = ""

    @property
    def trained(self) -> bool:
        """Whether the task has English training data (direct retrieval has none)."""
        return self.recipe is not None

    @property
    def trained_on(self) -> frozenset[str]:
        """Names of the English example sets that the task is trained on."""
        return frozenset(self.training_data or (self.name,)) if self.trained else frozenset()

    @property
    def chance(self) -> float:
        """What guessing scores, as a share, where an accuracy has k classes or choices: 1 / k. Else 0."""
        classes = {"classification": len(self.labels), "multiple_choice": self.choices}.get(self.family, 0)
        return 1 / classes if self.metrics[0] == "accuracy" and classes else 0.0


_ENTITY_TAGS = ("O", *(f"{p}-{k}" for k in ("CURRENCY", "LANGUAGE", "TERRITORY") for p in ("B", "I")))


def _rates(lora: float, full: float) -> dict[str, float]:
    return {"lora": lora, "full": full}


# Steps, batch and learning rates of the cldr_* tasks are xlift's own, chosen so that the default study fits two
# cores and twelve minutes; they follow no publication.
_TASKS = (
    Task(
        name="cldr_pairs",
        family="classification",
        source="cldr",
        roles=("intermediate",),
        languages=("en",),
        metrics=("accuracy",),
        labels=("listed", "other_kind", "same_kind"),
        train_examples=6000,
        recipe=Recipe(steps=24, batch_size=16, learning_rate=_rates(1e-3, 5e-5), max_length=64),
        summary="Is an item in a list, of the list's kind, or of another kind? English sentence pairs.",
    ),
    Task(
        name="cldr_choice",
        family="multiple_choice",
        source="cldr",
        roles=("intermediate",),
        languages=("en",),
        metrics=("accuracy",),
        choices=4,
        train_examples=6000,
        recipe=Recipe(steps=24, batch_size=16, learning_rate=_rates(1e-3, 5e-5), max_length=64),
        summary="Which of four items is of the same kind as three listed ones? English.",
    ),
    Task(
        name="cldr_qa",
        family="span",
        source="cldr",
        roles=("intermediate",),
        languages=("en",),
        metrics=("squad_f1", "squad_em"),
        train_examples=6000,
        recipe=Recipe(steps=16, batch_size=16, learning_rate=_rates(3e-3, 1e-4), max_length=128, stride=32),
        summary="Find the one item of the asked kind in a few clauses. English extractive question answering.",
    ),
    Task(
        name="cldr_retrieval",
        family="retrieval",
        source="cldr",
        roles=("target",),
        languages=_CLDR_LANGUAGES,
        metrics=("accuracy_at_1",),
        test_examples=32,
        max_length=64,
        query_prefix="query: ",
        cross_lingual_only=True,
        summary="Find the English name of a territory or language by its name in another language; no training.",
    ),
    Task(
        name="cldr_kind",
        family="classification",
        source="cldr",
        roles=("target",),
        languages=_CLDR_LANGUAGES,
        metrics=("accuracy",),
        labels=("currency", "language", "script", "territory", "unit"),
        train_examples=550,
        test_examples=40,
        recipe=Recipe(steps=40, batch_size=16, learning_rate=_rates(2e-3, 1e-4), max_length=64),
        summary="Say what kind of thing a name names: territory, language, script, currency or unit.",
    ),
    Task(
        name="cldr_entities",
        family="tagging",
        source="cldr",
        roles=("target",),
        languages=_CLDR_LANGUAGES,
        metrics=("span_f1", "token_accuracy"),
        labels=_ENTITY_TAGS,
        train_examples=2000,
        test_examples=14,
        recipe=Recipe(steps=64, batch_size=8, learning_rate=_rates(2e-3, 1e-4), max_length=128, stride=32),
        summary="Tag territories, languages and currencies in a localised enumeration (IOB2).",
    ),
)

CATALOG: dict[str, Task] = {task.name: task for task in _TASKS}


def names(role: str) -> list[str]:
    """Names of the tasks that may play a role ("intermediate" or "target"), sorted."""
    return sorted(task.name for task in CATALOG.values() if role in task.roles)
