"""Time and memory of all contrasts on a full XTREME-R grid, as JSON on standard output.

    python bench/contrasts.py [draws [intermediate tasks [budgets [seeds]]]]

10 intermediate tasks x 6 budgets x 10 seeds x 203 (target, language) cells of simulated scores (121,800 gains), every
estimand, scale and method, `draws` bootstrap draws and permutations (2,000). Seconds are of one process, as a whole and
within it by part; peak memory is of the whole process, numpy and polars included.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import polars as pl

from xlift.contrasts import estimands
from xlift.contrasts.layout import XTREME_R
from xlift.contrasts.structure import Spreads, build_grid, draw_scores, gains_frame
from xlift.contrasts.table import ContrastSettings
from xlift.languages import load_languages
from xlift.resource import resource_levels

TABLE = Path(__file__).parents[1] / "config" / "languages.csv"


def measure_contrasts(*sizes: int) -> dict[str, Any]:
    """What bench/results.json says of the contrasts, measured by a process of their own."""
    command = [sys.executable, __file__, *map(str, sizes)]
    return dict(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))


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


PARTS = {
    "designs": "prepare",
    "clustered": "clustered_row",
    "mixed": "mixed_row",
    "bootstrap": "bootstrap_rows",
    "permutation": "permutation_rows",
    "sensitivity": "sensitivity_rows",
}
"""The functions that `estimate_contrasts` calls for each part."""


@contextmanager
def timed_parts() -> Iterator[dict[str, float]]:
    """Seconds inside each part of `estimate_contrasts`, while it is called within."""
    seconds = dict.fromkeys(PARTS, 0.0)

    def timed(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            started = time.perf_counter()
            result = function(*arguments)
            result = list(result) if isinstance(result, Iterator) else result
            seconds[part] += time.perf_counter() - started
            return result

        return call

    with ExitStack() as stack:
        for part, name in PARTS.items():
            stack.enter_context(mock.patch.object(estimands, name, timed(part, getattr(estimands, name))))
        yield seconds


def main(draws: int = 2000, intermediates: int = 10, budgets: int = 6, seeds: int = 10) -> dict[str, Any]:
    """Measure the whole and, within it, every part."""
    languages, gains = load_languages(TABLE), simulated(intermediates, budgets, seeds)
    chance = {name: {"xnli": 1 / 3, "xcopa": 1 / 2}.get(name, 0.0) for name in XTREME_R}
    settings = ContrastSettings(bootstrap_draws=draws, permutations=draws, chance=chance)
    with timed_parts() as parts:
        started = time.perf_counter()
        found = estimands.estimate_contrasts(gains, gains, languages, settings)
        seconds = time.perf_counter() - started
    return {
        "gains": gains.height,
        "bootstrap_draws": draws,
        "rows": found.height,
        "seconds": round(seconds, 2),
        "seconds_by_part": {part: round(value, 2) for part, value in parts.items()},
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


if __name__ == "__main__":
    print(json.dumps(main(*(int(argument) for argument in sys.argv[1:])), indent=2))
