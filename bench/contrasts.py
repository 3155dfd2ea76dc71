"""Time and memory of all contrasts on a full XTREME-R grid, as JSON on standard output.

    python bench/contrasts.py [draws [intermediate tasks [budgets [seeds]]]]

10 intermediate tasks x 6 budgets x 10 seeds x 203 (target, language) cells of simulated scores (121,800 gains), every
estimand, scale and method, `draws` bootstrap draws and permutations (2,000). Seconds are of one process; peak memory
is of the whole process, numpy and polars included.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from xlift.contrasts.bootstrap import bootstrap_rows
from xlift.contrasts.contrast import all_contrasts, prepare
from xlift.contrasts.estimands import estimate_contrasts
from xlift.contrasts.inference import clustered_row, mixed_row
from xlift.contrasts.layout import XTREME_R
from xlift.contrasts.permutation import permutation_rows
from xlift.contrasts.sensitivity import sensitivity_rows
from xlift.contrasts.structure import Spreads, build_grid, draw_scores, gains_frame
from xlift.contrasts.table import ContrastSettings, GainTable
from xlift.languages import load_languages
from xlift.resource import resource_levels

TABLE = Path(__file__).parents[1] / "config" / "languages.csv"


def measure_contrasts(*sizes: int) -> dict[str, Any]:
    """What bench/results.json says of the contrasts, measured by a process of their own."""
    command = [sys.executable, __file__, *map(str, sizes)]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    seconds = found["seconds"].pop("everything")
    return {
        "gains": found["gains"],
        "bootstrap_draws": found["bootstrap_draws"],
        "seconds": seconds,
        "peak_mb": found["peak_memory_mib"],
        "seconds_by_part": found["seconds"],
    }


def simulated(intermediates: int, budgets: int, seeds: int) -> pl.DataFrame:
    """Simulated gains on XTREME-R's cells; English has the numbers of another language of its target."""
    levels = resource_levels(load_languages(TABLE).values())
    grid = build_grid(XTREME_R, levels, intermediates, [float(k) for k in range(budgets)], seeds)
    scores = draw_scores(grid, Spreads(), -0.2, np.random.default_rng(1))
    gains = gains_frame(grid, *scores).with_columns(
        pl.col("target").replace_strict({f"target{k:02d}": name for k, name in enumerate(sorted(XTREME_R))}),
        tokens=pl.col("steps") * 32 * 60,
    )
    with_english = [name for name, codes in XTREME_R.items() if "en" in codes]
    english = gains.filter((pl.col("language") == "th") | (pl.col("language") == "ar")).filter(
        pl.col("target").is_in(with_english)
    )
    english = english.unique(["target", "intermediate", "budget", "seed"], keep="first", maintain_order=True)
    return pl.concat([gains, english.with_columns(language=pl.lit("en"))])


def main(draws: int = 2000, intermediates: int = 10, budgets: int = 6, seeds: int = 10) -> dict[str, Any]:
    """Measure every part by itself, then the whole."""
    languages, gains = load_languages(TABLE), simulated(intermediates, budgets, seeds)
    chance = {name: {"xnli": 1 / 3, "xcopa": 1 / 2}.get(name, 0.0) for name in XTREME_R}
    settings = ContrastSettings(bootstrap_draws=draws, permutations=draws, chance=chance)
    scripts = {code: language.script for code, language in languages.items()}
    seconds: dict[str, float] = {}

    def timed(part: str, call: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = call()
        seconds[part] = seconds.get(part, 0.0) + time.perf_counter() - started
        return result

    table = timed("read", lambda: GainTable.read(gains, gains, languages, settings))
    for scale in settings.scales:
        scaled = timed("scales", lambda scale=scale: table.on(scale))
        prepared = timed("designs", lambda t=scaled: [prepare(t, each) for each in all_contrasts(t)])
        beside = timed("clustered", lambda t=scaled, p=prepared: [clustered_row(t, each) for each in p])
        timed("mixed", lambda t=scaled, p=prepared, b=beside: [mixed_row(t, *pair) for pair in zip(p, b, strict=True)])
        timed("bootstrap", lambda t=scaled, p=prepared, b=beside: bootstrap_rows(t, p, b))
        timed("permutation", lambda t=scaled, p=prepared, b=beside: permutation_rows(t, p, b, scripts))
    timed("sensitivity", lambda: list(sensitivity_rows(table, gains, languages)))
    found = timed("everything", lambda: estimate_contrasts(gains, gains, languages, settings))
    return {
        "gains": gains.height,
        "bootstrap_draws": draws,
        "rows": found.height,
        "seconds": {part: round(value, 2) for part, value in seconds.items()},
        "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


if __name__ == "__main__":
    print(json.dumps(main(*(int(argument) for argument in sys.argv[1:])), indent=2))
