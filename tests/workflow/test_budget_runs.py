"""Arms, controls and trunks through the whole workflow, and what an added budget repeats."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from harness import SCORED, TRAINED, Finished, Workspace, tiny_study

from faults import Fault
from xlift.artifacts import sha256_of

TRUNK: dict[str, Any] = {
    "schedule": "trunk",
    "intermediates": ["cldr_choice"],
    "budgets": [1, 2, 4],
    "targets": ["cldr_retrieval"],
}
ARMS: dict[str, Any] = {
    "intermediates": ["cldr_choice"],
    "budgets": [1, {"times": 2, "unique_fraction": 0.01}],
    "cross": {"batch_size": [2], "max_length": [32]},
    "controls": ["extra_target", "shuffled_labels"],
    "targets": ["cldr_kind"],
}
ONE_MORE = {"train_trunk": 1, "train_intermediate": 1, "predict_cell": 1, **TRAINED}
"""A budget more of one task and seed, and one target that is not trained."""


def finish(hub: Path, folder: Path, settings: dict[str, Any]) -> Finished:
    """Run a study to its end in a workspace of its own."""
    workspace = Workspace(folder / "work")
    study = tiny_study(hub, **settings)
    workspace.write_study(study)
    ended = workspace.run()
    assert ended.code == 0, ended.output
    return Finished(workspace, study, ended)


@pytest.fixture(scope="session")
def trunk(hub: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A finished study with a trunk of three points."""
    return finish(hub, tmp_path_factory.mktemp("trunk"), TRUNK)


@pytest.fixture(scope="session")
def arms(hub: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A finished study with two budgets, crossed, and both controls."""
    return finish(hub, tmp_path_factory.mktemp("arms"), ARMS)


def copy_of(finished: Finished, folder: Path, **changes: Any) -> Workspace:
    """A copy of a finished study's workspace whose settings are changed."""
    workspace = finished.workspace.copy(folder / "work")
    workspace.write_study({**finished.settings, **changes})
    return workspace


def manifest(workspace: Workspace, run: str) -> dict[str, Any]:
    return json.loads((workspace.results() / run / "manifest.json").read_text(encoding="utf-8"))


def checkpoint(workspace: Workspace, budget: str) -> str:
    """sha256 of an intermediate run's weights."""
    return sha256_of(workspace.results() / f"intermediate/cldr_choice/{budget}/seed1/weights.safetensors")


# --- Trunks ---


def test_a_trunk_is_trained_once(trunk: Finished) -> None:
    assert trunk.ended.jobs["train_trunk"] == trunk.ended.jobs["train_intermediate"] == 3
    # 4, 8 and 16 steps, of which 1, 2 and 4 are a cooldown.
    segments = [manifest(trunk.workspace, f"trunk/cldr_choice/x{times}/seed1") for times in (1, 2, 4)]
    branches = [manifest(trunk.workspace, f"intermediate/cldr_choice/x{times}/seed1") for times in (1, 2, 4)]
    assert [s["steps"] for s in segments] == [3, 6, 12]
    assert [s["job_steps"] for s in segments] == [3, 3, 6]
    assert [b["steps"] for b in branches] == [4, 8, 16]
    assert [b["job_steps"] for b in branches] == [1, 2, 4]
    assert [b["examples"] for b in branches] == [16, 32, 64]
    assert [s["start"] for s in segments] == [
        None,
        *(f"results/tiny/trunk/cldr_choice/{x}/seed1/manifest.json" for x in ("x1", "x2")),
    ]
    runs = pl.read_parquet(trunk.workspace.results() / "runs.parquet")
    assert runs.group_by("kind").len().sort("kind").rows() == [("intermediate", 3), ("trunk", 3)]
    assert runs["job_steps"].sum() == 12 + 7
    scores = pl.read_parquet(trunk.workspace.results() / "scores.parquet")
    assert scores.select("budget", "steps").unique().sort("budget").rows() == [(0.0, 0), (1.0, 4), (2.0, 8), (4.0, 16)]


@pytest.mark.parametrize("budgets", [[1, 2, 4, 8], [1, 2, 3, 4], [0.75, 1, 2, 4]], ids=["after", "between", "before"])
def test_an_added_budget_trains_what_is_new_only(trunk: Finished, tmp_path: Path, budgets: list[float]) -> None:
    workspace = copy_of(trunk, tmp_path, budgets=budgets)
    assert workspace.plan() == ONE_MORE


def test_an_added_budget_leaves_all_bytes_and_is_done_once(trunk: Finished, tmp_path: Path) -> None:
    before = {budget: checkpoint(trunk.workspace, budget) for budget in ("x1", "x2", "x4")}
    workspace = copy_of(trunk, tmp_path, budgets=[1, 2, 3, 4])
    ended = workspace.run()
    assert ended.code == 0, ended.output
    assert ended.jobs == ONE_MORE
    assert {budget: checkpoint(workspace, budget) for budget in before} == before
    assert workspace.plan() == {}
    # The later segment stays with the state that it did go on from, whatever else is changed.
    workspace.write_study({**trunk.settings, "budgets": [1, 2, 3, 4, 8], "contrasts": {"low_below": 1.5}})
    assert workspace.plan() == ONE_MORE


def test_a_dropped_budget_repeats_no_training(trunk: Finished, tmp_path: Path) -> None:
    assert copy_of(trunk, tmp_path, budgets=[1, 4]).plan() == TRAINED


def test_a_branch_does_not_depend_on_the_points_before_it(trunk: Finished, tmp_path: Path) -> None:
    workspace = copy_of(trunk, tmp_path, budgets=[4])
    for kind in ("trunk", "intermediate"):
        shutil.rmtree(workspace.results() / kind)
    ended = workspace.run("results/tiny/intermediate/cldr_choice/x4/seed1/manifest.json")
    assert ended.code == 0, ended.output
    assert ended.jobs == {"train_trunk": 1, "train_intermediate": 1}
    assert manifest(workspace, "trunk/cldr_choice/x4/seed1")["start"] is None
    assert checkpoint(workspace, "x4") == checkpoint(trunk.workspace, "x4")


@pytest.mark.fault("one flipped bit in a trunk's state")
def test_a_flipped_bit_in_a_trunk(trunk: Finished, tmp_path: Path, fault: Fault) -> None:
    workspace = copy_of(trunk, tmp_path)
    state = next((workspace.results() / "trunk").rglob("state.safetensors"))
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 1
    state.write_bytes(content)
    made = workspace.results() / "intermediate" / state.parent.relative_to(workspace.results() / "trunk")
    shutil.rmtree(made)
    ended = workspace.run(str((made / "manifest.json").relative_to(workspace.folder)))
    assert ended.code != 0
    assert f"{state.relative_to(workspace.folder)}: sha256 is" in ended.output
    assert "Traceback" not in ended.output
    assert not (made / "manifest.json").exists()
    fault.refuses()


def test_states_may_be_cleaned_away(trunk: Finished, tmp_path: Path) -> None:
    workspace = copy_of(trunk, tmp_path)
    shutil.rmtree(workspace.results() / "trunk")
    assert workspace.plan() == {}


def test_a_longer_warmup_is_another_trunk(trunk: Finished, tmp_path: Path) -> None:
    jobs = copy_of(trunk, tmp_path, training={"warmup": 0.3}).plan()
    assert jobs == {"train_trunk": 3, "train_intermediate": 3, "predict_cell": 3, **TRAINED}


def test_a_longer_cooldown_keeps_no_point(trunk: Finished, tmp_path: Path) -> None:
    jobs = copy_of(trunk, tmp_path, training={"cooldown": 0.4}).plan()
    assert jobs == {"train_trunk": 3, "train_intermediate": 3, "predict_cell": 3, **TRAINED}


# --- Arms and controls ---


def test_arms_in_the_tables(arms: Finished) -> None:
    root = arms.workspace.results()
    # Two amounts; the first crossed with a batch and a length, the second keeping its own share of the data.
    batch, length = "b2-sqrt", "l32"
    crossed = ["", f"-{batch}", f"-{length}", f"-{batch}-{length}"]
    expected = {
        ("none", "main", 0.0),
        *(("cldr_choice", control, 1.0) for control in ("extra_target", "shuffled_labels")),
    }
    expected |= {("cldr_choice", way.removeprefix("-") or "main", 1.0) for way in crossed}
    with_share = ["u0.01", f"{batch}-u0.01", f"{length}-u0.01", f"{batch}-{length}-u0.01"]
    expected |= {("cldr_choice", arm, 2.0) for arm in with_share}
    scores = pl.read_parquet(root / "scores.parquet")
    assert set(scores.select("intermediate", "arm", "budget").unique().rows()) == expected
    assert arms.ended.jobs["train_intermediate"] == 9
    assert arms.ended.jobs["train_target"] == arms.ended.jobs["predict_cell"] == 11
    assert arms.ended.jobs["encode_task"] == 3
    assert not scores["shared_data"].any()
    gains = pl.read_parquet(root / "gains.parquet")
    assert set(gains["arm"].unique()) == {arm for task, arm, _ in expected if task != "none"}
    page = (root / "report" / "index.html").read_text(encoding="utf-8")
    assert "tiny" in page


def test_arms_spend_the_same_examples(arms: Finished) -> None:
    scores = pl.read_parquet(arms.workspace.results() / "scores.parquet").filter(pl.col("intermediate") != "none")
    found = dict(scores.select("arm", pl.struct("steps", "examples", "batch_size")).unique().rows())
    assert found["main"] == {"steps": 4, "examples": 16, "batch_size": 4}
    assert found["b2-sqrt"] == {"steps": 8, "examples": 16, "batch_size": 2}
    assert found["l32"] == found["shuffled_labels"] == found["main"]
    assert found["u0.01"] == {"steps": 8, "examples": 32, "batch_size": 4}
    # Four extra steps of the target's own batch of 4.
    assert found["extra_target"] == {"steps": 4, "examples": 16, "batch_size": 4}
    target = manifest(arms.workspace, "target/cldr_kind/cldr_choice.extra_target/x1/seed1")
    assert (target["steps"], target["parent"]) == (8, None)
    extra = scores.filter(pl.col("arm") == "extra_target").row(0, named=True)
    assert extra["tokens"] == round(target["tokens"] / 2)
    assert extra["flops"] == target["flops"] / 2


def test_realised_counts_are_those_of_the_manifests(arms: Finished) -> None:
    root = arms.workspace.results()
    scores = pl.read_parquet(root / "scores.parquet").filter((pl.col("arm") == "b2-sqrt-l32") & (pl.col("budget") == 1))
    run = manifest(arms.workspace, "intermediate/cldr_choice/x1-b2-l32/seed1")
    for name in ("steps", "examples", "tokens", "padded_tokens", "flops", "batch_size"):
        assert scores[name].unique().to_list() == [run[name]], name


def test_labels_without_content_train_something_else(arms: Finished) -> None:
    root = arms.workspace.results() / "intermediate"
    plain, shuffled = (
        sha256_of(root / name / "x1" / "seed1" / "weights.safetensors")
        for name in ("cldr_choice", "cldr_choice.shuffled_labels")
    )
    assert plain != shuffled


SPEED = {"save_every": 7, "compile": True, "gradient_checkpointing": "off", "micro_batch_tokens": 4096}


def test_settings_of_speed_repeat_nothing(arms: Finished, tmp_path: Path) -> None:
    assert copy_of(arms, tmp_path, training=SPEED).plan() == {}


def test_settings_of_speed_reach_the_job(trunk: Finished, tmp_path: Path) -> None:
    workspace = copy_of(trunk, tmp_path, training={"micro_batch_tokens": 512}, budgets=[1, 2, 4, 8])
    ended = workspace.run("results/tiny/intermediate/cldr_choice/x8/seed1/manifest.json")
    assert ended.code == 0, ended.output
    assert manifest(workspace, "trunk/cldr_choice/x8/seed1")["micro_batch_tokens"] == 512


def test_an_added_arm_repeats_nothing_else(arms: Finished, tmp_path: Path) -> None:
    cross = {**ARMS["cross"], "unique_fraction": [0.5]}
    # The first amount's four ways with half the data; the second has a share of its own.
    assert copy_of(arms, tmp_path, cross=cross).plan() == {
        "train_intermediate": 4,
        "train_target": 4,
        "predict_cell": 4,
        **TRAINED,
    }


def test_an_added_length_encodes_again(arms: Finished, tmp_path: Path) -> None:
    jobs = copy_of(arms, tmp_path, cross={**ARMS["cross"], "max_length": [32, 16]}).plan()
    assert jobs == {
        "encode_task": 1,
        "train_intermediate": 4,
        "train_target": 4,
        "predict_cell": 4,
        **TRAINED,
    }


def test_the_best_step_on_dev_is_another_run(finished: Finished, tmp_path: Path) -> None:
    jobs = copy_of(finished, tmp_path, training={"select": "best_dev"}).plan()
    # All but the untrained encoder's cell.
    assert jobs == {"train_intermediate": 2, "train_target": 6, "predict_cell": 8, **TRAINED}


def test_data_of_another_size_stops_before_training(trunk: Finished, tmp_path: Path) -> None:
    recipe = {**trunk.settings["recipes"]["cldr_choice"], "train_examples": 5000}
    workspace = copy_of(trunk, tmp_path, recipes={"cldr_choice": recipe})
    assert workspace.plan() == {"encode_task": 1}  # what is trained does not depend on the number
    shutil.rmtree(workspace.results() / "encoded")
    ended = workspace.run("results/tiny/encoded/cldr_choice/length64/manifest.json")
    assert ended.code != 0
    assert "has 6000 training examples of cldr_choice where 5000 are expected" in ended.output


# --- The plan ---


def xlift_plan(workspace: Workspace) -> dict[str, Any]:
    said = workspace.xlift("plan", "study.yaml", "--json")
    assert said.code == 0, said.output
    return json.loads(said.output)


CHANGES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "a seed": {"seeds": [1, 2]},
    "a budget": {"budgets": [1, 2, 4, 8]},
    "a budget in between": {"budgets": [1, 2, 3, 4]},
    "an arm": {"cross": {"batch_size": [2]}},
    "controls": {"controls": ["shuffled_labels"]},
    "a trained target": {"targets": ["cldr_retrieval", "cldr_kind"]},
    "a language": {"languages": ["af", "de", "fr", "sw", "tr"]},
    "a recipe": {"recipes": {"cldr_choice": {"steps": 4, "batch_size": 4, "learning_rate": 0.002}}},
    "another schedule": {"schedule": "independent"},
    "another encoder": {"encoder": {"source": "hub", "id": "test/other"}},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_the_plan_counts_the_jobs_that_snakemake_counts(trunk: Finished, tmp_path: Path, change: dict) -> None:
    workspace = copy_of(trunk, tmp_path, **change)
    outstanding = workspace.plan()
    plan = xlift_plan(workspace)
    assert plan["outstanding"] == outstanding
    shutil.rmtree(workspace.results())
    assert plan["jobs"] == workspace.plan()


def test_the_plan_counts_what_cleaning_makes_necessary(trunk: Finished, tmp_path: Path) -> None:
    workspace = copy_of(trunk, tmp_path)
    shutil.rmtree(workspace.results() / "trunk")
    assert xlift_plan(workspace)["outstanding"] == workspace.plan() == {}
    for name in ("predictions/cldr_retrieval/cldr_choice/x2/seed1.parquet", "scores.parquet", "report/index.html"):
        (workspace.results() / name).unlink()
    (workspace.results() / "scores/cldr_retrieval/cldr_choice/x2/seed1.parquet").unlink()
    assert xlift_plan(workspace)["outstanding"] == workspace.plan() == {"predict_cell": 1, **SCORED}
    for kind in ("data", "encoded", "encoder"):
        kept = workspace.folder / kind
        shutil.move(workspace.results() / kind, kept)
        assert xlift_plan(workspace)["outstanding"] == workspace.plan(), kind
        shutil.move(kept, workspace.results() / kind)
    shutil.rmtree(workspace.results() / "intermediate")
    assert xlift_plan(workspace)["outstanding"] == workspace.plan()


def test_the_plan_counts_the_jobs_of_every_arm(arms: Finished, tmp_path: Path) -> None:
    workspace = copy_of(arms, tmp_path)
    assert xlift_plan(workspace)["outstanding"] == {}
    shutil.rmtree(workspace.results())
    plan = xlift_plan(workspace)
    assert plan["jobs"] == plan["outstanding"] == workspace.plan()
    assert plan["total"]["jobs"] == sum(plan["jobs"].values())


def test_the_plan_rests_on_the_runs_at_hand(trunk: Finished) -> None:
    plan = xlift_plan(trunk.workspace)
    runs = pl.read_parquet(trunk.workspace.results() / "runs.parquet")
    assert plan["total"]["steps"] == runs["job_steps"].sum()
    assert plan["total"]["flops"] == pytest.approx(runs["job_flops"].sum(), rel=0.2)
    assert plan["trunk_ratio"] == (12 + 7) / 28
    assert plan["basis"][0].startswith("The speed is that of 6 finished runs on ")
    assert plan["remaining"]["wall_hours"] == 0
    said = trunk.workspace.xlift("plan", "study.yaml", "--workers", "2")
    assert said.code == 0
    assert "Trunks take 0.679 of the intermediate steps that independent runs would." in said.output
    assert "wall time on 2 workers" in said.output
