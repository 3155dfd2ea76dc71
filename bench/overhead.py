"""What a study costs beside its training and predicting: start-up of jobs, and the size of what they keep."""

from __future__ import annotations

import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
JOBS = (
    "results/mini/intermediate/cldr_pairs/x0.25/seed1/manifest.json",
    "results/mini/intermediate/cldr_qa/x0.25/seed1/manifest.json",
    "results/mini/target/cldr_entities/none/x0/seed1/manifest.json",
)
PREDICTED = re.compile(r"^\d+ predictions in ([0-9.]+) s$", re.MULTILINE)


def start_up(work: Path) -> dict[str, Any]:
    """Seconds from a training job's process start to its first optimiser step, one job at a time; and its checkpoint.

    Runs a few jobs of the default study in `work`, where its encoder stays for the other measurements.
    """
    for name in ("Snakefile", "workflow", "config", "profiles", "envs"):
        source = REPOSITORY / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, work / name)
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--quiet", "all", "--", *JOBS]
    subprocess.run(command, cwd=work, check=True)
    manifests = [json.loads((work / job).read_text(encoding="utf-8")) for job in JOBS]
    seconds = [manifest["seconds_to_first_step"] for manifest in manifests]
    kept = manifests[0]["files"]["weights.safetensors"]["bytes"]
    whole = (work / "results/mini/encoder/model.safetensors").stat().st_size
    return {
        "job_overhead_s": statistics.median(seconds),
        "job_overhead_each_s": seconds,
        "checkpoint_mb": {"lora": kept / 1e6, "full": whole / 1e6, "ratio": kept / whole},
    }


def study_overhead(results: Path) -> dict[str, Any] | None:
    """1 - (seconds inside training and prediction loops) / (seconds of these jobs) over a finished study, or None."""
    inside = jobs = 0.0
    found = 0
    for kind, rule in (("intermediate", "train_intermediate"), ("target", "train_target")):
        for manifest in sorted((results / kind).rglob("manifest.json")):
            tsv = results / "benchmarks" / rule / manifest.parent.relative_to(results / kind).with_suffix(".tsv")
            inside += json.loads(manifest.read_text(encoding="utf-8"))["seconds"]
            jobs += _seconds(tsv)
            found += 1
    for log in sorted((results / "logs" / "predict_cell").rglob("*.log")):
        place = log.relative_to(results / "logs").with_suffix(".tsv")
        match = PREDICTED.search(log.read_text(encoding="utf-8"))
        if match is None:
            continue
        inside += float(match.group(1))
        jobs += _seconds(results / "benchmarks" / place)
        found += 1
    if not found or not (results / "report" / "index.html").exists():
        return None
    return {"value": 1 - inside / jobs, "inside_s": inside, "jobs_s": jobs, "jobs": found}


def _seconds(benchmark: Path) -> float:
    """Wall seconds of a job by Snakemake's own record."""
    header, values = benchmark.read_text(encoding="utf-8").splitlines()[:2]
    return float(dict(zip(header.split("\t"), values.split("\t"), strict=True))["s"])


def temporary_folder() -> Path:
    """A new folder for the jobs."""
    return Path(tempfile.mkdtemp(prefix="xlift-bench-"))
