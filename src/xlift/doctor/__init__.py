"""`xlift doctor`: what a machine lacks to run a study, found before the study is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from xlift.doctor.cluster import check_lock, check_slurm
from xlift.doctor.finding import Finding, Level
from xlift.doctor.machine import check_device, check_disk, check_memory, check_writable
from xlift.doctor.software import check_packages, check_python
from xlift.doctor.sources import check_hub, check_packaged_encoder, check_root, check_study_paths
from xlift.grid import Grid
from xlift.planning.plan import make_plan
from xlift.planning.requests import Requests
from xlift.study import Study

__all__ = ["Finding", "Level", "examine", "findings_json", "findings_text"]


def examine(study: Study, file: str, results: Path = Path("results")) -> Iterator[Finding]:
    """Every check, one after the other: software, machine, the study's sources, cluster."""
    yield check_python()
    yield from check_packages()
    yield from check_device(study.training)
    grid = Grid(study, file)
    yield check_memory(Requests(grid, results, None).memory_mb(1), study.training.threads)
    yield check_disk(make_plan(grid, results, 1, None).remaining.disk_bytes, results)
    yield check_writable(results)
    yield from check_packaged_encoder(study)
    yield check_study_paths(study, file)
    yield from check_root(study)
    yield from check_hub(study)
    yield check_slurm()
    yield check_lock(Path(".snakemake"))


def findings_text(findings: Sequence[Finding]) -> str:
    """A line for each finding, with what to do about it below."""
    width = max(len(finding.level.value) for finding in findings)
    names = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{finding.level.value:<{width}}  {finding.name:<{names}}  {finding.found}")
        if finding.advice:
            lines.append(f"{'':<{width + names + 4}}-> {finding.advice}")
    return "\n".join(lines)


def findings_json(findings: Sequence[Finding]) -> str:
    """The findings as JSON."""
    return json.dumps([{**asdict(finding), "level": finding.level.value} for finding in findings], indent=2)
