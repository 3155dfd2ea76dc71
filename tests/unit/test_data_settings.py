"""The study's `data` block, encoder sizes and warm-ups: what they change in specifications, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from xlift.budgets import share_of_steps
from xlift.catalog import CATALOG, task_of
from xlift.errors import UserError
from xlift.grid import Grid
from xlift.recipes import train_examples
from xlift.runs import Cell, baseline
from xlift.sources import reading
from xlift.sources.readers import read_task
from xlift.study import Study, check_paths, parse_study

SETTINGS: dict[str, Any] = {
    "study": "real",
    "intermediates": ["mnli"],
    "budgets": [1],
    "seeds": [1],
    "targets": ["panx", "tydiqa", "xnli"],
    "languages": ["de", "sw"],
}
LARGE = {"source": "hub", "id": "FacebookAI/xlm-roberta-large", "revision": "abc", "size": "large"}


def study(**changes: Any) -> Study:
    return parse_study({**SETTINGS, **changes}, "x")


def grid(**changes: Any) -> Grid:
    return Grid(study(**changes), "x")


def data(found: Grid) -> dict[str, Any]:
    return {task: found.data_specification(task) for task in found.tasks}


def targets(found: Grid) -> dict[str, Any]:
    return {task: found.target_specification(Cell(task, baseline(1))) for task in found.study.targets}


def differing(first: dict[str, Any], second: dict[str, Any]) -> set[str]:
    return {name for name in first if first[name] != second[name]}


def test_scoring_validation_data_concerns_the_tasks_that_have_any():
    on_validation = grid(data={"score_on": "validation"})
    found = data(on_validation)
    # XNLI in sw and de, WikiANN in both; TyDi QA has no other rows than those it is scored on.
    assert {task for task in found if found[task].get("score_on")} == {"panx", "xnli"}
    assert differing(data(grid()), found) == {"panx", "xnli"}
    assert differing(targets(grid()), targets(on_validation)) == {"panx", "xnli"}  # their contexts are left out
    runs = [found.intermediate_specification(found.intermediates[0]) for found in (grid(), on_validation)]
    assert runs[0] == runs[1]


def test_limits_are_part_of_what_depends_on_them():
    plain, limited = grid(), grid(data={"examples": {"test": 50}})
    assert differing(data(plain), data(limited)) == set(plain.tasks)
    assert all(found["examples"] == {"test": 50} for found in data(limited).values())
    assert differing(targets(plain), targets(limited)) == set()  # scoring fewer rows trains nothing again
    taught = grid(data={"examples": {"train": 100, "dev": 20, "test": 50}})
    assert all(found["examples"] == {"train": 100, "dev": 20} for found in targets(taught).values())


def test_training_examples_are_at_most_the_limit():
    limit = {"data": {"examples": {"train": 3000}}}
    given = study(**limit, recipes={"panx": {"train_examples": 10_000}, "xnli": {"train_examples": 2000}})
    found = {name: train_examples(given, CATALOG[name]) for name in ("mnli", "panx", "tydiqa", "xnli")}
    assert found == {"mnli": 3000, "panx": 3000, "tydiqa": 3000, "xnli": 2000}
    assert train_examples(study(**limit, intermediates=["ccg"]), CATALOG["ccg"]) is None
    assert train_examples(study(), CATALOG["tydiqa"]) == 3696


def test_languages_of_scoring_change_no_training():
    wide, narrow = grid(languages=["de", "sw", "ru"]), grid()
    assert targets(wide) == targets(narrow)
    assert differing(data(wide), data(narrow)) == {"panx", "tydiqa", "xnli"}


def test_where_the_root_is_changes_nothing_and_a_folder_given_does(tmp_path):
    assert data(grid()) == data(grid(data={"root": str(tmp_path)}))
    plain = grid(intermediates=["ccg"])
    given = grid(intermediates=["ccg"], data={"folders": {"ccg": "a", "mewslix": "b"}})
    assert differing(data(plain), data(given)) == {"ccg"}
    assert given.data_specification("ccg")["source"]["folders"] == {"ccg": "a"}


def test_another_revision_in_the_catalog_is_other_data(monkeypatch):
    before = grid()
    xnli = CATALOG["xnli"]
    pinned = tuple(
        dataclasses.replace(part, revision="0" * 40) if part.split == "validation" else part for part in xnli.slices
    )
    monkeypatch.setitem(CATALOG, "xnli", dataclasses.replace(xnli, slices=pinned))
    assert data(grid()) == data(before)
    changed = data(grid(data={"score_on": "validation"}))
    monkeypatch.setitem(CATALOG, "xnli", xnli)
    assert differing(changed, data(grid(data={"score_on": "validation"}))) == {"xnli"}


def test_another_revision_is_other_data_of_the_tasks_that_read_it():
    of_test, of_training = ({"facebook/xnli": "main"}, {"nyu-mll/glue": "0" * 40})
    plain = grid()
    for revisions, prepared in ((of_test, {"xnli"}), (of_training, {"mnli", "xnli"})):
        changed = grid(data={"revisions": revisions})
        assert differing(data(plain), data(changed)) == prepared
        assert {name: found["revisions"] for name, found in data(changed).items() if "revisions" in found} == (
            dict.fromkeys(prepared, revisions)
        )
        # Trained again for other test rows too: training rows whose context English is scored on are left out.
        assert differing(targets(plain), targets(changed)) == {"xnli"}
        for name, found in data(changed).items():
            assert task_of(found) == changed.study.catalog[name]
            assert (task_of(found) == CATALOG[name]) == (name not in prepared)


def test_another_revision_is_what_is_asked_of_the_hub(monkeypatch):
    asked = []

    def read_split(repository, config, rows, revision, root):
        asked.append((repository, revision))
        raise UserError("enough")

    monkeypatch.setattr(reading, "read_split", read_split)
    for given in ({}, {"Rowan/hellaswag": "v2"}):
        found = grid(intermediates=["hellaswag"], data={"revisions": given}).data_specification("hellaswag")
        with pytest.raises(UserError, match="enough"):
            read_task(task_of(found), found["languages"])
    assert asked == [("Rowan/hellaswag", "218ec52e09a7e7462a5400043bb9a69a41d06b76"), ("Rowan/hellaswag", "v2")]


def test_another_revision_of_a_repository_of_an_own_task():
    rows = {"repository": "my-lab/topics", "rows": "train", "revision": "v1"}
    own = {
        "family": "classification",
        "roles": ["intermediate"],
        "languages": ["en"],
        "labels": ["a", "b"],
        "train_examples": 64,
        "recipe": {"steps": 2, "batch_size": 32, "learning_rate": 1e-4, "max_length": 32},
        "train": rows,
        "dev": {**rows, "rows": "validation"},
    }
    settings = {"tasks": {"topics": own}, "intermediates": ["topics"]}
    found = grid(**settings, data={"revisions": {"my-lab/topics": "v2"}}).data_specification("topics")
    assert {part.revision for part in task_of(found).slices} == {"v2"}
    plain = grid(**settings).data_specification("topics")
    assert {part.revision for part in task_of(plain).slices} == {"v1"}
    assert plain["source"] != found["source"]


def test_learning_rates_by_method_and_size():
    rates = {
        (method, size): grid(encoder={**LARGE, "size": size}, trainable={"method": method}).learning_rate("xnli")
        for method in ("lora", "full")
        for size in ("base", "large")
    }
    assert rates == {("lora", "base"): 2e-4, ("lora", "large"): 3e-4, ("full", "base"): 2e-5, ("full", "large"): 3e-5}
    assert grid().learning_rate("xnli") == 2e-4  # the packaged encoder is a base one
    own = grid(encoder=LARGE, recipes={"xnli": {"learning_rate": 0.5}})
    assert (own.learning_rate("xnli"), own.learning_rate("mnli")) == (0.5, 1e-4)
    assert targets(grid(encoder=LARGE))["panx"] == targets(grid(encoder={**LARGE, "size": "base"}))["panx"]


def test_a_recipes_own_warm_up_goes_before_the_studys():
    found = grid(recipes={"panx": {"warmup": 0.25}}, training={"warmup": 0.2})
    steps = {task: found.recipes[task].steps for task in found.tasks}
    warmups = {task: spec["schedule"]["warmup_steps"] for task, spec in targets(found).items()}
    assert warmups == {
        "panx": share_of_steps(0.25, steps["panx"]),
        "tydiqa": share_of_steps(0.2, steps["tydiqa"]),
        "xnli": 0,
    }
    run = found.intermediate_specification(found.intermediates[0])
    assert run["schedule"]["warmup_steps"] == share_of_steps(0.2, steps["mnli"])
    assert grid(schedule="trunk", recipes={"mnli": {"warmup": 0.05}}).trunk_warmup(
        "mnli", grid().budgets["mnli"][0]
    ) == share_of_steps(0.05, steps["mnli"])


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"score_on": "dev"}, "data.score_on: 'dev' is not right: input should be 'test' or 'validation'"),
        ({"examples": {"train": 0}}, "data.examples.train: 0 is not right"),
        ({"examples": {"training": 5}}, "data.examples.training: is not a setting; did you mean 'train'?"),
        ({"folders": {"ccg": ""}}, "data.folders.ccg: '' is not a path"),
        ({"folder": {}}, "data.folder: is not a setting; did you mean 'folders'?"),
        ({"revisions": {"facebook/xnli": "-x"}}, "data.revisions.facebook/xnli: '-x' does not match"),
        (
            {"revisions": {"facebook/xnl": "main"}},
            "data.revisions: 'facebook/xnl' is not a repository that a task reads; did you mean 'facebook/xnli'?",
        ),
        ({"revisions": {"ccg": "main"}}, "data.revisions: 'ccg' is not a repository that a task reads; choose from "),
    ],
)
def test_what_is_no_choice_is_refused(settings, problem):
    with pytest.raises(UserError) as caught:
        study(data=settings)
    assert str(caught.value).startswith(f"x: {problem}")
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_missing_is_refused_when_the_study_is_read(tmp_path):
    given = study(intermediates=["ccg"])
    with pytest.raises(UserError) as caught:
        check_paths(given, "x")
    assert str(caught.value) == (
        "x: data.folders: ccg comes from a folder, and none is given as 'ccg'; add data.folders.ccg (docs/data.md "
        "says what is to be in it) or leave ccg out"
    )
    with pytest.raises(UserError, match=r"^x: data\.folders\.ccg: there is no folder none; correct it$"):
        check_paths(study(intermediates=["ccg"], data={"folders": {"ccg": "none"}}), "x")
    check_paths(study(intermediates=["ccg"], data={"folders": {"ccg": str(tmp_path)}}), "x")
    Path(tmp_path, "local", "ccg").mkdir(parents=True)
    check_paths(study(intermediates=["ccg"], data={"root": str(tmp_path)}), "x")
    check_paths(study(data={"folders": {"ccg": "none"}}), "x")  # of a task that is not in the study
