"""Parquet tables that vouch for themselves: each carries the sha256 of its own bytes.

The checksum stands in the file's metadata, so that table and checksum are published in one rename. It is of the whole
file with zeros in its own place: a flipped bit anywhere, in data, metadata or checksum, is found before anything is
parsed (a parser may abort the process on damaged bytes, or read other numbers from them).
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import polars as pl

from xlift.artifacts import publishing
from xlift.errors import UserError

_MARK = b"sha256-of-this-file:"
_BLANK = b"0" * 64


def publish_table(path: Path, table: pl.DataFrame, **metadata: str) -> None:
    """Write a table atomically, with `metadata` and its checksum among the file's key-value pairs."""
    buffer = io.BytesIO()
    table.write_parquet(buffer, metadata={**metadata, "seal": (_MARK + _BLANK).decode()})
    blank = buffer.getvalue()
    at = blank.rindex(_MARK) + len(_MARK)
    checksum = hashlib.sha256(blank).hexdigest().encode()
    with publishing(path) as temporary:
        temporary.write_bytes(blank[:at] + checksum + blank[at + len(_BLANK) :])


def read_table(path: Path) -> pl.DataFrame:
    """A table that `publish_table` wrote; `UserError` where it is missing or any byte of it was altered."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); run the workflow again to make it") from None
    if not _is_whole(content):
        raise UserError(
            f"{path}: its sha256 is not the one it carries; the file was altered or cut short: delete it and run the "
            "workflow again"
        )
    return pl.read_parquet(io.BytesIO(content))


def _is_whole(content: bytes) -> bool:
    at = content.rfind(_MARK) + len(_MARK)
    found = content[at : at + len(_BLANK)]
    if at < len(_MARK) or len(found) < len(_BLANK):
        return False
    return hashlib.sha256(content[:at] + _BLANK + content[at + len(_BLANK) :]).hexdigest().encode() == found
