"""Two studies side by side: means of what both have, worked out by hand, and what is said of the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from xlift.analysis import write_plan
from xlift.cli import main
from xlift.compare import (
    comparability,
    compare,
    flat_settings,
    setting_differences,
    summary_rows,
    text_of,
)
from xlift.contrasts.rows import BETA, LOW_HIGH, Row, as_table
from xlift.errors import UserError
from xlift.grid import Grid, plan_specification
from xlift.study import parse_study
from xlift.tables import publish_table

SETTINGS: dict[str, Any] = {
    "study": "one",
    "intermediates": ["cldr_pairs"],
    "budgets": [1],
    "seeds": [1, 2],
    "targets": ["cldr_kind"],
    "languages": ["de", "sw"],
}
MORE = {"study": "two", "budgets": [1, 2], "seeds": [1, 2, 3]}
# By (intermediate, budget, language), a score for each seed.
FIRST = {
    ("none", 0.0, "en"): [80, 80], ("none", 0.0, "de"): [50, 54], ("none", 0.0, "sw"): [30, 34],
    ("cldr_pairs", 1.0, "en"): [82, 82], ("cldr_pairs", 1.0, "de"): [60, 62], ("cldr_pairs", 1.0, "sw"): [33, 37],
}  # fmt: skip
SECOND = {
    ("none", 0.0, "en"): [80] * 3, ("none", 0.0, "de"): [40] * 3, ("none", 0.0, "sw"): [20] * 3,
    ("cldr_pairs", 1.0, "en"): [90] * 3, ("cldr_pairs", 1.0, "de"): [55] * 3, ("cldr_pairs", 1.0, "sw"): [25] * 3,
    ("cldr_pairs", 2.0, "en"): [90] * 3, ("cldr_pairs", 2.0, "de"): [70] * 3, ("cldr_pairs", 2.0, "sw"): [45] * 3,
}  # fmt: skip
Scores = dict[tuple[str, float, str], list[int]]


def make(**changes: Any) -> Grid:
    return Grid(parse_study({**SETTINGS, **changes}, "x"), "x")


def score_table(study: str, scores: Scores, target: str = "cldr_kind", steps: int = 24) -> pl.DataFrame:
    """A table of scores, with a second metric that no comparison may look at."""
    rows = [
        {
            "study": study, "target": target, "intermediate": intermediate, "arm": "main", "budget": budget,
            "seed": seed, "language": language, "metric": metric, "is_primary": metric == "accuracy",
            "score": float(score if metric == "accuracy" else 1), "n": 40, "steps": int(steps * budget), "examples": 9,
            "tokens": 9, "padded_tokens": 9, "flops": 1.0, "batch_size": 16, "collapsed": False, "shared_data": False,
        }
        for (intermediate, budget, language), by_seed in scores.items()
        for seed, score in enumerate(by_seed, start=1)
        for metric in ("accuracy", "other")
    ]  # fmt: skip
    return pl.DataFrame(rows)


def publish(grid: Grid, root: Path, scores: pl.DataFrame, *rows: Row) -> None:
    """Results of a study as the workflow leaves them."""
    folder = root / grid.study.study
    folder.mkdir(parents=True)
    write_plan(plan_specification(grid), folder)
    publish_table(folder / "scores.parquet", scores, fingerprint=grid.scores_stamp.fingerprint)
    publish_table(folder / "contrasts.parquet", as_table(rows))


@pytest.fixture
def grids(tmp_path: Path) -> tuple[Grid, Grid]:
    first, second = make(), make(**MORE)
    root = tmp_path / "results"
    publish(first, root, score_table("one", FIRST), Row(BETA, "all", note="fewer than 3 seeds", estimate=0.5))
    rows = [Row(BETA, "all", estimate=-0.25, ci_low=-0.5, ci_high=0.125, n_languages=2, n_runs=9), Row(LOW_HIGH, "all")]
    publish(second, root, score_table("two", SECOND), *rows)
    return first, second


def compared(grids: tuple[Grid, Grid], root: Path) -> Any:
    return compare(*grids, ("one.yaml", "two.yaml"), root / "results")


def test_means_over_seeds_of_what_both_have(grids, tmp_path):
    found = compared(grids, tmp_path)
    rows = {
        (row["intermediate"], row["language"]): (
            row["score_first"], row["score_second"], row["score_difference"],
            row["gain_first"], row["gain_second"], row["gain_difference"],
        )
        for row in found.cells.iter_rows(named=True)
    }  # fmt: skip
    assert rows == {
        ("none", "de"): (52, 40, -12, None, None, None),
        ("none", "en"): (80, 80, 0, None, None, None),
        ("none", "sw"): (32, 20, -12, None, None, None),
        ("cldr_pairs", "de"): (61, 55, -6, 9, 15, 6),
        ("cldr_pairs", "en"): (82, 90, 8, 2, 10, 8),
        ("cldr_pairs", "sw"): (35, 25, -10, 3, 5, 2),
    }
    assert set(found.cells["metric"]) == {"accuracy"}
    assert found.cells.select("seeds_first", "seeds_second").unique().rows() == [(2, 3)]
    assert (found.only_first, found.only_second) == (0, 3)


def test_summary_leaves_english_out(grids, tmp_path):
    assert summary_rows(compared(grids, tmp_path).cells) == [
        ("cldr_kind", "cldr_pairs", "main", "1", "2", "-8.00", "-10.00", "-6.00", "+4.00"),
        ("cldr_kind", "none", "main", "0", "2", "-12.00", "-12.00", "-12.00", "-"),
    ]


def test_cells_of_the_same_settings_are_counted_by_fingerprint(grids, tmp_path):
    found = compared(grids, tmp_path)
    assert (found.same_runs, found.shared_runs) == (4, 4)  # two seeds of the baseline, two of the first budget
    faster = make(study="three", recipes={"cldr_pairs": {"learning_rate": 0.01}})
    publish(faster, tmp_path / "results", score_table("three", FIRST, steps=48))
    other = compare(grids[0], faster, ("one.yaml", "three.yaml"), tmp_path / "results")
    assert (other.same_runs, other.shared_runs) == (2, 4)  # the baselines are as they were
    said = text_of(other, (0.95, 0.95))
    assert "2 of 4 cells of the same seed are of the same settings; the others are not pairs of runs" in said
    assert "In 1 of 2 cells the same budget is another number of steps" in said


def test_contrasts_stand_side_by_side(grids, tmp_path):
    found = compared(grids, tmp_path)
    row = found.contrasts.row(0, named=True)
    assert (row["estimand"], row["estimate_first"], row["ci_low_first"]) == (BETA, 0.5, None)
    assert (row["estimate_second"], row["ci_low_second"], row["ci_high_second"]) == (-0.25, -0.5, 0.125)
    said = text_of(found, (0.95, 0.9)).splitlines()
    beta = next(line.split() for line in said if line.startswith(BETA))
    assert beta == [BETA, "+0.50", "(no", "interval)", "-0.25", "(90%", "-0.50", "to", "+0.12)"]
    assert "one: As planned: " in "\n".join(said)


def test_settings_that_differ_and_no_others(grids):
    told = {d.setting: (d.first, d.second) for d in setting_differences(*map(flat_settings, grids))}
    assert told == {"budgets": (["1"], ["1", "2"]), "seeds": ([1, 2], [1, 2, 3])}


def test_defaults_that_are_spelt_out_are_no_difference():
    spelt = make(contrasts={"low_below": 2.0, "high_from": 20.0}, recipes={"cldr_kind": {"steps": 40}})
    assert setting_differences(flat_settings(make()), flat_settings(spelt)) == []


def test_recipes_of_tasks_that_one_study_has_alone_are_not_listed():
    other = make(targets=["cldr_kind", "cldr_entities"])
    assert [d.setting for d in setting_differences(flat_settings(make()), flat_settings(other))] == ["targets"]


SAME, OVER = "Comparable: the same estimands and strata, over the same tasks, budgets and languages", "(budgets: +"
VERDICTS = [
    ({}, f"{SAME}."),
    ({"seeds": [1, 2, 3]}, f"{SAME}; seeds differ (seeds: +3)."),
    ({"budgets": [1, 2]}, f"The same estimands and strata, but over different tasks, budgets or languages {OVER}"),
    ({"contrasts": {"low_below": 4.0}}, "Not comparable: the contrasts are of different quantities (low_below: 2 -> 4"),
    ({"schedule": "trunk"}, "Not comparable: the contrasts are of different quantities (shared_trunk: "),
]


@pytest.mark.parametrize(("changes", "start"), VERDICTS)
def test_whether_contrasts_are_comparable(changes, start):
    found = comparability(plan_specification(make()), plan_specification(make(**changes)))
    assert found.startswith(start)


def test_what_cannot_be_compared_is_said_in_one_sentence(grids, tmp_path):
    root, files = tmp_path / "results", ("a.yaml", "b.yaml")
    cases = [
        (make(), "a.yaml and b.yaml: are both named one"),
        (make(study="missing"), f"{root}/missing/scores.parquet: is not there yet; run the workflow on b.yaml first"),
        (make(study="two"), f"{root}/two/scores.parquet: was made with other settings than those of b.yaml"),
    ]
    for second, sentence in cases:
        with pytest.raises(UserError) as caught:
            compare(grids[0], second, files, root)
        assert str(caught.value).startswith(sentence)
    apart = make(study="apart", targets=["cldr_retrieval"])
    publish(apart, root, score_table("apart", FIRST, target="cldr_retrieval"))
    with pytest.raises(UserError, match=r"^a\.yaml and b\.yaml: have no target, intermediate task, arm, budget"):
        compare(grids[0], apart, files, root)


def test_the_command(grids, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, changes in (("one.yaml", {}), ("two.yaml", MORE)):
        (tmp_path / name).write_text(yaml.safe_dump({**SETTINGS, **changes}), encoding="utf-8")
    assert main(["compare", "one.yaml", "two.yaml"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("Second minus first: two minus one, in points.\n")
    assert "6 means of a target, intermediate task, arm, budget and language in both; one alone has 0 more, two" in said
    assert main(["compare", "one.yaml", "two.yaml", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["keys_only_in"] == {"first": 0, "second": 3}
    assert sorted(row["score_difference"] for row in found["cells"]) == [-12, -12, -10, -6, 0, 8]
    assert main(["compare", "one.yaml", "one.yaml"]) == 1
    assert capsys.readouterr().err.startswith("error: one.yaml and one.yaml: are both named one")
