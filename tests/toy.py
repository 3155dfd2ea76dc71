"""Made-up tasks of every family that a tiny encoder learns in a few steps."""

from __future__ import annotations

import random
from typing import Any

import polars as pl

from xlift.catalog.task import Recipe, Task
from xlift.tasks.families import FAMILIES
from xlift.tasks.family import COMMON_COLUMNS

ANIMALS = ("horse", "goat", "whale", "sparrow")
STONES = ("granite", "basalt", "marble", "slate")
FILLERS = ("and", "the", "near", "some", "with", "over", "old", "new")
VOCABULARY = (*ANIMALS, *STONES, *FILLERS, "which", "one")
SIZES = {"train": 24, "dev": 8, "test": 4}


def toy_task(family: str) -> Task:
    """A catalog entry for the toy task of a family."""
    labels = {"classification": ("animal", "stone"), "tagging": ("O", "B-ANIMAL", "B-STONE")}
    metrics = {
        "classification": "accuracy",
        "multiple_choice": "accuracy",
        "tagging": "span_f1",
        "span": "squad_f1",
        "retrieval": "accuracy_at_1",
    }
    return Task(
        name=f"toy_{family}",
        family=family,  # type: ignore[arg-type]
        source="cldr",
        roles=("intermediate", "target"),
        languages=("de", "en"),
        metrics=(metrics[family],),
        labels=labels.get(family, ()),
        recipe=Recipe(steps=10, batch_size=4, learning_rate={"lora": 1e-2, "full": 1e-3}, max_length=32, stride=8),
    )


def toy_frame(family: str) -> pl.DataFrame:
    """Prepared examples of the toy task: English train and dev, English and German test."""
    draw = random.Random(5)
    rows: list[dict[str, Any]] = []
    for split, size in SIZES.items():
        for language in ("de", "en") if split == "test" else ("en",):
            for index in range(size):
                common = {"split": split, "language": language, "id": f"{index:03d}"}
                rows += [common | fields for fields in _ROWS[family](draw, index) if _stored(language, fields)]
    schema = {**COMMON_COLUMNS, **FAMILIES[family].columns}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _stored(language: str, fields: dict[str, Any]) -> bool:
    """Documents are English; queries of every language point at them."""
    return language == "en" or fields.get("role") != "document"


def _noun(draw: random.Random, index: int) -> tuple[str, str]:
    return (draw.choice(ANIMALS), "animal") if index % 2 else (draw.choice(STONES), "stone")


def _words(draw: random.Random, low: int = 1, high: int = 5) -> list[str]:
    return [draw.choice(FILLERS) for _ in range(draw.randint(low, high))]


def _classification(draw: random.Random, index: int) -> list[dict[str, Any]]:
    noun, label = _noun(draw, index)
    text = " ".join([noun, *_words(draw)])
    return [{"text_a": text, "text_b": " ".join(_words(draw)) if index % 3 else None, "label": label}]


def _multiple_choice(draw: random.Random, index: int) -> list[dict[str, Any]]:
    choices = [draw.choice(STONES) for _ in range(2 + index % 3)]
    label = draw.randrange(len(choices))
    choices[label] = draw.choice(ANIMALS)
    return [{"prompt": " ".join(_words(draw)), "choices": choices, "label": str(label)}]


def _tagging(draw: random.Random, index: int) -> list[dict[str, Any]]:
    words = _words(draw, 2, 6)
    tags = ["O"] * len(words)
    for kind in (0, 1) if index % 2 else (1,):
        noun, label = _noun(draw, kind)
        place = draw.randint(0, len(words))
        words.insert(place, noun)
        tags.insert(place, f"B-{label.upper()}")
    return [{"tokens": words, "tags": tags}]


def _span(draw: random.Random, index: int) -> list[dict[str, Any]]:
    before, after = " ".join(_words(draw)), " ".join(_words(draw))
    noun = draw.choice(ANIMALS)
    context = f"{before} {noun} {after}"
    return [{"context": context, "question": "which one", "answers": [noun], "answer_starts": [len(before) + 1]}]


def _retrieval(draw: random.Random, index: int) -> list[dict[str, Any]]:
    name = f"{(ANIMALS + STONES)[index % 8]} {FILLERS[index // 8]}"
    document, query = f"d{index}", f"q{index}"
    pool = "even" if index % 2 == 0 else "odd"
    return [
        {"id": document, "role": "document", "text": f"{name} old", "pool": pool, "gold": []},
        {"id": query, "role": "query", "text": f"the {name}", "pool": pool, "gold": [document]},
    ]


_ROWS = {
    "classification": _classification,
    "multiple_choice": _multiple_choice,
    "tagging": _tagging,
    "span": _span,
    "retrieval": _retrieval,
}
