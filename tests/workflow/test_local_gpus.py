"""`profiles/local-gpu`: several GPUs of one machine, of which each job takes one; and how often jobs are chosen."""

from __future__ import annotations

import re

from harness import STUDY_FILE, Workspace

CELLS = [
    f"results/tiny/predictions/cldr_kind/{run}/seed1.parquet" for run in ("none/x0", "cldr_choice/x1", "cldr_qa/x1")
]


def test_each_job_takes_a_gpu_of_its_own(copied: Workspace) -> None:
    """There need be none: what is shown is which one a job would have seen. A job takes the first that is free."""
    ended = copied.snakemake(
        *(*CELLS, "--profile", "profiles/local-gpu", "--cores", "2", "--resources", "gpu=2"),
        *("--forcerun", "predict_cell", "--configfile", STUDY_FILE),
        CUDA_VISIBLE_DEVICES="4,7",
    )
    assert ended.code == 0, ended.output
    assert ended.jobs == {"predict_cell": len(CELLS)}
    logs = [copied.results() / "logs" / "predict_cell" / cell.split("predictions/")[1] for cell in CELLS]
    first = "\n".join(path.with_suffix(".log").read_text(encoding="utf-8").splitlines()[0] for path in logs)
    # Two at a time, and the second did not take the first one's.
    assert sorted(set(re.findall(r"^runs on \S+, GPU ([47])$", first, re.MULTILINE))) == ["4", "7"]


def rounds(workspace: Workspace, *arguments: str) -> int:
    """How often Snakemake chose what to run, of the cells predicted again one after the other."""
    ended = workspace.snakemake(
        *(*CELLS, "--cores", "1", "--verbose", *arguments),
        *("--forcerun", "predict_cell", "--configfile", STUDY_FILE),
    )
    assert ended.code == 0, ended.output
    assert ended.jobs == {"predict_cell": len(CELLS)}
    return ended.output.count("Ready jobs:")


def test_jobs_are_chosen_when_one_has_ended_and_not_every_second(copied: Workspace) -> None:
    assert rounds(copied) <= len(CELLS) + 1
    assert rounds(copied, "--max-jobs-per-timespan", "50/1s") > len(CELLS) + 1
