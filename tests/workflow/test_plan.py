"""The plan of the analysis: fixed before the first score, never overwritten after it, and compared on the page."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from harness import Finished, Workspace, tiny_study

PLAN = "analysis_plan.json"
ANALYSED = {"estimate_contrasts": 1, "render_report": 1, "all": 1}


def change(workspace: Workspace, finished: Finished, **changes: Any) -> None:
    """Write the finished study's settings with some of them changed."""
    workspace.write_study(tiny_study(Path(finished.settings["data"]["root"]), **changes))


def said(workspace: Workspace) -> str:
    """What the page and the command say of the plan."""
    answer = workspace.xlift("answer", "study.yaml").output
    line = next(line for line in answer.splitlines() if "planned" in line or "No plan" in line)
    assert line.replace(">", "&gt;") in (workspace.results() / "report" / "index.html").read_text(encoding="utf-8")
    return line


def test_the_plan_is_older_than_every_score_and_was_kept(finished: Finished) -> None:
    results = finished.workspace.results()
    content = json.loads((results / PLAN).read_text(encoding="utf-8"))
    assert content["before_first_score"] is True
    assert content["plan"]["smallest_effect"] == 0.2
    assert content["plan"]["languages"]["cldr_kind"] == ["af", "de", "en", "fr", "sw"]
    scores = sorted((results / "scores").rglob("*.parquet"))
    assert len(scores) == 9
    written = (results / PLAN).stat().st_mtime_ns
    assert all(written < score.stat().st_mtime_ns for score in scores)
    assert said(finished.workspace).startswith("As planned: ")


def test_what_changes_after_the_scores_is_listed_and_the_plan_stays(copied: Workspace, finished: Finished) -> None:
    before = (copied.results() / PLAN).read_bytes()
    change(copied, finished, contrasts={"low_below": 1.5, "smallest_effect": 0.5})
    assert copied.plan() == ANALYSED
    assert copied.run().code == 0
    assert (copied.results() / PLAN).read_bytes() == before
    line = said(copied)
    assert line.startswith("Not as planned: the plan ")
    assert "low_below: 2 -> 1.5" in line
    assert "smallest_effect: 0.2 -> 0.5" in line
    change(copied, finished)
    assert copied.run().code == 0
    assert said(copied).startswith("As planned: ")


def test_a_plan_without_scores_follows_the_settings(copied: Workspace, finished: Finished) -> None:
    for made in ("scores.parquet", "gains.parquet", "contrasts.parquet", "report/index.html"):
        (copied.results() / made).unlink()
    shutil.rmtree(copied.results() / "scores")
    change(copied, finished, contrasts={"confidence": 0.9})
    planned = copied.plan()
    assert planned == {"plan_analysis": 1, "score_cells": 1, **ANALYSED}
    assert copied.run(f"results/tiny/{PLAN}").code == 0
    content = json.loads((copied.results() / PLAN).read_text(encoding="utf-8"))
    assert (content["plan"]["confidence"], content["before_first_score"]) == (0.9, True)


def test_a_plan_made_when_there_were_scores_says_so(copied: Workspace, finished: Finished) -> None:
    (copied.results() / PLAN).unlink()
    change(copied, finished, contrasts={"confidence": 0.9})
    # Snakemake takes an absent `ancient` input for a new one: scoring again costs little and changes nothing.
    assert copied.plan() == {"plan_analysis": 1, "score_cells": 1, **ANALYSED}
    assert copied.run().code == 0
    assert said(copied).startswith("No plan was fixed before the first score")
    assert copied.plan() == {}


def test_an_altered_plan_is_refused_in_a_sentence(copied: Workspace) -> None:
    path = copied.results() / PLAN
    path.write_text(path.read_text(encoding="utf-8").replace('"smallest_effect": 0.2', '"smallest_effect": 0.9'))
    ended = copied.snakemake("--dry-run", "--configfile", "study.yaml")
    assert ended.code != 0
    assert "analysis_plan.json: is damaged or was altered" in ended.output
    assert "Traceback" not in ended.output
