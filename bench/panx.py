"""WikiANN sentences (PAN-X) out of a folder of hub repositories, for the comparison of engines."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import polars as pl

LABELS = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC")
"""In the order of the hub repository unimelb-nlp/wikiann."""


@dataclass(frozen=True)
class Sentences:
    """Words and their tags, a list a sentence, and the language of each."""

    words: list[list[str]]
    tags: list[list[str]]
    languages: list[str]


def data_root() -> Path | None:
    """The folder of hub repositories in `XLIFT_DATA_ROOT`, or one beside the repository; None where there is none."""
    root = Path(os.environ.get("XLIFT_DATA_ROOT") or Path(__file__).resolve().parents[2] / "shared" / "hub")
    return root if (root / "unimelb-nlp" / "wikiann").is_dir() else None


def read(root: Path, languages: tuple[str, ...], split: str, rows: int) -> Sentences:
    """The first `rows` sentences of each language's split."""
    words: list[list[str]] = []
    tags: list[list[str]] = []
    found: list[str] = []
    for language in languages:
        frame = pl.read_parquet(root / "unimelb-nlp" / "wikiann" / language / f"{split}.parquet").head(rows)
        words += frame["tokens"].to_list()
        tags += [[LABELS[tag] for tag in row] for row in frame["ner_tags"].to_list()]
        found += [language] * frame.height
    return Sentences(words, tags, found)
