"""The grid of a study: its counts, its names, and what each fingerprint depends on."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import pytest

from xlift import example_sets
from xlift import grid as grid_module
from xlift.artifacts import canonical_json, fingerprint
from xlift.catalog import CATALOG
from xlift.catalog.task import ANSWERS_KEPT
from xlift.errors import UserError
from xlift.example_sets import STAGE_VERSIONS, source_version
from xlift.grid import (
    Grid,
    analysis_specification,
    as_param,
    planned_gains_specification,
    report_specification,
)
from xlift.jobs.report import planned_gains
from xlift.runs import Cell, baseline
from xlift.sources import cldr
from xlift.study import parse_study

DEFAULT: dict[str, Any] = {
    "study": "mini",
    "intermediates": ["cldr_pairs", "cldr_qa"],
    "budgets": [0.25, 1, 4],
    "seeds": [1, 2, 3],
    "targets": ["cldr_retrieval", "cldr_kind", "cldr_entities"],
    "languages": ["de", "sw", "te"],
}


FORTY_EIGHT = {task: {"steps": 48} for task in DEFAULT["intermediates"]}


def make(**changes: Any) -> Grid:
    return Grid(parse_study({**DEFAULT, **changes}, "study.yaml"), "study.yaml")


def everything(grid: Grid) -> dict[str, str]:
    """Fingerprint of every job of a study, by a name that says which."""
    found = {"encoder": grid.encoder_specification(), "analysis": analysis_specification(grid)}
    for task in grid.tasks:
        found[f"data {task}"] = grid.data_specification(task)
        for length in grid.lengths[task]:
            found[f"encode {task} {length}"] = grid.encode_specification(task, length)
    for run in grid.segments:
        found[f"trunk {run.name} {run.budget.label} {run.seed}"] = grid.trunk_specification(run)
    for run in grid.intermediates:
        found[f"intermediate {run.name} {run.budget.label} {run.seed}"] = grid.intermediate_specification(run)
    trained = set(grid.target_runs())
    for cell in grid.cells:
        run = cell.intermediate
        name = f"{cell.target} {run.name} {run.budget.label} {run.seed}"
        if cell in trained:
            found[f"target {name}"] = grid.target_specification(cell)
        found[f"predict {name}"] = grid.prediction_specification(cell)
        found[f"score {name}"] = grid.score_specification(cell)
    found["report"] = report_specification(grid)
    assert all(json.loads(as_param(value)) == value for value in found.values())
    return {name: fingerprint(value) for name, value in found.items()}


def changed(**changes: Any) -> tuple[set[str], set[str], set[str]]:
    """Names of the jobs that a change to the study repeats, adds and drops."""
    before, after = everything(make()), everything(make(**changes))
    both = before.keys() & after.keys()
    return (
        {name for name in both if before[name] != after[name]},
        after.keys() - before.keys(),
        before.keys() - after.keys(),
    )


def kinds(names: set[str]) -> set[str]:
    return {name.split()[0] for name in names}


# --- Counts and names ---


def test_counts_of_the_default_study_by_hand():
    grid = make()
    assert len(grid.intermediates) == 2 * 3 * 3 == 18
    assert len(list(grid.target_runs())) == 2 * (18 + 3) == 42
    assert len(grid.cells) == 3 * (18 + 3) == 63
    assert len(set(grid.cells)) == 63
    assert [run.key for run in grid.baselines] == [("none", "x0", seed) for seed in (1, 2, 3)]
    assert grid.tasks == ["cldr_entities", "cldr_kind", "cldr_pairs", "cldr_qa", "cldr_retrieval"]
    orders = [(cell.target, not cell.intermediate.is_none, cell.intermediate.order) for cell in grid.cells]
    assert orders == sorted(orders)


def test_steps_are_the_multiple_of_the_reference():
    grid = make(recipes={"cldr_pairs": {"steps": 40}, "cldr_qa": {"steps": 100}})
    steps = {
        (run.task, run.budget.times): grid.intermediate_specification(run)["recipe"]["steps"]
        for run in grid.intermediates
    }
    assert steps == {
        ("cldr_pairs", 0.25): 10,
        ("cldr_pairs", 1.0): 40,
        ("cldr_pairs", 4.0): 160,
        ("cldr_qa", 0.25): 25,
        ("cldr_qa", 1.0): 100,
        ("cldr_qa", 4.0): 400,
    }


def test_english_is_not_searched_in_english():
    grid = make()
    assert grid.scored_languages("cldr_kind") == ["de", "en", "sw", "te"]
    assert grid.scored_languages("cldr_retrieval") == ["de", "sw", "te"]


def test_names_in_paths_by_hand():
    assert Cell("cldr_kind", baseline(7)).wildcards == {
        "target": "cldr_kind",
        "inter": "none",
        "budget": "x0",
        "seed": "7",
    }
    grid = make()
    assert grid.labels == ["x0", "x0.25", "x1", "x4"]
    assert grid.names == ["cldr_pairs", "cldr_qa", "none"]
    assert {cell.key: cell for cell in grid.cells} == {
        (target, inter, label, int(seed)): grid.cell(target, inter, label, seed)
        for target, (inter, label), seed in product(
            DEFAULT["targets"],
            [("none", "x0"), *product(DEFAULT["intermediates"], ["x0.25", "x1", "x4"])],
            "123",
        )
    }
    with pytest.raises(UserError, match=r"cldr_qa/x3/seed1: this study has no such run; `xlift plan` lists"):
        grid.run("cldr_qa", "x3", "1")
    with pytest.raises(UserError, match="cldr_kind/cldr_qa/x1/seed9: this study has no such cell"):
        grid.cell("cldr_kind", "cldr_qa", "x1", "9")


# --- Budgets that make no sense ---


def test_a_budget_of_no_steps_is_refused():
    with pytest.raises(UserError) as caught:
        make(budgets=[1, 0.01], recipes=FORTY_EIGHT)
    assert str(caught.value) == (
        "study.yaml: budgets: 0.01 of cldr_pairs's 48 reference steps rounds to zero steps; "
        "one step is a budget of 0.0208"
    )
    make(budgets=[1, 0.0208], recipes=FORTY_EIGHT)  # and so it is


def test_budgets_that_coincide_are_refused():
    with pytest.raises(UserError, match=r"^study.yaml: budgets: 1 and 1.001 both come to 48 steps of cldr_pairs; drop"):
        make(budgets=[0.25, 1, 1.001], recipes=FORTY_EIGHT)


# --- What each fingerprint depends on ---


def test_the_same_study_has_the_same_fingerprints():
    assert changed() == (set(), set(), set())
    # The order of a list in the file is no part of any run.
    repeated, added, dropped = changed(
        intermediates=["cldr_qa", "cldr_pairs"], languages=["te", "de", "sw"], budgets=[4, 1, 0.25], seeds=[3, 1, 2]
    )
    assert (repeated, added, dropped) == ({"report"}, set(), set())


def test_every_job_has_a_fingerprint_of_its_own():
    found = everything(make())
    # But the untrained encoder's predictions, which no seed changes.
    same = {found.pop(f"predict cldr_retrieval none x0 {seed}") for seed in (1, 2, 3)}
    assert len(same) == 1
    assert len(set(found.values()) | same) == len(found) + 1


def test_a_new_seed_runs_that_seed_only():
    repeated, added, dropped = changed(seeds=[1, 2, 3, 4])
    assert (repeated, dropped) == ({"analysis", "report"}, set())
    assert all(name.endswith(" 4") for name in added)
    assert len(added) == 2 * 3 + 3 * 7 * 2 + 2 * 7


def test_a_new_budget_runs_that_budget_only():
    repeated, added, dropped = changed(budgets=[0.25, 1, 4, 2])
    assert (repeated, dropped) == ({"analysis", "report"}, set())
    assert all(" x2 " in name for name in added)
    assert kinds(added) == {"intermediate", "target", "predict", "score"}


def test_a_new_target_runs_that_target_only():
    fewer = make(targets=["cldr_retrieval", "cldr_kind"])
    before, after = everything(fewer), everything(make())
    assert {name for name in before if before[name] != after[name]} == {"analysis", "report"}
    assert all("cldr_entities" in name for name in after.keys() - before.keys())


def test_a_new_language_trains_nothing():
    repeated, added, dropped = changed(languages=["de", "sw", "te", "fi"])
    assert (added, dropped) == (set(), set())
    assert kinds(repeated) == {"data", "encode", "predict", "score", "analysis", "report"}
    # The intermediate tasks are English whatever the languages.
    assert {tuple(name.split()[:2]) for name in repeated if name.split()[0] in ("data", "encode")} == {
        (kind, target) for kind in ("data", "encode") for target in DEFAULT["targets"]
    }


def test_the_planned_gains_are_the_cells_in_the_languages_of_their_targets():
    grid = make(targets=["cldr_retrieval", "cldr_kind", "xnli"], intermediates=["cldr_pairs", "mnli"], languages="all")
    planned = planned_gains(planned_gains_specification(grid))
    expected = {
        (cell.target, run.task, run.arm, run.budget.times, run.seed, code, (run.task, cell.target) == ("mnli", "xnli"))
        for cell in grid.cells
        for run in [cell.intermediate]
        if run.task != "none"
        for code in grid.scored_languages(cell.target)
    }
    key = ["target", "intermediate", "arm", "budget", "seed", "language", "shared_data"]
    assert planned.height == len(expected)
    assert set(planned.select(key).iter_rows()) == expected
    # In few bytes, whatever the seeds: it is one job's parameter.
    more = planned_gains_specification(make(seeds=list(range(10))))
    assert len(as_param(more)) < len(as_param(planned_gains_specification(make()))) + 50


def test_a_targets_learning_rate_leaves_intermediates_and_other_targets_alone():
    repeated, added, dropped = changed(recipes={"cldr_kind": {"learning_rate": 0.0005}})
    assert (added, dropped) == (set(), set())
    assert repeated == {
        name for name in everything(make()) if name.split()[0] in ("target", "predict", "score") and "cldr_kind" in name
    }


def test_an_intermediates_recipe_repeats_what_starts_from_it():
    repeated, _, _ = changed(recipes={"cldr_qa": {"learning_rate": 0.0005}})
    assert repeated == {
        name
        for name in everything(make())
        if name.split()[0] in ("intermediate", "target", "predict", "score") and "cldr_qa" in name
    }


def test_a_learning_rate_is_that_of_the_method():
    lora = make(recipes={"cldr_kind": {"learning_rate": 0.5}})
    full = make(recipes={"cldr_kind": {"learning_rate": 0.5}}, trainable={"method": "full"})
    for grid in (lora, full):
        rates = {c.target: grid.target_specification(c)["recipe"]["learning_rate"] for c in grid.target_runs()}
        assert rates["cldr_kind"] == 0.5
    first = next(make().target_runs())
    recipe = CATALOG[first.target].recipe
    assert recipe is not None
    rates = recipe.learning_rate
    assert rates["lora"] != rates["full"]
    assert make().target_specification(first)["recipe"]["learning_rate"] == rates["lora"]
    full_plain = make(trainable={"method": "full"})
    assert full_plain.target_specification(next(full_plain.target_runs()))["recipe"]["learning_rate"] == rates["full"]


def test_a_length_is_encoded_and_trained_again():
    repeated, added, dropped = changed(recipes={"cldr_kind": {"max_length": 32}})
    assert (added, dropped) == ({"encode cldr_kind 32"}, {"encode cldr_kind 64"})
    assert kinds(repeated) == {"target", "predict", "score"}
    assert all("cldr_kind" in name for name in repeated)


def test_contrasts_change_the_analysis_only():
    repeated, added, dropped = changed(contrasts={"low_below": 3.0})
    assert (repeated, added, dropped) == ({"analysis", "report"}, set(), set())


def test_another_encoder_changes_all_but_data_and_analysis():
    repeated, _, _ = changed(encoder={"source": "hub", "id": "FacebookAI/xlm-roberta-base", "revision": "abc"})
    assert kinds(repeated) == {"encoder", "encode", "intermediate", "target", "predict", "score", "report"}


def test_the_studys_name_is_in_scores_but_in_no_run():
    repeated, _, _ = changed(study="other")
    assert kinds(repeated) == {"score", "report"}


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        ("encoder", {"encoder", "encode", "intermediate", "target", "predict", "score"}),
        ("data", {"data", "encode", "intermediate", "target", "predict", "score"}),
        ("encode", {"encode", "intermediate", "target", "predict", "score"}),
        ("train", {"intermediate", "target", "predict", "score"}),
        ("predict", {"predict", "score"}),
        ("score", {"score"}),
    ],
)
def test_a_stages_version_repeats_it_and_what_follows(stage, expected, monkeypatch):
    before = everything(make())
    monkeypatch.setitem(STAGE_VERSIONS, stage, STAGE_VERSIONS[stage] + 1)
    after = everything(make())
    assert kinds({name for name in before if before[name] != after[name]}) == expected


def test_how_many_answers_are_kept_repeats_the_predictions_of_questions_alone(monkeypatch):
    settings = {"targets": ["tydiqa", "cldr_kind"], "languages": ["sw"]}
    before = everything(make(**settings))
    monkeypatch.setattr(grid_module, "ANSWERS_KEPT", ANSWERS_KEPT + 1)
    after = everything(make(**settings))
    repeated = {name for name in before if before[name] != after[name]}
    # 2 tasks x 3 budgets x 3 seeds and 3 baselines, each predicted and scored.
    assert len(repeated) == 2 * 21
    assert {tuple(name.split()[:2]) for name in repeated} == {("predict", "tydiqa"), ("score", "tydiqa")}


def test_a_new_reader_or_babel_repeats_the_data(monkeypatch):
    before = everything(make())
    monkeypatch.setattr(example_sets, "source_version", lambda source: {"source": source, "reader": 99})
    after = everything(make())
    assert kinds({name for name in before if before[name] != after[name]}) == {
        "data",
        "encode",
        "intermediate",
        "target",
        "predict",
        "score",
    }


def test_the_source_version_is_the_readers_own():
    assert source_version("cldr") == cldr.source_version()


def test_parents_are_named_by_fingerprint():
    grid = make()
    for cell in grid.target_runs():
        run = cell.intermediate
        expected = None if run.is_none else fingerprint(grid.intermediate_specification(run))
        assert grid.target_specification(cell)["parent"] == expected
    for cell in grid.cells:
        if cell.target == "cldr_retrieval":
            run = cell.intermediate
            expected = None if run.is_none else fingerprint(grid.intermediate_specification(run))
            assert grid.prediction_specification(cell)["weights"] == expected
        else:
            assert grid.prediction_specification(cell)["weights"] == fingerprint(grid.target_specification(cell))


def test_specifications_are_json_as_they_stand():
    grid = make()
    for cell in grid.cells[:5]:
        specification = grid.score_specification(cell)
        assert json.loads(canonical_json(specification)) == specification
