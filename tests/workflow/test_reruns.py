"""What is repeated after a change, and what is not: dry-runs over copies of one finished study."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from harness import SCORED, TRAINED, Finished, Workspace, tiny_study

BOTH = ["cldr_choice", "cldr_qa"]
RUN = "cldr_choice/x1/seed1"


def planned(workspace: Workspace, finished: Finished, **changes: Any) -> dict[str, int]:
    """Jobs by rule after these settings of the finished study changed."""
    workspace.write_study(tiny_study(Path(finished.settings["data"]["root"]), **changes))
    return workspace.plan()


def touch(path: Path) -> None:
    """Give a file the present time, later than everything that was made of it."""
    assert path.exists()
    now = time.time()
    os.utime(path, (now, now))


@pytest.mark.parametrize("seed", ["0", "1"])
def test_no_change_no_job_under_any_hash_seed(finished: Finished, seed: str) -> None:
    ended = finished.workspace.snakemake("--dry-run", "--configfile", "study.yaml", PYTHONHASHSEED=seed)
    assert ended.code == 0
    assert ended.jobs == {}


GRID_CHANGES: Mapping[str, tuple[dict[str, Any], dict[str, int]]] = {
    # Two intermediate runs, the baseline's and theirs of two trained targets, three targets' cells.
    "a seed": (
        {"seeds": [1, 2]},
        {"train_intermediate": 2, "train_target": 6, "predict_cell": 9, **TRAINED},
    ),
    # The baseline has no budget.
    "a budget": (
        {"budgets": [1, 2]},
        {"train_intermediate": 2, "train_target": 4, "predict_cell": 6, **TRAINED},
    ),
    "an intermediate task": (
        {"intermediates": [*BOTH, "cldr_pairs"]},
        {
            "prepare_data": 1,
            "encode_task": 1,
            "train_intermediate": 1,
            "train_target": 2,
            "predict_cell": 3,
            **TRAINED,
        },
    ),
    # English training data stays what it is: no run is repeated.
    "a language": (
        {"languages": ["af", "de", "fr", "sw", "tr"]},
        {"prepare_data": 3, "encode_task": 3, "predict_cell": 9, **SCORED},
    ),
}


@pytest.mark.parametrize(("change", "jobs"), GRID_CHANGES.values(), ids=list(GRID_CHANGES))
def test_an_added(copied: Workspace, finished: Finished, change: dict[str, Any], jobs: dict[str, int]) -> None:
    assert planned(copied, finished, **change) == jobs


def test_a_removed_target_repeats_the_tables_only(copied: Workspace, finished: Finished) -> None:
    assert planned(copied, finished, targets=["cldr_retrieval", "cldr_kind"]) == TRAINED


def test_one_targets_learning_rate(copied: Workspace, finished: Finished) -> None:
    jobs = planned(copied, finished, recipes={"cldr_kind": {"learning_rate": 0.0017}})
    assert jobs == {"train_target": 3, "predict_cell": 3, **TRAINED}


def test_one_intermediates_steps(copied: Workspace, finished: Finished) -> None:
    jobs = planned(copied, finished, recipes={"cldr_qa": {"steps": 5}})
    assert jobs == {"train_intermediate": 1, "train_target": 2, "predict_cell": 3, **TRAINED}


def test_a_language_and_a_learning_rate_at_once(copied: Workspace, finished: Finished) -> None:
    """A job behind another one that runs is looked at, too."""
    jobs = planned(
        copied,
        finished,
        languages=["af", "de", "fr", "sw", "tr"],
        recipes={"cldr_kind": {"learning_rate": 0.0017}},
    )
    assert jobs == {
        "prepare_data": 3,
        "encode_task": 3,
        "train_target": 3,
        "predict_cell": 9,
        **TRAINED,
    }


def test_another_encoder_repeats_all_but_the_data(copied: Workspace, finished: Finished) -> None:
    jobs = planned(copied, finished, encoder={"source": "hub", "id": "test/other"})
    assert jobs == {
        "prepare_encoder": 1,
        "encode_task": 5,
        "train_intermediate": 2,
        "train_target": 6,
        "predict_cell": 9,
        **TRAINED,
    }


def test_longer_sequences(copied: Workspace, finished: Finished) -> None:
    jobs = planned(copied, finished, recipes={"cldr_entities": {"max_length": 96}})
    assert jobs == {"encode_task": 1, "train_target": 3, "predict_cell": 3, **TRAINED}


def test_contrast_settings(copied: Workspace, finished: Finished) -> None:
    jobs = planned(copied, finished, contrasts={"low_below": 1.5})
    assert jobs == {"estimate_contrasts": 1, "render_report": 1, "all": 1}


def test_comments_in_scripts(copied: Workspace) -> None:
    scripts = sorted((copied.folder / "workflow" / "scripts").glob("*.py"))
    assert len(scripts) == 11
    for script in scripts:
        script.write_text(script.read_text(encoding="utf-8") + "# A comment.\n", encoding="utf-8")
    assert copied.plan() == {}


@pytest.mark.parametrize(
    "name",
    [
        "data/cldr_kind.parquet",
        "data/cldr_qa.parquet",
        "encoded/cldr_kind/length64/manifest.json",
        "encoder/manifest.json",
    ],
)
def test_touched_preparations(copied: Workspace, name: str) -> None:
    touch(copied.results() / name)
    assert copied.plan() == {}


def test_prepared_data_made_again_repeats_no_training(copied: Workspace) -> None:
    """The rule runs again and its outputs are new: what is made of them stays, for it would be the same."""
    jobs = copied.plan("--forcerun", "prepare_data")
    assert jobs == {"prepare_data": 5}


def remove(workspace: Workspace, *names: str) -> None:
    """Delete files of the results."""
    for name in names:
        (workspace.results() / name).unlink()


CELL = f"predictions/cldr_retrieval/{RUN}.parquet"
SCORES = f"scores/cldr_retrieval/{RUN}.parquet"


def test_deleted_prediction(copied: Workspace) -> None:
    """Snakemake makes no file again that nothing needs: a cell comes back by name, or when the tables are made."""
    remove(copied, CELL)
    assert copied.plan() == {}
    assert copied.plan(f"results/tiny/{CELL}") == {"predict_cell": 1}
    remove(copied, "scores.parquet", "report/index.html")
    assert copied.plan() == {"predict_cell": 1, **SCORED}


def scored(workspace: Workspace) -> tuple[int, int]:
    """How many cells the last scoring says that it scored, and how many it kept."""
    said = (workspace.results() / "logs" / "score_cells.log").read_text(encoding="utf-8")
    found = re.search(r"^(\d+) cells scored in [0-9.]+ s, (\d+) kept$", said, re.MULTILINE)
    assert found is not None, said
    return int(found[1]), int(found[2])


def test_cells_are_scored_again_one_by_one(copied: Workspace, finished: Finished) -> None:
    """Scores of cells are no outputs of a rule: the job that makes the table finds out what it has to do."""
    table = copied.results() / "scores.parquet"
    before = table.read_bytes()
    assert scored(copied) == (9, 0)

    remove(copied, SCORES)
    assert copied.plan() == {}  # the table of all scores is there
    remove(copied, "scores.parquet", "report/index.html")
    assert copied.plan() == SCORED
    assert copied.run("results/tiny/scores.parquet").code == 0
    assert (scored(copied), table.read_bytes()) == ((1, 8), before)

    # A prediction made again may have other bytes on another processor: what is older than it is not kept.
    touch(copied.results() / CELL)
    remove(copied, "scores.parquet")
    assert copied.run("results/tiny/scores.parquet").code == 0
    assert (scored(copied), table.read_bytes()) == ((1, 8), before)

    assert planned(copied, finished, targets=["cldr_retrieval", "cldr_kind"]) == TRAINED
    assert copied.run("results/tiny/scores.parquet").code == 0
    assert scored(copied) == (0, 6)


def test_a_damaged_prediction_is_named_and_the_others_are_scored(copied: Workspace) -> None:
    path, scores = copied.results() / CELL, copied.results() / "scores"
    path.write_bytes(path.read_bytes()[:-8])
    shutil.rmtree(scores)
    ended = copied.run("results/tiny/scores.parquet")
    assert ended.code != 0
    assert f"error: results/tiny/{CELL}: its sha256 is not the one it carries" in ended.output
    assert "Traceback" not in ended.output
    assert len(list(scores.rglob("*.parquet"))) == 8
    # As the sentence advises.
    remove(copied, CELL)
    assert copied.plan("results/tiny/scores.parquet") == {"predict_cell": 1, "score_cells": 1}
    assert copied.run("results/tiny/scores.parquet").code == 0
    assert scored(copied) == (1, 8)


def test_deleted_checkpoint_with_later_results(copied: Workspace) -> None:
    """Disks may be cleaned of weights. A run that comes back comes with all that was made from it."""
    shutil.rmtree(copied.results() / "intermediate" / RUN)
    assert copied.plan() == {}
    remove(copied, CELL, SCORES, "scores.parquet", "report/index.html")
    assert copied.plan() == {
        "train_intermediate": 1,
        "train_target": 2,
        "predict_cell": 3,
        **TRAINED,
    }


TABLES = {
    "scores": {"score_cells": 1, "estimate_contrasts": 1, "render_report": 1, "all": 1},
    "runs": {"collect_runs": 1, "render_report": 1, "all": 1},
    "contrasts": {"estimate_contrasts": 1, "render_report": 1, "all": 1},
    "gains": {"estimate_contrasts": 1, "render_report": 1, "all": 1},
}


@pytest.mark.parametrize(("name", "jobs"), TABLES.items(), ids=list(TABLES))
def test_deleted_table_with_its_page(copied: Workspace, name: str, jobs: dict[str, int]) -> None:
    (copied.results() / f"{name}.parquet").unlink()
    (copied.results() / "report" / "index.html").unlink()
    assert copied.plan() == jobs


def test_deleted_page(copied: Workspace) -> None:
    (copied.results() / "report" / "index.html").unlink()
    assert copied.plan() == {"render_report": 1, "all": 1}
