"""Made-up repositories in the Hugging Face layout."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import yaml


def write_repository(
    folder: Path, configs: Mapping[str, Mapping[str, pl.DataFrame]], features: Mapping[str, Any] | None = None
) -> Path:
    """Write `<config>/<split>.parquet` and a card that names them; `features`: the columns, as a card has them."""
    card: dict[str, Any] = {"configs": []}
    for config, splits in configs.items():
        files = []
        for split, frame in splits.items():
            path = folder / config / f"{split}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            frame.write_parquet(path)
            files.append({"split": split, "path": path.relative_to(folder).as_posix()})
        card["configs"].append({"config_name": config, "data_files": files})
    if features is not None:
        columns = [{"name": name, **kind} for name, kind in features.items()]
        card["dataset_info"] = [{"config_name": config, "features": columns} for config in configs]
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(card, sort_keys=False)}---\nMade up.\n", encoding="utf-8")
    return folder
