"""The mixed model against lme4, and clustered variances against sandwich and clubSandwich, where R is installed.

Debian: `apt-get install r-base-core r-cran-lme4 r-cran-lmertest r-cran-sandwich r-cran-clubsandwich`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from r_scripts import ask, lacking
from xlift.contrasts import clustered
from xlift.contrasts.clustered import pair_codes
from xlift.contrasts.mixed import MixedData, fit_mixed
from xlift.contrasts.reml import NOISE
from xlift.contrasts.structure import Grid, Spreads, build_grid, draw_scores
from xlift.languages import load_languages
from xlift.resource import resource_levels

LEVELS = resource_levels(load_languages(Path(__file__).parents[2] / "config" / "languages.csv").values())
LAYOUT = {"one": ("ar", "bn", "de", "sw", "te", "th", "zh"), "other": ("af", "ar", "bn", "de", "fi", "ka", "sw", "ur")}
SPREADS = Spreads(language_slope=0.8, target_language_slope=0.6, task_language_slope=0.6, pair_language_slope=0.6)
GROUPS = {
    "language": "language",
    "target x language": "target_language",
    "intermediate x language": "task_language",
    "pair x language": "pair_language",
    "checkpoint tilt": "checkpoint",
    "trunk slope tilt": "trunk",
    "target-run tilt": "cell",
    NOISE: "Residual",
}


def table(grid: Grid, gain: np.ndarray) -> pl.DataFrame:
    """Every grouping of the model as codes of its own."""
    keys = {"target": grid.target, "task": grid.intermediate, "language": grid.language, "seed": grid.seed}
    pair_language = pair_codes(grid.pair, keys["language"])
    return pl.DataFrame(
        {
            "gain": gain,
            "x": grid.x,
            "moderator": grid.z[grid.language],
            "language": grid.language,
            "pair": grid.pair,
            "target_language": pair_codes(keys["target"], keys["language"]),
            "task_language": pair_codes(keys["task"], keys["language"]),
            "pair_language": pair_language,
            "checkpoint": grid.checkpoint,
            "trunk": pair_codes(keys["task"], keys["seed"]),
            "cell": pair_codes(keys["target"], grid.checkpoint),
            "start": pair_codes(pair_language, keys["seed"]),
        }
    )


def draw(n_tasks: int, seed: int, keep: float = 1.0) -> tuple[Grid, np.ndarray]:
    """A grid of two targets, some of whose runs may lack, and its gains."""
    grid = build_grid(LAYOUT, LEVELS, n_tasks, range(4), 3)
    generator = np.random.default_rng(seed)
    score, baseline = draw_scores(grid, SPREADS, -0.4, generator)
    cell = pair_codes(grid.target, grid.checkpoint)
    kept = (generator.random(cell.max() + 1) < keep)[cell]
    names = ("target", "intermediate", "budget", "seed", "language", "x")
    rows = {name: getattr(grid, name)[kept] for name in names}
    return Grid(**rows, names=grid.names, z=grid.z, strata=grid.strata), (score - baseline)[kept]


@pytest.mark.parametrize(
    ("n_tasks", "keep", "trunk", "seed"),
    [(1, 1.0, False, 1), (2, 1.0, False, 2), (2, 0.75, False, 4), (2, 1.0, True, 5)],
)
def test_the_mixed_model_agrees_with_lme4(n_tasks: int, keep: float, trunk: bool, seed: int, tmp_path: Path) -> None:
    """Estimate, standard error, log-likelihood, variances and Satterthwaite's degrees of freedom."""
    if reason := lacking("lme4", "lmerTest"):
        pytest.skip(reason)
    grid, gain = draw(n_tasks, seed, keep)
    found = fit_mixed(
        MixedData(
            gain, grid.x, grid.target, grid.intermediate, grid.seed, grid.language, grid.checkpoint, grid.z, trunk
        )
    )
    assert found.value is not None
    components = [name for name in found.components if name != NOISE]
    answer = ask("mixed.R", table(grid, gain), tmp_path, *components)
    assert found.value == pytest.approx(answer["estimate"], rel=1e-5)
    assert found.se == pytest.approx(answer["se"], rel=1e-4)
    assert found.log_likelihood == pytest.approx(answer["log_likelihood"], abs=1e-6)
    variances = {name: answer[GROUPS[name]] for name in found.components}
    assert found.components == pytest.approx(variances, rel=1e-3, abs=1e-6)
    assert found.degrees_of_freedom == pytest.approx(answer["df"], rel=1e-3)


@pytest.mark.parametrize("keep", [1.0, 0.75])
def test_clustered_variances_agree_with_sandwich(keep: float, tmp_path: Path) -> None:
    """Plain sums to rounding, the two-way formula with its third term; corrected ones within 5 % of full CR2."""
    if reason := lacking("sandwich", "clubSandwich"):
        pytest.skip(reason)
    grid, gain = draw(2, 3, keep)
    rows = table(grid, gain).with_columns(start=pl.col("pair_language"))
    design = clustered.slope_design(grid.pair, pair_codes(grid.pair, grid.language), grid.x, grid.z[grid.language])
    zero = np.zeros_like(gain)
    arguments = (design, gain, zero, grid.language, grid.checkpoint, grid.seed)
    plain = clustered.two_way(*arguments, small_sample=False)
    answer = ask("clustered.R", rows, tmp_path)
    assert plain.value == pytest.approx(answer["estimate"], rel=1e-9)
    assert plain.language_variance == pytest.approx(answer["language"], rel=1e-6)
    assert plain.treated_variance == pytest.approx(answer["checkpoint"], rel=1e-6)
    # sandwich subtracts the clusters of both, and with them what is not in either sum: see `clustered.py`.
    both = pair_codes(grid.language, grid.checkpoint)
    sums = np.bincount(both, design.weights * clustered.residualise(design.blocks, gain))
    assert plain.variance is not None
    assert plain.variance - np.sum(sums**2) == pytest.approx(answer["two_way"], rel=1e-6)
    corrected = clustered.two_way(*arguments)
    assert corrected.treated_variance**0.5 == pytest.approx(answer["checkpoint_cr2"] ** 0.5, rel=0.05)
    assert corrected.language_variance**0.5 == pytest.approx(answer["language_cr2"] ** 0.5, rel=0.05)
