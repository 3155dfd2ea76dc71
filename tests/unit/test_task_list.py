"""The list of tasks: what the command prints, and that docs/tasks.md says what the catalog says."""

from __future__ import annotations

import json
import re
from dataclasses import fields, replace
from pathlib import Path

import pytest
import yaml

from topics import examples
from xlift.catalog import CATALOG
from xlift.catalog.task import Recipe, Slice, Task
from xlift.cli import main
from xlift.task_list import roles_of, sharing, tasks_json, tasks_markdown, tasks_text

DOCUMENT = Path(__file__).parents[2] / "docs" / "tasks.md"
SLICES = (
    Slice("train", "org/a", {"en": "a.en"}, "train", "pairs", {"text_a": "s"}, {"0": "x", "1": ""}),
    Slice("test", "org/a", {"en": "a.en", "de": "a.de"}, "test", "pairs", revision="abc"),
    Slice("test", "org/b", {"sw": "Swahili", "fi": "Finnish"}, "test", "pairs"),
)
REAL = Task(
    name="real",
    family="classification",
    source="hub",
    roles=("target",),
    languages=("de", "en", "fi", "sw"),
    metrics=("accuracy",),
    labels=("x", "y"),
    recipe=Recipe(steps=250, batch_size=32, learning_rate={"lora": 2e-4, "full": 2e-5}, max_length=128),
    train_examples=4000,
    training_data=("shared",),
    slices=SLICES,
    licence="CC BY 4.0",
    provenance="made up.",
    summary="Real?",
)
OTHER = replace(REAL, name="other", roles=("intermediate", "target"), slices=SLICES[:1], languages=("en",))
STAGE = replace(REAL, name="first", roles=("stage",), training_data=(), slices=SLICES[:1], languages=("en",))
MADE_UP = {task.name: task for task in (REAL, OTHER, STAGE)}


def test_the_document_is_the_catalogs():
    assert DOCUMENT.read_text(encoding="utf-8") == tasks_markdown(), "docs/tasks.md is out of date: `make reference`"


def test_every_task_has_a_line_and_a_section_in_the_document():
    text = DOCUMENT.read_text(encoding="utf-8")
    for task in CATALOG.values():
        assert len(re.findall(rf"^### {task.name}$", text, re.MULTILINE)) == 1
        assert len(re.findall(rf"^\| \[`{task.name}`\]", text, re.MULTILINE)) == len(task.roles)
        assert all(metric in text for metric in task.metrics)


def test_a_section_says_all_that_is_declared():
    text = tasks_markdown(MADE_UP)
    section = text.split("### real\n")[1].split("\n### ")[0]
    for told in (
        "Real?",
        "Family: classification; roles: target.",
        "Languages: de en fi sw.",
        "Labels: x, y.",
        "train: `org/a`, config `a.en`, rows `train`, revision not pinned; columns text_a = `s`; "
        "labels '0' = x, '1' = left out; reader `pairs`",
        "test: `org/a`, config `a.{code}` of de en, rows `test`, revision abc; reader `pairs`",
        "test: `org/b`, configs `Finnish`, `Swahili` of fi sw, rows `test`",
        # 250 steps of 32 are 8,000 examples: two passes over 4,000.
        "250 steps of 32 examples, learning rate 2e-05 (full), 0.0002 (lora), at most 128 tokens; 2 passes over 4,000",
        "Where the numbers come from: made up.",
        "Training data: shared; shared with other.",
        "Licence: CC BY 4.0.",
    ):
        assert told in section, told
    assert sharing(STAGE, MADE_UP) == []
    assert roles_of(MADE_UP) == ["intermediate", "target", "stage"]
    assert text.count("### other\n") == 1
    assert text.count("[`other`](#other)") == 2


def test_the_list_has_a_line_a_task_and_only_the_role_asked_for():
    lines = tasks_text(MADE_UP, "target").splitlines()
    assert lines[0] == "Target tasks"
    assert [line.split("  ")[0] for line in lines[3:]] == ["other", "real"]
    assert re.split(r"\s{2,}", lines[4]) == [
        "real",
        "classification",
        "de en fi sw",
        "4,000",
        "250 x 32, 128 tokens",
        "accuracy",
        "CC BY 4.0",
    ]
    assert [task["name"] for task in json.loads(tasks_json(MADE_UP, "intermediate"))] == ["other"]
    assert {task["name"] for task in json.loads(tasks_json(MADE_UP, None))} == set(MADE_UP)


def test_json_says_all_that_is_declared():
    found = {task["name"]: task for task in json.loads(tasks_json(MADE_UP, None))}["real"]
    assert {field.name for field in fields(Task)} < set(found)
    assert found["provenance"] == "made up."
    assert found["labels"] == ["x", "y"]
    assert found["recipe"]["learning_rate"] == {"lora": 2e-4, "full": 2e-5}
    assert found["slices"][0] == {
        "split": "train",
        "repository": "org/a",
        "configs": {"en": "a.en"},
        "rows": "train",
        "reader": "pairs",
        "columns": {"text_a": "s"},
        "labels": {"0": "x", "1": ""},
        "revision": None,
        "codes": {},
    }
    assert found["slices"][1]["configs"] == {"en": "a.en", "de": "a.de"}
    assert found["slices"][1]["revision"] == "abc"
    assert (found["shares_data_with"], found["own"], found["repositories"]) == (["other"], True, ["org/a", "org/b"])
    whole = {task["name"] for task in json.loads(tasks_json(CATALOG, None))}
    assert whole == set(CATALOG)


def test_the_command_lists_the_catalog_and_a_studys_own(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["tasks"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n{name} " in out for name in CATALOG)
    assert "topics" not in out
    (tmp_path / "hub").mkdir()
    study = tmp_path / "topics.yaml"
    study.write_text(yaml.safe_dump(examples()[0]), encoding="utf-8")
    assert main(["tasks", str(study), "--role", "target", "--json"]) == 0
    found = {task["name"]: task for task in json.loads(capsys.readouterr().out)}
    assert found["topics"]["own"]
    assert found["topics"]["repositories"] == ["my-lab/topics"]
    assert found["topics"]["recipe"]["steps"] == 12
    assert not found["cldr_kind"]["own"]
    assert "cldr_pairs" not in found
    assert main(["tasks", str(tmp_path / "none.yaml")]) == 1
    assert "there is no such study file" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["tasks", "--role", "stages"])
