"""Planning a large grid: seconds and memory of a dry-run, and what trunks save."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from overhead import REPOSITORY

from xlift.grid import Grid
from xlift.planning.plan import trunk_ratio
from xlift.study import parse_study

WHOLE, HALF = (10, 6, 10, 12), (10, 6, 5, 12)
"""Intermediate tasks, budgets, seeds, targets."""


def measure_planning(work: Path) -> dict[str, Any]:
    """Dry-runs of the whole grid and of half of it in a folder with the workflow's files."""
    for name in ("Snakefile", "workflow", "config", "profiles", "envs"):
        if not (work / name).exists():
            source = REPOSITORY / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, work / name)
    found = {label: _dry_run(work, sizes) for label, sizes in (("half", HALF), ("whole", WHOLE))}
    whole = found["whole"]
    tasks, budgets, seeds, targets = WHOLE
    cells = (tasks * budgets + 1) * seeds * targets
    return {
        "plan_cells_per_s": cells / whole["seconds"],
        "plan_peak_mb": whole["peak_mb"],
        "plan": {"cells": cells, **found, "half_over_whole": found["half"]["seconds"] / whole["seconds"]},
    }


def _dry_run(work: Path, sizes: tuple[int, ...]) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).with_name("dry_run.py")), *map(str, sizes)]
    made = subprocess.run(command, cwd=work, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(made.stdout.splitlines()[-1]))


def trunk_cost() -> float:
    """Steps of a study with trunks over those of independent runs, budgets 1, 2, 4, 8."""
    study = {
        "study": "trunk",
        "intermediates": ["cldr_pairs", "cldr_qa"],
        "budgets": [1, 2, 4, 8],
        "seeds": [1, 2, 3],
        "targets": ["cldr_kind"],
        "schedule": "trunk",
    }
    return trunk_ratio(Grid(parse_study(study, "bench"), "bench"))
