"""The table of languages and how it is read."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from xlift.errors import UserError
from xlift.languages import COLUMNS, load_languages

TABLE = Path(__file__).parents[2] / "config" / "languages.csv"

GOOD = {
    "iso2": "sw",
    "iso3": "swa",
    "name": "Swahili",
    "family": "Niger-Congo",
    "script": "Latin",
    "joshi_class": "2",
    "cc100_gib": "1.6",
    "wiki_size_log2_mb": "5.14",
    "wiki_articles_2020": "59645",
    "mc4_btokens": "1",
    "in_xlmr": "1",
    "in_mbert": "1",
}


def table(tmp_path: Path, *rows: dict[str, str], columns: tuple[str, ...] = COLUMNS) -> Path:
    path = tmp_path / "languages.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_the_table_holds_the_languages_of_xtreme_r() -> None:
    languages = load_languages(TABLE)
    assert len(languages) == 50
    assert list(languages) == sorted(languages)
    swahili = languages["sw"]
    assert (swahili.name, swahili.language_family, swahili.script) == ("Swahili", "Niger-Congo", "Latin")
    assert (swahili.joshi_class, swahili.cc100_gib, swahili.wiki_articles_2020) == (2, 1.6, 59645)
    assert languages["qu"].mc4_btokens is None
    assert languages["qu"].in_xlmr is False
    assert languages["wo"].in_mbert is False


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        ("iso2", " ", "the cell is empty"),
        ("cc100_gib", "0", "the size 0 is not above 0"),
        ("cc100_gib", "-1.5", "the size -1.5 is not above 0"),
        ("cc100_gib", "large", "'large' is not a number"),
        ("mc4_btokens", "nan", "'nan' is not a number"),
        ("mc4_btokens", "inf", "'inf' is not a number"),
        ("wiki_size_log2_mb", "5,1", "'5,1' is not a number"),
        ("wiki_articles_2020", "1.5", "'1.5' is not a whole number"),
        ("wiki_articles_2020", "0", "the size 0 is not above 0"),
        ("joshi_class", "6", "'6' is not a whole number from 0 to 5"),
        ("in_xlmr", "yes", "'yes' is not a whole number from 0 to 1"),
    ],
)
def test_a_bad_cell_is_named(tmp_path: Path, column: str, value: str, problem: str) -> None:
    path = table(tmp_path, GOOD, {**GOOD, "iso2": "te", column: value})
    with pytest.raises(UserError) as error:
        load_languages(path)
    message = str(error.value)
    assert message.startswith(f"{path}, line 3, column {column}: {problem}")
    assert message.endswith(".")
    assert "\n" not in message


def test_a_log_size_may_be_negative_and_cells_may_be_empty(tmp_path: Path) -> None:
    row = {**GOOD, "wiki_size_log2_mb": "-1.2", "cc100_gib": "", "mc4_btokens": "", "wiki_articles_2020": ""}
    swahili = load_languages(table(tmp_path, row))["sw"]
    assert swahili.wiki_size_log2_mb == -1.2
    assert (swahili.cc100_gib, swahili.mc4_btokens, swahili.wiki_articles_2020) == (None, None, None)


def test_a_repeated_language_is_named(tmp_path: Path) -> None:
    path = table(tmp_path, GOOD, {**GOOD, "iso2": "te"}, GOOD)
    with pytest.raises(UserError) as error:
        load_languages(path)
    assert str(error.value) == f"{path}, line 4, column iso2: 'sw' is on line 2 too; remove one."


@pytest.mark.parametrize("column", COLUMNS)
def test_a_missing_column_is_named(tmp_path: Path, column: str) -> None:
    path = table(tmp_path, GOOD, columns=tuple(name for name in COLUMNS if name != column))
    with pytest.raises(UserError) as error:
        load_languages(path)
    assert str(error.value).startswith(f"{path}, line 1, column {column}: the column is missing")


@pytest.mark.parametrize(("text", "column"), [("sw,swa", "name"), (",".join(["1"] * 13), "in_mbert")])
def test_a_line_with_other_than_12_cells_is_named(tmp_path: Path, text: str, column: str) -> None:
    path = tmp_path / "languages.csv"
    path.write_text(",".join(COLUMNS) + "\n" + text + "\n", encoding="utf-8")
    with pytest.raises(UserError) as error:
        load_languages(path)
    assert str(error.value).startswith(f"{path}, line 2, column {column}: the line does not have 12 cells")


def test_no_file_no_text_and_no_language(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        load_languages(tmp_path / "absent.csv")
    (tmp_path / "latin1.csv").write_bytes(b"iso2\n\xe9\xff\n")
    with pytest.raises(UserError, match="UTF-8"):
        load_languages(tmp_path / "latin1.csv")
    with pytest.raises(UserError, match="holds no language"):
        load_languages(table(tmp_path))


def test_only_the_standard_library_is_imported() -> None:
    code = (
        "import sys, xlift.languages; "
        "print(sorted({'polars', 'torch', 'pandas', 'numpy'} & {name.split('.')[0] for name in sys.modules}))"
    )
    source = str(Path(__file__).parents[2] / "src")
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": source}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
