"""Made-up repositories that readers read in place of the hub's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl
import pytest

from xlift.errors import UserError
from xlift.sources import reading
from xlift.sources.hub import Rows

Key = tuple[str, str, str]


def made(
    rows: list[dict[str, Any]],
    class_names: Mapping[str, tuple[str, ...]] | None = None,
    key: Key = ("some/set", "default", "train"),
) -> Rows:
    """Rows as `read_split` gives them."""
    source = dict(zip(("repository", "config", "rows"), key, strict=True)) | {"revision": "made", "sha256": "0" * 64}
    return Rows(pl.DataFrame(rows, infer_schema_length=None), dict(class_names or {}), source)


def serve(monkeypatch: pytest.MonkeyPatch, repositories: Mapping[Key, Rows | list[dict[str, Any]]]) -> list[Key]:
    """Let readers find these and nothing else; returns what is read, in order."""
    read: list[Key] = []

    def read_split(repository: str, config: str, rows: str, revision: str | None, root: Any) -> Rows:
        key = (repository, config, rows)
        read.append(key)
        if key not in repositories:
            raise UserError(f"data set {repository}: has no {config}, {rows}; correct it")
        found = repositories[key]
        return found if isinstance(found, Rows) else made(found, key=key)

    monkeypatch.setattr(reading, "read_split", read_split)
    return read
