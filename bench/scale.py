"""How many jobs a minute `--profile slurm` gets through: `scale.py [jobs]`, 2,000 by default; rewrites scale.json.

Starts the tests' SLURM cluster on this machine (root, Debian's slurm-wlm; an idle machine) and sends a study through it
whose training and predictions sleep for 0.1 s instead, by the hook XLIFT_TEST_INSTEAD. What is left is what a job costs
whatever it computes: sbatch, SLURM, two starts of Snakemake and one of the script, polling.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "slurm"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "workflow"))

from cluster import Cluster, ClusterJob, run, why_not
from harness import MODEL_ID, STUDY_FILE, Workspace, tiny_study, write_tiny_bert

OUT = Path(__file__).parent / "scale.json"
A_SEED = 5
"""Cluster jobs a seed: one intermediate run, two target runs, two predictions."""
SLEEP = "0.1"
SAMPLE_SECONDS = 1.0


class Watch(threading.Thread):
    """Samples the controller and Snakemake until told to stop."""

    def __init__(self, snakemake: psutil.Process, controller: psutil.Process) -> None:
        super().__init__(daemon=True)
        self._snakemake, self._controller = snakemake, controller
        self._began = sum(controller.cpu_times()[:2])
        self.over = threading.Event()
        self.peak_mb = self.snakemake_cpu_s = self.controller_cpu_s = self.controller_mb = 0.0
        self.busy: list[float] = []
        self.queries_s: list[float] = []

    def run(self) -> None:
        psutil.cpu_percent()
        while not self.over.wait(SAMPLE_SECONDS):
            try:
                self.peak_mb = max(self.peak_mb, self._snakemake.memory_info().rss / 1e6)
                self.snakemake_cpu_s = sum(self._snakemake.cpu_times()[:2])
            except psutil.Error:
                return
            self.controller_cpu_s = sum(self._controller.cpu_times()[:2]) - self._began
            self.controller_mb = max(self.controller_mb, self._controller.memory_info().rss / 1e6)
            self.busy.append(psutil.cpu_percent())
            if len(self.busy) % 15 == 0:
                started = time.perf_counter()
                run("squeue", "--states=all", "--noheader", "--format=%i|%T")
                self.queries_s.append(time.perf_counter() - started)


def measured(folder: Path, jobs: int) -> dict[str, Any]:
    """Send the study through the cluster, and what that took."""
    write_tiny_bert(folder / "hub" / MODEL_ID)
    workspace = Workspace(folder / "work")
    seeds = list(range(1, -(-jobs // A_SEED) + 1))
    study = tiny_study(folder / "hub", intermediates=["cldr_choice"], targets=["cldr_kind"], seeds=seeds)
    workspace.write_study(study)
    prepared = workspace.run("--until", "encode_task")
    assert prepared.code == 0, prepared.output
    cluster = Cluster(folder / "cluster")
    try:
        cluster.start()
        log = folder / "snakemake.log"
        arguments = ("--profile", "slurm", "--slurm-status-command", "squeue", "--until", "predict_cell")
        command = [sys.executable, "-m", "snakemake", "--nocolor", *arguments, "--configfile", STUDY_FILE]
        environment = {**os.environ, "XLIFT_TEST_HOOKS": "1", "XLIFT_TEST_INSTEAD": SLEEP}
        started = time.monotonic()
        with log.open("w") as stream:
            process = subprocess.Popen(
                command, cwd=workspace.folder, env=environment, stdout=stream, stderr=subprocess.STDOUT
            )
        watch = Watch(psutil.Process(process.pid), cluster.daemon("slurmctld"))
        watch.start()
        code = process.wait()
        seconds = time.monotonic() - started
        watch.over.set()
        watch.join()
        assert code == 0, log.read_text()[-4000:]
        found = cluster.jobs()
        assert len(found) >= len(seeds) * A_SEED, "SLURM has forgotten some of the jobs"
        return figures(found, seconds, watch)
    finally:
        cluster.stop()


def figures(jobs: list[ClusterJob], seconds: float, watch: Watch) -> dict[str, Any]:
    """The numbers of docs/cluster.md."""

    def at(job: ClusterJob, name: str) -> datetime:
        return datetime.fromisoformat(job.fields[name])

    done = [job for job in jobs if job.state == "COMPLETED"]
    first, last = min(at(job, "SubmitTime") for job in done), max(at(job, "EndTime") for job in done)
    span = (last - first).total_seconds()
    busy = statistics.fmean(watch.busy)
    return {
        "jobs": len(done),
        "failed": len(jobs) - len(done),
        "seconds": round(seconds, 1),
        "jobs_per_minute": round(60 * len(done) / span, 1),
        "job_seconds": round(
            statistics.fmean((at(j, "EndTime") - at(j, "StartTime")).total_seconds() for j in done), 1
        ),
        "queued_seconds": round(
            statistics.fmean((at(j, "StartTime") - at(j, "SubmitTime")).total_seconds() for j in done), 1
        ),
        "controller_cpu_percent": round(100 * watch.controller_cpu_s / seconds, 2),
        "controller_mb": round(watch.controller_mb),
        "squeue_seconds": round(statistics.median(watch.queries_s), 3) if watch.queries_s else None,
        "snakemake_peak_mb": round(watch.peak_mb),
        "snakemake_cpu_percent": round(100 * watch.snakemake_cpu_s / seconds, 1),
        "machine_busy_percent": round(busy, 1),
        "machine": f"{os.cpu_count()} cores, SLURM {slurm_version()}, 4 jobs at once",
    }


def slurm_version() -> str:
    found = re.search(r"[\d.]+", run("slurmctld", "-V"))
    return found[0] if found else "?"


def main() -> None:
    """Measure and write."""
    jobs = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    reason = why_not()
    if reason is not None:
        sys.exit(f"error: {reason}")
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        found = {**measured(Path(folder), jobs), "load_before": round(load, 2)}
    OUT.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
