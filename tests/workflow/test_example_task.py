"""The example of docs/adding-a-task.md, as a user would run it: planned, prepared, and edited."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from typing import Any

import polars as pl
import pytest
from harness import FEW_STEPS, MODEL_ID, Workspace, write_tiny_bert

from topics import examples, write_topics

DATA = "results/topics/data/topics"


def study() -> dict[str, Any]:
    """The document's first study with a tiny encoder."""
    return {**deepcopy(examples()[0]), "encoder": {"source": "hub", "id": MODEL_ID}}


@pytest.fixture
def hub(workspace: Workspace) -> Workspace:
    """A workspace with the document's data and a tiny encoder in its folder `hub`."""
    write_topics(workspace.folder / "hub")
    write_tiny_bert(workspace.folder / "hub" / MODEL_ID)
    return workspace


def test_the_documents_example_is_planned(hub: Workspace) -> None:
    hub.write_study(study())
    jobs = hub.plan()
    # One intermediate task at three budgets and three seeds, and the baseline's three seeds.
    assert (jobs["prepare_data"], jobs["train_intermediate"], jobs["train_target"]) == (2, 9, 12)
    listed = hub.xlift("tasks", "study.yaml", "--role", "target")
    assert listed.code == 0, listed.output
    assert "topics" in listed.output


def test_tasks_can_be_in_a_file_of_their_own(hub: Workspace) -> None:
    whole = study()
    hub.write_study({name: value for name, value in whole.items() if name != "tasks"})
    hub.write_study({"tasks": whole["tasks"]}, "my-tasks.yaml")
    ended = hub.snakemake("--dry-run", "--configfile", "study.yaml", "my-tasks.yaml")
    assert ended.code == 0, ended.output
    assert ended.jobs["train_target"] == 12
    wrong = deepcopy(whole["tasks"])
    wrong["topics"]["famly"] = "span"
    hub.write_study({"tasks": wrong}, "my-tasks.yaml")
    ended = hub.snakemake("--dry-run", "--configfile", "study.yaml", "my-tasks.yaml")
    assert ended.code != 0
    said = r"study\.yaml with \S*my-tasks\.yaml: tasks\.topics\.famly: is not a setting; did you mean 'family'\?"
    assert re.search(said, ended.output), ended.output


def test_the_documents_example_is_prepared_and_an_edit_repeats_what_depends_on_it(hub: Workspace) -> None:
    settings = study()
    hub.write_study(settings)
    ended = hub.snakemake("--cores", "2", f"{DATA}.parquet", "--configfile", "study.yaml")
    assert ended.code == 0, ended.output
    frame = pl.read_parquet(hub.folder / f"{DATA}.parquet")
    counts = {(split, code): rows for split, code, rows in frame.group_by("split", "language").len().iter_rows()}
    assert counts == {("train", "en"): 48, ("dev", "en"): 12, **{("test", code): 23 for code in ("de", "en", "sw")}}
    manifest = json.loads((hub.folder / f"{DATA}.json").read_text(encoding="utf-8"))
    assert manifest["specification"]["declared"]["name"] == "topics"
    assert manifest["dropped"]["train/en"] == {"left out by the task's labels": 3}
    assert hub.plan()["prepare_data"] == 1  # the intermediate task's
    settings["tasks"]["topics"]["summary"] = "Another one."
    hub.write_study(settings)
    assert hub.plan()["prepare_data"] == 1
    settings["tasks"]["topics"]["test"]["rows"] = "validation"
    hub.write_study(settings)
    assert hub.plan()["prepare_data"] == 2


def test_what_is_wrong_with_a_task_stops_the_study(hub: Workspace) -> None:
    settings = study()
    settings["tasks"]["topics"]["languages"] = ["de", "en", "xx"]
    settings["tasks"]["topics"]["test"].pop("codes")
    hub.write_study(settings)
    ended = hub.snakemake("--dry-run", "--configfile", "study.yaml")
    assert ended.code != 0
    assert "tasks.topics.languages: xx is not in config/languages.csv; add a line for it there" in ended.output


def test_rows_of_a_data_set_put_no_script_on_the_page(hub: Workspace) -> None:
    """A study of them runs to its page, which quotes no row. (What it does quote is escaped: test_report.py.)"""
    hostile = "<script>alert('row')</script> & <img src=x onerror=alert(1)>"
    for path in sorted((hub.folder / "hub" / "my-lab" / "topics").rglob("*.parquet")):
        frame = pl.read_parquet(path)
        frame.with_columns(sentence=pl.lit(f"{hostile} ") + pl.col("sentence")).write_parquet(path)
    settings = {**study(), "budgets": [1], "seeds": [1], "trainable": {"rank": 2, "alpha": 4}}
    settings["recipes"] = {"cldr_pairs": FEW_STEPS}
    settings["tasks"]["topics"]["recipe"] = {**FEW_STEPS, "learning_rate": 1e-3, "max_length": 64}
    settings["tasks"]["topics"]["summary"] = hostile
    hub.write_study(settings)
    ended = hub.run()
    assert ended.code == 0, ended.output
    results = hub.results("topics")
    assert hostile in pl.read_parquet(results / "data" / "topics.parquet")["text_a"][0]
    page = (results / "report" / "index.html").read_text(encoding="utf-8")
    for part in ("alert('row')", "onerror=alert", "<script>alert", "<img src=x"):
        assert part not in page
