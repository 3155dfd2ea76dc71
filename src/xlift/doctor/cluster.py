"""SLURM, and what a Snakemake that was killed leaves behind."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil

from xlift.doctor.finding import Finding, ok, problem

COMMANDS = ("sbatch", "squeue", "sinfo", "sacct", "scancel")
PLUGIN = "snakemake_executor_plugin_slurm"


def check_slurm() -> Finding:
    """SLURM's commands, and Snakemake's plugin for it; neither is needed on a machine without SLURM."""
    missing = [name for name in COMMANDS if shutil.which(name) is None]
    has_plugin = importlib.util.find_spec(PLUGIN) is not None
    if missing == list(COMMANDS):
        return ok("slurm", "is not here: jobs run on this machine")
    if missing:
        return problem("slurm", f"{', '.join(missing)}: not on PATH", "load the module or package of SLURM's commands")
    if not has_plugin:
        return problem("slurm", "its commands are here, and Snakemake's plugin is not", 'pip install "xlift[slurm]"')
    return ok("slurm", "its commands and Snakemake's plugin are here; `snakemake --profile slurm` submits jobs")


def check_lock(snakemake: Path) -> Finding:
    """A lock in Snakemake's folder: of one that is at work, or left by one that was killed."""
    if not any((snakemake / "locks").glob("*")):
        return ok("lock", "no Snakemake is at work here")
    if any(_at_work(snakemake.parent.resolve())):
        return ok("lock", "a Snakemake is at work here")
    return problem(
        "lock",
        "this folder is locked, and no Snakemake of this machine is at work in it",
        "once none on another machine is either: snakemake --unlock --configfile <study file>",
    )


def _at_work(folder: Path) -> Iterator[bool]:
    """For each process that is a Snakemake, whether it is at work in a folder."""
    for process in psutil.process_iter():
        try:
            if any("snakemake" in word for word in process.cmdline()[:3]):
                yield Path(process.cwd()) == folder
        except psutil.Error:
            continue
