"""Asking R, where it and its packages are installed."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path

import polars as pl

SCRIPTS = Path(__file__).parent / "r"


@cache
def lacking(*packages: str) -> str:
    """Why R cannot be asked, or nothing."""
    if shutil.which("Rscript") is None:
        return "Rscript is not installed"
    for package in packages:
        code = f"quit(status = !requireNamespace('{package}', quietly = TRUE))"
        if subprocess.run(["Rscript", "-e", code], capture_output=True, check=False).returncode:
            return f"the R package {package} is not installed"
    return ""


def ask(script: str, rows: pl.DataFrame, folder: Path, *arguments: str) -> dict[str, float]:
    source, answer = folder / "rows.csv", folder / "answer.csv"
    rows.write_csv(source, float_precision=17)
    command = ["Rscript", "--vanilla", str(SCRIPTS / script), str(source), str(answer), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(pl.read_csv(answer).iter_rows())
