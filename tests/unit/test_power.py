"""Power: variances against simulation and R's textbook case, tables, and the command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import stats

from xlift import cli
from xlift.contrasts import clustered
from xlift.contrasts.clustered import pair_codes
from xlift.contrasts.layout import XTREME_R
from xlift.contrasts.power import Layout, Precision, pilot_spreads, power_table, precision
from xlift.contrasts.rows import BETA, LOW_HIGH
from xlift.contrasts.structure import Spreads, build_grid, draw_scores, gains_frame
from xlift.contrasts.table import ContrastSettings
from xlift.languages import load_languages
from xlift.resource import resource_levels
from xlift.settings import Power
from xlift.tables import publish_table

ROOT = Path(__file__).parents[2]
LANGUAGES = load_languages(ROOT / "config" / "languages.csv")
LEVELS = resource_levels(LANGUAGES.values())


@pytest.mark.parametrize("estimand", [BETA, LOW_HIGH])
@pytest.mark.parametrize(
    "spreads",
    [Spreads(), Spreads(language_slope=0.0, checkpoint_tilt=0.0, noise=4.0), Spreads(task_language_slope=0.9)],
)
def test_the_standard_error_is_the_spread_of_simulated_estimates(estimand: str, spreads: Spreads) -> None:
    grid = build_grid(XTREME_R, LEVELS, 2, (0.0, 1.0, 3.0), 3)
    found = precision(grid, spreads, estimand)
    assert isinstance(found, Precision)
    relevant = np.isfinite(grid.z) if estimand == BETA else np.isin(grid.strata, ("low", "high"))
    moderator = np.nan_to_num(grid.z) if estimand == BETA else (grid.strata == "low").astype(float)
    part, generator = grid.within(relevant), np.random.default_rng(0)
    design = clustered.slope_design(part.pair, pair_codes(part.pair, part.language), part.x, moderator[part.language])
    estimates = []
    for _ in range(600):
        score, baseline = draw_scores(part, spreads, 0.0, generator)
        estimates.append(float(design.weights @ (score - baseline)))
    assert found.standard_error == pytest.approx(np.std(estimates), rel=0.12)  # four errors of a deviation


NOISE_ALONE = Spreads(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, baseline_tilt=0.0)


@pytest.mark.parametrize(
    ("spreads", "effect", "shared_trunk"),
    [
        (Spreads(), 0.25, False),
        (NOISE_ALONE, 0.04, False),  # the test counts the noise of cells twice
        (Spreads(trunk_tilt=0.2), 0.5, True),
    ],
)
def test_power_is_that_of_the_simulated_test(spreads: Spreads, effect: float, shared_trunk: bool) -> None:
    grid = replace(build_grid(XTREME_R, LEVELS, 1, tuple(range(6)), 3), shared_trunk=shared_trunk)
    found = precision(grid, spreads, BETA)
    assert isinstance(found, Precision)
    expected = found.power(effect, 0.95)
    assert 0.3 < expected < 0.9  # where an error would show
    part, generator = grid.within(np.isfinite(grid.z)), np.random.default_rng(1)
    design = clustered.slope_design(part.pair, pair_codes(part.pair, part.language), part.x, grid.z[part.language])
    rejected, degrees = 0, []
    for _ in range(300):
        score, baseline = draw_scores(part, spreads, effect, generator)
        parts = clustered.split_parts(score, baseline, pair_codes(part.target, part.language), part.seed)
        tested = clustered.two_way(design, *parts, part.language, part.run, part.seed)
        p = tested.p_value()
        assert p is not None
        assert tested.degrees_of_freedom is not None
        degrees.append(tested.degrees_of_freedom)
        rejected += p < 0.05
    assert rejected / 300 == pytest.approx(expected, abs=0.1)
    assert found.degrees_of_freedom == pytest.approx(np.median(degrees), rel=0.5)


def test_trunks_are_fewer_clusters_than_checkpoints() -> None:
    """With one task and three seeds three trunks are compared, whatever the number of budgets."""
    budgets = (tuple(float(k) for k in range(6)),)
    runs = Layout(XTREME_R, 9, budgets, 3)
    apart, shared = (
        precision(layout.grid(LEVELS), Spreads(language_slope=0.0, trunk_tilt=0.0), BETA)
        for layout in (runs, replace(runs, shared_trunk=True))
    )
    assert isinstance(apart, Precision)
    assert isinstance(shared, Precision)
    assert shared.standard_error == pytest.approx(apart.standard_error)
    assert shared.degrees_of_freedom < 3 < 10 < apart.degrees_of_freedom
    drifting = precision(replace(runs, shared_trunk=True).grid(LEVELS), Spreads(language_slope=0.0), BETA)
    assert isinstance(drifting, Precision)
    # k's standard deviation of 0.1 over three trunks; tilts of unseen languages take no part.
    added = drifting.standard_error**2 - shared.standard_error**2
    assert added == pytest.approx(0.1**2 / 3)


def test_pairs_that_share_training_data_are_run_and_not_compared() -> None:
    budgets = ((0.0, 1.0, 2.0), (0.0, 3.0, 6.0))
    two = {"xnli": XTREME_R["xnli"], "xquad": XTREME_R["xquad"]}
    both = Layout(two, 2, budgets, 3)
    without = replace(both, shares_data=frozenset({("xnli", 0), ("xquad", 0)}))
    assert without.n_runs == both.n_runs
    assert np.unique(without.grid(LEVELS).intermediate).tolist() == [1]
    alone = replace(both, log2_budgets=budgets[1:])
    for estimand in (BETA, LOW_HIGH):
        found, expected = (precision(layout.grid(LEVELS), Spreads(), estimand) for layout in (without, alone))
        assert found == expected
    every = replace(alone, shares_data=frozenset({("xnli", 0), ("xquad", 0)}))
    assert "shares training data" in str(precision(every.grid(LEVELS), Spreads(), BETA))
    table = power_table(without, LEVELS, Spreads(), 0.95).filter(pl.col("estimand") == BETA)
    one = table.filter(pl.col("n_intermediates") == 1)
    assert one["note"].to_list() == ["every pair of tasks shares training data: nothing to compare"]
    # Further tasks are like those planned, in turn: of three the third is like the first, which says nothing.
    of_two, of_three = (table.filter(change="intermediates", n_intermediates=n)["se"][0] for n in (2, 3))
    assert of_three == pytest.approx(of_two)


def test_each_task_has_its_own_steps() -> None:
    """Amounts of mixed kinds are other doublings for another task; four doublings weigh more than two."""
    layout = Layout(XTREME_R, 9, ((0.0, 1.0, 2.0), (0.0, 0.5, 4.0)), 3)
    grid = layout.grid(LEVELS)
    assert {tuple(np.unique(grid.x[grid.intermediate == task])) for task in (0, 1)} == set(layout.log2_budgets)
    assert layout.doublings == 4
    first, own = (
        precision(replace(layout, log2_budgets=budgets).grid(LEVELS), Spreads(), BETA)
        for budgets in ((layout.log2_budgets[0],) * 2, layout.log2_budgets)
    )
    assert isinstance(first, Precision)
    assert isinstance(own, Precision)
    assert own.standard_error < first.standard_error


def test_power_of_a_t_test_agrees_with_statsmodels() -> None:
    from statsmodels.stats.power import TTestPower  # type: ignore[import-untyped]

    for n, effect in ((5, 1.2), (20, 0.5), (60, 0.3)):
        expected = TTestPower().power(effect, n, 0.05, alternative="two-sided")
        found = Precision(standard_error=n**-0.5, degrees_of_freedom=n - 1)
        assert found.power(effect, 0.95) == pytest.approx(expected, abs=1e-6)
        assert found.power(0.0, 0.95) == pytest.approx(0.05)
        smallest = found.smallest_effect(0.95)
        assert TTestPower().power(smallest, n, 0.05, alternative="two-sided") == pytest.approx(0.8, abs=1e-6)


def test_large_samples_need_two_point_eight_standard_errors() -> None:
    found = Precision(standard_error=2.0, degrees_of_freedom=1e6)
    assert found.smallest_effect(0.95) == pytest.approx(2 * (stats.norm.ppf(0.975) + stats.norm.ppf(0.8)), rel=1e-4)


def test_more_of_anything_detects_less() -> None:
    layout = Layout(XTREME_R, 9, ((-1.0, 0.0, 1.0),) * 2, 3)
    found = power_table(layout, LEVELS, Spreads(), 0.95)
    assert found["smallest_effect"].null_count() == 0
    sizes = {"seeds": "n_seeds", "budgets": "n_budgets", "range": "doublings", "intermediates": "n_intermediates"}
    for change, size in sizes.items():
        part = found.filter(pl.col("change") == change, pl.col("estimand") == BETA)
        assert part[size].is_sorted()
        assert part["n_runs"].is_sorted()
        assert part["planned"].sum() == 1
        assert part.row(0)[:2] == (BETA, change)
        if change != "budgets":  # two at the ends of the same range are as good as three
            assert part["smallest_effect"].is_sorted(descending=True)
    planned = found.filter("planned")
    assert planned["smallest_effect"].n_unique() == 2  # one an estimand
    assert planned["n_runs"].unique().to_list() == [2 * 3 * 3 + 9 * (2 * 3 * 3 + 3)]


def test_few_seeds_and_missing_languages_say_so() -> None:
    two = power_table(Layout(XTREME_R, 9, ((0.0, 1.0),), 2), LEVELS, Spreads(), 0.95)
    planned = two.filter("planned")
    assert planned["smallest_effect"].null_count() == planned.height
    assert set(planned["note"]) == {"fewer than 3 seeds: no test"}
    assert two.filter(pl.col("n_seeds") == 3)["smallest_effect"].null_count() == 0
    high = {"mlqa": ("de", "es", "zh")}
    table = power_table(Layout(high, 1, ((0.0, 1.0),), 3), LEVELS, Spreads(), 0.95)
    notes = table.filter(pl.col("estimand") == LOW_HIGH)["note"].unique().to_list()
    assert notes == ["not identified"]


def test_pilot_variances_are_those_of_the_gains() -> None:
    truth = Spreads(language_slope=0.7, target_language_slope=0.5, checkpoint_tilt=0.8, noise=1.5)
    grid = build_grid(XTREME_R, LEVELS, 2, (0.0, 1.0, 2.0), 4)
    score, baseline = draw_scores(grid, truth, 0.3, np.random.default_rng(2))
    found = pilot_spreads(gains_frame(grid, score, baseline), LANGUAGES, ContrastSettings())
    assert isinstance(found, Spreads)
    for name in ("language_slope", "target_language_slope", "checkpoint_tilt", "target_run_tilt", "noise"):
        assert getattr(found, name) == pytest.approx(getattr(truth, name), rel=0.35), name
    once = grid.x == 0
    frame = gains_frame(grid, score, baseline).filter(pl.Series(once))
    assert "no log2 steps that vary" in str(pilot_spreads(frame, LANGUAGES, ContrastSettings()))


def test_a_pilot_with_trunks_tells_how_far_they_drift() -> None:
    truth = Spreads(trunk_tilt=0.8, noise=1.5)
    grid = replace(build_grid(XTREME_R, LEVELS, 4, (0.0, 1.0, 2.0, 3.0), 6), shared_trunk=True)
    score, baseline = draw_scores(grid, truth, 0.3, np.random.default_rng(2))
    gains = gains_frame(grid, score, baseline)
    found, as_runs = (
        pilot_spreads(gains, LANGUAGES, ContrastSettings(shared_trunk=is_trunk)) for is_trunk in (True, False)
    )
    assert isinstance(found, Spreads)
    assert isinstance(as_runs, Spreads)
    assert found.trunk_tilt == pytest.approx(truth.trunk_tilt, rel=0.35)  # of 24 trunks
    assert as_runs.trunk_tilt == 0


def test_defaults_of_the_study_are_those_of_the_simulation() -> None:
    assert Power().model_dump() == {name: getattr(Spreads(), name) for name in Power.model_fields}


STUDY = """
study: small
intermediates: [cldr_pairs]
budgets: [0.5, 1]
seeds: {seeds}
targets: [cldr_kind, cldr_retrieval]
{more}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "languages.csv").write_bytes((ROOT / "config" / "languages.csv").read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(folder: Path, capsys: pytest.CaptureFixture[str], seeds: str = "[1, 2, 3]", more: str = "") -> tuple[int, str]:
    (folder / "study.yaml").write_text(STUDY.format(seeds=seeds, more=more), encoding="utf-8")
    code = cli.main(["power", "study.yaml"])
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def test_the_command_prints_a_table_and_writes_it_with_a_figure(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = run(folder, capsys)
    assert code == 0
    lines = text.splitlines()
    assert lines[0].startswith("Smallest effects detected with 80% power at 0.05")
    assert "assumed" in lines[1]
    start = lines.index(next(line for line in lines if line.startswith("as planned")))
    assert len(lines) < 26
    assert max(len(line) for line in lines[start:-2]) < 80
    table = pl.read_parquet(folder / "results" / "small" / "power.parquet")
    planned = table.filter(pl.col("planned"), pl.col("estimand") == BETA).row(0, named=True)
    assert planned["n_runs"] == 6 + 6 + 3
    assert f"{planned['smallest_effect']:.2f}" in lines[start]
    first = (folder / "results" / "small" / "power.svg").read_bytes()
    assert b"intermediate tasks" in first
    assert (folder / "results" / "small" / "power.png").read_bytes()[:4] == b"\x89PNG"
    assert run(folder, capsys)[1] == text
    assert (folder / "results" / "small" / "power.svg").read_bytes() == first


def test_stated_variances_and_pilots_are_used_and_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def planned() -> float:
        table = pl.read_parquet(folder / "results" / "small" / "power.parquet")
        return float(table.filter(pl.col("planned"), pl.col("estimand") == BETA)["smallest_effect"][0])

    run(folder, capsys)
    assumed = planned()
    _, text = run(folder, capsys, more="power: {noise: 8, checkpoint_tilt: 3}")
    assert "as stated under `power`" in text
    assert planned() > 2 * assumed
    grid = build_grid(XTREME_R, LEVELS, 1, (0.0, 1.0), 3)
    score, baseline = draw_scores(grid, Spreads(noise=0.1, checkpoint_tilt=0.05), 0.0, np.random.default_rng(0))
    publish_table(folder / "results" / "small" / "gains.parquet", gains_frame(grid, score, baseline))
    _, text = run(folder, capsys)
    assert "estimated from results/small/gains.parquet" in text
    assert planned() < assumed
    one = gains_frame(grid, score, baseline).filter(pl.col("budget") == 1)
    publish_table(folder / "results" / "small" / "gains.parquet", one)
    _, text = run(folder, capsys)
    assert "cannot be estimated (not identified" in text
    assert planned() == assumed


def test_the_layout_is_that_of_the_study(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Trunks are fewer clusters; a target trained on the same examples as the one intermediate task says nothing."""

    def planned() -> dict[str, object]:
        table = pl.read_parquet(folder / "results" / "small" / "power.parquet")
        return table.filter(pl.col("planned"), pl.col("estimand") == BETA).row(0, named=True)

    run(folder, capsys)
    apart = planned()
    run(folder, capsys, more="schedule: trunk")
    assert float(str(planned()["degrees_of_freedom"])) < float(str(apart["degrees_of_freedom"]))
    study = STUDY.replace("[cldr_pairs]", "[mnli]").replace("[cldr_kind, cldr_retrieval]", "[xnli]")
    (folder / "same.yaml").write_text(study.format(seeds="[1, 2, 3]", more=""), encoding="utf-8")
    assert cli.main(["power", "same.yaml"]) == 0
    assert "shares training data" in capsys.readouterr().out


def test_what_cannot_be_said_is_said_in_a_sentence(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = run(folder, capsys, seeds="[1]")
    assert code == 0
    assert "fewer than 3 seeds: no test" in text
    code, text = run(folder, capsys, more="power: {noise: -1}")
    assert code == 1
    assert "power.noise" in text
    (folder / "once.yaml").write_text(STUDY.replace("[0.5, 1]", "[1]").format(seeds="[1, 2, 3]", more=""))
    assert cli.main(["power", "once.yaml"]) == 1
    assert capsys.readouterr().err == "error: once.yaml: budgets: a slope needs two budgets at least; add one\n"
