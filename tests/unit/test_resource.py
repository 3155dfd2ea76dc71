"""Resource levels: strata and z by every measure, a user's own table, and what is refused."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlift.errors import UserError
from xlift.languages import STRATA, Language, load_languages
from xlift.resource import MEASURES, measure_of, pretraining_of, read_sizes, resource_levels

LANGUAGES = load_languages(Path(__file__).parents[2] / "config" / "languages.csv")


def language(cc100_gib: float | None, iso2: str = "xx", in_xlmr: bool = True, joshi_class: int = 3) -> Language:
    return Language(iso2, "xxx", "X", "F", "Latin", joshi_class, cc100_gib, 1.0, 1, 1.0, in_xlmr, in_mbert=True)


def by_stratum(measure: str, **options: str) -> dict[str, str]:
    """Codes of each stratum, sorted, as one text."""
    strata = resource_levels(LANGUAGES.values(), measure, **options).strata
    return {name: " ".join(sorted(code for code, each in strata.items() if each == name)) for name in STRATA}


# Read off the table by hand: below 2 GiB (Basque and Burmese have exactly 2.0), from 20 GiB.
def test_strata_by_cc100() -> None:
    found = by_stratum("cc100")
    assert found["low"] == "af gu jv pa sw"
    assert found["mid"] == "az bn et eu ka kk lt ml mr ms my ta te tl ur"
    assert found["unseen"] == "ht qu wo yo"
    assert len(found["high"].split()) == 49 - 5 - 15 - 4
    assert "en" not in resource_levels(LANGUAGES.values()).strata


def test_strata_by_other_measures() -> None:
    joshi = by_stratum("joshi")
    assert joshi["low"] == "az gu jv ml mr my pa sw te"
    assert joshi["unseen"] == "ht qu wo yo"
    assert "hu" in joshi["high"].split()
    assert "ka" in joshi["mid"].split()
    wikipedia = by_stratum("wikipedia", pretraining="mbert")
    assert wikipedia["low"] == "gu ht jv mr pa sw tl yo"
    assert wikipedia["unseen"] == "qu wo"
    mc4 = by_stratum("mc4", pretraining="mc4")
    assert mc4["unseen"] == "qu wo"  # the two without mC4 text
    assert mc4["low"] == "af eu gu ht jv my pa sw te yo"


def test_whose_pretraining_decides_who_is_unseen() -> None:
    assert by_stratum("joshi", pretraining="none")["unseen"] == ""
    assert by_stratum("cc100", pretraining="none")["unseen"] == "ht qu wo yo"  # no text to measure
    assert by_stratum("cc100", pretraining="mbert")["unseen"] == "ht qu wo yo"
    assert pretraining_of(None) == pretraining_of("FacebookAI/xlm-roberta-large") == "xlmr"
    assert pretraining_of("intfloat/multilingual-e5-small") == "xlmr"
    assert pretraining_of("google-bert/bert-base-multilingual-cased") == "mbert"
    assert pretraining_of("google/mt5-base") == "mc4"


def test_bounds() -> None:
    languages = [language(size, f"l{size}") for size in (1.99, 2.0, 19.9, 20.0)]
    strata = resource_levels([*languages, language(None, "zz"), language(50.0, "ww", in_xlmr=False)]).strata
    assert [strata[each.iso2] for each in languages] == ["low", "mid", "mid", "high"]
    assert (strata["zz"], strata["ww"]) == ("unseen", "unseen")
    joined = resource_levels(languages, low_below=10.0, high_from=10.0).strata
    assert [joined[each.iso2] for each in languages] == ["low", "low", "high", "high"]


def test_bounds_out_of_order_and_strata_without_languages_are_refused() -> None:
    with pytest.raises(UserError, match=r"low_below \(20\) is above high_from \(2\)"):
        resource_levels(LANGUAGES.values(), low_below=20.0, high_from=2.0)
    with pytest.raises(UserError, match=r"no language is low-resource, below 0.1 GiB of CC-100; change the bounds"):
        resource_levels(LANGUAGES.values(), low_below=0.1)
    with pytest.raises(UserError, match=r"no language is high-resource, from Joshi class 6"):
        resource_levels(LANGUAGES.values(), "joshi", high_from=6)


@given(gib=st.floats(0.001, 1000), low=st.floats(0.01, 100), width=st.floats(0, 100))
def test_every_size_is_in_exactly_one_stratum(gib: float, low: float, width: float) -> None:
    ends = [language(low / 2, "aa"), language(2 * (low + width), "zz")]
    name = resource_levels([*ends, language(gib)], low_below=low, high_from=low + width).strata["xx"]
    assert (name == "low") == (gib < low)
    assert (name == "high") == (low <= gib and gib >= low + width)
    assert name in ("low", "mid", "high")


def test_z_by_hand_and_of_the_table() -> None:
    # log2: 1 and 3; mean 2, population standard deviation 1
    z = resource_levels([language(8.0, "bb"), language(2.0, "aa"), language(300.0, "en")], low_below=3, high_from=4).z
    assert z == {"aa": -1.0, "bb": 1.0}
    table = resource_levels(LANGUAGES.values()).z
    assert len(table) == 45  # 50 without English and the four unseen
    assert (min(table, key=lambda code: table[code]), max(table, key=lambda code: table[code])) == ("jv", "ru")
    classes = resource_levels(LANGUAGES.values(), "joshi")
    assert classes.sizes["sw"] == 2
    assert classes.z["sw"] == classes.z["pa"] < classes.z["ka"]  # the class as it stands
    assert resource_levels(LANGUAGES.values(), "wikipedia").sizes["de"] == pytest.approx(2**12.55)


@given(st.lists(st.floats(0.01, 500), min_size=2, max_size=30, unique=True))
def test_z_has_mean_0_and_deviation_1(sizes: list[float]) -> None:
    logs = sorted(math.log2(size) for size in sizes)
    if logs[-1] - logs[0] < 1e-3:  # sizes so alike that their deviation is rounding
        return
    languages = [language(size, f"l{place}") for place, size in enumerate(sizes)]
    z = resource_levels(languages, low_below=max(sizes), high_from=max(sizes)).z
    assert math.fsum(z.values()) == pytest.approx(0, abs=1e-6)
    assert math.fsum(score**2 for score in z.values()) / len(sizes) == pytest.approx(1)


def test_z_without_variation() -> None:
    assert resource_levels([]).z == {}
    assert resource_levels([language(3.0, "en"), language(None, "qu")]).z == {}
    with pytest.raises(UserError, match=r"\(aa, bb\) all have the same size"):
        resource_levels([language(2.0, "aa"), language(2.0, "bb")], low_below=2.5, high_from=2.5)


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "sizes.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_table_of_ones_own(tmp_path: Path) -> None:
    sizes = read_sizes(write(tmp_path, "iso2,size\naa,1\nbb,4\ncc,16\ndd,\n"))
    assert sizes == {"aa": 1.0, "bb": 4.0, "cc": 16.0, "dd": None}
    languages = [language(5.0, code, in_xlmr=False) for code in sizes]
    levels = resource_levels(languages, "sizes.csv", 2.0, 10.0, own_sizes=sizes)
    assert levels.strata == {"aa": "low", "bb": "mid", "cc": "high", "dd": "unseen"}
    assert levels.z == pytest.approx({"aa": -(1.5**0.5), "bb": 0.0, "cc": 1.5**0.5})
    wider = resource_levels([*languages, language(1.0, "ee")], "sizes.csv", 2.0, 10.0, own_sizes=sizes)
    assert (wider.strata, wider.z, wider.sizes) == (levels.strata, levels.z, levels.sizes)
    with pytest.raises(UserError, match="has no bounds of its own; set low_below and high_from"):
        measure_of("sizes.csv")


BAD_TABLES = {
    "repeated": ("iso2,size\naa,1\nbb,2\naa,3\n", r"line 4: language aa is given twice; remove one"),
    "zero": ("iso2,size\naa,0\n", r"line 2: the size '0' of aa is not a number above 0"),
    "negative": ("iso2,size\naa,-1\n", r"line 2: the size '-1' of aa is not a number above 0"),
    "word": ("iso2,size\naa,big\n", r"line 2: the size 'big' of aa is not a number above 0"),
    "infinite": ("iso2,size\naa,inf\n", r"line 2: the size 'inf' of aa is not a number above 0"),
    "no column": ("iso2,gib\naa,1\n", r"line 1: the column size is missing"),
    "no line": ("iso2,size\n", r"holds no language"),
}


@pytest.mark.parametrize(("text", "sentence"), BAD_TABLES.values(), ids=list(BAD_TABLES))
def test_bad_tables_are_refused_in_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        read_sizes(write(tmp_path, text))
    assert str(caught.value).startswith(str(tmp_path / "sizes.csv"))
    assert "\n" not in str(caught.value)


def test_a_table_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_sizes(tmp_path / "none.csv")


def test_words() -> None:
    assert MEASURES["cc100"].amount(2.0) == "2 GiB of CC-100"
    assert MEASURES["joshi"].amount(3.0) == "Joshi class 3"
    assert (MEASURES["cc100"].scale, MEASURES["joshi"].scale) == ("log2 GiB of CC-100", "Joshi class")


def test_only_the_standard_library_is_imported() -> None:
    code = (
        "import sys, xlift.resource; "
        "print(sorted({'polars', 'torch', 'pandas', 'numpy'} & {name.split('.')[0] for name in sys.modules}))"
    )
    source = str(Path(__file__).parents[2] / "src")
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": source}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
