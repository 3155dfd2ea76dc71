"""The languages of XTREME-R and how much pretraining text each has.

The table is `config/languages.csv`: CC-100 sizes from Conneau et al. (2020), classes from Joshi et al.
(2020), Wikipedia sizes of 2020 and mC4 tokens. Only the standard library is used: the Snakefile imports it.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

from xlift.errors import UserError

STRATA = ("low", "mid", "high", "unseen")
SOURCE_LANGUAGE = "en"

COLUMNS = (
    "iso2",
    "iso3",
    "name",
    "family",
    "script",
    "joshi_class",
    "cc100_gib",
    "wiki_size_log2_mb",
    "wiki_articles_2020",
    "mc4_btokens",
    "in_xlmr",
    "in_mbert",
)


@dataclass(frozen=True)
class Language:
    """One language: names, genealogy, script, and sizes in pretraining corpora (None where there is no text).

    `cc100_gib` is in GiB of CC-100, `wiki_size_log2_mb` the base-2 logarithm of megabytes of Wikipedia,
    `mc4_btokens` in billions of tokens; `joshi_class` runs from 0 (left behind) to 5 (winners).
    `language_family` is the column `family` of the table (a task's family is something else).
    """

    iso2: str
    iso3: str
    name: str
    language_family: str
    script: str
    joshi_class: int
    cc100_gib: float | None
    wiki_size_log2_mb: float | None
    wiki_articles_2020: int | None
    mc4_btokens: float | None
    in_xlmr: bool
    in_mbert: bool


@dataclass(frozen=True)
class _Row:
    """One line of the table with its place, so that every error says where it is."""

    path: Path
    line: int
    cells: dict[str, str]

    def error(self, column: str, problem: str) -> UserError:
        return UserError(f"{self.path}, line {self.line}, column {column}: {problem}.")

    def text(self, column: str) -> str:
        value = self.cells[column].strip()
        if not value:
            raise self.error(column, "the cell is empty; give a value")
        return value

    def number(self, column: str) -> float | None:
        """A finite number, or None for an empty cell."""
        value = self.cells[column].strip()
        if not value:
            return None
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise self.error(column, f"'{value}' is not a number; write one such as 1.5 or leave it empty")
        return number

    def size(self, column: str) -> float | None:
        """A number above zero (its logarithm is taken), or None for an empty cell."""
        number = self.number(column)
        if number is not None and number <= 0:
            raise self.error(column, f"the size {number:g} is not above 0; without text leave it empty")
        return number

    def count(self, column: str) -> int | None:
        """A whole number above zero, or None for an empty cell."""
        number = self.size(column)
        if number is not None and number != int(number):
            raise self.error(column, f"'{number:g}' is not a whole number; write one such as 1500")
        return None if number is None else int(number)

    def choice(self, column: str, allowed: range) -> int:
        """A whole number out of `allowed`."""
        value = self.text(column)
        if value not in {str(number) for number in allowed}:
            bounds = f"{allowed[0]} to {allowed[-1]}"
            raise self.error(column, f"'{value}' is not a whole number from {bounds}; write one of them")
        return int(value)


def load_languages(path: Path) -> dict[str, Language]:
    """Read the table of languages, sorted by two-letter code.

    Raises UserError naming file, line and column: file absent or empty, a column missing, a line with too few
    or too many cells, a language repeated, a bad number, a size that is not positive.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        message = f"{path}: the table of languages cannot be read ({error}); give a UTF-8 CSV file."
        raise UserError(message) from error
    reader = csv.DictReader(text.splitlines(), restkey="", restval=None)
    header = reader.fieldnames or []
    for column in COLUMNS:
        if column not in header:
            raise UserError(f"{path}, line 1, column {column}: the column is missing; add it to the header.")
    languages: dict[str, Language] = {}
    lines: dict[str, int] = {}
    for cells in reader:
        line = reader.line_num
        if "" in cells or None in cells.values():
            column = next((name for name in header if cells[name] is None), header[-1])
            problem = f"the line does not have {len(header)} cells; add or remove commas"
            raise UserError(f"{path}, line {line}, column {column}: {problem}.")
        language = _language(_Row(path, line, cells))
        if language.iso2 in languages:
            problem = f"'{language.iso2}' is on line {lines[language.iso2]} too; remove one"
            raise UserError(f"{path}, line {line}, column iso2: {problem}.")
        languages[language.iso2], lines[language.iso2] = language, line
    if not languages:
        raise UserError(f"{path}, line 2, column iso2: the table holds no language; add one line a language.")
    return dict(sorted(languages.items()))


def _language(row: _Row) -> Language:
    return Language(
        iso2=row.text("iso2"),
        iso3=row.text("iso3"),
        name=row.text("name"),
        language_family=row.text("family"),
        script=row.text("script"),
        joshi_class=row.choice("joshi_class", range(6)),
        cc100_gib=row.size("cc100_gib"),
        wiki_size_log2_mb=row.number("wiki_size_log2_mb"),  # a logarithm: it may be 0 or less
        wiki_articles_2020=row.count("wiki_articles_2020"),
        mc4_btokens=row.size("mc4_btokens"),
        in_xlmr=bool(row.choice("in_xlmr", range(2))),
        in_mbert=bool(row.choice("in_mbert", range(2))),
    )
