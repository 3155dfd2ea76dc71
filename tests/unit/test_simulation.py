"""The simulation of the inference: what it draws, that its methods are what they say, and a quick run of it."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from xlift.contrasts import simulate
from xlift.contrasts.clustered import pair_codes
from xlift.contrasts.contrast import all_contrasts, prepare
from xlift.contrasts.estimands import estimate_contrasts
from xlift.contrasts.inference import clustered_row, mixed_row
from xlift.contrasts.layout import XTREME_R
from xlift.contrasts.simulate import (
    BETA,
    BOOTSTRAP,
    BY_LANGUAGE,
    BY_RUN,
    CROSSED,
    ESTIMANDS,
    LEVEL,
    LOW_HIGH,
    NESTED,
    OLS,
    TWO_WAY,
    Point,
    Setting,
)
from xlift.contrasts.structure import Spreads, build_grid, draw_scores, gains_frame
from xlift.contrasts.table import ContrastSettings, GainTable
from xlift.jobs import simulation
from xlift.languages import load_languages
from xlift.resource import resource_levels

ROOT = Path(__file__).parents[2]
LANGUAGES = load_languages(ROOT / "config" / "languages.csv")
LEVELS = resource_levels(LANGUAGES.values())


def test_the_layout_is_that_of_xtreme_r() -> None:
    """50 languages; 195 (task, language) cells without English, 27 of them in Joshi classes 0 to 2 (PROTOCOL 4)."""
    assert len(XTREME_R) == 10
    assert set().union(*XTREME_R.values()) == set(LANGUAGES)
    cells = [(target, code) for target, codes in XTREME_R.items() for code in codes if code != "en"]
    assert len(cells) == len(set(cells)) == 195
    poor = [target for target, code in cells if LANGUAGES[code].joshi_class <= 2]
    assert len(poor) == 27
    assert not {"xquad", "mlqa", "lareqa", "mewslix"} & set(poor)


def test_draws_have_the_stated_spreads() -> None:
    """Each component alone: the variance of what it moves is its own."""
    grid = replace(build_grid(XTREME_R, LEVELS, 2, (0.0, 1.0), 4), shared_trunk=True)
    silent = Spreads(**dict.fromkeys(vars(Spreads()), 0.0))
    tilt, generator = grid.tilt[grid.language], np.random.default_rng(3)
    for name in vars(Spreads()):
        squares = []
        for _ in range(40):
            score, baseline = draw_scores(grid, replace(silent, **{name: 0.7}), 0.0, generator)
            part = baseline if name.startswith("baseline") else score
            own = np.ones(part.size, dtype=bool)
            if name.endswith("tilt"):
                own = np.abs(tilt) > 0.1
                part = part / np.where(own, tilt, 1.0)
            if name.endswith("slope") or name == "trunk_tilt":
                own &= grid.x == 1  # minus x = 0, where it is nil
            part = part[own]
            squares.append(np.mean(part**2))
        assert np.mean(squares) ** 0.5 == pytest.approx(0.7, rel=0.15), name
    score, baseline = draw_scores(grid, silent, -0.3, generator)
    assert score == pytest.approx(-0.3 * tilt * grid.x)
    assert not baseline.any()
    apart = replace(grid, shared_trunk=False)
    assert not draw_scores(apart, replace(silent, trunk_tilt=1.0), 0.0, generator)[0].any()


def test_draws_share_what_they_should() -> None:
    """A checkpoint's tilt is one number for all targets and languages; a baseline's noise one for all treated runs."""
    grid = build_grid(XTREME_R, LEVELS, 2, (0.0, 1.0, 2.0), 3)
    silent = Spreads(**dict.fromkeys(vars(Spreads()), 0.0))
    score, _ = draw_scores(grid, replace(silent, checkpoint_tilt=1.0), 0.0, np.random.default_rng(1))
    ratio = score / grid.tilt[grid.language]
    first = ratio[np.unique(grid.checkpoint, return_index=True)[1]]
    assert ratio == pytest.approx(first[grid.checkpoint])
    assert np.unique(np.round(first, 9)).size == 18
    _, baseline = draw_scores(grid, replace(silent, noise=1.0), 0.0, np.random.default_rng(1))
    cell = pair_codes(pair_codes(grid.target, grid.language), grid.seed)
    assert np.unique(baseline).size == cell.max() + 1 == 195 * 3


def test_simulated_methods_are_the_package_s_and_statsmodels() -> None:
    """The primary method equals the table of contrasts; least squares equals statsmodels' OLS."""
    import statsmodels.api as sm  # type: ignore[import-untyped]

    point = Point("usual", 1, 3, 0.2)
    setting = Setting.of(point, LANGUAGES)
    found = {(o.estimand, o.estimator): o for o in simulate.outcomes(point, setting, 5, LANGUAGES)}
    grid = setting.grid
    key = [simulate.SEED, sorted(simulate.SPREADS).index("usual"), 1, 3, 200, 5]
    score, baseline = draw_scores(grid, Spreads(), 0.2, np.random.default_rng(key))
    settings = ContrastSettings(methods=("clustered",), scales=("points",), sensitivity=False)
    gains = gains_frame(grid, score, baseline)
    table = estimate_contrasts(gains, gains, LANGUAGES, settings)
    for name, estimand, scope in (
        (BETA, "beta_per_doubling", "all"),
        (LOW_HIGH, "low_minus_high_per_doubling", "all"),
        (LEVEL, "low_minus_high", "budget=6"),
    ):
        row = table.filter(estimand=estimand, scope=scope, scale="points", method="clustered").row(0, named=True)
        mine = found[name, TWO_WAY]
        assert (row["estimate"], row["se"], row["p"]) == pytest.approx((mine.estimate, mine.se, mine.p), rel=1e-6)
    rows, moderator, _ = setting.parts[LOW_HIGH]
    x, language = grid.x[rows], grid.language[rows]
    cell = np.unique(grid.target[rows] * 100 + language, return_inverse=True)[1]
    target = grid.target[rows]
    focal = moderator[language] * x
    design = np.column_stack([focal, np.eye(10)[target] * x[:, None], np.eye(cell.max() + 1)[cell]])
    fit = sm.OLS((score - baseline)[rows], design).fit()
    assert found[LOW_HIGH, OLS].estimate == pytest.approx(fit.params[0])
    assert found[LOW_HIGH, OLS].se == pytest.approx(fit.bse[0])
    assert found[LOW_HIGH, OLS].degrees == fit.df_resid
    assert found[LOW_HIGH, OLS].p == pytest.approx(fit.pvalues[0])
    by_language = sm.OLS((score - baseline)[rows], design).fit(
        cov_type="cluster", cov_kwds={"groups": language, "use_correction": False}
    )
    groups = np.unique(language).size
    assert found[LOW_HIGH, BY_LANGUAGE].se == pytest.approx(by_language.bse[0] * (groups / (groups - 1)) ** 0.5)
    run = grid.checkpoint[rows]
    both = sm.OLS((score - baseline)[rows], design).fit(
        cov_type="cluster", cov_kwds={"groups": np.column_stack([language, run]), "use_correction": False}
    )
    # The factors of this few clusters move it by less than that of the runs, 18 / 17.
    assert found[LOW_HIGH, simulate.TEXTBOOK].se == pytest.approx(both.bse[0], rel=0.035)
    assert found[LOW_HIGH, simulate.TEXTBOOK].degrees == 17


@cache
def quick_run() -> tuple[dict, ...]:  # type: ignore[type-arg]
    """200 data sets at four points by the fast methods."""
    chosen = [
        Point("usual", 1, 3, 0.0),
        Point("usual", 1, 10, 0.0),
        Point("usual", 1, 3, 0.4),
        Point("runs differ", 1, 3, 0.0),
    ]
    return tuple(simulate.run(LANGUAGES, chosen, 200, 1)["results"])


def rate(estimator: str, key: str, seeds: int, beta: float, spreads: str = "usual", estimand: str = BETA) -> float:
    found = [
        record[key]
        for record in quick_run()
        if (record["estimator"], record["n_seeds"], record["beta"], record["spreads"], record["estimand"])
        == (estimator, seeds, beta, spreads, estimand)
    ]
    assert len(found) == 1
    return float(found[0])


def test_the_primary_test_holds_its_level_where_others_do_not() -> None:
    """Bounds are three Monte Carlo errors (200 data sets, .015) around 3.5 to 7.5 %."""
    for seeds, spreads in ((3, "usual"), (10, "usual"), (3, "runs differ")):
        for estimand in ESTIMANDS:
            assert 0.005 < rate(TWO_WAY, "rejected", seeds, 0.0, spreads, estimand) < 0.12
            assert rate(OLS, "rejected", seeds, 0.0, spreads, estimand) > (0.1 if estimand == LEVEL else 0.35)
    assert rate(BY_LANGUAGE, "rejected", 3, 0.0) > 0.15
    assert rate(BY_RUN, "rejected", 10, 0.0) > 0.15


def test_intervals_cover_and_estimates_are_unbiased() -> None:
    for estimand in ESTIMANDS:
        assert 0.88 < rate(TWO_WAY, "covered", 3, 0.4, estimand=estimand) < 0.995
        bias = rate(TWO_WAY, "mean_estimate", 3, 0.4, estimand=estimand) - rate(
            TWO_WAY, "truth", 3, 0.4, estimand=estimand
        )
        assert abs(bias) < 4 * rate(TWO_WAY, "sd_estimate", 3, 0.4, estimand=estimand) / 200**0.5
        ratio = rate(TWO_WAY, "mean_se", 3, 0.4, estimand=estimand) / rate(
            TWO_WAY, "sd_estimate", 3, 0.4, estimand=estimand
        )
        assert 0.8 < ratio < 1.25
    assert rate(TWO_WAY, "rejected", 3, 0.4) > 0.9


def test_results_do_not_depend_on_processes_or_on_other_points() -> None:
    point, other = Point("usual", 1, 3, 0.1), Point("usual", 1, 3, 0.2)
    alone = simulate.run(LANGUAGES, [point], 25, 1)
    beside = simulate.run(LANGUAGES, [other, point], 25, 2)
    assert alone["results"] == [record for record in beside["results"] if record["beta"] == 0.1]


def test_the_nested_model_runs_and_is_not_the_crossed_one() -> None:
    point = Point("usual", 1, 3, 0.0, n_crossed=1, n_nested=1)
    found = {(o.estimand, o.estimator): o for o in simulate.outcomes(point, Setting.of(point, LANGUAGES), 0, LANGUAGES)}
    crossed, nested = found[BETA, simulate.CROSSED], found[BETA, NESTED]
    assert nested.se < crossed.se
    assert abs(nested.estimate - crossed.estimate) < 3 * crossed.se


def test_the_bootstrap_and_the_levels_mixed_model_are_those_of_the_table_of_contrasts() -> None:
    point = Point("usual", 3, 3, 0.1, n_crossed=1, n_bootstrap=1)
    setting = Setting.of(point, LANGUAGES)
    found = {(o.estimand, o.estimator): o for o in simulate.outcomes(point, setting, 0, LANGUAGES)}
    key = [simulate.SEED, sorted(simulate.SPREADS).index("usual"), 3, 3, 100, 0]
    score, baseline = draw_scores(setting.grid, Spreads(), 0.1, np.random.default_rng(key))
    gains = gains_frame(setting.grid, score, baseline)
    table = GainTable.read(gains, gains, LANGUAGES, ContrastSettings())
    names = {"beta_per_doubling": BETA, "low_minus_high_per_doubling": LOW_HIGH, "low_minus_high": LEVEL}
    for contrast in all_contrasts(table):
        if contrast.scope.name not in ("all", "budget=6") or contrast.estimand not in names:
            continue
        prepared, name = prepare(table, contrast), names[contrast.estimand]
        mixed, clustered = mixed_row(table, prepared, clustered_row(table, prepared)), clustered_row(table, prepared)
        own = found[name, CROSSED]
        assert (mixed.estimate, mixed.se, mixed.p) == pytest.approx((own.estimate, own.se, own.p), rel=1e-4)
        assert found[name, BOOTSTRAP].estimate == pytest.approx(clustered.estimate)
        assert found[name, BOOTSTRAP].se == pytest.approx(clustered.se, rel=0.35)
        assert found[name, BOOTSTRAP].covered in (True, False)


def test_points_are_those_that_were_asked_for() -> None:
    usual = [point for point in simulate.points() if point.spreads == "usual"]
    assert {(p.n_intermediates, p.n_seeds) for p in usual} == {(1, 3), (1, 5), (1, 10), (3, 3)}
    assert all({p.beta for p in usual if p.n_seeds == seeds} == set(simulate.EFFECTS) for seeds in (3, 5, 10))
    assert simulate.DATA_SETS >= 400


# What is published of it

DOCS = ROOT / "docs"


def published() -> dict:  # type: ignore[type-arg]
    return dict(json.loads((DOCS / simulation.JSON).read_text(encoding="utf-8")))


def test_the_page_shows_the_published_results() -> None:
    page = (DOCS / simulation.PAGE).read_text(encoding="utf-8")
    assert simulation.with_tables(page, published()) == page, "docs/statistics.md is out of date: run `make simulate`"
    assert (DOCS / simulation.FIGURE).exists()


def test_the_published_results_are_of_these_settings_and_within_the_bounds() -> None:
    found = published()
    assert found["seed"] == simulate.SEED
    assert found["spreads"] == {name: vars(spreads) for name, spreads in simulate.SPREADS.items()}
    primary = [
        record
        for record in found["results"]
        if (record["estimator"], record["estimand"], record["spreads"]) == (TWO_WAY, BETA, "usual")
    ]
    assert len(primary) == 16
    for record in primary:
        assert record["data_sets"] >= 400
        assert 0.93 <= record["covered"] <= 0.97
        if record["beta"] == 0:
            assert 0.035 <= record["rejected"] <= 0.075


def test_published_results_are_what_the_code_gives() -> None:
    """The first data set of every point, drawn again."""
    records = published()["results"]
    assert len(records) > 100
    for point in simulate.points():
        again = {
            (o.estimand, o.estimator): o.estimate
            for o in simulate.simulate_point(
                replace(point, n_crossed=0, n_nested=0, n_bootstrap=0), LANGUAGES, range(1)
            )
        }
        key = (point.spreads, point.n_intermediates, point.n_seeds, point.beta)
        own = {
            (r["estimand"], r["estimator"]): r["first_estimate"]
            for r in records
            if (r["spreads"], r["n_intermediates"], r["n_seeds"], r["beta"]) == key
        }
        assert {name: own[name] for name in again} == pytest.approx(again, abs=2e-5)
        for number, estimator in ((point.n_crossed, CROSSED), (point.n_bootstrap, BOOTSTRAP), (point.n_nested, NESTED)):
            assert (number > 0) == ((BETA, estimator) in own)


def test_the_published_level_contrast_holds_its_level_and_the_bootstrap_is_told_as_it_is() -> None:
    records = published()["results"]
    levels = [record for record in records if (record["estimator"], record["estimand"]) == (TWO_WAY, LEVEL)]
    assert len(levels) == len(simulate.points())
    for record in levels:
        if record["spreads"] == "usual":
            assert 0.93 <= record["covered"] <= 0.985
        if record["beta"] == 0:
            assert record["rejected"] <= 0.075
    drawn = [record for record in records if record["estimator"] == BOOTSTRAP]
    assert {record["estimand"] for record in drawn} == set(ESTIMANDS)
    assert {record["n_seeds"] for record in drawn} == {3, 5, 10}


def test_a_page_without_a_place_for_a_table_is_refused() -> None:
    with pytest.raises(ValueError, match="no place for the table level"):
        simulation.with_tables("nothing", {"results": [], "spreads": {"usual": {}}})
    record = {
        "spreads": "usual", "n_intermediates": 1, "n_seeds": 3, "beta": 0.0, "estimand": BETA, "estimator": TWO_WAY,
        "data_sets": 1000, "truth": 0.0, "first_estimate": 0.0, "mean_estimate": 0.01, "sd_estimate": 0.1,
        "mean_se": 0.09, "rejected": 0.05, "rejected_error": 0.007, "covered": 0.95, "covered_error": 0.007,
        "median_degrees": 9.0,
    }  # fmt: skip
    page = "".join(
        f"<!-- table: {name} -->\nold\n<!-- end -->\n" for name in ("level", "methods", "coverage", "power", "spreads")
    )
    filled = simulation.with_tables(page, {"results": [record], "spreads": {"usual": {"noise": 1.0}}})
    assert "| 1 task, 3 seeds | 5.0 ± 0.7 % |" in filled
    assert "| 1 task, 3 seeds | beta | 0 | +0.010 | 0.90 | 9 | 95.0 ± 0.7 % | 1,000 |" in filled
    assert "old" not in filled
