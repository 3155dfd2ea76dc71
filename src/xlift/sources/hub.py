"""Rows of data set repositories in the Hugging Face layout, from a folder of copies or from the hub."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from xlift.artifacts import sha256_of
from xlift.errors import UserError


@dataclass(frozen=True)
class Rows:
    """One split of one config of a repository.

    `frame`: its rows in the files' order; `class_names`: by column, the names of its class labels (alone or in lists),
    whose numbers the frame has; `source`: repository, config, rows, revision and sha256 of the files read.
    """

    frame: pl.DataFrame
    class_names: dict[str, tuple[str, ...]]
    source: dict[str, str]


def read_split(repository: str, config: str, rows: str, revision: str | None, root: Path | None) -> Rows:
    """Read split `rows` of a repository's config from `root/<org>/<name>`, or from the hub where `root` is None."""
    from datasets import load_dataset  # type: ignore[import-untyped]
    from datasets.utils.logging import disable_progress_bar  # type: ignore[import-untyped]

    disable_progress_bar()
    where = repository if root is None else str(root / repository)
    if root is not None and not Path(where).is_dir():
        raise UserError(f"data set {repository}: there is no folder {where}; put the repository there")
    with tempfile.TemporaryDirectory(prefix="xlift-hub-") as cache:
        try:
            found = load_dataset(
                where, config, split=rows, revision=revision if root is None else None, cache_dir=cache
            )
        except ValueError as error:
            text = " ".join(str(error).split())[:200]
            raise UserError(f"data set {repository}, {config}, {rows}: cannot be read ({text})") from None
        frame = pl.from_arrow(found.with_format("arrow")[:])
    assert isinstance(frame, pl.DataFrame)
    if frame.is_empty():
        raise UserError(f"data set {repository}, {config}: its split {rows!r} has no rows; use another split")
    names = {}
    for column, feature in found.features.items():
        if inner := getattr(getattr(feature, "feature", feature), "names", None):
            names[column] = tuple(inner)
    folder = Path(where, config)
    files = sorted(folder.rglob(f"{rows}*.parquet")) if root is not None else []
    digest = hashlib.sha256("".join(sha256_of(path) for path in files).encode()).hexdigest()
    revision = "local" if root is not None else revision or "main"
    source = {"repository": repository, "config": config, "rows": rows, "revision": revision, "sha256": digest}
    return Rows(frame, names, source)
