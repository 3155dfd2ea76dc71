"""The offline benchmark's items: names by language, splits, enumerations."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlift.errors import UserError
from xlift.languages import load_languages
from xlift.sources.cldr import (
    TASK_NAMES,
    prepare,
)
from xlift.sources.cldr_items import (
    LANGUAGES,
    connector_words,
    items,
    keys_by_kind,
    kind_of,
    list_patterns,
    list_text,
    list_tokens,
    raw_names,
    split_of,
)

ROOT = Path(__file__).parents[2]


def test_all_languages_of_the_table_but_haitian_creole() -> None:
    table = load_languages(ROOT / "config" / "languages.csv")
    assert len(table) == 50
    assert set(table) - set(LANGUAGES) == {"ht"}


def test_every_language_has_names_of_its_own() -> None:
    for language in LANGUAGES:
        assert len(items(language)) >= 150, language
        for kind in ("territory", "language", "script", "currency"):
            assert keys_by_kind(language, "test")[kind], (language, kind)


@pytest.mark.parametrize("task", TASK_NAMES)
def test_an_unknown_language_is_refused_in_one_sentence(task: str) -> None:
    with pytest.raises(UserError) as error:
        prepare(task, ["de", "ht"])
    message = str(error.value)
    assert message.startswith(f"The offline benchmark ({task}) has no names in ht; leave that out")
    assert message.count(". ") == 0
    assert message.endswith(".")


@given(st.text(max_size=12).filter(lambda name: name not in TASK_NAMES))
def test_an_unknown_task_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="choose one of cldr_retrieval, cldr_kind"):
        prepare(name, ["en"])


# Items


def test_items_read_by_hand() -> None:
    assert items("en")["territory:DE"] == "Germany"
    assert items("de")["territory:DE"] == "Deutschland"
    assert items("sw")["language:fr"] == "Kifaransa"
    assert items("zh")["currency:USD"] == "美元"
    assert items("fi")["unit:length-mile"] == "mailit"
    assert items("tl")["territory:PH"] == "Pilipinas"


def test_inherited_english_and_spanish_names_are_dropped() -> None:
    # Haitian Creole inherits French ("Allemagne"); its own file holds one name
    assert len(raw_names("ht")) <= 1
    # Filipino's own file writes Germany as English does
    assert raw_names("tl")["territory:DE"] == "Germany"
    assert "territory:DE" not in items("tl")
    # Wolof's own file has units in the short form only
    assert not [key for key in raw_names("wo") if kind_of(key) == "unit"]
    # Quechua's file holds Spanish: Etiopía, and miles in the singular
    assert raw_names("qu")["territory:ET"] == "Etiopía"
    assert raw_names("qu")["unit:length-inch"] == "pulgada"
    assert {"territory:ET", "unit:length-inch"}.isdisjoint(items("qu"))
    # German Kilometer is the English singular, Wolof's guarani its plural
    assert raw_names("de")["unit:length-kilometer"] == "Kilometer"
    assert "unit:length-kilometer" not in items("de")
    assert raw_names("wo")["currency:PYG"] == "Paraguayan Guaranis"
    assert "currency:PYG" not in items("wo")


def test_reading_does_not_depend_on_what_babel_has_cached() -> None:
    """Babel's cache keeps merged and unmerged data under one name: whoever comes first decides."""
    code = (
        "import sys; from babel import Locale, localedata\n"
        "if sys.argv[1] == 'first': Locale('wo').territories, localedata.load('wo')\n"
        "from xlift.sources.cldr_items import items, list_patterns\n"
        "print(sorted(items('wo').items()), sorted(list_patterns('wo').items()))"
    )
    texts = [
        subprocess.run(
            [sys.executable, "-c", code, word],
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
            capture_output=True,
            check=True,
        )
        for word in ("first", "never")
    ]
    assert texts[0].stdout == texts[1].stdout
    assert len(texts[0].stdout) > 1000


def test_codes_that_name_nothing_are_no_items() -> None:
    for key in (
        "territory:ZZ",
        "territory:XA",
        "territory:XB",
        "territory:QO",
        "language:und",
        "language:mul",
        "language:zxx",
        "language:de_AT",
        "script:Zzzz",
        "script:Zxxx",
        "script:Zyyy",
        "script:Zinh",
        "currency:XXX",
        "currency:XTS",
        "currency:XAU",
    ):
        assert all(key not in items(language) for language in LANGUAGES), key


def test_names_can_stand_in_an_enumeration() -> None:
    assert "territory:MM" not in items("en")  # Myanmar (Burma)
    assert "territory:TT" not in items("en")  # Trinidad & Tobago
    assert "currency:AFA" not in items("en")  # Afghan Afghani (1927-2002)
    for language in LANGUAGES:
        connectors = set(connector_words(language))
        for key, name in items(language).items():
            assert not set("()[],،、;/&（）0123456789") & set(name), (language, key, name)
            assert not connectors & {word.casefold() for word in name.split()}, (language, key, name)
            assert name == name.strip()
            assert 0 < len(name) <= 48


def test_no_two_items_of_a_language_share_a_name() -> None:
    for language in LANGUAGES:
        names = [name.casefold() for name in items(language).values()]
        assert len(names) == len(set(names)), language
    assert items("en")["language:ar"] == "Arabic"  # the script of that name yields
    assert "script:Arab" not in items("en")
    assert {"territory:NR", "language:na"}.isdisjoint(items("en"))  # Nauru, both


def test_no_name_is_english_for_anything() -> None:
    english = {name.casefold() for name in items("en").values()}
    for language in LANGUAGES:
        if language != "en":
            assert english.isdisjoint(name.casefold() for name in items(language).values()), language


def test_item_splits() -> None:
    # the first 8 bytes of sha256 as a share of 2**64, computed with coreutils' sha256sum
    assert split_of("territory:DE") == "train"  # 0x51d0c01a... is .3196
    assert split_of("language:sw") == "test"  # 0xbda0f94c... is .7407
    assert split_of("unit:length-mile") == "test"  # 0xad437cf1... is .6768
    counts = Counter(split_of(key) for key in items("en"))
    total = len(items("en"))
    assert counts["train"] / total == pytest.approx(0.5, abs=0.04)
    assert counts["dev"] / total == pytest.approx(0.1, abs=0.03)
    assert counts["test"] / total == pytest.approx(0.4, abs=0.04)


@given(st.text())
def test_every_key_has_one_split(key: str) -> None:
    if key.isprintable():  # lone surrogates are no text
        assert split_of(key) == split_of(key)
        assert split_of(key) in ("train", "dev", "test")


# List patterns


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        ("en", "A, B, and C"),
        ("de", "A, B und C"),
        ("zh", "A、B和C"),
        ("ja", "A、B、C"),
        ("ar", "A وB وC"),
        ("th", "A B และC"),
        ("my", "A - Bနှင့် C"),
        ("ml", "A, B, C എന്നിവ"),
        ("wo", "A, B, C"),
    ],
)
def test_enumerations_by_hand(language: str, expected: str) -> None:
    assert list_text(["A", "B", "C"], language) == expected


def test_two_items_have_a_pattern_of_their_own() -> None:
    assert list_text(["A", "B"], "en") == "A and B"
    assert list_text(["A", "B"], "yo") == "A àtiB"
    assert list_text(["A"], "de") == "A"
    assert list_patterns("de")["start"] == "{0}, {1}"  # root's: German's own file has only "end" and "2"


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        ("de", "A a , B und C"),
        ("en", "A a , B , and C"),
        ("zh", "A a 、 B 和 C"),
        ("fa", "A a ، B ، و C"),
        ("he", "A a , B ו C"),
        ("ml", "A a , B , C എന്നിവ"),
    ],
)
def test_connectors_are_tokens_of_their_own(language: str, expected: str) -> None:
    names = [[("A", "B-X"), ("a", "I-X")], [("B", "B-X")], [("C", "O")]]
    pairs = list_tokens(names, language)
    assert [token for token, _ in pairs] == expected.split()
    assert [tag for token, tag in pairs if token in ("A", "a", "B", "C")] == ["B-X", "I-X", "B-X", "O"]
    assert {tag for token, tag in pairs if token not in ("A", "a", "B", "C")} == {"O"}


@given(st.lists(st.text("abcdé字", min_size=1, max_size=5), min_size=1, max_size=6), st.sampled_from(LANGUAGES))
def test_tokens_and_text_agree(names: list[str], language: str) -> None:
    text = list_text(names, language)
    tokens = [token for token, _ in list_tokens([[(name, "O")] for name in names], language)]
    assert "".join(tokens) == "".join(text.split()).replace("\u200f", "")
    place = 0
    for name in names:
        place = text.index(name, place) + len(name)  # every name, in order
