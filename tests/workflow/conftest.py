"""A hub with one tiny encoder, fresh workspaces, and one finished study to look at or copy."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import MODEL_ID, Finished, Workspace, tiny_study, write_tiny_bert


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder laid out like the Hugging Face hub with one random BERT of two layers of 32."""
    root = tmp_path_factory.mktemp("hub")
    write_tiny_bert(root / MODEL_ID)
    return root


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A fresh workspace without results."""
    return Workspace(tmp_path / "work")


@pytest.fixture(scope="session")
def finished(hub: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The tiny study, run once a session. Tests look at it; who changes anything copies it first."""
    workspace = Workspace(tmp_path_factory.mktemp("finished") / "work")
    settings = tiny_study(hub)
    workspace.write_study(settings)
    ended = workspace.run()
    assert ended.code == 0, ended.output
    return Finished(workspace, settings, ended)


@pytest.fixture
def copied(finished: Finished, tmp_path: Path) -> Workspace:
    """A copy of the finished study's workspace to change."""
    return finished.workspace.copy(tmp_path / "work")
