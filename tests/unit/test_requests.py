"""What jobs ask a scheduler for, and the profiles."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from xlift.errors import UserError
from xlift.grid import Grid
from xlift.planning.requests import Requests, partition_device
from xlift.study import parse_study

ROOT = Path(__file__).parents[2]
PROFILES = ROOT / "profiles"
COMPUTING = ("train_trunk", "train_intermediate", "train_target", "predict_cell")


def grid(**changes) -> Grid:
    settings = {
        "study": "sizes",
        "intermediates": ["cldr_pairs"],
        "budgets": [{"steps": 1000}, {"steps": 200_000}],
        "seeds": [1],
        "targets": ["cldr_kind"],
    }
    return Grid(parse_study(settings | changes, "study.yaml"), "study.yaml")


def minutes(study: Grid, device: str | None, steps: int, attempt: int, results: Path) -> int:
    run = next(run for run in study.intermediates if run.budget.steps == steps)
    return Requests(study, results, device).minutes("train_intermediate", run, attempt)


def test_minutes_by_hand(tmp_path: Path) -> None:
    """A long run on an A100 takes 0.03 s a step at least, and the shape of the packaged encoder no longer than that."""
    study = grid()
    seconds = 200_000 * 0.03 + 8  # the least a step takes, and what a run takes beside them
    assert minutes(study, "a100", 200_000, 1, tmp_path) == math.ceil(3 * seconds / 60)
    assert minutes(study, "a100", 1000, 1, tmp_path) == 20  # 38 s planned: the floor
    for attempt in (2, 3, 4):
        assert minutes(study, "a100", 200_000, attempt, tmp_path) == 2 ** (attempt - 1) * math.ceil(3 * seconds / 60)
        assert minutes(study, "a100", 1000, attempt, tmp_path) == 20 * 2 ** (attempt - 1)


def test_slower_devices_ask_for_longer(tmp_path: Path) -> None:
    found = [minutes(grid(), device, 200_000, 1, tmp_path) for device in ("cpu", None, "h100")]
    assert found[0] > found[1] >= found[2]
    assert minutes(grid(), None, 200_000, 1, tmp_path) == minutes(grid(), "t4", 200_000, 1, tmp_path)


def test_cells(tmp_path: Path) -> None:
    study = grid()
    asked = Requests(study, tmp_path, "a100")
    for rule in ("train_target", "predict_cell"):
        assert asked.minutes(rule, study.cells[0], 1) == 20


def test_memory_by_hand(tmp_path: Path) -> None:
    # 12 layers of 384 and 1536, 250,000 words: 117.2 million weights, 469 MB.
    weights = 12 * (4 * 384**2 + 2 * 384 * 1536) + 250_000 * 384
    one = math.ceil(4 * weights / 1e6)
    lora, full = (Requests(grid(trainable={"method": method}), tmp_path, None) for method in ("lora", "full"))
    assert [lora.memory_mb(attempt) for attempt in (1, 2)] == [2000 + 3 * one, 2 * (2000 + 3 * one)]
    assert full.memory_mb(1) == 2000 + 6 * one


def test_an_unknown_device(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"device: 'gtx' is not known; use one of a100, cpu"):
        Requests(grid(), tmp_path, "gtx")


def test_the_device_is_the_profiles() -> None:
    def workflow(resources: dict[str, SimpleNamespace] | None) -> SimpleNamespace:
        return SimpleNamespace(resource_settings=SimpleNamespace(default_resources=resources))

    assert partition_device(workflow(None)) is None
    assert partition_device(workflow({})) is None
    assert partition_device(workflow({"device": SimpleNamespace(raw="h100")})) == "h100"
    assert partition_device(workflow({"device": SimpleNamespace(raw="'h100'")})) == "h100"


def profile(name: str) -> dict:
    return yaml.safe_load((PROFILES / name / "config.yaml").read_text(encoding="utf-8"))


def test_the_two_cluster_profiles_differ_in_how_a_gpu_is_asked_for() -> None:
    plain, gres = profile("slurm"), profile("slurm-gres")
    sizes = gres.pop("set-resources")
    assert plain == gres
    # Five minutes before its limit a job is told to save. What is commented out there is the site's.
    assert plain["default-resources"] == {"device": "a100", "slurm_extra": "'--signal=TERM@300'"}
    assert plain["retries"] == 3
    assert sizes == {rule: {"gpu": 0, "gres": "'gpu:1'"} for rule in COMPUTING}


def test_profiles_are_found_as_typed_and_do_not_clash() -> None:
    assert (ROOT / "slurm").is_symlink()
    assert (ROOT / "slurm").resolve() == PROFILES / "slurm"
    # profiles/default wins over every other profile, key by key.
    names = sorted(path.parent.name for path in PROFILES.glob("*/config.yaml"))
    assert names == ["default", "local-gpu", "slurm", "slurm-gres"]
    for name in names[1:]:
        assert not profile("default").keys() & profile(name).keys()


def test_every_setting_is_explained() -> None:
    text = (PROFILES / "README.md").read_text(encoding="utf-8")
    for name in ("default", "local-gpu", "slurm", "slurm-gres"):
        for key in profile(name):
            assert f"`{key}" in text, key
