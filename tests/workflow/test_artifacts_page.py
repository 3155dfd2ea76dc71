"""docs/artifacts.md names every file that a finished study has, and exactly the columns and entries in it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from harness import Finished

from xlift.analysis import PLAN_ENTRIES
from xlift.artifact_reference import FILES, further_columns
from xlift.columns import schema_of
from xlift.contrasts.gains import FERTILITY, GAINS, SCORES
from xlift.contrasts.rows import CONTRASTS
from xlift.grid import Grid
from xlift.jobs.prepare import DATA_ENTRIES, ENCODED_ENTRIES, ENCODER_ENTRIES
from xlift.jobs.score import RUNS
from xlift.study import parse_study
from xlift.tasks.families import FAMILIES
from xlift.tasks.family import COMMON_COLUMNS, PREDICTION_COLUMNS
from xlift.training.loop import LOG_ENTRIES
from xlift.training.run import MANIFEST_ENTRIES

OF_SEVERAL = {"parts", "task", "mlm_head"}
"""Entries that only a run of several tasks has, or one with masked-language modelling."""
OF_REPOSITORIES = {"sources", "dropped", "notes", "supertags"}
"""Entries that only the manifest of data from repositories or folders has."""
SEVERAL_FOLDERS = {"<job>", "<run>"}


def pattern(path: str) -> re.Pattern[str]:
    """What a path of the page stands for."""
    names = (re.escape(part) if part[0] != "<" else "" for part in re.split(r"(<\w+>)", path) if part)
    kinds = re.findall(r"<\w+>", path)
    filled = (("[^/]+" if kind not in SEVERAL_FOLDERS else ".+") for kind in kinds)
    return re.compile("".join(name or next(filled) for name in names))


def names_of(path: Path) -> set[str]:
    return set(json.loads(path.read_text(encoding="utf-8")))


@pytest.fixture(scope="session")
def results(finished: Finished) -> Path:
    return finished.workspace.results()


@pytest.fixture(scope="session")
def grid(finished: Finished) -> Grid:
    return Grid(parse_study(finished.settings, "tiny"), "tiny")


def test_every_file_of_a_finished_study_is_on_the_page(results: Path) -> None:
    found = [str(path.relative_to(results)) for path in sorted(results.rglob("*")) if path.is_file()]
    known = [pattern(file.path) for file in FILES]
    assert found
    assert [path for path in found if not any(one.fullmatch(path) for one in known)] == []


@pytest.mark.parametrize(
    ("table", "columns"),
    [("scores", SCORES), ("gains", (*GAINS, FERTILITY)), ("contrasts", CONTRASTS), ("runs", RUNS)],
)
def test_tables_have_the_declared_columns(results: Path, table: str, columns: Any) -> None:
    assert list(pl.read_parquet_schema(results / f"{table}.parquet").items()) == list(schema_of(columns).items())


def test_predictions_examples_and_scores_of_a_cell_have_the_declared_columns(results: Path, grid: Grid) -> None:
    for target in grid.study.targets:
        task = grid.study.catalog[target]
        family = FAMILIES[task.family]
        further = family.further_columns(task)
        assert further.items() <= further_columns(family).items()
        for path in (results / "predictions" / target).rglob("*.parquet"):
            assert pl.read_parquet_schema(path) == {**PREDICTION_COLUMNS, **further}
        for path in (results / "scores" / target).rglob("*.parquet"):
            assert pl.read_parquet_schema(path) == schema_of(SCORES)
    for path in (results / "data").glob("*.parquet"):
        family = FAMILIES[grid.study.catalog[path.stem].family]
        schema = dict(pl.read_parquet_schema(path))
        optional: Mapping[str, Any] = {name: schema.get(name) for name in family.optional_columns if name in schema}
        assert schema == {**COMMON_COLUMNS, **family.columns, **optional}


@pytest.mark.parametrize(
    ("files", "entries", "may_lack"),
    [
        ("analysis_plan.json", PLAN_ENTRIES, set()),
        ("data/*.json", DATA_ENTRIES, OF_REPOSITORIES),
        ("encoder/manifest.json", ENCODER_ENTRIES, set()),
        ("encoded/*/*/manifest.json", ENCODED_ENTRIES, set()),
        ("intermediate/*/*/*/manifest.json", MANIFEST_ENTRIES, OF_SEVERAL),
        ("target/*/*/*/*/manifest.json", MANIFEST_ENTRIES, OF_SEVERAL),
    ],
)
def test_json_has_the_declared_entries(
    results: Path, files: str, entries: Mapping[str, str], may_lack: set[str]
) -> None:
    paths = list(results.glob(files))
    assert paths
    for path in paths:
        assert entries.keys() - may_lack <= names_of(path) <= entries.keys(), path


def test_logs_have_the_declared_entries(results: Path) -> None:
    paths = list(results.rglob("log.jsonl"))
    assert paths
    for path in paths:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        assert lines
        assert all(set(line) == LOG_ENTRIES.keys() - OF_SEVERAL for line in lines)
