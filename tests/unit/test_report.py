"""The report: whole, self-contained, escaped, deterministic, and honest about what is missing."""

from __future__ import annotations

import dataclasses
import json
import math
import random
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import altair as alt
import polars as pl
import pytest

from xlift.errors import UserError
from xlift.languages import SOURCE_LANGUAGE, STRATA, load_languages
from xlift.report.charts import slope_spec, stratum_caption, stratum_spec
from xlift.report.contents import build_tables
from xlift.report.contrast_tables import contrast_table, headlines, method_table, sensitivity_table
from xlift.report.figures import Figure, build_figures
from xlift.report.forest import forest_rows, forest_spec
from xlift.report.inputs import (
    ALL_TARGETS,
    ReportInputs,
    default_target,
    gain_by_cell,
    ordered_languages,
    parse_scope,
    slopes,
)
from xlift.report.page import embedded_json, render_page
from xlift.report.run_tables import completeness_table, missing_cells
from xlift.report.tables import interval, language_table, number
from xlift.resource import resource_levels

ROOT = Path(__file__).parents[2]
INTERMEDIATES, BUDGETS, SEEDS = ["cldr_kind", "cldr_list"], [0.25, 1.0, 4.0], [1, 2, 3]
TARGETS = ["cldr_names", "cldr_pairs", "cldr_tags"]
Cells = frozenset[tuple[str, str, float, int]]


def rendered(inputs: ReportInputs) -> str:
    """The page with all its figures and tables."""
    return render_page(inputs, build_figures(inputs), build_tables(inputs))


def synthetic_inputs(
    seeds: list[int] = SEEDS,
    absent: Cells = frozenset(),
    absent_rows: frozenset[tuple[str, str, float, int, str]] = frozenset(),
    answer: str = "Not shown: the interval holds 0; the slope is −0.11 points (95 % interval).",
    **study: Any,
) -> ReportInputs:
    """A study of 49 languages, 2 intermediate tasks x 3 budgets x 3 seeds x 3 targets with made-up scores."""
    languages = load_languages(ROOT / "config" / "languages.csv")
    codes = [code for code in languages if code != "ht"]
    draw = random.Random(7)
    scores, cells = [], []
    for target in TARGETS:
        base = {code: min(97.0, 40 + 6 * math.log2(1 + 8 * (languages[code].cc100_gib or 0.02))) for code in codes}
        for name, budget in [
            ("none", 0.0),
            *((name, budget) for name in INTERMEDIATES for budget in BUDGETS),
        ]:
            for seed in seeds:
                cell = (target, name, budget, seed)
                found = [] if cell in absent else [code for code in codes if (*cell, code) not in absent_rows]
                keys = {"target": target, "intermediate": name, "budget": budget, "seed": seed}
                counts = {"languages": len(found), "expected_languages": len(codes)}
                cells.append({**keys, "present": bool(found), **counts})
                for code in found:
                    size = languages[code].cc100_gib or 0.02
                    lift = 0.0 if name == "none" else (1.2 - 0.15 * math.log2(size)) * (2 + math.log2(budget)) / 3
                    score = base[code] + lift - (name == "cldr_list") + draw.gauss(0, 0.8)
                    cost: dict[str, float] = {
                        "steps": int(200 * budget),
                        "examples": int(6400 * budget),
                        "tokens": int(90_000 * budget),
                    }
                    cost |= {"padded_tokens": int(99_000 * budget), "flops": 4e13 * budget, "batch_size": 32}
                    row = {
                        "study": "trial",
                        **keys,
                        "language": code,
                        "is_primary": True,
                        "score": score,
                        "n": 290,
                    }
                    scores.append({**row, **cost, "collapsed": False, "metric": "accuracy"})
    table = pl.DataFrame(scores, schema_overrides={"budget": pl.Float64})
    baseline = table.filter(pl.col("intermediate") == "none")
    keys_of_baseline = ["target", "language", "seed", "metric"]
    gains = (
        table.filter(pl.col("intermediate") != "none")
        .join(baseline.select(*keys_of_baseline, pl.col("score").alias("baseline_score")), on=keys_of_baseline)
        .with_columns((pl.col("score") - pl.col("baseline_score")).alias("gain"))
    )
    settings: dict[str, Any] = {
        "name": "trial",
        "encoder": "multilingual-e5-small (packaged)",
        "trainable": {"method": "lora", "rank": 8, "layers": 6},
        "intermediates": INTERMEDIATES,
        "analysis": {"resource": "cc100", "shared_trunk": False, "smallest_effect": 0.2}
        | {"bootstrap_draws": 2000, "permutations": 1000},
    }
    settings |= {
        "budgets": BUDGETS,
        "seeds": seeds,
        "targets": TARGETS,
        "languages": codes,
    }
    return ReportInputs(
        study={**settings, **study},
        answer=answer,
        scores=table,
        gains=gains,
        contrasts=synthetic_contrasts(gains, len(seeds) >= 3),
        runs=synthetic_runs(seeds),
        languages=languages,
        resource=resource_levels(languages.values()),
        plan="As planned: the analysis is the one that was fixed before the first score (plan 0123456789ab).",
        completeness=pl.DataFrame(cells),
        provenance={
            "versions": {"torch": "2.13.0", "xlift": "0.1.0"},
            "hardware": {"cpu": "two cores"},
            "platform": "Linux",
        },
    )


def synthetic_contrasts(gains: pl.DataFrame, bounded: bool) -> pl.DataFrame:
    """Contrast rows with the right names and plausible numbers; their statistics are tested elsewhere."""
    rows: list[dict[str, Any]] = []
    note = "" if bounded else "fewer than 3 seeds: no interval or p-value"

    def add(estimand: str, scope: str, estimate: float | None, half: float, **other: Any) -> None:
        known = bounded and estimate is not None
        row = {
            "estimand": estimand,
            "scope": scope,
            "scale": "points",
            "method": "clustered",
            "estimate": estimate,
        }
        row |= {
            "se": half / 2 if known else None,
            "ci_low": estimate - half if known and estimate is not None else None,
        }
        row |= {
            "ci_high": estimate + half if known and estimate is not None else None,
            "p": 0.21 if known else None,
        }
        row |= {"p_adjusted": 0.42 if known else None, "n_languages": 41, "n_runs": 18, "note": note}
        rows.append({**row, **other})

    scopes = ["all", *(f"target={t}" for t in TARGETS), *(f"intermediate={i}" for i in INTERMEDIATES)]
    for place, scope in enumerate(scopes):
        add("beta_per_doubling", scope, -0.11 - 0.02 * place, 0.2)
        add("low_minus_high_per_doubling", scope, 0.31 + 0.05 * place, 0.4)
    add("beta_per_doubling", "all", -0.02, 0.05, scale="logit")
    add("beta_per_doubling", "all", -0.12, 0.25, method="mixed")
    add("unseen_minus_rest_per_doubling", "all", 0.2, 0.5)
    for place, budget in enumerate(BUDGETS):
        add("low_minus_high", f"budget={budget:g}", 0.3 * place + 0.1, 0.35)
        for step, target in enumerate(TARGETS):
            add("low_minus_high", f"budget={budget:g};target={target}", 0.3 * place - 0.1 * step, 0.6)
        for step, name in enumerate(STRATA):
            size = {"low": 13, "mid": 17, "high": 15, "unseen": 3}[name]
            add(
                f"gain_{name}",
                f"budget={budget:g}",
                (4 - step) * 0.4 * (place + 0.3) - 0.6,
                0.3 + 0.1 * step,
                n_languages=size,
            )
    return pl.DataFrame(rows, schema_overrides={"ci_low": pl.Float64, "ci_high": pl.Float64, "se": pl.Float64})


def synthetic_runs(seeds: list[int], collapsed: bool = False) -> pl.DataFrame:
    """One row a run, intermediate runs and target runs."""
    rows = []
    cells = [(name, budget) for name in INTERMEDIATES for budget in BUDGETS]
    for kind, target in [("intermediate", None), *(("target", target) for target in TARGETS)]:
        for name, budget in cells if kind == "intermediate" else [("none", 0.0), *cells]:
            for seed in seeds:
                row = {"kind": kind, "target": target, "intermediate": name, "arm": "main", "budget": budget}
                row |= {"seed": seed}
                steps = int(200 * (budget or 1))
                row |= {
                    "steps": steps,
                    "examples": 32 * steps,
                    "tokens": 450 * steps,
                    "padded_tokens": 500 * steps,
                }
                row |= {
                    "flops": 2e11 * steps,
                    "job_flops": 2e11 * steps,
                    "job_steps": steps,
                    "seconds": 0.05 * steps,
                    "seconds_job": 0.05 * steps + 3.6,
                    "seconds_to_first_step": 1.4,
                    "peak_memory_mib": 812.5,
                }
                row |= {
                    "device": "AMD EPYC 7B13",
                    "dtype": "float32",
                    "dev_metric": "accuracy",
                    "dev_score": 81.2,
                    "dev_floor": 25.0,
                }
                failed = collapsed and (name, budget, seed) == ("cldr_list", 4.0, seeds[0])
                rows.append({**row, "collapsed": failed, "final_loss": 0.41})
    return pl.DataFrame(rows, schema_overrides={"target": pl.String})


class Page(HTMLParser):
    """Element balance, ids, and every place where a page could load something."""

    VOID = frozenset({"meta", "link", "br", "img", "input", "hr"})

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, Mapping[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1:] == [tag], f"</{tag}> closes nothing at {self.getpos()}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["script"]:
            self.scripts[-1] += data
        elif self.open[-1:] != ["style"]:
            self.text.append(data)

    @property
    def words(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.text))


HOSTILE = '<script>alert("x")</script>&<b>'
GAP: Cells = frozenset({("cldr_pairs", "cldr_kind", 4.0, 2)})


@pytest.fixture(scope="module")
def inputs() -> ReportInputs:
    return synthetic_inputs()


@pytest.fixture(scope="module")
def html(inputs: ReportInputs) -> str:
    return rendered(inputs)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


@pytest.fixture(scope="module")
def gappy() -> ReportInputs:
    """A study with a cell missing, a cell short of two languages, hostile names, a collapsed run, two
    seeds."""
    short = frozenset(("cldr_tags", "cldr_list", 1.0, 1, code) for code in ("yo", "wo"))
    made = synthetic_inputs([1, 2], GAP, short, answer=f"It depends {HOSTILE}", name=HOSTILE)
    languages = dict(made.languages)
    languages["sw"] = dataclasses.replace(languages["sw"], name=HOSTILE)
    contrasts = made.contrasts.with_columns(pl.lit(f"no interval {HOSTILE}").alias("note"))
    runs, facts = synthetic_runs([1, 2], collapsed=True), {"host": HOSTILE}
    return dataclasses.replace(made, languages=languages, contrasts=contrasts, runs=runs, provenance=facts)


@pytest.fixture(scope="module")
def gappy_html(gappy: ReportInputs) -> str:
    return rendered(gappy)


def test_page_is_balanced_and_has_every_section(page: Page, inputs: ReportInputs) -> None:
    assert page.open == []
    ids = [attrs["id"] for _, attrs in page.tags if attrs.get("id")]
    assert len(ids) == len(set(ids))
    sections = ["answer", "budget", "contrasts", "languages", "completeness", "collapsed", "runs", "methods", "reading"]
    assert [attrs["id"] for tag, attrs in page.tags if tag == "section"] == sections
    figures = ["strata", "forest-budget", "forest-doubling", "forest-methods", "heat", "slope"]
    assert [attrs["id"] for tag, attrs in page.tags if tag == "figure"] == [f"figure-{key}" for key in figures]
    labelled = {attrs["aria-labelledby"] for _, attrs in page.tags if attrs.get("aria-labelledby")}
    assert labelled <= set(ids)
    assert inputs.answer in page.words
    assert "is not XTREME-R" in page.words
    assert "Every cell is there with every language." in page.words
    assert "No run collapsed" in page.words
    for code in inputs.study["languages"]:
        assert f"{inputs.languages[code].name} ({code})" in page.words


def test_page_loads_nothing(page: Page, html: str) -> None:
    for tag, attrs in page.tags:
        assert tag not in {"iframe", "object", "embed", "img", "base", "form"}
        assert not (tag == "script" and "src" in attrs)
        for name in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
            value = attrs.get(name)
            assert value is None or value == "data:," or value.startswith("#"), (tag, name, value)
        assert not any(name.startswith("on") for name in attrs), (tag, attrs)
    styles = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    assert styles
    assert not re.search(r"@import|url\s*\(", "".join(styles))
    policy = next(attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy
    assert "http" not in policy


def test_policy_allows_each_script_of_the_page_by_its_hash(page: Page) -> None:
    from xlift.report.page import script_hash

    policy = next(attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    kinds = [attrs.get("type") for tag, attrs in page.tags if tag == "script"]
    code = [script for script, kind in zip(page.scripts, kinds, strict=True) if kind is None]
    assert len(code) == 3
    assert all(f"'{script_hash(script)}'" in (policy or "") for script in code)


def test_page_is_deterministic_also_in_another_process(html: str, inputs: ReportInputs) -> None:
    assert rendered(inputs) == html
    program = (
        "import hashlib, sys; sys.path[:0] = sys.argv[1:];"
        "from test_report import rendered, synthetic_inputs;"
        "print(hashlib.sha256(rendered(synthetic_inputs()).encode()).hexdigest())"
    )
    import hashlib

    command = [sys.executable, "-c", program, str(Path(__file__).parent), str(ROOT / "src")]
    other = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "3", "PATH": ""})
    assert other.stdout.strip() == hashlib.sha256(html.encode()).hexdigest()


def test_page_is_the_same_for_rows_in_another_order(html: str, inputs: ReportInputs) -> None:
    shuffled = {
        name: getattr(inputs, name).sample(fraction=1.0, shuffle=True, seed=1)
        for name in ("scores", "gains", "runs", "completeness")
    }
    assert rendered(dataclasses.replace(inputs, **shuffled)) == html


def test_page_size(html: str) -> None:
    assert len(html.encode()) <= 6_000_000


def test_all_text_of_the_data_is_escaped(gappy_html: str) -> None:
    page = Page(gappy_html)
    assert page.open == []
    assert len(page.scripts) == 4  # marker, figure data, libraries, behaviour
    assert not any("alert(" in script for place, script in enumerate(page.scripts) if place != 1)
    assert "<script>alert" not in gappy_html
    assert HOSTILE not in gappy_html
    assert page.words.count(HOSTILE) >= 5  # title, study, answer, notes, provenance
    data = json.loads(page.scripts[1])
    assert HOSTILE in json.dumps(data, ensure_ascii=False).replace('\\"', '"')  # the language's name, whole


def test_embedded_json_cannot_end_its_script() -> None:
    hostile = {"a": "</script><!--<script>", "b": "\u2028&"}
    text = str(embedded_json(hostile))
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == hostile


def test_missing_cells_are_named_and_not_averaged(gappy: ReportInputs, gappy_html: str) -> None:
    assert missing_cells(gappy) == [
        "cldr_pairs, cldr_kind ×4, seed 2: no scores",
        "cldr_tags, cldr_list ×1, seed 1: 47 of 49 languages (missing: wo, yo)",
    ]
    words = Page(gappy_html).words
    for name in missing_cells(gappy):
        assert name in words
    states = {cell.text: cell.css for row in completeness_table(gappy).rows for cell in row.cells[1:]}
    assert states == {"2/2": "state whole", "1/2": "state part"}
    means = gain_by_cell(gappy)
    gone = means.filter(
        (pl.col("target") == "cldr_pairs") & (pl.col("intermediate") == "cldr_kind") & (pl.col("budget") == 4.0)
    )
    assert gone.height == 49
    assert gone["gain"].null_count() == 49
    overall = means.filter(
        (pl.col("target") == ALL_TARGETS) & (pl.col("intermediate") == "cldr_kind") & (pl.col("budget") == 4.0)
    )
    assert overall["gain"].null_count() == 49
    assert means.filter(pl.col("target") == "cldr_names")["gain"].null_count() == 0
    assert slopes(gappy).filter(pl.col("target") == "cldr_pairs")["slope"].null_count() == 49
    pairs = [row for row in language_table(gappy).rows if row.target == "cldr_pairs"]
    assert {row.cells[8].text for row in pairs} == {"–"}
    assert "–" not in {row.cells[7].text for row in pairs}


def test_null_intervals_are_words(gappy_html: str) -> None:
    page = Page(gappy_html)
    assert "no interval" in page.words
    assert "This study has 2 seeds." in page.words
    assert "without intervals (the table says why)" in page.words
    assert not re.search(r"\b(None|nan|NaN|null)\b", page.words)
    forest = json.loads(page.scripts[1])["figures"]["forest-budget"]
    rows = [row for name, data in sorted(forest["datasets"].items()) for row in data if "remark" in row]
    assert rows
    assert {row["remark"] for row in rows} == {"no interval"}


def test_contrast_that_is_not_identified_is_words(inputs: ReportInputs) -> None:
    target = pl.col("scope") == "target=cldr_tags"
    names = ("estimate", "se", "ci_low", "ci_high", "p")
    blank = [pl.when(target).then(None).otherwise(pl.col(name)).alias(name) for name in names]
    partly = dataclasses.replace(inputs, contrasts=inputs.contrasts.with_columns(blank))
    cells = [row.cells for row in contrast_table(partly.contrasts).rows]
    assert {cell[3].text for cell in cells if cell[1].text == "target cldr_tags"} == {"no estimate"}
    rows = forest_rows(partly, "low_minus_high_per_doubling")
    spec = forest_spec(rows, "points")
    assert spec is not None
    remarks = [row for data in spec["datasets"].values() for row in data if row.get("remark")]
    assert [(row["where"], row["remark"]) for row in remarks] == [("target cldr_tags", "no estimate")]


def with_more_rows(inputs: ReportInputs) -> ReportInputs:
    """The contrasts with sensitivity, maps by two parts, other methods and scales of one row."""
    beta = inputs.contrasts.filter((pl.col("estimand") == "beta_per_doubling") & (pl.col("scope") == "all")).head(1)
    extra = [
        beta.with_columns(**{name: pl.lit(value) for name, value in change.items()})
        for change in (
            {"scope": "all;without=sw", "estimate": -0.33},
            {"scope": "all;without_family=Uralic"},
            {"scope": "shared_data"},
            {"scope": "control=shuffled_labels"},
            {"scope": "target=cldr_tags;intermediate=cldr_list"},
            {"method": "bootstrap", "estimate": -0.44},
            {"method": "tost", "note": "equivalence margin 0.2"},
        )
    ]
    return dataclasses.replace(inputs, contrasts=pl.concat([inputs.contrasts, *extra]))


def test_methods_scales_and_sensitivity_have_tables_of_their_own(inputs: ReportInputs) -> None:
    more = with_more_rows(inputs)
    primary = contrast_table(more.contrasts)
    assert "contrasts.parquet has 1 more" in primary.caption
    scopes = {row.cells[1].text for row in primary.rows}
    assert {"all cells", "target cldr_tags", "×1", "×1, target cldr_tags"} <= scopes
    assert not any("without" in scope or "list, " in scope or "control" in scope for scope in scopes)
    plain = contrast_table(inputs.contrasts)
    assert [row.cells for row in primary.rows] == [row.cells for row in plain.rows]
    methods = method_table(more.contrasts)
    assert methods.columns[:3] == ("estimand", "scale", "method")
    assert [(row.cells[1].text, row.cells[2].text) for row in methods.rows[:5]] == [
        ("points", "clustered"),
        ("logit", "clustered"),
        ("points", "mixed"),
        ("points", "bootstrap"),
        ("points", "tost"),
    ]
    sensitivity = sensitivity_table(more.contrasts)
    assert [row.cells[1].text for row in sensitivity.rows[:5]] == [
        "all cells",
        "without sw",
        "without family Uralic",
        "shared data",
        "control shuffled_labels",
    ]
    assert sensitivity_table(inputs.contrasts).rows == ()
    page = Page(rendered(more))
    assert "equivalence margin 0.2" in page.words
    assert "without family Uralic" in page.words
    assert inputs.plan in page.words


def test_figures_and_tiles_hold_primary_rows_only(inputs: ReportInputs) -> None:
    more = with_more_rows(inputs)
    for estimand in ("beta_per_doubling", "low_minus_high_per_doubling"):
        assert forest_rows(more, estimand) == forest_rows(inputs, estimand)
    assert headlines(more) == headlines(inputs)


def test_the_page_follows_the_resource_measure(inputs: ReportInputs) -> None:
    joshi = dataclasses.replace(inputs, resource=resource_levels(inputs.languages.values(), "joshi"))
    page = Page(rendered(joshi))
    assert "below Joshi class 3, from Joshi class 4" in page.words
    assert "CC-100" not in page.words
    spec = slope_spec(joshi)
    assert spec is not None
    dots = [row for data in spec["datasets"].values() for row in data if "slope" in row]
    assert {row["x"] for row in dots if row["name"] == "Swahili"} == {2.0}


def test_study_without_any_result_still_renders(inputs: ReportInputs) -> None:
    empty = dataclasses.replace(
        inputs,
        scores=inputs.scores.clear(),
        gains=inputs.gains.clear(),
        contrasts=inputs.contrasts.clear(),
        runs=inputs.runs.clear(),
        completeness=inputs.completeness.with_columns(present=pl.lit(False), languages=pl.lit(0)),
    )
    page = Page(rendered(empty))
    assert page.open == []
    assert "No gain by stratum was estimated" in page.words
    assert "there is no slope to show" in page.words
    assert "63 missing or partial cells" in page.words


def test_baseline_only_and_single_budget(inputs: ReportInputs) -> None:
    single = dataclasses.replace(
        inputs, study={**inputs.study, "budgets": [1.0]}, gains=inputs.gains.filter(pl.col("budget") == 1.0)
    )
    assert slopes(single)["slope"].null_count() == len(slopes(single))
    assert slope_spec(single) is None


@pytest.fixture(scope="module")
def figures(inputs: ReportInputs) -> list[Figure]:
    return build_figures(inputs)


def test_specs_are_valid_and_static_copies_are_xml(figures: list[Figure]) -> None:
    for figure in figures:
        alt.LayerChart.from_dict(figure.spec, validate=True)
        root = ElementTree.fromstring(figure.static)
        assert root.tag.endswith("svg")
        ids = re.findall(r'\sid="([^"]+)"', figure.static)
        assert ids == [f"{figure.key}-{place}" for place in range(len(ids))]
        assert set(re.findall(r"url\(#([^)]+)\)", figure.static)) <= set(ids)
        assert "NaN" not in figure.static


def test_static_slope_figure_names_languages(inputs: ReportInputs, figures: list[Figure]) -> None:
    svg = next(figure.static for figure in figures if figure.key == "slope")
    named = sum(f">{language.name}<" in svg for language in inputs.languages.values())
    assert named >= 30  # the rest would overlap
    assert ">English<" not in svg


def test_view_without_a_slope_says_so(gappy: ReportInputs) -> None:
    assert default_target(gappy) == "cldr_names"
    spec = slope_spec(gappy)
    assert spec is not None
    notes = [row["target"] for data in spec["datasets"].values() for row in data if "why" in row]
    assert notes == [ALL_TARGETS, "cldr_pairs"]


def test_figures_do_not_depend_on_which_strata_are_there(inputs: ReportInputs) -> None:
    fewer = dataclasses.replace(inputs, contrasts=inputs.contrasts.filter(pl.col("estimand") != "gain_mid"))
    spec = stratum_spec(fewer)
    assert spec is not None
    scale = spec["layer"][-1]["encoding"]["color"]
    assert [name.split(" ")[0] for name in scale["scale"]["domain"]] == list(STRATA)
    assert [name.split(" ")[0] for name in scale["legend"]["values"]] == ["low", "high", "unseen"]


def test_missing_estimate_breaks_the_line_and_is_named(inputs: ReportInputs) -> None:
    gone = (pl.col("estimand") == "gain_low") & (pl.col("scope") == "budget=1")
    names = ("estimate", "se", "ci_low", "ci_high")
    blank = [pl.when(gone).then(None).otherwise(pl.col(name)).alias(name) for name in names]
    partly = dataclasses.replace(inputs, contrasts=inputs.contrasts.with_columns(blank))
    assert stratum_caption(partly).endswith("No estimate for: low ×1.")
    assert "No estimate" not in stratum_caption(inputs)
    spec = stratum_spec(partly)
    assert spec is not None
    points = [row for data in spec["datasets"].values() for row in data if "series" in row]
    assert [(row["shown"], row["text"]) for row in points if row["estimate"] is None] == [("×1", "– no estimate")]
    assert len(points) == 12


def test_means_agree_with_plain_arithmetic(inputs: ReportInputs) -> None:
    means = gain_by_cell(inputs)
    row = means.filter(
        (pl.col("target") == ALL_TARGETS)
        & (pl.col("language") == "sw")
        & (pl.col("intermediate") == "cldr_kind")
        & (pl.col("budget") == 4.0)
    )
    gains = inputs.gains.filter(
        (pl.col("language") == "sw") & (pl.col("intermediate") == "cldr_kind") & (pl.col("budget") == 4.0)
    )
    assert gains.height == 9
    assert row["gain"].item() == pytest.approx(sum(gains["gain"]) / 9)
    by_budget = inputs.gains.filter((pl.col("language") == "sw") & (pl.col("target") == "cldr_names")).group_by(
        "budget"
    )
    at = dict(by_budget.agg(pl.col("gain").mean()).iter_rows())
    slope = slopes(inputs).filter((pl.col("language") == "sw") & (pl.col("target") == "cldr_names"))["slope"].item()
    assert slope == pytest.approx((at[4.0] - at[0.25]) / 4)  # three equally spaced points: the ends alone


def test_language_that_lacks_a_target_has_no_mean_over_targets(inputs: ReportInputs) -> None:
    keep = ~((pl.col("target") == "cldr_tags") & (pl.col("language") == "sw"))
    fewer = dataclasses.replace(inputs, scores=inputs.scores.filter(keep), gains=inputs.gains.filter(keep))
    means = gain_by_cell(fewer).filter(pl.col("language") == "sw")
    assert means.filter(pl.col("target") == ALL_TARGETS)["gain"].null_count() == 6
    assert set(means["target"]) == {ALL_TARGETS, "cldr_names", "cldr_pairs"}
    assert default_target(fewer) == ALL_TARGETS
    narrow = dataclasses.replace(
        inputs, scores=inputs.scores.filter((pl.col("target") != "cldr_tags") | (pl.col("language") < "d"))
    )
    assert default_target(narrow) == "cldr_names"


def test_languages_stand_by_stratum_then_size(inputs: ReportInputs) -> None:
    order = ordered_languages(inputs)
    assert order[-1] == SOURCE_LANGUAGE
    assert len(order) == 49
    groups = [inputs.resource.strata[code] for code in order[:-1]]
    assert groups == sorted(groups, key=STRATA.index)
    low = [inputs.languages[code].cc100_gib or 0 for code in order[: groups.count("low")]]
    assert low == sorted(low)


def test_unknown_language_is_a_user_error(inputs: ReportInputs) -> None:
    fewer = {code: language for code, language in inputs.languages.items() if code != "sw"}
    with pytest.raises(UserError, match=r"'sw'.*languages\.csv"):
        rendered(dataclasses.replace(inputs, languages=fewer))


@pytest.mark.parametrize(
    ("value", "signed", "text"),
    [
        (1234.5, False, "1,234.50"),
        (-0.5, True, "−0.50"),
        (0.5, True, "+0.50"),
        (-0.001, True, "0.00"),
        (None, True, "–"),
        (math.nan, False, "–"),
    ],
)
def test_number(value: float | None, signed: bool, text: str) -> None:
    assert number(value, signed=signed) == text


def test_scope_and_interval_words() -> None:
    assert parse_scope("budget=0.25;target=xnli") == {"budget": "0.25", "target": "xnli"}
    assert parse_scope("all") == {}
    assert interval({"estimate": 1.0, "ci_low": -0.25, "ci_high": 2.0}) == "[−0.25, +2.00]"
    assert interval({"estimate": 1.0, "ci_low": None, "ci_high": None}) == "no interval"
    assert interval({"estimate": None, "ci_low": None, "ci_high": None}) == "no estimate"


def test_report_needs_neither_torch_nor_pandas() -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import xlift.report.page;"
        "print(sorted({'torch', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(ROOT / "src")], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
