"""Mixtures and stages in a study: budgets, specifications, what depends on what, plans, errors of one sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_grid import everything, kinds

from xlift.catalog import CATALOG, task_of
from xlift.catalog.declared import declared, task_from
from xlift.catalog.task import Recipe
from xlift.errors import UserError
from xlift.example_sets import source_version
from xlift.grid import Grid
from xlift.planning.costs import CostModel
from xlift.planning.dag import study_jobs
from xlift.planning.evidence import Evidence, TokenRecord
from xlift.planning.plan import PACKAGED, make_plan
from xlift.study import parse_study

BASE: dict[str, Any] = {
    "study": "mini",
    "intermediates": ["cldr_pairs", "cldr_qa", "mixture"],
    "budgets": [0.5, 1],
    "seeds": [1, 2],
    "targets": ["cldr_retrieval", "cldr_kind"],
    "languages": ["de", "sw"],
}


def make(**changes: Any) -> Grid:
    return Grid(parse_study({**BASE, **changes}, "study.yaml"), "study.yaml")


def mixtures(grid: Grid) -> dict[str, Any]:
    """Specifications of the mixture's runs of the first seed, by budget."""
    runs = [run for run in grid.intermediates if (run.name, run.seed) == ("mixture", 1)]
    return {run.budget.label: grid.intermediate_specification(run) for run in runs}


# --- Runs of one task are as they were ---


def test_a_run_of_one_task_says_what_it_did_before_there_were_others():
    """Word for word, so that no finished run is repeated: the fingerprint is of this."""
    grid = make(intermediates=["cldr_pairs"], budgets=[1], seeds=[7])
    (run,) = grid.intermediates
    found = grid.intermediate_specification(run)
    encoder = found.pop("encoder")
    assert isinstance(encoder, str)
    assert found.pop("draw") in range(2**32)
    assert found == {
        "kind": "intermediate",
        "version": {"data": 1, "encode": 2, "train": 2},
        "source": source_version("cldr"),
        "task": "cldr_pairs",
        "labels": ["listed", "other_kind", "same_kind"],
        "parent": None,
        "trainable": {"method": "lora", "rank": 8, "alpha": 16.0, "dropout": 0.0, "layers": None},
        "training": {"weight_decay": 0.01, "clip": 1.0, "dropout": 0.1, "precision": "auto", "threads": 1},
        "recipe": {"batch_size": 16, "learning_rate": 0.001, "max_length": 64, "stride": 0, "steps": 24},
        "schedule": {"kind": "linear", "warmup_steps": 3},
        "unique_fraction": 1.0,
        "control": None,
        "select": "last",
        "seed": 7,
    }
    cell = next(cell for cell in grid.target_runs() if not cell.intermediate.is_none)
    target = grid.target_specification(cell)
    assert target.keys() == found.keys() | {"encoder", "draw"}
    assert (target["task"], target["recipe"]["steps"]) == ("cldr_kind", 40)


def test_a_mixture_beside_them_changes_no_other_job():
    before, after = everything(make(intermediates=["cldr_pairs", "cldr_qa"])), everything(make())
    assert {name for name in before if before[name] != after[name]} == {"analysis", "report"}
    added = after.keys() - before.keys()
    assert kinds(added) == {"intermediate", "target", "predict", "score"}
    assert all("mixture" in name for name in added)


# --- Mixtures ---


def test_a_mixtures_reference_by_hand():
    """Three epochs of 6,000 + 6,000 examples in batches of 32, its own learning rate the lower one of 1e-3 and 3e-3."""
    grid = make()
    found = mixtures(grid)
    assert [spec["recipe"]["steps"] for spec in found.values()] == [562, 1125]
    assert all(
        spec["recipe"] | {"steps": 0}
        == {"batch_size": 32, "learning_rate": 1e-3, "max_length": 128, "stride": 0, "steps": 0}
        for spec in found.values()
    )
    assert grid.reference("mixture").train_examples == 12_000
    capped = make(mixture={"cap": 1000, "epochs": 2}, recipes={"mixture": {"batch_size": 50}})
    assert mixtures(capped)["x1"]["recipe"]["steps"] == 2 * 2000 / 50
    assert mixtures(capped)["x1"]["cap"] == 1000
    own = make(recipes={"mixture": {"steps": 9, "learning_rate": 0.2}, "cldr_pairs": {"train_examples": 40}})
    assert [spec["recipe"]["steps"] for spec in mixtures(own).values()] == [4, 9]
    assert mixtures(own)["x1"]["recipe"]["learning_rate"] == 0.2
    by_epoch = make(budgets=[1, {"epochs": 1}], mixture={"cap": 2000})
    assert {label: spec["recipe"]["steps"] for label, spec in mixtures(by_epoch).items()} == {"x1": 375, "e1": 125}


def test_each_part_is_named_with_what_it_depends_on():
    found = mixtures(make())["x1"]
    assert (found["task"], found["source"], found["labels"]) == ("mixture", None, [])
    assert found["parts"] == [
        {
            "task": "cldr_pairs",
            "source": source_version("cldr"),
            "labels": ["listed", "other_kind", "same_kind"],
            "max_length": 64,
            "stride": 0,
        },
        {"task": "cldr_qa", "source": source_version("cldr"), "labels": [], "max_length": 128, "stride": 32},
    ]
    assert [task_of(part).name for part in found["parts"]] == ["cldr_pairs", "cldr_qa"]


def test_a_parts_length_is_its_own_and_no_longer_than_the_budgets():
    grid = make(cross={"max_length": [32, 100]})
    lengths = {
        spec["recipe"]["max_length"]: [p["max_length"] for p in spec["parts"]] for spec in mixtures(grid).values()
    }
    assert lengths == {128: [64, 128], 32: [32, 32], 100: [64, 100]}
    assert grid.lengths["cldr_pairs"] == [32, 64, 100]
    assert "mixture" not in grid.tasks


def test_a_mixture_of_tasks_that_are_no_intermediates_of_their_own():
    grid = make(intermediates=["mixture"], mixture={"tasks": ["cldr_qa", "cldr_choice"]})
    assert grid.tasks == ["cldr_choice", "cldr_kind", "cldr_qa", "cldr_retrieval"]
    assert [part["task"] for part in mixtures(grid)["x1"]["parts"]] == ["cldr_choice", "cldr_qa"]
    other = make(intermediates=["mixture"], mixture={"tasks": ["cldr_choice", "cldr_qa"]})
    assert mixtures(other) == mixtures(grid)
    repeated = everything(make(intermediates=["mixture"], mixture={"tasks": ["cldr_qa", "cldr_choice"], "cap": 50}))
    assert kinds({name for name, value in everything(grid).items() if repeated[name] != value}) == {
        "intermediate",
        "target",
        "predict",
        "score",
    }


def test_a_mixture_shares_its_parts_data(monkeypatch):
    monkeypatch.setitem(CATALOG, "cldr_kind", replace(CATALOG["cldr_kind"], training_data=("cldr_qa",)))
    grid = make()
    shared = {
        (cell.target, cell.intermediate.task): grid.score_specification(cell)["shared_data"] for cell in grid.cells
    }
    assert shared["cldr_kind", "mixture"]
    assert not shared["cldr_kind", "cldr_pairs"]


def test_controls_and_trunks_of_a_mixture():
    grid = make(controls=["shuffled_labels", "extra_target"], schedule="trunk", budgets=[1, 2])
    names = {run.name for run in grid.intermediates}
    assert {"mixture", "mixture.shuffled_labels"} <= names
    for run in grid.segments:
        assert ("parts" in grid.trunk_specification(run)) == (run.task == "mixture")
    shuffled = next(run for run in grid.intermediates if run.name == "mixture.shuffled_labels")
    assert grid.intermediate_specification(shuffled)["control"] == "shuffled_labels"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"intermediates": ["mixture"]}, "mixture.tasks: a mixture is of two tasks or more, and this is no task; list"),
        ({"intermediates": ["cldr_qa", "mixture"]}, "and this is cldr_qa; list them, or add them to intermediates"),
        ({"mixture": {"tasks": ["cldr_kind", "cldr_qa"]}}, "mixture.tasks: 'cldr_kind' is not an intermediate task"),
        ({"mixture": {"tasks": ["mixture", "cldr_qa"]}}, "mixture.tasks: 'mixture' is not an intermediate task"),
        ({"mixture": {"cap": 0}}, "mixture.cap: 0 is not right"),
        ({"mixture": {"cop": 3}}, "mixture.cop: is not a setting; did you mean 'cap'?"),
        (
            {"intermediates": ["cldr_qa"], "mixture": {"cap": 5}},
            "mixture: `intermediates` does not name it; add mixture",
        ),
        ({"recipes": {"mixture": {"train_examples": 5}}}, "recipes.mixture.train_examples: is the sum over its tasks"),
        (
            {"cross": {"unique_fraction": [0.01]}, "recipes": {"cldr_qa": {"train_examples": 2000}}},
            "at u0.01 of mixture: a batch of 32 is larger than the 20 training examples that cldr_qa draws from",
        ),
        ({"recipes": {"cldr_choice": {"steps": 5}}}, "recipes.cldr_choice: 'cldr_choice' is not in this study"),
        (
            {"recipes": {"cldr_qa": {"train_examples": 20}}},
            "of 32 is larger than the 20 training examples that cldr_qa",
        ),
    ],
)
def test_a_mixture_that_makes_no_sense_is_one_sentence(changes, expected):
    with pytest.raises(UserError) as error:
        make(**changes)
    assert expected in str(error.value)
    assert str(error.value).startswith("study.yaml: ")


def test_a_mixture_needs_its_parts_sizes_or_its_own_steps(monkeypatch):
    monkeypatch.setitem(CATALOG, "cldr_qa", replace(CATALOG["cldr_qa"], train_examples=None))
    with pytest.raises(
        UserError, match=r"^study.yaml: mixture: the number of cldr_qa's training examples is not known; set "
    ):
        make()
    assert make(recipes={"mixture": {"steps": 10}}).budgets["mixture"][1].steps == 10
    assert make(recipes={"cldr_qa": {"train_examples": 64}}).budgets["mixture"][1].steps == round(3 * 6064 / 32)


# --- Stages ---


@pytest.fixture
def staged(monkeypatch):
    """A target that is trained on two tasks of its labels, one after the other."""
    kind = CATALOG["cldr_kind"]
    first = Recipe(steps=10, batch_size=8, learning_rate={"lora": 0.5, "full": 0.1}, max_length=48)
    for name, recipe in (("kind_a", first), ("kind_b", kind.recipe)):
        monkeypatch.setitem(CATALOG, name, replace(kind, name=name, roles=("stage",), languages=("en",), recipe=recipe))
    parts = {"stages": ("kind_a", "kind_b"), "training_data": ("kind_a", "kind_b")}
    monkeypatch.setitem(CATALOG, "staged", replace(kind, name="staged", train_examples=None, **parts))
    return {"targets": ["staged"], "intermediates": ["cldr_pairs"]}


def test_stages_by_hand(staged):
    grid = make(**staged, controls=["extra_target"])
    assert grid.tasks == ["cldr_pairs", "kind_a", "kind_b", "staged"]
    assert (grid.lengths["kind_a"], grid.lengths["staged"]) == ([48], [64])
    for cell in grid.target_runs():
        extra = cell.intermediate.budget.steps if cell.intermediate.control == "extra_target" else 0
        found = grid.target_specification(cell)
        first, last = found["stages"]
        assert (first["task"], last["task"]) == ("kind_a", "kind_b")
        assert first["recipe"] == {"batch_size": 8, "learning_rate": 0.5, "max_length": 48, "stride": 0, "steps": 10}
        assert (last["recipe"]["steps"], last["recipe"]["learning_rate"]) == (40 + extra, 2e-3)
        assert first["schedule"] == {"kind": "linear", "warmup_steps": 1}
        assert last["schedule"]["warmup_steps"] == -(-(40 + extra) // 10)
        assert found["recipe"] == {**last["recipe"], "steps": 50 + extra}
        assert found["task"] == "staged"
        assert grid.prediction_specification(cell)["task"] == "staged"
    assert [budget.steps for budget in grid.budgets["cldr_pairs"]] == [12, 24]


def test_a_stages_recipe_repeats_the_target_only(staged):
    before = everything(make(**staged))
    after = everything(make(**staged, recipes={"kind_a": {"learning_rate": 0.25}}))
    assert kinds({name for name in before if before[name] != after[name]}) == {"target", "predict", "score"}
    assert before.keys() == after.keys()


def test_stages_that_make_no_sense_are_one_sentence(staged, monkeypatch):
    with pytest.raises(
        UserError, match=r"recipes.staged: is trained in stages, kind_a, then kind_b; set recipes of these"
    ):
        make(**staged, recipes={"staged": {"steps": 5}})
    assert make(**staged, recipes={"staged": {"max_length": 32}}).target_length("staged") == 32
    with pytest.raises(UserError, match=r"recipes.kind_a: a batch of 8 is larger than the 7 training examples"):
        make(**staged, recipes={"kind_a": {"train_examples": 7}})
    monkeypatch.setitem(CATALOG, "kind_a", replace(CATALOG["kind_a"], labels=("a", "b")))
    with pytest.raises(
        UserError, match=r"staged is trained on kind_a first, which has another labels; one head cannot"
    ):
        make(**staged)


# --- Stages of another family, whose head is not read ---


@pytest.fixture
def searched(monkeypatch):
    """A search with the encoder that question answering leaves."""
    stage = replace(CATALOG["cldr_qa"], name="qa", roles=("stage",), training_data=("cldr_qa",))
    monkeypatch.setitem(CATALOG, "qa", stage)
    direct = CATALOG["cldr_retrieval"]
    after = replace(direct, name="after_qa", stages=("qa",), training_data=("cldr_qa",))
    monkeypatch.setitem(CATALOG, "after_qa", after)
    return {"targets": ["after_qa", "cldr_retrieval"], "intermediates": ["cldr_pairs", "cldr_qa"], "seeds": [1]}


def test_a_search_after_a_stage_is_trained_as_the_stage_and_read_as_a_direct_one(searched):
    grid = make(**searched, controls=["extra_target"])
    assert grid.tasks == ["after_qa", "cldr_pairs", "cldr_qa", "cldr_retrieval", "qa"]
    assert (grid.lengths["qa"], grid.lengths["after_qa"]) == ([128], [64])
    # 1 baseline, 2 tasks at 2 budgets, and as many with the steps spent on the target instead.
    assert [cell.target for cell in grid.target_runs()] == ["after_qa"] * 9
    for cell in grid.target_runs():
        extra = cell.intermediate.budget.steps if cell.intermediate.control == "extra_target" else 0
        found = grid.target_specification(cell)
        (stage,) = found["stages"]
        assert stage["task"] == "qa"
        expected = {"batch_size": 16, "learning_rate": 3e-3, "max_length": 128, "stride": 32, "steps": 16 + extra}
        assert stage["recipe"] == expected
        assert found["recipe"] == {**expected, "max_length": 64}
        predicted, direct = (
            grid.prediction_specification(replace(cell, target=target)) for target in ("after_qa", "cldr_retrieval")
        )
        assert predicted["sentence"] is direct["sentence"] is True
        assert predicted["weights"] == grid.stamp("target", cell).fingerprint
        assert grid.score_specification(cell)["shared_data"] == (cell.intermediate.task == "cldr_qa")
    after, direct = (grid.encode_specification(task, 64) for task in ("after_qa", "cldr_retrieval"))
    facts = ("max_length", "stride", "train_examples", "prefixes", "document_length")
    assert [after[name] for name in facts] == [direct[name] for name in facts]
    assert grid.encode_specification("qa", 128)["train_examples"] == 6000


def test_recipes_of_a_search_after_a_stage_are_the_stages(searched):
    for own in ({"steps": 5}, {"max_length": 32}):
        with pytest.raises(UserError, match=r"recipes.after_qa: is trained in stages, qa; set recipes of these$"):
            make(**searched, recipes={"after_qa": own})
    assert make(**searched, recipes={"qa": {"steps": 5}}).target_steps("after_qa", 0) == [5]
    with pytest.raises(UserError, match=r"recipes.cldr_retrieval: .* is evaluated without training"):
        make(**searched, recipes={"cldr_retrieval": {"steps": 5}})


def test_stages_share_their_head_with_one_another(searched, monkeypatch):
    monkeypatch.setitem(CATALOG, "after_qa", replace(CATALOG["after_qa"], stages=("cldr_pairs", "qa")))
    with pytest.raises(UserError, match=r"after_qa is trained on cldr_pairs first, which has another family"):
        make(**searched)
    # With a recipe of its own it shares that head, too.
    trained = replace(CATALOG["after_qa"], stages=("qa",), recipe=CATALOG["cldr_kind"].recipe)
    monkeypatch.setitem(CATALOG, "after_qa", trained)
    with pytest.raises(UserError, match=r"after_qa is trained on qa first, which has another family"):
        make(**searched)


def test_a_search_after_a_stage_of_ones_own(searched):
    """A task of a study's own that starts from such a one is told to its jobs as it is."""
    for name in ("after_qa", "cldr_retrieval", "xcopa"):
        task = CATALOG[name]
        back = task_from(declared(task, ["de", "en"]))
        assert (back.direct, back.trained, back.stages) == (task.direct, task.trained, task.stages)


# --- Plans ---


def test_what_waits_for_what(staged, tmp_path):
    grid = make(**{**staged, "intermediates": ["cldr_pairs", "cldr_qa", "mixture"], "budgets": [1], "seeds": [1]})
    jobs = study_jobs(grid, tmp_path)
    waits = {
        (job.rule, job.run.name): {(jobs[need].rule, jobs[need].task, jobs[need].length) for need in job.prepared}
        for job in jobs
        if job.run is not None and job.rule.startswith("train")
    }
    encoder = ("prepare_encoder", None, 0)
    assert waits["train_intermediate", "mixture"] == {
        encoder,
        *(("prepare_data", task, 0) for task in ("cldr_pairs", "cldr_qa")),
        *(("encode_task", task, length) for task, length in (("cldr_pairs", 64), ("cldr_qa", 128))),
    }
    assert waits["train_target", "none"] == {
        encoder,
        *(("prepare_data", task, 0) for task in ("kind_a", "kind_b")),
        *(("encode_task", task, length) for task, length in (("kind_a", 48), ("kind_b", 64))),
    }
    assert make_plan(grid, tmp_path, 2, None).total.steps == 24 + 16 + 1125 + 4 * 50


def test_a_mixed_example_costs_the_mean_of_its_parts(staged):
    grid = make(**{**staged, "intermediates": ["cldr_pairs", "cldr_qa", "mixture"], "mixture": {"cap": 3000}})
    grid.study.catalog  # noqa: B018 (made once)
    encoder = grid._encoder_fingerprint
    tokens = tuple(
        TokenRecord(
            task, length, encoder, examples=10, sequences=10, tokens=tokens, all_sequences=10, all_tokens=tokens
        )
        for task, length, tokens in (
            ("cldr_pairs", 64, 100),
            ("cldr_qa", 128, 500),
            ("kind_a", 48, 90),
            ("kind_b", 64, 200),
        )
    )
    model = CostModel(grid, Evidence((), (), tokens), PACKAGED, "cpu", 1e10)
    assert model.per_example("mixture", 128).tokens == pytest.approx((10 + 50) / 2)
    whole = [model.per_example(task, length).flops for task, length in (("cldr_pairs", 64), ("cldr_qa", 128))]
    assert model.per_example("mixture", 128).flops == pytest.approx(sum(whole) / 2)
    # Of a run in stages: 10 x 8 examples of 9 tokens, then 40 x 16 of 20.
    assert model.per_example("staged", 64).tokens == pytest.approx((80 * 9 + 640 * 20) / 720)
    job = next(job for job in study_jobs(grid, Path("nowhere")) if job.rule == "train_target")
    assert model.estimate(job).examples == 720
    assert model.estimate(job).tokens == pytest.approx(80 * 9 + 640 * 20)
