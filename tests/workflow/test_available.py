"""The page of what is there, where a study is not complete."""

from __future__ import annotations

import polars as pl
from harness import Finished, Workspace

MISSING = "cldr_kind/cldr_qa/x1/seed1"
KEY = ["target", "intermediate", "arm", "budget", "seed"]


def test_missing_cells_are_named_and_the_others_are_as_in_the_whole(copied: Workspace, finished: Finished) -> None:
    (copied.results() / "predictions" / f"{MISSING}.parquet").unlink()
    ended = copied.run("report_available")
    assert ended.code == 0, ended.output
    assert ended.jobs == {"report_available": 1}
    available = copied.results() / "available"
    is_missing = (pl.col("target") == "cldr_kind") & (pl.col("intermediate") == "cldr_qa")
    for name in ("scores.parquet", "gains.parquet"):
        whole = pl.read_parquet(finished.workspace.results() / name)
        assert whole.filter(is_missing).height > 0
        assert pl.read_parquet(available / name).equals(whole.filter(~is_missing)), name
    # The cell is the only one of its pair and budget, so that nothing but the plan tells of it.
    contrasts = pl.read_parquet(available / "contrasts.parquet").filter(scale="points", method="clustered")
    levels = contrasts.filter(estimand="gain_all", scope="budget=1")
    assert levels["estimate"].to_list() == [None]
    assert "1 planned cell lacks" in levels["note"][0]
    beta = contrasts.filter(estimand="beta_per_doubling", scope="all")
    assert "1 planned cell lacks" in beta["note"][0]
    page = (available / "index.html").read_text(encoding="utf-8")
    assert "1 cell missing or partial" in page
    assert "cldr_kind, cldr_qa ×1, seed 1: no scores" in page
    # The study's own page is left alone, and nothing is made twice.
    assert copied.plan("report_available") == {}


def test_nothing_to_report(workspace: Workspace, finished: Finished) -> None:
    workspace.write_study(finished.settings)
    ended = workspace.run("report_available")
    assert ended.code != 0
    said = (workspace.results() / "logs" / "report_available.log").read_text(encoding="utf-8")
    assert said == "error: study tiny: no cell has predictions yet; run the workflow first\n"
