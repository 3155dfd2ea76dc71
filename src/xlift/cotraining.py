"""Masked-language modelling beside an intermediate task: how many steps of it there are, and where its texts lie."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from xlift.errors import UserError
from xlift.settings import Data, MaskedLanguageModelling

ENDINGS = (".txt", ".parquet")
"""How the file of a language's text may end."""


def steps_beside(steps: int, share: float) -> int:
    """Steps of masked-language modelling by the time the task had `steps`: `share` of them, in whole steps."""
    return math.floor(round(share * steps, 6))  # 0.29 * 100 is a little under 29


def text_folder(block: MaskedLanguageModelling, data: Data) -> Path:
    """The folder of the texts: an entry of `data.folders`, or else a path."""
    return Path(data.folders.get(block.texts, block.texts))


def text_files(folder: Path, languages: Sequence[str], where: str) -> dict[str, Path]:
    """The file of each language's text; `UserError`, beginning with `where`, where there is none or there are two."""
    if not folder.is_dir():
        raise UserError(f"{where}: there is no folder {folder}; correct it, or give it a name in data.folders")
    found = {
        code: [path for path in (folder / f"{code}{ending}" for ending in ENDINGS) if path.is_file()]
        for code in languages
    }
    if missing := [code for code, paths in found.items() if not paths]:
        raise UserError(
            f"{where}: {folder} has no text in {', '.join(missing)}; add <language>.txt or <language>.parquet for "
            "each, or list the languages to use as mlm.languages"
        )
    if twice := [code for code, paths in found.items() if len(paths) > 1]:
        raise UserError(f"{where}: {folder} has both {twice[0]}.txt and {twice[0]}.parquet; remove one of them")
    return {code: paths[0] for code, paths in found.items()}
