"""Grids of scores for the tests of contrasts: a dozen languages, made-up targets, effects without a pattern."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import polars as pl

from xlift.contrasts.estimands import ContrastSettings, estimate_contrasts
from xlift.contrasts.gains import compute_gains
from xlift.contrasts.table import GainTable
from xlift.languages import Language

SIZES = {
    "en": 300.0, "sw": 1.6, "jv": 0.2, "gu": 1.9, "te": 4.7, "ka": 9.1, "de": 66.6, "fr": 56.8, "ru": 278.0,
    "fi": 54.3, "wo": None, "yo": None,
}  # fmt: skip
LOW, HIGH, UNSEEN = ["gu", "jv", "sw"], ["de", "fi", "fr", "ru"], ["wo", "yo"]
EVERY = sorted(SIZES)
SCRIPTS = {"ru": "Cyrillic", "te": "Telugu", "gu": "Gujarati", "ka": "Georgian"}
FAMILIES = {"de": "Indo-European: Germanic", "fr": "Indo-European: Romance", "ru": "Indo-European: Slavic",
            "gu": "Indo-European: Indo-Aryan", "fi": "Uralic", "sw": "Niger-Congo", "yo": "Niger-Congo"}  # fmt: skip
CHANCE = {"xnli": 1 / 3, "xquad": 0.0}
Effect = Callable[[str, str, float, int, str], float]


def language(code: str, size: float | None) -> Language:
    family, script = FAMILIES.get(code, "Other"), SCRIPTS.get(code, "Latin")
    return Language(code, code + "x", code, family, script, 3, size, None, None, None, size is not None, False)


LANGUAGES = {code: language(code, SIZES[code]) for code in EVERY}


def scores(
    effect: Effect,
    targets: Mapping[str, list[str]] | None = None,
    intermediates: tuple[str, ...] = ("mnli", "squad"),
    budgets: tuple[float, ...] = (0.5, 1.0, 2.0),
    seeds: tuple[int, ...] = (1, 2, 3),
    noise: float = 0.0,
) -> pl.DataFrame:
    """A complete grid of scores: 40 + the baseline's noise, and `effect` (and noise) for treated cells."""
    generator = np.random.default_rng(0)
    rows = []
    for target, codes in (targets or {"xnli": EVERY}).items():
        cells = [("none", 0.0), *((name, budget) for name in intermediates for budget in budgets)]
        for name, budget in cells:
            for seed in seeds:
                for code in codes:
                    value = 40.0 + noise * generator.normal()
                    value += effect(target, name, budget, seed, code) if budget else 0.0
                    rows.append((target, name, budget, seed, code, value, int(1000 * budget)))
    columns = ["target", "intermediate", "budget", "seed", "language", "score", "steps"]
    constants: dict[str, Any] = {
        "study": "tiny", "metric": "accuracy", "is_primary": True, "n": 200, "examples": 9, "tokens": 9,
        "padded_tokens": 9, "flops": 1.0, "batch_size": 32, "collapsed": False, "arm": "main", "shared_data": False,
    }  # fmt: skip
    return pl.DataFrame(rows, schema=columns, orient="row").with_columns(
        **{name: pl.lit(value) for name, value in constants.items()}
    )


def noisy(target: str, intermediate: str, budget: float, seed: int, code: str) -> float:
    """An effect without a pattern, the same wherever it is computed."""
    text = f"{target}{intermediate}{budget}{seed}{code}"
    return float(np.random.default_rng(list(text.encode())).normal(3, 2))


def two_targets(noise: float = 1.0, **options: Any) -> pl.DataFrame:
    """Gains of two targets with other languages each, and noise in baselines too."""
    return compute_gains(scores(noisy, {"xnli": EVERY, "xquad": ["en", *HIGH, "sw", "ka"]}, noise=noise, **options))


def incomplete(gains: pl.DataFrame) -> pl.DataFrame:
    """Seven tenths of the rows."""
    return gains.sample(fraction=0.7, seed=3, shuffle=True)


PLAIN: dict[str, Any] = {"scales": ("points",), "methods": ("clustered",), "sensitivity": False, "chance": CHANCE}


def crossed(gains: pl.DataFrame) -> pl.DataFrame:
    """A plan for some gains: a target's intermediate tasks at every budget that they have anywhere, with every seed,
    in each language of the target."""
    marks = ["arm", "shared_data"]

    def every(*names: str) -> pl.DataFrame:
        return gains.select(*names, *marks).unique()

    pairs = every("target", "intermediate").join(every("intermediate", "budget"), on=["intermediate", *marks])
    return pairs.join(every("seed"), on=marks).join(every("target", "language"), on=["target", *marks])


def estimated(
    gains: pl.DataFrame,
    languages: Mapping[str, Language] = LANGUAGES,
    planned: pl.DataFrame | None = None,
    **options: Any,
) -> pl.DataFrame:
    """The clustered rows in points; options say what else. Planned is `crossed(gains)` unless given."""
    planned = crossed(gains) if planned is None else planned
    return estimate_contrasts(gains, planned, languages, ContrastSettings(**{**PLAIN, **options}))


def table_of(gains: pl.DataFrame, **options: Any) -> GainTable:
    return GainTable.read(gains, crossed(gains), LANGUAGES, ContrastSettings(**{**PLAIN, **options}))


def row(
    table: pl.DataFrame, estimand: str, scope: str, scale: str = "points", method: str = "clustered"
) -> dict[str, Any]:
    """The one row of these names."""
    wanted = {"estimand": estimand, "scope": scope, "scale": scale, "method": method}
    found = table.filter(*(pl.col(name) == value for name, value in wanted.items()))
    assert found.height == 1, wanted
    return found.row(0, named=True)
