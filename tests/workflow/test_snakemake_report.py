"""Snakemake's own report has the page and its figures, with captions and labels."""

from __future__ import annotations

from harness import Finished, Workspace


def test_snakemakes_report_has_page_and_figures(copied: Workspace, finished: Finished) -> None:
    folder = finished.workspace.results() / "report"
    figures = sorted(path.stem for path in (folder / "figures").glob("*.svg"))
    assert len(figures) == 6
    ended = copied.snakemake("--report", "report.html", "--configfile", "study.yaml")
    assert ended.code == 0, ended.output
    said = (copied.folder / "report.html").read_text(encoding="utf-8")
    for figure in figures:
        assert f"results/tiny/report/figures/{figure}.svg" in said
        caption = (copied.folder / "workflow" / "report" / f"{figure}.rst").read_text(encoding="utf-8")
        assert caption.split(",")[0].split(".")[0].split("\n")[0][:40] in said
    assert "results/tiny/report/index.html" in said
