"""One cluster for all tests, and one study that ran to its end without it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from cluster import Cluster, why_not
from harness import MODEL_ID, Finished, Workspace, tiny_study, write_tiny_bert


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes with two GPUs each."""
    reason = why_not()
    if reason is not None and os.environ.get("XLIFT_NEEDS_SLURM"):
        pytest.fail(reason)
    if reason is not None:
        pytest.skip(reason)
    found = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        found.start()
        yield found
    finally:
        found.stop()


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder laid out like the Hugging Face hub with one random BERT of two layers of 32."""
    root = tmp_path_factory.mktemp("hub")
    write_tiny_bert(root / MODEL_ID)
    return root


@pytest.fixture(scope="session")
def finished(cluster: Cluster, hub: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A study of two intermediate and two target tasks, run on this machine without the cluster."""
    workspace = Workspace(tmp_path_factory.mktemp("finished") / "work")
    settings = tiny_study(hub, targets=["cldr_retrieval", "cldr_kind"])
    workspace.write_study(settings)
    ended = workspace.run()
    assert ended.code == 0, ended.output
    return Finished(workspace, settings, ended)


@pytest.fixture
def copied(finished: Finished, tmp_path: Path) -> Workspace:
    """A copy of the finished study's workspace to change."""
    return finished.workspace.copy(tmp_path / "work")
