"""docs/reruns.md says what runs after which change: each row is made to happen to a copy of a finished study."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import REPOSITORY, SCORED, Finished, Workspace, tiny_study
from test_reruns import BOTH, CELL, RUN, remove, touch

PAGE = (REPOSITORY / "docs" / "reruns.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", PAGE.split("|---|---|")[1], re.MULTILINE))
Plan = Callable[[Workspace, Path], dict[str, int]]


def settings(**changes: Any) -> Plan:
    """Plan after settings of the study changed."""

    def plan(workspace: Workspace, root: Path) -> dict[str, int]:
        workspace.write_study(tiny_study(root, **changes))
        return workspace.plan()

    return plan


def package(*names: str) -> Plan:
    """Plan with a comment at the end of files of the package."""

    def plan(workspace: Workspace, root: Path) -> dict[str, int]:
        source = workspace.folder / "src"
        shutil.copytree(REPOSITORY / "src" / "xlift", source / "xlift", ignore=shutil.ignore_patterns("__pycache__"))
        for name in names:
            path = source / "xlift" / name
            comment = "/* A comment. */" if path.suffix == ".css" else "# A comment."
            path.write_text(f"{path.read_text(encoding='utf-8')}{comment}\n", encoding="utf-8")
        ended = workspace.snakemake("--dry-run", "--configfile", "study.yaml", PYTHONPATH=str(source))
        assert ended.code == 0, ended.output
        return ended.jobs

    return plan


def deleted(*names: str) -> Plan:
    """Plan after results were deleted."""

    def plan(workspace: Workspace, root: Path) -> dict[str, int]:
        for name in names:
            path = workspace.results() / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return workspace.plan()

    return plan


def touched(workspace: Workspace, root: Path) -> dict[str, int]:
    for name in ("data/cldr_kind.parquet", "encoded/cldr_kind/length64/manifest.json", "encoder/manifest.json"):
        touch(workspace.results() / name)
    return workspace.plan()


def commented(workspace: Workspace, root: Path) -> dict[str, int]:
    for script in (workspace.folder / "workflow" / "scripts").glob("*.py"):
        script.write_text(script.read_text(encoding="utf-8") + "# A comment.\n", encoding="utf-8")
    return workspace.plan()


def installed(workspace: Workspace, name: str, version: str) -> str:
    """A PYTHONPATH on which a library is found in another version than the installed one's."""
    folder = workspace.folder / "newer" / f"{name}-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    return os.pathsep.join(filter(None, (str(folder.parent), os.environ.get("PYTHONPATH"))))


def upgraded(workspace: Workspace, root: Path) -> dict[str, int]:
    """Another torch is installed than the one that all runs were made with."""
    path = installed(workspace, "torch", "99.0")
    code = "import importlib.metadata as m; print(m.version('torch'))"
    seen = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    assert seen.stdout.strip() == "99.0"
    return workspace.plan(PYTHONPATH=path)


def remade(workspace: Workspace, root: Path) -> dict[str, int]:
    jobs = workspace.plan("--forcerun", "prepare_data")
    assert jobs.pop("prepare_data") == 5
    return jobs


CHANGES: dict[str, Plan] = {
    "a seed is added": settings(seeds=[1, 2]),
    "a budget is added": settings(budgets=[1, 2]),
    "an intermediate task is added": settings(intermediates=[*BOTH, "cldr_pairs"]),
    "a language is added": settings(languages=["af", "de", "fr", "sw", "tr"]),
    "a target is removed": settings(targets=["cldr_retrieval", "cldr_kind"]),
    "one target's learning rate": settings(recipes={"cldr_kind": {"learning_rate": 0.0017}}),
    "one intermediate task's steps": settings(recipes={"cldr_qa": {"steps": 5}}),
    "one target's longest sequence": settings(recipes={"cldr_entities": {"max_length": 96}}),
    "another encoder": settings(encoder={"source": "hub", "id": "test/other"}),
    "settings of speed (`save_every`, `micro_batch_tokens`, ...)": settings(
        training={"save_every": 1, "micro_batch_tokens": 512, "gradient_checkpointing": "on"}
    ),
    "settings of the contrasts": settings(contrasts={"low_below": 1.5}),
    "the code of the contrasts": package("contrasts/clustered.py"),
    "the report's template": package("report/templates/page.css"),
    "a comment in a script": commented,
    "an upgraded library": upgraded,
    "prepared data made again": remade,
    "a file that was touched: data, token ids, encoder": touched,
    "a deleted checkpoint, its predictions still there": deleted(f"intermediate/{RUN}"),
    "a deleted prediction, its scores still there": deleted(CELL),
    "a deleted page": deleted("report/index.html"),
    "a deleted table of contrasts, and the page": deleted("contrasts.parquet", "report/index.html"),
    "a deleted table of scores, and the page": deleted("scores.parquet", "report/index.html"),
}


def rules(row: str) -> set[str]:
    """The rules that a row of the page names."""
    tables = set(SCORED) - {"all"} if "tables and page" in row else set()
    return set(re.findall(r"`(\w+)`", row)) | tables


def test_the_page_has_every_change_and_no_other() -> None:
    assert list(ROWS) == list(CHANGES)


@pytest.mark.parametrize("change", CHANGES)
def test_after(change: str, copied: Workspace, finished: Finished) -> None:
    jobs = CHANGES[change](copied, Path(finished.settings["data"]["root"]))
    assert set(jobs) - {"all"} == rules(ROWS[change])


def test_another_babel_prepares_the_benchmark_again(copied: Workspace) -> None:
    """Its names are the data: everything is made again, but not the encoder."""
    jobs = copied.plan(PYTHONPATH=installed(copied, "babel", "99.0"))
    assert jobs["prepare_data"] == jobs["encode_task"] == 5
    assert (jobs["train_intermediate"], jobs["train_target"]) == (2, 6)
    assert "prepare_encoder" not in jobs


def test_what_is_asked_for_comes_back(copied: Workspace) -> None:
    shutil.rmtree(copied.results() / "intermediate" / RUN)
    remove(copied, CELL)
    jobs = copied.plan(f"results/tiny/{CELL}")
    assert jobs == {"train_intermediate": 1, "predict_cell": 1}
