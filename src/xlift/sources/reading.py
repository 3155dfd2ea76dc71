"""What all readers share: where rows are, columns and labels by name, and what is said about rows beside them.

A reader returns a frame with `id` and the columns of its task's family, and may add columns that `readers.read_task`
acts on and takes away: `_context` (text that training and evaluation must not share), `_dropped` (why a row cannot be
used) and `_note` (what was done to a row that is used).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from xlift.artifacts import sha256_of
from xlift.catalog.task import Slice
from xlift.errors import UserError
from xlift.sources.hub import Rows, read_split

CONTEXT, DROPPED, NOTE = "_context", "_dropped", "_note"
NO_LABEL = "no gold label"
LEFT_OUT = "left out by the task's labels"
NOT_IN_CONTEXT = "answer not in its context"
BY_TEXT = "answer not in its context, scored by its text"
EMPTY_TEXT = "empty text"
NOWHERE = -1
"""Where an answer begins that is not in its context: right all the same, but nothing to train on."""


@dataclass
class Reading:
    """The reading of one task's rows. `root`: folder of repositories, None: the hub; `folders`: by name, the user's.

    `sources`: what was read, each file once; `facts`: what else the manifest of the prepared data is to say;
    `kept`: what a reader wants to remember between slices.
    """

    task: str
    root: Path | None = None
    folders: Mapping[str, str] = field(default_factory=dict)
    sources: list[dict[str, str]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)
    _rows: dict[tuple[str, str, str, str | None], Rows] = field(default_factory=dict)

    def rows(self, part: Slice, config: str) -> Rows:
        """Rows of a repository's config, read once."""
        return self._read(part.repository, config, part.rows, part.revision, self.root)

    def folder_rows(self, folder: Path, config: str, rows: str) -> Rows:
        """Rows of a folder in the Hugging Face layout."""
        folder = folder.resolve()
        return self._read(f"{folder.parent.name}/{folder.name}", config, rows, None, folder.parent.parent)

    def _read(self, repository: str, config: str, rows: str, revision: str | None, root: Path | None) -> Rows:
        key = (repository, config, rows, revision)
        if key not in self._rows:
            self._rows[key] = read_split(repository, config, rows, revision, root)
            self.sources.append(self._rows[key].source)
        return self._rows[key]

    def folder(self, name: str) -> Path:
        """The folder that the study gives under a name, or `local/<name>` of its root of repositories."""
        path = folder_of(name, self.folders, self.root)
        if path is None:
            raise UserError(missing_folder(self.task, name))
        if not path.is_dir():
            raise UserError(f"data of {self.task}: there is no folder {path}; correct data.folders.{name}")
        return path

    def file(self, name: str, folder: Path, path: Path) -> Path:
        """A file of a folder after it was noted as read; UserError where it is not there."""
        if not path.is_file():
            raise UserError(
                f"data of {self.task}: the folder {folder} (data.folders.{name}) has no file "
                f"{path.relative_to(folder)}; put it there"
            )
        self.sources.append({"folder": name, "file": str(path.relative_to(folder)), "sha256": sha256_of(path)})
        return path


def folder_of(name: str, folders: Mapping[str, str], root: Path | None) -> Path | None:
    """Where the folder of a name is; None where the study gives none."""
    if name in folders:
        return Path(folders[name])
    local = None if root is None else root / "local" / name
    return local if local is not None and local.is_dir() else None


def missing_folder(task: str, name: str) -> str:
    """What is wrong with a study that gives no folder under a name."""
    return (
        f"data of {task}: comes from a folder, and the study gives none; set data.folders.{name} "
        "(docs/data.md says what is to be in it)"
    )


def place(rows: Rows) -> str:
    """Which rows, for messages."""
    return "data set {repository}, {config}, {rows}".format(**rows.source)


def column(rows: Rows, part: Slice, name: str) -> pl.Series:
    """The column of a reader's field; UserError where the repository has none."""
    found = part.columns.get(name, name)
    if found not in rows.frame.columns:
        raise UserError(
            f"{place(rows)}: has no column {found!r}, only {', '.join(rows.frame.columns)}; use another revision or "
            "correct the task's columns"
        )
    return rows.frame[found]


def texts(rows: Rows, part: Slice, name: str) -> list[str]:
    """A column of text, with nothing as empty text."""
    return [value or "" for value in column(rows, part, name)]


def labels(rows: Rows, part: Slice, name: str) -> list[str | None]:
    """A column of labels by their names in the task; None where the repository has no gold label (-1 or nothing), and
    empty where the slice's labels leave such rows out."""
    names = rows.class_names.get(part.columns.get(name, name))
    return [named(value, names, part) for value in column(rows, part, name)]


def named(value: Any, names: tuple[str, ...] | None, part: Slice) -> str | None:
    """A label's name in the task; empty where the slice's labels leave its row out, None where it is no label."""
    if value is None or value in (-1, "", "-1", "-"):
        return part.labels.get(str(value))
    if isinstance(value, int) and names is not None:
        value = names[value]
    return part.labels.get(str(value), str(value))


def locate(context: str | None, answer: str, stated: int | None) -> int:
    """Where the answer's text begins in the context, nearest to the stated offset (the earlier of equals; the first
    where none is stated); `NOWHERE` where it does not."""
    if not context or not answer:
        return NOWHERE
    stated = stated or 0
    if stated >= 0 and context.startswith(answer, stated):
        return stated
    before = context.rfind(answer, 0, max(stated, 0) + len(answer))
    after = context.find(answer, max(stated, 0))
    found = [place for place in (before, after) if place >= 0]
    return min(found, key=lambda place: (abs(place - stated), place), default=NOWHERE)


def numbered(rows: int) -> list[str]:
    """Ids that sort as the rows do."""
    return [f"{row:07d}" for row in range(rows)]


def label_notes(found: list[str | None]) -> list[str | None]:
    """Why rows without a label cannot be used."""
    return [NO_LABEL if label is None else None if label else LEFT_OUT for label in found]


def text_notes(*columns: list[str]) -> list[str | None]:
    """A note on rows where one of the texts is empty."""
    return [EMPTY_TEXT if not all(text.strip() for text in row) else None for row in zip(*columns, strict=True)]


def frame_of(columns: Mapping[str, list[Any]], types: Mapping[str, pl.DataType] | None = None) -> pl.DataFrame:
    """A reader's frame; all columns are text unless `types` says otherwise."""
    schema = {name: (types or {}).get(name, pl.String()) for name in columns}
    return pl.DataFrame(dict(columns), schema=schema)
