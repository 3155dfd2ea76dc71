"""Test hooks: refused without permission, and never unnoticed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from xlift.artifacts import holds, verified
from xlift.errors import UserError
from xlift.hooks import active, recorded, replaced, step_pause
from xlift.jobs import start_computing
from xlift.training.checkpoint import read_weights
from xlift.training.run import recorded_versions


@pytest.fixture(autouse=True)
def no_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("XLIFT_TEST_")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize("name", ["XLIFT_TEST_SLEEP", "XLIFT_TEST_FAIL", "XLIFT_TEST_INSTEAD"])
def test_a_hook_without_permission_stops_the_job(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(UserError, match=f"{name} is set"):
        replaced(["results/tiny/predictions/a.parquet"])


def test_without_hooks_nothing_is_said_or_done() -> None:
    assert active({"XLIFT_TEST_HOOKS": "1"}) == {}
    assert recorded() == {}
    assert step_pause() == 0
    assert not replaced(["results/tiny/predictions/a.parquet"])
    assert "test_hooks" not in recorded_versions()


def test_no_number_of_seconds() -> None:
    with pytest.raises(UserError, match="XLIFT_TEST_SLEEP=soon: is not a number"):
        active({"XLIFT_TEST_HOOKS": "1", "XLIFT_TEST_SLEEP": "soon"})


def test_slow_runs_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLIFT_TEST_HOOKS", "1")
    monkeypatch.setenv("XLIFT_TEST_SLEEP", "0.25")
    assert step_pause() == 0.25
    assert recorded_versions()["test_hooks"] == "XLIFT_TEST_SLEEP=0.25"


def test_only_the_named_job_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLIFT_TEST_HOOKS", "1")
    monkeypatch.setenv("XLIFT_TEST_FAIL", "target/a/none")
    assert not replaced(["results/tiny/target/b/none/x0/seed1/manifest.json"])
    with pytest.raises(UserError, match=r"^results/tiny/target/a/none/x0/seed1/manifest\.json: fails"):
        replaced(["results/tiny/target/a/none/x0/seed1/manifest.json"])


def test_nothing_goes_on_from_what_a_hook_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLIFT_TEST_HOOKS", "1")
    monkeypatch.setenv("XLIFT_TEST_INSTEAD", "0")
    manifest, weights = tmp_path / "run" / "manifest.json", tmp_path / "run" / "weights.safetensors"
    predictions = tmp_path / "cell.parquet"
    assert replaced([str(manifest), str(weights), str(predictions)])
    assert json.loads(manifest.read_text())["test_hooks"] == "XLIFT_TEST_INSTEAD=0"
    monkeypatch.delenv("XLIFT_TEST_INSTEAD")
    with pytest.raises(UserError, match="lists no file"):
        verified(manifest.parent, weights.name)
    with pytest.raises(UserError):
        read_weights(manifest.parent, "0" * 64)
    assert not holds(predictions, "0" * 64)
    assert not holds(manifest, "0" * 64)


def test_the_hub_is_off_before_its_library_is_read() -> None:
    """`huggingface_hub` reads HF_HUB_OFFLINE once, when it is imported."""
    script = """
import sys
import xlift.jobs
assert "huggingface_hub" not in sys.modules
xlift.jobs.start_computing()
from xlift.jobs.train import train_job
from huggingface_hub import constants
assert constants.HF_HUB_OFFLINE
"""
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)


def test_a_cluster_job_is_offline_and_says_where_it_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURMD_NODENAME", "gpu7")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    start_computing()
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"
    assert capsys.readouterr().out == "runs on gpu7, SLURM job 12, GPU 3\n"
