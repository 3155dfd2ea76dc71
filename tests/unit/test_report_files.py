"""What the page offers beside what it shows: files of figures and tables, methods to paste, compute used, its size."""

from __future__ import annotations

import ast
import dataclasses
import itertools
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from test_report import ROOT, Page, rendered, synthetic_contrasts, synthetic_inputs

from xlift.report.citations import WORKS, bibliography, cited, in_words
from xlift.report.contents import build_tables, write_tables
from xlift.report.cost import compute_table, device_kind, run_totals
from xlift.report.figures import TEXTS, build_figures, write_figures
from xlift.report.forest import method_rows, method_spec
from xlift.report.inputs import ReportInputs
from xlift.report.methods import methods_text
from xlift.report.tables import Cell, Row, Table
from xlift.resource import resource_levels

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def inputs() -> ReportInputs:
    return synthetic_inputs()


def with_methods(inputs: ReportInputs) -> ReportInputs:
    """The contrasts with β over all cells and at one target by more methods than the clustered one."""
    beta = inputs.contrasts.filter(
        (pl.col("estimand") == "beta_per_doubling")
        & pl.col("scope").is_in(["all", "target=cldr_tags"])
        & (pl.col("scale") == "points")
        & (pl.col("method") == "clustered")
    )
    others = [
        beta.with_columns(method=pl.lit("bootstrap"), estimate=pl.lit(-0.3)),
        beta.with_columns(method=pl.lit("permutation"), ci_low=pl.lit(None), ci_high=pl.lit(None)),
        beta.with_columns(method=pl.lit("tost")),
    ]
    frames = [inputs.contrasts, *(other.cast(dict(inputs.contrasts.schema)) for other in others)]
    return dataclasses.replace(inputs, contrasts=pl.concat(frames))


def test_files_of_figures_and_tables_are_the_same_twice_and_those_the_rule_declares(
    inputs: ReportInputs, tmp_path: Path
) -> None:
    tables = build_tables(inputs)
    for folder in ("a", "b"):
        write_figures(build_figures(inputs), inputs, tmp_path / folder / "figures")
        write_tables(tables, tmp_path / folder / "tables")
    written = {path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*")}
    for path in written:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes(), path
    rule = (ROOT / "workflow" / "rules" / "report.smk").read_text(encoding="utf-8")
    declared = {
        name: ast.literal_eval(re.sub(r"\*FIGURES,", "", found))
        for name, found in re.findall(r"^(FIGURES|TABLES) = ([{[].*?^[}\]])", rule, re.DOTALL | re.MULTILINE)
    }
    figures, names = list(declared["FIGURES"]), [*declared["FIGURES"], *declared["TABLES"]]
    assert figures == list(TEXTS)
    assert names == list(tables)
    expected = [f"figures/{name}.{ending}" for name in figures for ending in ("svg", "png", "vl.json")]
    expected += [f"tables/{name}.{ending}" for name in names for ending in ("csv", "parquet")]
    assert written == {Path(name) for name in expected}
    for figure in figures:
        assert (ROOT / "workflow" / "report" / f"{figure}.rst").read_text(encoding="utf-8").strip()
        assert (tmp_path / "a" / f"figures/{figure}.png").read_bytes()[:8] == PNG
        svg = (tmp_path / "a" / f"figures/{figure}.svg").read_text(encoding="utf-8")
        assert f"trial: {TEXTS[figure].title}" in svg
        spec = json.loads((tmp_path / "a" / f"figures/{figure}.vl.json").read_text(encoding="utf-8"))
        assert spec["config"]["range"]["category"]
        assert isinstance(spec["width"], int)


def test_a_figure_without_anything_to_draw_still_has_its_files(inputs: ReportInputs, tmp_path: Path) -> None:
    empty = dataclasses.replace(
        inputs, contrasts=inputs.contrasts.clear(), gains=inputs.gains.clear(), scores=inputs.scores.clear()
    )
    figures = build_figures(empty)
    assert [figure.spec for figure in figures] == [None] * len(TEXTS)
    write_figures(figures, empty, tmp_path)
    for key, text in TEXTS.items():
        assert text.absent in (tmp_path / f"{key}.svg").read_text(encoding="utf-8")
        assert (tmp_path / f"{key}.png").read_bytes()[:8] == PNG
    write_tables(build_tables(empty), tmp_path)
    assert pl.read_parquet(tmp_path / "contrasts.parquet").height == 0
    assert pl.read_csv(tmp_path / "strata.csv").columns[:4] == ["stratum", "budget", "gain", "interval low"]


def test_a_download_has_exact_numbers_and_ends_of_intervals() -> None:
    cells = (Cell("Kiswahili (sw)", parts=("sw", "Kiswahili")), Cell("+0.12", 0.1234), Cell("–"))
    bounds = Cell("[−0.25, +2.00]", -0.25, parts=(-0.25, 2.0))
    table = Table(
        "a table",
        ("language", "gain", "slope", "interval", "complete"),
        ("language", "number", "number", "interval", "count"),
        (Row((*cells, bounds, Cell("2/3", 2))),),
    )
    assert table.data.to_dicts() == [
        {
            "language code": "sw",
            "language": "Kiswahili",
            "gain": 0.1234,
            "slope": None,
            "interval low": -0.25,
            "interval high": 2.0,
            "complete": "2/3",
        }
    ]
    assert table.data.clear().schema == table.data.schema
    assert table.numeric == (False, True, True, True, True)


def test_tables_hold_what_the_inputs_say(inputs: ReportInputs) -> None:
    tables = build_tables(inputs)
    strata = tables["strata"].data
    low = inputs.contrasts.filter((pl.col("estimand") == "gain_low") & (pl.col("scope") == "budget=4")).row(
        0, named=True
    )
    row = strata.filter((pl.col("stratum") == "low") & (pl.col("budget") == 4.0)).row(0, named=True)
    assert row["gain"] == pytest.approx(low["estimate"])
    assert row["interval high"] == pytest.approx(low["ci_high"])
    slope, languages = tables["slope"].data, tables["languages"].data
    assert "en" not in slope["language code"]
    keys = ["language code", "target"]
    both = slope.join(languages.select(*keys, again="per doubling"), on=keys)
    assert both.height == slope.height == 4 * 48  # the mean and three targets, 48 languages but English
    assert both["per doubling"].equals(both["again"])
    assert tables["forest-budget"].data["scope"].to_list()[:3] == ["×0.25", "×1", "×4"]
    assert tables["completeness"].data["no intermediate"].to_list() == ["3/3"] * 3


def test_forest_by_method_has_every_method_of_a_scope_together(inputs: ReportInputs) -> None:
    rows = method_rows(with_methods(inputs))
    assert [(row["scope"], row["method"]) for row in rows] == [
        ("all", "clustered"),
        ("all", "mixed"),
        ("all", "bootstrap"),
        ("all", "permutation"),
        ("target=cldr_names", "clustered"),
        ("target=cldr_pairs", "clustered"),
        ("target=cldr_tags", "clustered"),
        ("target=cldr_tags", "bootstrap"),
        ("target=cldr_tags", "permutation"),
    ]
    spec = method_spec(rows)
    assert spec is not None
    drawn = [row for data in spec["datasets"].values() for row in data if "method" in row]
    assert [row["text"] for row in drawn if row["method"] == "permutation"] == [
        "−0.11 no interval",
        "−0.17 no interval",
    ]
    assert method_spec([{**row, "estimate": None} for row in rows]) is None


def test_compute_used_counts_a_shared_trunk_once_and_says_what_it_does_not_know(inputs: ReportInputs) -> None:
    # 18 intermediate and 63 target runs: 0.05 s a step and 3.6 s a job; steps 50, 200 and 800 of two tasks and 3 seeds.
    steps = 4 * 6 * (50 + 200 + 800) + 9 * 200
    hours = (0.05 * steps + 81 * 3.6) / 3600
    facts = dict(run_totals(inputs.runs))
    assert facts["processor-hours"] == f"{hours:.2f}"
    assert facts["PFLOPs"] == f"{2e11 * steps / 1e15:.1f}"
    assert facts["energy"] == "not measured"
    assert "GPU-hours" not in facts
    h100 = pl.col("device").replace({"AMD EPYC 7B13": "NVIDIA H100 80GB HBM3"})
    trunk = inputs.runs.with_columns(
        device=pl.when(pl.col("kind") == "target").then(h100).otherwise("device"),
        job_steps=pl.col("job_steps") // 2,
        job_flops=pl.col("job_flops") / 2,
    )
    shared = dict(run_totals(trunk))
    assert list(shared)[2:4] == ["GPU-hours", "processor-hours"]
    assert shared["PFLOPs"] == f"{1e11 * steps / 1e15:.1f}"
    assert shared["million tokens"] == "–"
    rows = compute_table(trunk).data
    assert rows["kind"].to_list() == ["processor", "GPU"]
    assert rows["runs"].to_list() == [18, 63]
    resumed = inputs.runs.with_columns(seconds_job=pl.lit(0.5))  # a job that went on after its last step
    assert dict(run_totals(resumed))["processor-hours"] == f"{0.05 * steps / 3600:.2f}"
    unknown = inputs.runs.with_columns(
        job_flops=pl.when(pl.col("seed") == 1).then(None).otherwise("job_flops"), seconds=pl.lit(None, pl.Float64)
    )
    assert dict(run_totals(unknown))["PFLOPs"] == "–"


@pytest.mark.parametrize(
    ("device", "kind"),
    [
        ("NVIDIA A100-SXM4-80GB", "GPU"),
        ("Tesla V100-SXM2-32GB", "GPU"),
        ("AMD Instinct MI250X", "GPU"),
        ("AMD EPYC 7B13", "processor"),
        ("AMD Ryzen 7 7840U w/ Radeon 780M Graphics", "processor"),
        ("Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz", "processor"),
    ],
)
def test_kind_of_device(device: str, kind: str) -> None:
    assert device_kind(device) == kind


def test_methods_have_the_numbers_of_the_study(inputs: ReportInputs) -> None:
    marked = methods_text(with_methods(inputs))
    text = in_words(marked)
    for part in (
        "multilingual-e5-small (packaged) (Wang et al., 2024), was trained with LoRA of rank 8 in the upper 6 layers",
        "2 English intermediate tasks (cldr_kind, cldr_list)",
        "×0.25, ×1 and ×4 of the task's reference training",
        "cldr_kind: 50, 200 and 800 optimiser steps on 1,600, 6,400 and 25,600 examples",
        "3 target tasks (cldr_names, cldr_pairs, cldr_tags)",
        "offline benchmark",
        "By resource, the 48 languages besides English are 5 low-resource",
        " 3 unseen in pretraining (Conneau et al., 2020).",
        "low-resource (below 2 GiB of CC-100)",
        "by intermediate checkpoint",
        "a crossed mixed model, a bootstrap over languages and runs (2,000 draws) and a permutation",
        "smaller than 0.2 points",
        inputs.plan,
        "Of 63 cells of the grid 63 are complete; of 81 training runs 0 collapsed",
        "processor-hours",
        "AMD EPYC 7B13",
        "torch 2.13.0",
        "energy was not measured",
    ):
        assert part in text, part
    assert "GPU-hours" not in text
    assert "[@" not in text
    assert "ruder2021" not in cited(marked)  # no target of XTREME-R
    assert cited(marked)[:4] == ["xlift", "phang2020", "wang2024", "hu2022"]


def test_methods_follow_the_study(inputs: ReportInputs) -> None:
    study: dict[str, Any] = {
        **inputs.study,
        "encoder": "FacebookAI/xlm-roberta-large, main",
        "trainable": {"method": "full", "layers": None},
        "targets": ["xnli", "cldr_tags"],
        "seeds": [1, 2],
        "intermediates": ["a", "b", "c", "d", "e"],
        "analysis": {**inputs.study["analysis"], "resource": "joshi"},
    }
    runs = inputs.runs.with_columns(intermediate=pl.col("intermediate").replace({"cldr_kind": "a"}))
    runs = runs.filter((pl.col("target") != "cldr_tags") | pl.col("target").is_null())
    other = dataclasses.replace(
        inputs, study=study, runs=runs, resource=resource_levels(inputs.languages.values(), "joshi")
    )
    marked = methods_text(other)
    assert "With 2 seeds there are neither intervals nor p values." in marked
    assert "(from 50 to 800 optimiser steps)" in marked
    assert "main [@conneau2020], was fine-tuned, first on 5 English" in marked
    assert "but for xnli and cldr_tags, for which it was used as it was" in marked
    assert "[@ruder2021]" in marked
    assert "[@joshi2020]" in marked
    assert not {"cameron2011", "holm1979", "hu2022", "xue2021"} & set(cited(marked))


def test_every_citation_is_whole(inputs: ReportInputs) -> None:
    text = bibliography(list(WORKS))
    assert text.count("{") == text.count("}")
    for key, work in WORKS.items():
        assert re.match(rf"@\w+\{{{key},$", work.bibtex(key).splitlines()[0])
        assert {"author", "title"} <= set(work.fields)
        assert work.fields.get("year", "") in work.short
    assert in_words("a [@holm1979; @bell2002].") == "a (Holm, 1979; Bell and McCaffrey, 2002)."


def test_xlift_is_cited_as_its_own_citation_file_says() -> None:
    said = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    fields = WORKS["xlift"].fields
    assert (fields["title"], fields["version"], fields["license"]) == (
        said["title"],
        str(said["version"]),
        said["license"],
    )
    assert fields["author"] == "{" + said["authors"][0]["name"] + "}"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert fields["version"] == project["version"]


def large_inputs() -> ReportInputs:
    """10 intermediate tasks x 5 budgets x 5 seeds x 11 targets in all languages: one seed's numbers for each."""
    made = synthetic_inputs([1])
    names, targets = [f"intermediate{k}" for k in range(10)], [f"target{k:02}" for k in range(11)]
    budgets, seeds = [0.25, 0.5, 1.0, 2.0, 4.0], [1, 2, 3, 4, 5]
    one = (pl.col("target") == "cldr_names") & (pl.col("intermediate") == "cldr_kind") & (pl.col("budget") == 1.0)
    grid = [
        pl.DataFrame({name: values}) for name, values in (("intermediate", names), ("budget", budgets), ("seed", seeds))
    ]
    everywhere = pl.DataFrame({"target": targets}).join(grid[0], how="cross").join(grid[1], how="cross")
    everywhere = everywhere.join(grid[2], how="cross")
    keys = everywhere.columns

    def spread(frame: pl.DataFrame) -> pl.DataFrame:
        found = everywhere.join(frame.filter(one).drop(keys), how="cross")
        if "gain" not in frame.columns:
            return found
        noise = (pl.struct(*keys, "language").hash(seed=1) % 10_000) / 5_000 - 1.0
        return found.with_columns(gain=pl.col("gain") + noise)

    scopes = [f"target={target}" for target in targets]
    contrasts = synthetic_contrasts(made.gains, True)
    doubling = contrasts.filter((pl.col("estimand") == "beta_per_doubling") & (pl.col("scope") == "all")).head(1)
    contrasts = pl.concat([contrasts, *(doubling.with_columns(scope=pl.lit(scope)) for scope in scopes)])
    of_main = pl.col("kind") == "intermediate"
    runs = everywhere.join(made.runs.filter(of_main).head(1).drop(keys), how="cross").select(made.runs.columns)
    return dataclasses.replace(
        made,
        scores=spread(made.scores),
        gains=spread(made.gains),
        completeness=spread(made.completeness),
        contrasts=contrasts,
        runs=runs,
        study={**made.study, "intermediates": names, "budgets": budgets, "seeds": seeds, "targets": targets},
    )


def test_full_grid_stays_within_the_page_size() -> None:
    large = large_inputs()
    assert large.gains.height == 10 * 5 * 5 * 11 * 49
    text = rendered(large)
    assert len(text.encode()) <= 6_000_000
    assert "tables/runs.csv beside it has them" in text
    assert "is not XTREME-R" not in text


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb or #rgb (WCAG 2)."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_text_stands_out_in_both_themes_and_in_print() -> None:
    assert contrast("#000", "#ffffff") == pytest.approx(21)
    css = (ROOT / "src/xlift/report/templates/page.css").read_text(encoding="utf-8")
    themes = [dict(re.findall(r"--(\w+): (#\w+)", block)) for block in re.findall(r":root \{(.*?)\}", css, re.DOTALL)]
    assert len(themes) == 3
    for theme in themes:
        for text in ("text", "muted", "link"):
            for ground in ("page", "card"):
                assert contrast(theme[text], theme[ground]) >= 4.5, (text, ground)
        for ground in ("whole", "part", "absent"):
            assert contrast(theme["state"], theme[ground]) >= 4.5, ground
        for group in ("low", "mid", "high", "unseen"):
            assert contrast(theme[group], theme["page"]) >= 2.5, group  # marks, which differ in shape as well


def test_headings_go_down_by_one_and_every_figure_has_its_table(inputs: ReportInputs) -> None:
    page = Page(rendered(inputs))
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    ids = {attrs["id"] for _, attrs in page.tags if attrs.get("id")}
    assert {f"table-{name}" for name in TEXTS} <= ids
    tables = sum(tag == "table" for tag, _ in page.tags)
    assert sum(tag == "caption" for tag, _ in page.tags) == tables
    regions = [attrs for _, attrs in page.tags if attrs.get("role") == "region"]
    assert len(regions) == tables
    assert all(attrs.get("tabindex") == "0" and attrs.get("aria-label") for attrs in regions)
    assert ("a", {"class": "skip", "href": "#main"}) in page.tags
    labelled = {attrs["for"] for tag, attrs in page.tags if tag == "label"}
    controls = {attrs["id"] for tag, attrs in page.tags if tag in ("select", "input")}
    assert labelled == controls == {"target", "filter", "stratum"}
