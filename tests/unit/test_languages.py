"""The table of languages: reading it, its strata, and the standardised resource level."""

from __future__ import annotations

import csv
import math
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlift.errors import UserError
from xlift.languages import COLUMNS, STRATA, Language, load_languages, standardised_resource, stratum

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


def language(cc100_gib: float | None, iso2: str = "xx", in_xlmr: bool = True, joshi_class: int = 3) -> Language:
    return Language(iso2, "xxx", "X", "F", "Latin", joshi_class, cc100_gib, 1.0, 1, 1.0, in_xlmr, in_mbert=True)


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


def test_strata_of_the_table_counted_by_hand() -> None:
    languages = load_languages(TABLE)
    by_stratum = {name: sorted(code for code, each in languages.items() if stratum(each) == name) for name in STRATA}
    # from the CSV: below 2 GiB; basque and burmese have exactly 2.0
    assert by_stratum["low"] == ["af", "gu", "jv", "pa", "sw"]
    assert by_stratum["unseen"] == ["ht", "qu", "wo", "yo"]
    mid = "az bn et eu ka kk lt ml mr ms my ta te tl ur"
    assert by_stratum["mid"] == mid.split()
    assert len(by_stratum["high"]) == 50 - 5 - 4 - 15


@pytest.mark.parametrize(
    ("gib", "expected"), [(1.99, "low"), (2.0, "mid"), (19.9, "mid"), (20.0, "high"), (None, "unseen")]
)
def test_strata_at_their_bounds(gib: float | None, expected: str) -> None:
    assert stratum(language(gib)) == expected


def test_a_language_outside_the_pretraining_is_unseen_whatever_its_size() -> None:
    assert stratum(language(50.0, in_xlmr=False)) == "unseen"


def test_other_bounds_and_bounds_out_of_order() -> None:
    assert stratum(language(5.0), low_below=10.0, high_from=10.0) == "low"
    with pytest.raises(UserError, match="low_below is 20 and high_from 2 GiB"):
        stratum(language(5.0), low_below=20.0, high_from=2.0)


@given(gib=st.floats(0.001, 1000), low=st.floats(0.01, 100), width=st.floats(0, 100))
def test_every_size_is_in_exactly_one_stratum(gib: float, low: float, width: float) -> None:
    name = stratum(language(gib), low, low + width)
    assert (name == "low") == (gib < low)
    assert (name == "high") == (low <= gib and gib >= low + width)
    assert name in ("low", "mid", "high")


def test_standardised_resource_of_the_table() -> None:
    languages = load_languages(TABLE)
    scores = standardised_resource(languages.values())
    assert len(scores) == 45  # 50 without English and the four unseen
    assert not {"en", "ht", "qu", "wo", "yo"} & set(scores)
    assert math.fsum(scores.values()) == pytest.approx(0, abs=1e-9)
    assert math.fsum(score**2 for score in scores.values()) / 45 == pytest.approx(1)
    assert min(scores, key=lambda code: scores[code]) == "jv"
    assert max(scores, key=lambda code: scores[code]) == "ru"


def test_standardised_resource_by_hand() -> None:
    # log2: 1 and 3; mean 2, population standard deviation 1
    scores = standardised_resource([language(8.0, "bb"), language(2.0, "aa"), language(300.0, "en")])
    assert scores == {"aa": -1.0, "bb": 1.0}


@given(st.lists(st.floats(0.01, 500), min_size=2, max_size=30, unique=True))
def test_standardised_resource_has_mean_0_and_deviation_1(sizes: list[float]) -> None:
    logs = sorted(math.log2(size) for size in sizes)
    if logs[-1] - logs[0] < 1e-3:  # sizes so alike that their deviation is rounding
        return
    scores = standardised_resource(language(size, f"l{place}") for place, size in enumerate(sizes))
    assert math.fsum(scores.values()) == pytest.approx(0, abs=1e-6)
    assert math.fsum(score**2 for score in scores.values()) / len(sizes) == pytest.approx(1)


def test_standardised_resource_without_variation() -> None:
    assert standardised_resource([]) == {}
    assert standardised_resource([language(3.0, "en"), language(None, "qu")]) == {}
    with pytest.raises(UserError, match=r"\(aa, bb\) all have the same CC-100 size"):
        standardised_resource([language(2.0, "aa"), language(2.0, "bb")])


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
