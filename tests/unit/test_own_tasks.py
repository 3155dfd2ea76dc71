"""A study's own tasks: what they become, what is wrong with them in a sentence, and what a change to one repeats."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from topics import examples
from xlift.analysis import analysis_plan, analysis_settings, plan_changes, study_levels
from xlift.artifacts import fingerprint
from xlift.catalog import CATALOG, task_of
from xlift.catalog.declared import declared, task_from
from xlift.catalog.task import Slice, Task
from xlift.errors import UserError
from xlift.grid import Grid, plan_specification
from xlift.languages import load_languages
from xlift.metrics import METRICS as SCORED
from xlift.metrics import MLQA_LANGUAGES as OF_MLQA
from xlift.own_tasks import DEFAULT_METRICS, METRICS, MLQA_LANGUAGES
from xlift.study import parse_study
from xlift.tasks.families import FAMILIES

SLICE: dict[str, Any] = {"repository": "me/mine", "config": "x.{code}", "rows": "train"}
MINE: dict[str, Any] = {
    "family": "classification",
    "roles": "target",
    "languages": ["en", "de", "sw"],
    "labels": ["a", "b"],
    "train_examples": 100,
    "recipe": {"epochs": 2, "batch_size": 16, "learning_rate": 1e-4, "max_length": 64},
    "train": SLICE,
    "dev": {**SLICE, "rows": "validation"},
    "test": {**SLICE, "rows": "test"},
}
STUDY: dict[str, Any] = {
    "study": "own",
    "intermediates": ["cldr_pairs"],
    "budgets": [1],
    "seeds": [1],
    "targets": ["mine", "cldr_kind"],
}


def grid(task: dict[str, Any] | None = None, **changes: Any) -> Grid:
    return Grid(
        parse_study({**STUDY, "tasks": {"mine": MINE if task is None else task}, **changes}, "f.yaml"), "f.yaml"
    )


def changed(**changes: Any) -> dict[str, Any]:
    """The task with other settings; None takes one away."""
    return {name: value for name, value in {**MINE, **changes}.items() if value is not None}


def refusal(task: Any, name: str = "mine", **changes: Any) -> str:
    with pytest.raises(UserError) as caught:
        Grid(parse_study({**STUDY, "tasks": {name: task}, **changes}, "f.yaml"), "f.yaml")
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix("f.yaml: ")


def test_a_task_of_ones_own_is_like_one_of_the_catalog():
    study = grid().study
    task = study.catalog["mine"]
    assert (task.family, task.roles, task.source) == ("classification", ("target",), "hub")
    assert task.recipe is not None
    # Two passes over 100 examples in batches of 16: 12.5, in whole steps.
    assert (task.recipe.steps, task.recipe.batch_size) == (13, 16)
    assert task.recipe.learning_rate == {"lora": 1e-4, "full": 1e-4}
    assert task.metrics == ("accuracy",)
    assert task.chance == 0.5
    assert task.trained_on == {"mine"}
    assert [(part.split, part.rows, dict(part.configs)) for part in task.slices] == [
        ("train", "train", {"en": "x.en"}),
        ("dev", "validation", {"en": "x.en"}),
        ("test", "test", {"en": "x.en", "de": "x.de", "sw": "x.sw"}),
    ]
    assert {part.reader for part in task.slices} == {"classification"}
    assert study.target_languages("mine") == ["de", "en", "sw"]


def test_the_catalog_itself_is_left_alone():
    before = dict(CATALOG)
    study = grid().study
    assert study.catalog is study.catalog
    assert "mine" in study.catalog
    assert before == CATALOG
    plain = parse_study({**STUDY, "targets": ["cldr_kind"]}, "f.yaml")
    assert plain.catalog is CATALOG


def test_codes_columns_and_labels_become_the_slices():
    test = {
        **SLICE,
        "rows": "test_{code}",
        "config": "all",
        "codes": {"sw": "swh"},
        "columns": {"text_a": ["title", "body"], "label": "y"},
        "labels": {0: "a", "1": "b", "x": None},
    }
    parts = [part for part in grid(changed(test=test)).study.catalog["mine"].slices if part.split == "test"]
    assert [(dict(part.configs), part.rows) for part in parts] == [
        ({"en": "all"}, "test_en"),
        ({"de": "all"}, "test_de"),
        ({"sw": "all"}, "test_swh"),
    ]
    assert dict(parts[0].columns) == {"text_a.0": "title", "text_a.1": "body", "label": "y"}
    assert dict(parts[0].labels) == {"0": "a", "1": "b", "x": ""}
    by_column = {**SLICE, "config": "all", "rows": "test", "codes": {"sw": "swh"}, "columns": {"language": "lang"}}
    (part,) = [part for part in grid(changed(test=by_column)).study.catalog["mine"].slices if part.split == "test"]
    assert dict(part.codes) == {"sw": "swh"}
    assert set(part.configs) == {"en", "de", "sw"}


def test_a_split_can_be_put_together_of_repositories():
    more = [{**MINE["test"], "languages": ["en", "de"]}, {**MINE["test"], "repository": "me/more", "languages": ["sw"]}]
    parts = [part for part in grid(changed(test=more)).study.catalog["mine"].slices if part.split == "test"]
    assert [(part.repository, sorted(part.configs)) for part in parts] == [
        ("me/mine", ["de", "en"]),
        ("me/more", ["sw"]),
    ]


def test_like_starts_from_the_catalog(monkeypatch):
    real = replace(
        CATALOG["cldr_kind"],
        name="real",
        source="hub",
        slices=tuple(Slice(split, "org/real", {"en": "en"}, "x", "their_reader") for split in ("train", "dev", "test")),
        languages=("en",),
    )
    monkeypatch.setitem(CATALOG, "real", real)
    same = grid({"like": "real", "recipe": {"steps": 3}}).study.catalog["mine"]
    assert same == replace(
        real,
        name="mine",
        training_data=("real",),
        recipe=replace(real.recipe, steps=3),  # type: ignore[type-var]
    )
    assert same.trained_on & real.trained_on
    test = {**SLICE, "config": "{code}", "rows": "test"}
    other = grid({"like": "real", "languages": ["en", "sw"], "test": test}).study.catalog["mine"]
    assert [(part.split, part.reader) for part in other.slices] == [
        ("train", "their_reader"),
        ("dev", "their_reader"),
        ("test", "classification"),
    ]
    assert other.trained_on == {"real"}
    trained = grid({"like": "real", "train": {**SLICE, "config": "en"}, "train_examples": 99}).study.catalog["mine"]
    assert trained.trained_on == {"mine"}
    assert trained.train_examples == 99


def test_cells_of_tasks_that_share_training_data_are_marked():
    mine = changed(training_data=["cldr_pairs"])
    cells = [cell for cell in grid(mine).cells if not cell.intermediate.is_none]
    marks = {cell.target: grid(mine).score_specification(cell)["shared_data"] for cell in cells}
    assert marks == {"mine": True, "cldr_kind": False}


def test_every_metric_that_a_task_may_name_is_there():
    assert {metric for known in METRICS.values() for metric in known} == set(SCORED)


def test_families_and_languages_are_those_of_the_metrics():
    assert set(METRICS) == set(DEFAULT_METRICS) == set(FAMILIES)
    assert MLQA_LANGUAGES == OF_MLQA
    assert all(set(DEFAULT_METRICS[family]) <= set(METRICS[family]) & set(SCORED) for family in METRICS)


BAD: list[tuple[dict[str, Any], list[str]]] = [
    ({"family": None}, ["tasks.mine: family: is missing", "`like`"]),
    ({"family": "clasification"}, ["tasks.mine.family: 'clasification' is not right", "'classification'"]),
    ({"roles": None}, ["tasks.mine: roles: is missing"]),
    ({"roles": "targets"}, ["tasks.mine.roles", "'targets'"]),
    ({"famly": "span"}, ["tasks.mine.famly: is not a setting", "did you mean 'family'?"]),
    ({"train": {**SLICE, "row": "x"}}, ["tasks.mine.train.0.row: is not a setting", "did you mean 'rows'?"]),
    ({"recipe": {"step": 3}}, ["tasks.mine.recipe.step: is not a setting", "did you mean 'steps'?"]),
    ({"recipe": {"steps": 3}}, ["tasks.mine: recipe.batch_size: is missing"]),
    ({"recipe": {**MINE["recipe"], "steps": 3}}, ["recipe: steps and epochs are both given"]),
    ({"train_examples": None}, ["recipe.epochs: needs train_examples"]),
    ({"recipe": None}, ["recipe: is missing", "classification has to be trained"]),
    ({"test": None}, ["tasks.mine: test: is missing"]),
    ({"dev": None}, ["tasks.mine: dev: is missing"]),
    ({"train": {"repository": "mine", "rows": "x"}}, ["tasks.mine.train.0.repository: 'mine' does not match"]),
    ({"train": {"repository": "me/mine"}}, ["tasks.mine.train.0.rows: is missing"]),
    ({"test": {**SLICE, "config": "all"}}, ["test.config: every language would have the same rows", "{code}"]),
    ({"test": {**SLICE, "codes": {"fr": "x"}}}, ["test: fr is not a language of its rows"]),
    ({"train": {**SLICE, "languages": ["de"]}}, ["train: de is not a language of its rows (en)"]),
    ({"test": {**SLICE, "languages": ["de", "en"]}}, ["test: has no rows of sw"]),
    ({"test": {**SLICE, "columns": {"txt": "x"}}}, ["test.columns.txt: is not a field", "text_a, text_b, label"]),
    ({"test": {**SLICE, "columns": {"label": ["x", "y"]}}}, ["test.columns.label: several columns"]),
    ({"test": {**SLICE, "labels": {"x": "c"}}}, ["test.labels: 'c' is not a label of the task (a, b)"]),
    ({"test": {**SLICE, "labels": {True: "a"}}}, ["tasks.mine.test.0.labels: True is not a label", "quotes"]),
    ({"labels": ["a"]}, ["labels: classification needs two labels"]),
    ({"labels": ["a", "a"]}, ["labels: one is listed twice"]),
    ({"languages": ["de", "de"]}, ["languages: one is listed twice"]),
    ({"languages": ["german"]}, ["tasks.mine.languages.0: 'german' does not match"]),
    ({"choices": 3}, ["choices: classification has none"]),
    ({"metrics": ["f1"]}, ["metrics: f1 is not for classification; choose from accuracy"]),
    ({"unanswerable": True}, ["unanswerable: classification has no questions"]),
    ({"document_length": 64}, ["document_length: is for retrieval"]),
    ({"family": "multiple_choice", "labels": None}, ["choices: is missing"]),
    ({"family": "span"}, ["labels: span has none"]),
    ({"family": "tagging", "metrics": ["span_f1"]}, ["metrics: span_f1 needs IOB2 tags"]),
    ({"family": "span", "labels": None, "metrics": ["mlqa_f1"]}, ["metrics: those of MLQA are for ar, de"]),
    ({"family": "retrieval", "labels": None, "recipe": None}, ["train: the task has rows to train on and no recipe"]),
    ({"family": "retrieval", "labels": None, "recipe": None, "roles": ["intermediate"]}, ["recipe: is missing"]),
    ({"like": "cldr_kin"}, ["like: 'cldr_kin' is not in the catalog; did you mean 'cldr_kind'?"]),
    ({"like": "cldr_qa"}, ["family: cldr_qa is span"]),
]


@pytest.mark.parametrize(
    ("change", "expected"), BAD, ids=[next(iter(change)) + str(n) for n, (change, _) in enumerate(BAD)]
)
def test_each_mistake_is_one_sentence_with_its_key(change, expected):
    message = refusal(changed(**change))
    for part in expected:
        assert part in message, message


def test_names_that_are_taken_or_no_names_are_refused():
    assert "tasks: 'cldr_kind' is in the catalog already" in refusal(MINE, "cldr_kind")
    assert "tasks: 'none' is in the catalog already" in refusal(MINE, "none")
    assert "tasks: 'mlm' is in the catalog already" in refusal(MINE, "mlm")
    assert "does not match" in refusal(MINE, "My task")
    assert "'xyz' is not a target task" in refusal(MINE, targets=["xyz"])
    assert "did you mean 'mine'?" in refusal(MINE, targets=["mien"])
    assert "'mine' is not an intermediate task" in refusal(MINE, intermediates=["mine"])
    assert "tasks.data.famly: is not a setting; did you mean 'family'?" in refusal(changed(famly=1), "data")


def test_rows_that_xlift_makes_are_not_made_for_other_tasks():
    assert "like: xlift makes the rows of that task" in refusal({"like": "cldr_kind", "recipe": {"steps": 3}})


def test_what_a_job_reads_of_a_task_comes_back():
    task = grid().study.catalog["mine"]
    back = task_from(declared(task, ["de", "en", "sw"]))
    assert back.slices == tuple(replace(part, configs=dict(sorted(part.configs.items()))) for part in task.slices)
    for name in ("name", "family", "source", "languages", "metrics", "labels", "trained", "chance"):
        assert getattr(back, name) == getattr(task, name)
    assert not task_from(declared(Task("x", "retrieval", "hub", ("target",), ("de",), ("map_at_20",)), ["de"])).trained


def test_jobs_find_the_task_in_their_specification():
    own = grid()
    cell = next(cell for cell in own.cells if cell.target == "mine")
    for specification in (
        own.data_specification("mine"),
        own.encode_specification("mine", 64),
        own.target_specification(cell),
        own.prediction_specification(cell),
    ):
        assert task_of(specification).name == "mine"
        assert task_of(specification).labels == ("a", "b")
    assert task_of({"task": "cldr_kind"}) is CATALOG["cldr_kind"]


def everything(own: Grid) -> dict[str, str]:
    """Fingerprint of each job of the two targets, by kind and target."""
    found = {f"data {task}": own.data_specification(task) for task in own.tasks}
    found |= {f"encode {task}": own.encode_specification(task, own.lengths[task][0]) for task in own.tasks}
    for cell in own.cells:
        name = f"{cell.target} {cell.intermediate.name}"
        found[f"train {name}"] = own.target_specification(cell)
        found[f"predict {name}"] = own.prediction_specification(cell)
        found[f"score {name}"] = own.score_specification(cell)
    return {name: fingerprint(value) for name, value in found.items()}


def repeated(**changes: Any) -> set[str]:
    """Kinds of jobs that a change to the task repeats; those of other tasks never are."""
    before, after = everything(grid()), everything(grid(changed(**changes)))
    names = {name for name in before if before[name] != after[name]}
    assert all(name.split()[1] == "mine" for name in names)
    return {name.split()[0] for name in names}


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        ({}, set()),
        ({"summary": "x", "licence": "y", "test_examples": 5}, set()),
        ({"labels": ["b", "a"]}, {"data", "encode", "train", "predict", "score"}),
        ({"recipe": {**MINE["recipe"], "learning_rate": 2e-4}}, {"train", "predict", "score"}),
        # English rows that are evaluated on are left out of training.
        ({"test": {**SLICE, "rows": "other"}}, {"data", "encode", "train", "predict", "score"}),
        ({"test": {**MINE["test"], "codes": {"sw": "swh"}}}, {"data", "encode", "predict", "score"}),
        ({"train": {**SLICE, "revision": "abc"}}, {"data", "encode", "train", "predict", "score"}),
        ({"dev": {**SLICE, "rows": "other"}}, {"data", "encode", "train", "predict", "score"}),
        ({"languages": ["en", "de"]}, {"data", "encode", "predict", "score"}),
    ],
    ids=lambda value: "-".join(sorted(value)) or "nothing",
)
def test_a_change_to_a_task_repeats_what_depends_on_it(changes, kinds):
    assert repeated(**changes) == kinds


def test_a_further_metric_repeats_the_scores_only():
    tags = {"family": "tagging", "labels": ["O", "B-X", "I-X"]}
    before = everything(grid(changed(**tags, metrics=["span_f1"])))
    after = everything(grid(changed(**tags, metrics=["span_f1", "token_accuracy"])))
    assert {name.split()[0] for name in before if before[name] != after[name]} == {"score"}


def test_the_plan_holds_the_metric_that_decides():
    tags = {"family": "tagging", "labels": ["O", "B-X", "I-X"]}
    first, swapped, further = (
        plan_specification(grid(changed(**tags, metrics=metrics)))
        for metrics in (["span_f1", "token_accuracy"], ["token_accuracy", "span_f1"], ["span_f1"])
    )
    assert plan_changes(first, swapped) == ["metrics, mine: span_f1 -> token_accuracy"]
    assert plan_changes(first, further) == []


def test_a_language_that_is_not_asked_for_changes_nothing():
    few = {"languages": ["de"]}
    before = everything(grid(**few))
    wider = changed(languages=["en", "de", "sw", "fr"])
    after = everything(grid(wider, **few))
    assert before == after


def test_tasks_of_ones_own_change_no_specification_of_the_catalogs():
    without = Grid(parse_study({**STUDY, "targets": ["cldr_kind"]}, "f.yaml"), "f.yaml")
    plain, own = everything(without), everything(grid())
    assert {name: own[name] for name in plain} == plain
    assert "declared" not in without.data_specification("cldr_kind")


def test_chance_levels_are_the_studys():
    study = grid().study
    assert analysis_settings(study)["chance"] == {**{name: task.chance for name, task in CATALOG.items()}, "mine": 0.5}
    assert "chance" not in analysis_plan(study, {})


def test_a_language_without_a_resource_level_is_refused_before_anything_runs():
    known = load_languages(Path(__file__).parents[2] / "config" / "languages.csv")
    study_levels(grid().study, known)
    with pytest.raises(UserError, match=r"tasks\.mine\.languages: xx is not in config/languages\.csv; add a line"):
        study_levels(grid(changed(languages=["en", "de", "xx"])).study, known)


def test_the_documents_examples_are_studies():
    first, second = examples()
    study = parse_study(deepcopy(first), "docs")
    assert study.catalog["topics"].recipe is not None
    assert study.catalog["topics"].recipe.steps == 12
    short = parse_study({**first, **second, "targets": ["kinds_short"]}, "docs").catalog["kinds_short"]
    assert (short.family, short.languages, short.metrics) == ("classification", ("en", "sw"), ("accuracy",))
    assert short.trained_on == {"kinds_short"}
