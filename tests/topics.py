"""The example of docs/adding-a-task.md: its study, and made-up data in the layout that it describes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import polars as pl
import yaml

DOCUMENT = Path(__file__).parents[1] / "docs" / "adding-a-task.md"
ROWS = {"train": 51, "validation": 12, "test": 24}
"""Rows of each split; every seventeenth is `unclear`."""
WORDS = {
    "en": {"health": "doctor", "fitness": "match", "travel": "train"},
    "de": {"health": "Arzt", "fitness": "Spiel", "travel": "Zug"},
    "swh": {"health": "daktari", "fitness": "mchezo", "travel": "treni"},
}


def examples() -> list[dict[str, Any]]:
    """The YAML blocks of the document, in order."""
    text = DOCUMENT.read_text(encoding="utf-8")
    return [yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)]


def write_topics(root: Path) -> None:
    """Write `my-lab/topics` under `root`: a config for each language, whose README names its files."""
    folder = root / "my-lab" / "topics"
    configs = []
    for code, words in WORDS.items():
        splits = ROWS if code == "en" else {"test": ROWS["test"]}
        for split, count in splits.items():
            kinds = list(words)
            topics = ["unclear" if row % 17 == 16 else kinds[row % 3] for row in range(count)]
            sentences = [f"{words[kinds[row % 3]]} {split} {row}" for row in range(count)]
            (folder / code).mkdir(parents=True, exist_ok=True)
            pl.DataFrame({"sentence": sentences, "topic": topics}).write_parquet(folder / code / f"{split}.parquet")
        files = [{"split": split, "path": f"{code}/{split}.parquet"} for split in splits]
        configs.append({"config_name": code, "data_files": files})
    header = yaml.safe_dump({"configs": configs})
    (folder / "README.md").write_text(f"---\n{header}---\n", encoding="utf-8")
