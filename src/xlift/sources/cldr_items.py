"""The names that the offline benchmark is made of: Unicode CLDR's names of things in 49 languages.

An item is a thing with a CLDR code, keyed `kind:code` (`territory:DE`, `unit:length-mile`). Its name in a
language counts only if the language's own data holds it: Babel's files are read one by one, so nothing is
inherited from a parent locale. Babel ships them under Unicode-3.0; it is imported when first needed.
"""

from __future__ import annotations

import pickle
import re
import unicodedata
from collections.abc import Iterator, Mapping
from functools import cache
from hashlib import sha256
from types import MappingProxyType
from typing import Any

KINDS = ("territory", "language", "script", "currency", "unit")


def _codes(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# XTREME-R's languages but Haitian Creole, whose CLDR data is French.
LANGUAGES = _codes(
    "af ar az bg bn de el en es et eu fa fi fr gu he hi hu id it ja jv ka kk ko lt ml mr ms my nl pa "
    "pl pt qu ro ru sw ta te th tl tr uk ur vi wo yo zh"
)
_LOCALES = {"tl": "fil"}  # CLDR has Tagalog as Filipino

# Babel's table of each kind's names.
_TABLES = {
    "territory": "territories",
    "language": "languages",
    "script": "scripts",
    "currency": "currency_names",
    "unit": "unit_display_names",
}

# Codes that stand for no thing of their kind, and so make no item.
_EXCLUDED = {
    # unknown, pseudo-locales, leftovers, and unions of states
    "territory": _codes("ZZ XA XB QO EU EZ UN"),
    # undetermined, several, none; a symbol system that is a script as well
    "language": _codes("und mul zxx zbl"),
    # codes for no script; two whose names are only "Simplified" and "Traditional"; notations; a font encoding
    "script": _codes("Zzzz Zxxx Zyyy Zinh Hans Hant Zmth Zsye Zsym Qaag"),
    # unknown and test codes, metals, ISO 4217 fund codes and units of account
    "currency": _codes(
        "XXX XTS XAG XAU XPD XPT XBA XBB XBC XBD XDR XFO XFU XRE XUA BOV CHE CHW CLF COU ECV MXV USN USS UYI UYW"
    ),
    # fragments, counts and ambiguous words in English: "of gasoline equivalent", "light", "items", "dots",
    # "points", "nights", "degrees temperature", and "Calories" with a capital
    "unit": _codes(
        "pressure-gasoline-energy-density speed-light-speed concentr-item graphics-dot length-point "
        "duration-night temperature-generic energy-foodcalorie"
    ),
}

# Quechua's CLDR data is in good part Spanish as it stands (157 of 200 territories, 106 of 157 currencies,
# most units in the singular): such names would measure Spanish.
_DONORS = {"qu": ("es",)}
_ENGLISH = ("en", "en_001", "en_AU", "en_CA", "en_GB", "en_IN")

_INVISIBLE = re.compile("[\u00ad\u200e\u200f]")  # soft hyphen and direction marks
_INSIDE_WORDS = frozenset("\u200c\u200d'’‘ʼʻ`´\"״׳-‐‑־.・॰＝")
_LONGEST_NAME = 48  # characters: sequences are to be short


@cache
def _raw(locale: str) -> Mapping[str, Any]:
    """One locale's own CLDR data, nothing inherited.

    The file is opened here, as `babel.localedata.load(locale, merge_inherited=False)` does, since that
    function's cache does not tell merged from unmerged data: what it returns depends on who asked before.
    """
    from babel import localedata

    with open(localedata.resolve_locale_filename(locale), "rb") as file:
        return MappingProxyType(pickle.load(file))  # Babel's installed file, not an artifact


@cache
def raw_names(language: str) -> Mapping[str, str]:
    """Every name in the language's own data by key, but of the excluded codes; units in their long form."""
    names: dict[str, str] = {}
    data = _raw(_LOCALES.get(language, language))
    for kind in KINDS:
        for code, value in sorted(data.get(_TABLES[kind], {}).items()):
            name = value.get("long") if kind == "unit" else value
            # "de_AT", "Austrian German": a language and a territory, either of which may be held out
            if code in _EXCLUDED[kind] or (kind == "language" and "_" in code) or not isinstance(name, str):
                continue
            names[f"{kind}:{code}"] = _INVISIBLE.sub("", name).strip()
    return MappingProxyType(names)


def _well_formed(name: str, connectors: frozenset[str]) -> bool:
    """Whether a name can stand in an enumeration: no brackets, commas, digits, "&" or joining words.

    Historical currencies go with that ("(1927-2002)"), as do "Myanmar (Burma)" and "Congo - Kinshasa"; so do
    names that are a code ("GT").
    """
    if not name or len(name) > _LONGEST_NAME:
        return False
    if len(name) <= 3 and name.isascii() and name.isupper():
        return False
    words = name.split()
    if any(not any(unicodedata.category(letter)[0] == "L" for letter in word) for word in words):
        return False  # a dash or a sign on its own
    if any(word.casefold() in connectors for word in words):
        return False
    return all(unicodedata.category(letter)[0] in "LM" or letter == " " or letter in _INSIDE_WORDS for letter in name)


def _unambiguous(names: Mapping[str, str]) -> set[str]:
    """Keys whose name no other item shares; of a language and a script of one name the language stays."""
    keys_of: dict[str, list[str]] = {}
    for key, name in names.items():
        keys_of.setdefault(name.casefold(), []).append(key)
    single: set[str] = set()
    for keys in keys_of.values():
        kinds = sorted(key.split(":", 1)[0] for key in keys)
        if len(keys) == 1:
            single.add(keys[0])
        elif kinds == ["language", "script"]:
            single.add(min(keys))
    return single


@cache
def _foreign(language: str) -> frozenset[str]:
    """Casefolded names that are not the language's own: English ones, and those of a language it copies.

    Units and currencies count in all their numbers: English "miles" and "mile".
    """
    foreign: set[str] = set()
    for source in (*_ENGLISH, *_DONORS.get(language, ())):
        data = _raw(source)
        foreign |= {name.casefold() for name in raw_names(source).values()}
        plurals = [forms for forms in data.get("currency_names_plural", {}).values() if isinstance(forms, dict)]
        plurals += [widths.get("long", {}) for widths in data.get("unit_patterns", {}).values()]
        for forms in plurals:
            texts = [text for text in forms.values() if isinstance(text, str)]
            foreign |= {text.replace("{0}", "").strip().casefold() for text in texts}
    return frozenset(foreign)


@cache
def items(language: str) -> Mapping[str, str]:
    """The items of a language: key -> name, sorted by key.

    English holds every item. Another language holds those of them that it names itself, with a name that is
    well formed, is not an English name of anything, and is shared with no other item in the language (all
    casefolded).
    """
    names = raw_names(language)
    connectors = frozenset(connector_words(language))
    keep = {key for key in _unambiguous(names) if _well_formed(names[key], connectors)}
    if language != "en":
        foreign = _foreign(language)
        keep = {key for key in keep & items("en").keys() if names[key].casefold() not in foreign}
    return MappingProxyType({key: names[key] for key in sorted(keep)})


def kind_of(key: str) -> str:
    """The kind in a key: `territory` of `territory:DE`."""
    return key.split(":", 1)[0]


def split_of(key: str) -> str:
    """An item's split in every task and language: 50 % train, 10 % dev, 40 % test by a hash of its key."""
    share = int.from_bytes(sha256(key.encode()).digest()[:8], "big") / 2**64
    return "train" if share < 0.5 else "dev" if share < 0.6 else "test"


def hash_order(key: str) -> str:
    """A sort key for an order unrelated to codes and splits, the same in every language."""
    return sha256(f"order:{key}".encode()).hexdigest()


@cache
def keys_by_kind(language: str, split: str) -> Mapping[str, tuple[str, ...]]:
    """A language's keys of one split, by kind, each in hash order."""
    keys = sorted((key for key in items(language) if split_of(key) == split), key=hash_order)
    return MappingProxyType({kind: tuple(key for key in keys if kind_of(key) == kind) for kind in KINDS})


@cache
def list_patterns(language: str) -> Mapping[str, str]:
    """The locale's "and" list patterns (`start`, `middle`, `end`, `2`), with CLDR's root where it has none.

    Patterns, unlike names, are meant to be inherited: a locale whose comma is root's does not repeat it.
    """
    own = _raw(_LOCALES.get(language, language)).get("list_patterns", {}).get("standard", {})
    return MappingProxyType({**_raw("root")["list_patterns"]["standard"], **own})


def _words(text: str) -> Iterator[str]:
    """Words and punctuation marks, each alone: ", and" -> ",", "and"."""
    for chunk in _INVISIBLE.sub("", text).split():
        start = 0
        for end, letter in enumerate(chunk):
            if unicodedata.category(letter)[0] in "PS":
                if chunk[start:end]:
                    yield chunk[start:end]
                yield letter
                start = end + 1
        if chunk[start:]:
            yield chunk[start:]


def connector_words(language: str) -> tuple[str, ...]:
    """The words (not punctuation) that the locale's list patterns join items with, casefolded and sorted."""
    pieces = [
        word for pattern in list_patterns(language).values() for word in _words(re.sub(r"\{[01]\}", " ", pattern))
    ]
    return tuple(sorted({piece.casefold() for piece in pieces if unicodedata.category(piece[0])[0] not in "PS"}))


def _pattern_at(index: int, count: int) -> str:
    """Which pattern joins item `index` (from 1) to those before it in a list of `count` items (UTS 35)."""
    if count == 2:
        return "2"
    if index == count - 1:
        return "end"
    return "start" if index == 1 else "middle"


def list_text(names: list[str], language: str) -> str:
    """The names as one enumeration in the language: English "A, B, and C", German "A, B und C"."""
    patterns = list_patterns(language)
    text = names[0]
    for index, name in enumerate(names[1:], start=1):
        pattern = patterns[_pattern_at(index, len(names))]
        parts = {"{0}": text, "{1}": name}
        text = "".join(parts.get(part, part) for part in re.split(r"(\{[01]\})", pattern))
    return text


def list_tokens(names: list[list[tuple[str, str]]], language: str) -> list[tuple[str, str]]:
    """The same enumeration as (token, tag) pairs: names keep theirs, what the pattern adds is tagged `O`.

    Connectors and punctuation are tokens of their own even where the language writes them together with a
    word.
    """
    patterns = list_patterns(language)
    tokens = list(names[0])
    for index, name in enumerate(names[1:], start=1):
        parts = {"{0}": tokens, "{1}": list(name)}
        joined: list[tuple[str, str]] = []
        for part in re.split(r"(\{[01]\})", patterns[_pattern_at(index, len(names))]):
            joined += parts[part] if part in parts else [(word, "O") for word in _words(part)]
        tokens = joined
    return tokens
