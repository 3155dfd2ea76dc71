"""Plain text by language, from a folder of the user's own: what masked-language modelling is trained on.

A language's text is `<language>.txt` (UTF-8, one passage a line) or `<language>.parquet` (column `text`, one passage a
row). Passages are taken as they are; empty ones are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from xlift.cotraining import text_files
from xlift.errors import UserError


def read(folder: Path, languages: Sequence[str]) -> pl.DataFrame:
    """All passages in some languages, by language and place; an id is the line or row, counted from 1."""
    files = text_files(folder, languages, "mlm.texts")
    return pl.concat([_passages(path, code) for code, path in sorted(files.items())])


def _passages(path: Path, language: str) -> pl.DataFrame:
    rows = _column(path) if path.suffix == ".parquet" else _lines(path)
    found = [(f"{place:09d}", text.strip()) for place, text in enumerate(rows, start=1) if text and text.strip()]
    if not found:
        raise UserError(f"{path}: has no text; put passages into it, or leave {language} out of mlm.languages")
    columns = {"id": [place for place, _ in found], "text": [text for _, text in found]}
    return pl.DataFrame(columns).select(split=pl.lit("train"), language=pl.lit(language), id="id", text="text")


def _lines(path: Path) -> list[str | None]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a file that can be") from None
    try:
        # Only the line feed ends a line: text has other separators inside.
        return list(content.decode("utf-8-sig").split("\n"))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: is not UTF-8 ({error.reason}); save the file as UTF-8") from None


def _column(path: Path) -> list[str | None]:
    try:
        frame = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise UserError(f"{path}: is not a whole parquet file ({str(error).splitlines()[0]}); write it again") from None
    if "text" not in frame.columns or frame.schema["text"] != pl.String:
        raise UserError(f"{path}: needs a column 'text' of text; add it")
    return frame["text"].to_list()
