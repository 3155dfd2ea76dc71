"""Rows that are not among the prepared examples are said where a study is read: on its page and in its answer."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_parts import make

from xlift.artifacts import publish_json, sealed
from xlift.errors import UserError
from xlift.grid import report_specification
from xlift.jobs.report import rows_left_out
from xlift.report.page import flat_facts

DROPPED = {
    "dev/en": {"its context is in dev or test too": 1190},
    "train/en": {"no gold label": 3, "its context is in dev or test too": 1200},
}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Manifests of three sets of examples: rows left out of one, of one none, one from a source that counts none."""
    (tmp_path / "data").mkdir()
    for task, facts in {"xquad": {"dropped": DROPPED}, "mnli": {"dropped": {}}, "cldr_pairs": {}}.items():
        publish_json(tmp_path / "data" / f"{task}.json", sealed(facts))
    return tmp_path


def test_rows_left_out_are_told_task_by_task(results: Path) -> None:
    found = rows_left_out(results, ["cldr_pairs", "mnli", "xquad"])
    assert found == {
        "xquad": [
            "dev/en 1,190 (its context is in dev or test too)",
            "train/en 1,200 (its context is in dev or test too)",
            "train/en 3 (no gold label)",
        ]
    }
    (fact,) = flat_facts({"rows left out": found})
    assert fact == ("rows left out · xquad", ", ".join(found["xquad"]))
    assert flat_facts({"rows left out": rows_left_out(results, ["mnli"])}) == []
    missing = results / "data" / "squad_v1.json"
    assert rows_left_out(results, ["squad_v1"]) == {"squad_v1": [f"not known: {missing} is not there"]}
    path = results / "data" / "xquad.json"
    path.write_text(path.read_text(encoding="utf-8").replace("1190", "1191"), encoding="utf-8")
    with pytest.raises(UserError, match=r"xquad\.json: is missing or damaged; delete .*xquad\.parquet and run"):
        rows_left_out(results, ["xquad"])


def test_the_page_looks_at_every_set_of_examples() -> None:
    grid = make(intermediates=["cldr_pairs", "cldr_qa"])
    assert report_specification(grid)["examples"] == grid.tasks
    assert {"cldr_pairs", "cldr_qa"} < set(grid.tasks)
