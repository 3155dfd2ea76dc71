"""The resource level of languages: a size, its z, and strata, by one of four measures or a user's own table.

A language that the encoder was not pretrained on, or that has no text in the measure, is `unseen`: a stratum
of its own without a z, never "log 0". English, the source, has neither z nor stratum. Only the standard
library is used: the Snakefile imports this module.
"""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from xlift.errors import UserError
from xlift.languages import SOURCE_LANGUAGE, Language


@dataclass(frozen=True)
class Measure:
    """How a resource level is read and cut. `unit` follows a number: 2 GiB of CC-100.

    Bounds of the strata are in that unit: `low` below `low_below`, `high` from `high_from`. `is_class`: an
    ordered class, taken as it stands; of any other size the base-2 logarithm is standardised.
    """

    unit: str
    low_below: float
    high_from: float
    size: Callable[[Language], float | None]
    is_class: bool = False

    @property
    def scale(self) -> str:
        """What z standardises, in words."""
        return self.unit if self.is_class else f"log2 {self.unit}"

    def amount(self, size: float) -> str:
        """A size with its unit: 2 GiB of CC-100, Joshi class 3."""
        return f"{self.unit} {size:g}" if self.is_class else f"{size:g} {self.unit}"


def _wikipedia(language: Language) -> float | None:
    return None if language.wiki_size_log2_mb is None else float(2**language.wiki_size_log2_mb)


# Bounds: CC-100's are PROTOCOL's primary strata and Joshi's its alternative (low: classes 0 to 2, high: 4 and 5).
# Wikipedia's and mC4's are cut where they part XTREME-R's languages into strata of about the same sizes.
MEASURES: Mapping[str, Measure] = {
    "cc100": Measure("GiB of CC-100", 2.0, 20.0, lambda language: language.cc100_gib),
    "joshi": Measure("Joshi class", 3.0, 4.0, lambda language: float(language.joshi_class), is_class=True),
    "wikipedia": Measure("MB of Wikipedia", 128.0, 1024.0, _wikipedia),
    "mc4": Measure("billion tokens of mC4", 2.0, 20.0, lambda language: language.mc4_btokens),
}


@dataclass(frozen=True)
class Resource:
    """Sizes, z and strata of the languages but English; see `resource_levels`.

    `sizes` (in the measure's unit) and `z` (of the logarithm or the class; mean 0, population deviation 1) are of
    the seen languages only; `strata` are of all.
    """

    measure: Measure
    sizes: Mapping[str, float]
    z: Mapping[str, float]
    strata: Mapping[str, str]


def measure_of(name: str, low_below: float | None = None, high_from: float | None = None) -> Measure:
    """A measure with the bounds given, or else its own; a user's table, by name, has no bounds of its own.

    Raises UserError where the bounds are not in order, or a table has none.
    """
    known = MEASURES.get(name, Measure(f"in {name}", math.nan, math.nan, lambda language: None))
    low = known.low_below if low_below is None else low_below
    high = known.high_from if high_from is None else high_from
    if math.isnan(low) or math.isnan(high):
        raise UserError(f"the resource table {name} has no bounds of its own; set low_below and high_from")
    if not 0 < low <= high:
        raise UserError(f"low_below ({low:g}) is above high_from ({high:g}), or not above 0; swap them or change one")
    return replace(known, low_below=low, high_from=high)


def resource_levels(
    languages: Iterable[Language],
    measure: str = "cc100",
    low_below: float | None = None,
    high_from: float | None = None,
    pretraining: str = "xlmr",
    own_sizes: Mapping[str, float | None] | None = None,
) -> Resource:
    """Resource levels by `measure`: a key of `MEASURES`, or the name of a user's table with its `own_sizes`.

    z is standardised over all seen languages given, whichever of them a study scores. In a user's table a
    language without a size is unseen, whatever the encoder; otherwise `pretraining` decides. A language that a user's
    table lacks has no level at all, as English has none.

    Raises:
        UserError: bounds out of order; a stratum (low or high) that no language is in; fewer than two
            different sizes among the seen languages, if there is any.
    """
    known = sorted(
        (
            language
            for language in languages
            if language.iso2 != SOURCE_LANGUAGE and (own_sizes is None or language.iso2 in own_sizes)
        ),
        key=lambda language: language.iso2,
    )
    cut = measure_of(measure, low_below, high_from)
    sizes: dict[str, float] = {}
    for language in known:
        if own_sizes is None:
            size = cut.size(language) if _is_seen(language, pretraining) else None
        else:
            size = own_sizes[language.iso2]
        if size is not None:
            sizes[language.iso2] = size
    z = _standardised(sizes, cut.is_class)
    strata = {language.iso2: _stratum(sizes.get(language.iso2), cut.low_below, cut.high_from) for language in known}
    for name, bound in (("low", f"below {cut.amount(cut.low_below)}"), ("high", f"from {cut.amount(cut.high_from)}")):
        if sizes and name not in strata.values():
            raise UserError(
                f"contrasts: no language is {name}-resource, {bound}; change the bounds low_below and high_from."
            )
    return Resource(cut, sizes, z, strata)


def read_sizes(path: Path) -> dict[str, float | None]:
    """A user's resource table: a CSV file with the columns iso2 and size, an empty size for no text at all.

    Raises UserError naming file and line: unreadable, a column missing, a language repeated, a size that is
    not a number above 0, no language at all.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: the resource table cannot be read ({error}); give a UTF-8 CSV file.") from None
    reader = csv.DictReader(text.splitlines(), restkey="", restval="")
    for column in ("iso2", "size"):
        if column not in (reader.fieldnames or []):
            raise UserError(f"{path}, line 1: the column {column} is missing; the header is `iso2,size`.")
    sizes: dict[str, float | None] = {}
    for cells in reader:
        code, value = cells["iso2"].strip(), cells["size"].strip()
        where = f"{path}, line {reader.line_num}"
        if code in sizes:
            raise UserError(f"{where}: language {code} is given twice; remove one of its lines.")
        try:
            size = float(value) if value else None
        except ValueError:
            size = math.nan
        if size is not None and not (math.isfinite(size) and size > 0):
            raise UserError(
                f"{where}: the size '{value}' of {code} is not a number above 0; without text leave it empty."
            )
        sizes[code] = size
    if not sizes:
        raise UserError(f"{path}: the resource table holds no language; add one line a language.")
    return sizes


def pretraining_of(encoder_id: str | None) -> str:
    """Whose pretraining corpus an encoder's is, by its name: mBERT's, mC4, or XLM-R's CC-100 for any other.

    The packaged encoder (None) and multilingual-e5 start from models distilled from XLM-R.
    """
    name = (encoder_id or "").lower()
    if any(part in name for part in ("bert-base-multilingual", "mbert", "distilbert-base-multilingual")):
        return "mbert"
    return "mc4" if "mt5" in name or "byt5" in name else "xlmr"


def _is_seen(language: Language, pretraining: str) -> bool:
    if pretraining == "none":
        return True
    flags = {"xlmr": language.in_xlmr, "mbert": language.in_mbert, "mc4": language.mc4_btokens is not None}
    return flags[pretraining]


def _stratum(size: float | None, low_below: float, high_from: float) -> str:
    if size is None:
        return "unseen"
    if size < low_below:
        return "low"
    return "high" if size >= high_from else "mid"


def _standardised(sizes: Mapping[str, float], is_class: bool) -> dict[str, float]:
    if not sizes:
        return {}
    values = {code: size if is_class else math.log2(size) for code, size in sizes.items()}
    if len(set(values.values())) < 2:
        raise UserError(
            f"The resource level cannot be standardised: the seen languages ({', '.join(values)}) all have the "
            "same size; add a language with another size."
        )
    mean, deviation = statistics.fmean(values.values()), statistics.pstdev(values.values())
    return {code: (value - mean) / deviation for code, value in values.items()}
