"""The plan of the analysis: what is in it, when it is written, and how changes after it are told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import toy_gains as toy
from xlift.analysis import (
    ANALYSIS_VERSION,
    CONFIRMATORY,
    PLAN,
    analysis_settings,
    doubts,
    has_scores,
    plan_changes,
    plan_sentence,
    plan_to_write,
    read_plan,
    study_levels,
    write_plan,
)
from xlift.errors import UserError
from xlift.grid import Grid, plan_specification
from xlift.languages import load_languages
from xlift.study import check_paths, parse_study

LANGUAGES = load_languages(Path(__file__).parents[2] / "config" / "languages.csv")
GOOD: dict[str, Any] = {
    "study": "small",
    "intermediates": ["cldr_qa"],
    "budgets": [0.5, 1],
    "seeds": [1, 2, 3],
    "targets": ["cldr_kind"],
    "languages": ["de", "sw"],
}


def plan(**changes: Any) -> dict[str, Any]:
    return plan_specification(Grid(parse_study({**GOOD, **changes}, "x"), "x"))


def score(results: Path) -> None:
    """A scored cell."""
    path = results / "scores" / "cldr_kind" / "none" / "x0" / "seed1.parquet"
    path.parent.mkdir(parents=True)
    path.touch()


def test_the_plan_holds_what_decides_the_analysis() -> None:
    content = plan()
    assert content["confirmatory"][0] == "beta_per_doubling"
    assert (content["resource"], content["low_below"], content["high_from"]) == ("cc100", 2.0, 20.0)
    assert (content["smallest_effect"], content["confidence"], content["pretraining"]) == (0.2, 0.95, "xlmr")
    assert content["languages"] == {"cldr_kind": ["de", "en", "sw"]}
    others = "arms other than the main one, controls among them"
    assert content["left out"] == ["English", "shared training data", others]
    json.dumps(content)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"contrasts": {"low_below": 3}}, ["low_below: 2 -> 3"]),
        ({"contrasts": {"smallest_effect": 0.5}}, ["smallest_effect: 0.2 -> 0.5"]),
        ({"contrasts": {"resource": "joshi"}}, ["high_from: 20 -> 4", "low_below: 2 -> 3", "resource: cc100 -> joshi"]),
        ({"seeds": [1, 2, 3, 4]}, ["seeds: +4"]),
        ({"budgets": [1, 2]}, ["budgets: -0.5, +2"]),
        ({"languages": ["de", "fr"]}, ["languages, cldr_kind: -sw, +fr"]),
        ({"targets": ["cldr_kind", "cldr_entities"]}, ["targets: +cldr_entities"]),
        ({"seeds": [3, 2, 1]}, ["seeds: another order"]),
        ({"encoder": {"source": "hub", "id": "a/bert-base-multilingual-cased"}}, ["pretraining: xlmr -> mbert"]),
        ({"training": {"warmup": 0.2}}, []),
        ({"training": {"select": "best_dev"}}, ["select: last -> best_dev"]),
        ({"data": {"score_on": "validation"}}, ["score_on: test -> validation"]),
    ],
)
def test_each_change_is_told_once(change: dict[str, Any], told: list[str]) -> None:
    assert plan_changes(plan(), plan(**change)) == told


def test_before_the_first_score_the_plan_follows_the_settings_and_then_stays(tmp_path: Path) -> None:
    first, second = plan(), plan(contrasts={"low_below": 3})
    assert plan_to_write(first, tmp_path) == first
    write_plan(first, tmp_path)
    assert plan_to_write(second, tmp_path) == second
    score(tmp_path)
    assert has_scores(tmp_path)
    assert plan_to_write(second, tmp_path) == first
    assert read_plan(tmp_path / PLAN)["before_first_score"] is True


@pytest.mark.parametrize("left", ["scores.parquet", "gains.parquet", "contrasts.parquet", "report/index.html"])
def test_a_deleted_plan_is_not_made_anew_in_silence(tmp_path: Path, left: str) -> None:
    """Whatever is left of the scores says that there were some: also where the scores themselves went with the plan."""
    assert not has_scores(tmp_path)
    (tmp_path / left).parent.mkdir(exist_ok=True)
    (tmp_path / left).touch()
    write_plan(plan_to_write(plan(), tmp_path), tmp_path)
    assert read_plan(tmp_path / PLAN)["before_first_score"] is False
    assert "was written when there were scores already" in plan_sentence(tmp_path / PLAN, plan())


VERSIONS = {
    1: {
        "beta_per_doubling": (0.11792658, 0.22957755, 0.61555071),
        "low_minus_high_per_doubling": (0.03251684, 0.57001511, 0.95575759),
        "unseen_minus_rest_per_doubling": (0.073900487, 0.64602101, 0.91502084),
    },
}
"""What each version of the analysis gives on `toy_gains.two_targets()`: estimate, standard error, p. No oracle: those
are in the tests of the contrasts. When the last version's numbers change, raise `ANALYSIS_VERSION` and add a line."""


def test_the_version_of_the_analysis_is_that_of_its_numbers() -> None:
    assert max(VERSIONS) == ANALYSIS_VERSION
    found = toy.estimated(toy.two_targets())
    for name in CONFIRMATORY:
        values = toy.row(found, name, "all")
        now = tuple(values[key] for key in ("estimate", "se", "p"))
        assert now == pytest.approx(VERSIONS[ANALYSIS_VERSION][name], rel=1e-6), "raise ANALYSIS_VERSION"


def test_sentences_of_a_plan(tmp_path: Path) -> None:
    path = tmp_path / PLAN
    assert plan_sentence(path, plan()) == "No plan was fixed before the first score: there is no analysis_plan.json."
    write_plan(plan(), tmp_path)
    mark = read_plan(path)["fingerprint"][:12]
    assert plan_sentence(path, plan()).startswith("As planned: ")
    changed = plan_sentence(path, plan(seeds=[1, 2, 3, 4], contrasts={"confidence": 0.9}))
    assert changed == (
        f"Not as planned: the plan {mark} was fixed before the first score, and since then changed "
        "confidence: 0.95 -> 0.9; seeds: +4."
    )
    score(tmp_path)
    write_plan(plan(), tmp_path)
    assert plan_sentence(path, plan()).startswith("No plan was fixed before the first score: the plan ")


def test_the_date_is_in_the_file_alone(tmp_path: Path) -> None:
    write_plan(plan(), tmp_path)
    content = read_plan(tmp_path / PLAN)
    sentence = plan_sentence(tmp_path / PLAN, plan())
    content["written"] = "1999-12-31"
    (tmp_path / PLAN).write_text(json.dumps(content), encoding="utf-8")
    assert plan_sentence(tmp_path / PLAN, plan()) == sentence


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"plan": {}, "fingerprint": "x", "before_first_score": true}'])
def test_a_damaged_or_altered_plan_is_refused(tmp_path: Path, damage: str) -> None:
    (tmp_path / PLAN).write_text(damage, encoding="utf-8")
    with pytest.raises(UserError, match="is damaged or was altered; bring it back from a copy"):
        plan_sentence(tmp_path / PLAN, plan())


def test_a_table_of_ones_own_is_read_into_the_settings_and_checked_with_the_study(tmp_path: Path) -> None:
    path = tmp_path / "sizes.csv"
    path.write_text("iso2,size\nde,5\nsw,1\n", encoding="utf-8")
    block = {"resource": str(path), "low_below": 2, "high_from": 4}
    study = parse_study({**GOOD, "contrasts": block}, "my.yaml")
    check_paths(study, "my.yaml")
    assert analysis_settings(study)["own_sizes"] == {"de": 5.0, "sw": 1.0}
    # Of the languages that nothing is scored in, a table of one's own needs no line.
    assert study_levels(study, LANGUAGES).strata == {"de": "high", "sw": "low"}
    assert doubts(study, LANGUAGES) == []
    path.write_text("iso2,size\nde,5\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"my.yaml: contrasts.resource: .*sizes.csv lacks sw; add a line for each"):
        check_paths(study, "my.yaml")


def test_doubts_are_one_sentence_each() -> None:
    assert doubts(parse_study(GOOD, "x"), LANGUAGES) == []
    said = doubts(parse_study({**GOOD, "seeds": [1], "budgets": [1], "languages": ["de"]}, "x"), LANGUAGES)
    assert said == [
        "with 1 seed there are estimates but no intervals or p-values; list 3 seeds or more",
        "with one budget nothing can be said of more training; list another",
        "no scored language is low-resource, so low - high is not identified; add one to languages",
    ]
    with pytest.raises(UserError, match=r"no language is low-resource, below 0\.1 GiB of CC-100"):
        doubts(parse_study({**GOOD, "contrasts": {"low_below": 0.1}}, "x"), LANGUAGES)
