"""docs/artifacts.md says what the code writes."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from runs import joined, mixture_specification, publish_inputs, start_run
from toy import toy_task
from xlift.artifact_reference import artifacts_text, further_columns
from xlift.columns import COUNT, TEXT, Column, in_columns
from xlift.tasks.families import FAMILIES
from xlift.training.loop import LOG_ENTRIES
from xlift.training.run import MANIFEST_ENTRIES, train_run

DOCUMENT = Path(__file__).parents[2] / "docs" / "artifacts.md"
COLUMNS = (Column("name", TEXT, "A name."), Column("count", COUNT, "A count."))


def test_the_document_is_up_to_date():
    assert DOCUMENT.read_text(encoding="utf-8") == artifacts_text(), "docs/artifacts.md is out of date: make reference"


def test_a_table_comes_in_the_declared_order_and_types():
    frame = pl.DataFrame({"count": [3], "name": [None]}, schema={"count": pl.Int32, "name": pl.Null})
    found = in_columns(frame, COLUMNS)
    assert list(found.schema.items()) == [("name", pl.String()), ("count", pl.Int64())]
    assert found.rows() == [(None, 3)]


@pytest.mark.parametrize("frame", [{"name": ["a"]}, {"name": ["a"], "count": [1], "more": [2]}])
def test_a_table_with_other_columns_is_not_written(frame):
    with pytest.raises(ValueError, match=r"declared for it: (count|more)$"):
        in_columns(pl.DataFrame(frame), COLUMNS)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_every_column_of_a_family_has_a_meaning(name):
    family = FAMILIES[name]
    columns = [*family.columns, *family.optional_columns, *further_columns(family)]
    assert sorted(family.meanings) == sorted(columns)


def test_a_run_writes_exactly_the_declared_entries(tiny_encoder, tmp_path):
    one = publish_inputs("classification", tiny_encoder, tmp_path)
    start_run("classification", one, tmp_path / "run")
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text(encoding="utf-8"))
    assert set(manifest) == MANIFEST_ENTRIES.keys() - {"parts", "mlm_head"}
    assert log_entries(tmp_path / "run") == LOG_ENTRIES.keys() - {"task"}


def test_a_run_on_several_tasks_writes_its_parts_too(tiny_encoder, tmp_path):
    families = ("classification", "tagging")
    inputs = joined([publish_inputs(family, tiny_encoder, tmp_path) for family in families])
    tasks = [toy_task(family) for family in families]
    train_run(tasks, mixture_specification(families), inputs, tmp_path / "run", 0.0)
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text(encoding="utf-8"))
    assert set(manifest) == MANIFEST_ENTRIES.keys() - {"mlm_head"}
    assert log_entries(tmp_path / "run") == LOG_ENTRIES.keys()


def log_entries(run: Path) -> set[str]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert lines
    assert all(set(line) == set(lines[0]) for line in lines)
    return set(lines[0])
