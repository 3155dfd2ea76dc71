"""xlift as a module of another workflow, in another folder, and from where the workflow catalog looks for it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import REPOSITORY, Workspace, refused, tiny_study

SNAKEFILES = ("Snakefile", "workflow/Snakefile")
STUDY: dict[str, Any] = {
    "study": "small",
    "intermediates": ["cldr_pairs"],
    "budgets": [1],
    "seeds": [1, 2],
    "targets": ["cldr_kind", "cldr_retrieval"],
}
# Two seeds: two intermediate runs, and two more cells a target for the baselines; retrieval is not trained.
JOBS = {
    "prepare_encoder": 1,
    "prepare_data": 3,
    "encode_task": 3,
    "train_intermediate": 2,
    "train_target": 4,
    "predict_cell": 8,
    "plan_analysis": 1,
    "score_cells": 1,
    "collect_runs": 1,
    "estimate_contrasts": 1,
    "render_report": 1,
}
# What docs/module.md shows.
OUTER = """configfile: "study.yaml"


module xlift:
    snakefile:
        "{snakefile}"
    config:
        config


use rule * from xlift as xlift_*


rule all:
    default_target: True
    input:
        rules.xlift_all.input,
"""
PARTS = """configfile: "outer.yaml"


module first:
    snakefile: "{snakefile}"
    config: config["first"]


use rule * from first as first_*


module second:
    snakefile: "{snakefile}"
    config: config["second"]


use rule * from second as second_*


rule all:
    default_target: True
    input: rules.first_all.input, rules.second_all.input
"""


def named(prefix: str, jobs: dict[str, int] = JOBS) -> dict[str, int]:
    """Jobs by the names that the rules go by."""
    return {f"{prefix}_{rule}": count for rule, count in jobs.items()}


@pytest.fixture
def outer(tmp_path: Path) -> Workspace:
    """A folder of another workflow, without anything of this repository."""
    return Workspace(tmp_path / "outer", parts=())


def write(outer: Workspace, text: str, snakefile: str = "workflow/Snakefile") -> None:
    (outer.folder / "Snakefile").write_text(text.replace("{snakefile}", str(REPOSITORY / snakefile)), encoding="utf-8")


@pytest.mark.parametrize("snakefile", SNAKEFILES)
def test_a_workflow_whose_configuration_is_the_study(outer: Workspace, snakefile: str) -> None:
    write(outer, OUTER, snakefile)
    outer.write_study(STUDY)
    planned = outer.snakemake("--dry-run")
    assert planned.code == 0, planned.output
    assert planned.jobs == {**named("xlift"), "all": 1}
    fewer = outer.snakemake("--dry-run", "--config", "seeds=[1]")
    assert fewer.jobs["xlift_train_intermediate"] == 1
    assert refused(outer.snakemake("--dry-run", "--config", "seedz=[1]")).startswith(
        "study.yaml with --config seedz: seedz: is not a setting; did you mean 'seeds'?"
    )


def test_two_studies_in_parts_of_a_configuration(outer: Workspace) -> None:
    write(outer, PARTS)
    other = {**STUDY, "study": "other", "seeds": [1]}
    outer.write_study({"first": STUDY, "second": other, "samples": "x"}, "outer.yaml")
    planned = outer.snakemake("--dry-run", "--config", "samples=y")
    assert planned.code == 0, planned.output
    halved = {"train_intermediate": 1, "train_target": 2, "predict_cell": 4}
    assert planned.jobs == {**named("first"), **named("second", {**JOBS, **halved}), "all": 1}
    outer.write_study({"first": STUDY, "second": {**other, "seedz": [1]}}, "outer.yaml")
    assert refused(outer.snakemake("--dry-run")).startswith("config of module second: seedz: is not a setting")


@pytest.mark.parametrize("statement", ['prefix: "moved"', 'replace_prefix: {"results/": "moved/"}'])
def test_results_are_not_moved(outer: Workspace, statement: str) -> None:
    write(outer, OUTER.replace("    config:\n", f"    {statement}\n    config:\n"))
    outer.write_study(STUDY)
    assert refused(outer.snakemake("--dry-run")).startswith("module xlift: its results cannot be moved by prefix")


def test_a_table_of_languages_of_its_own(outer: Workspace) -> None:
    write(outer, OUTER)
    outer.write_study(STUDY)
    (outer.folder / "config").mkdir()
    table = (REPOSITORY / "config" / "languages.csv").read_text(encoding="utf-8")
    (outer.folder / "config" / "languages.csv").write_text(table.replace("cc100_gib", "size", 1), encoding="utf-8")
    assert refused(outer.snakemake("--dry-run")).startswith("config/languages.csv, line 1, column cc100_gib: ")


def test_a_study_runs_to_its_page(outer: Workspace, hub: Path) -> None:
    """With the table of languages that comes with the workflow; a second run has nothing to do."""
    write(outer, OUTER)
    outer.write_study(tiny_study(hub, intermediates=["cldr_choice"], targets=["cldr_retrieval"]))
    ended = outer.snakemake("--cores", "2")
    assert ended.code == 0, ended.output
    assert (outer.results() / "report" / "index.html").exists()
    assert json.loads((outer.results() / "analysis_plan.json").read_text(encoding="utf-8"))["before_first_score"]
    assert outer.snakemake("--dry-run").jobs == {}


def test_every_rule_is_local_or_asks_for_a_gpu() -> None:
    """By its own directive: `localrules:` does not follow a rule that a module renames, which would be submitted."""
    text = "\n".join(
        path.read_text(encoding="utf-8") for path in sorted((REPOSITORY / "workflow" / "rules").glob("*.smk"))
    )
    rules = dict(re.findall(r"^rule (\w+):\n((?:(?: .*)?\n)+)", text, re.MULTILINE))
    assert set(rules) == {*JOBS, "train_trunk", "report_available"}
    assert {rule: ("localrule: True" in body) != ("gpu=1" in body) for rule, body in rules.items()} == dict.fromkeys(
        rules, True
    )
    assert "localrules:" not in text


def test_from_another_folder(outer: Workspace) -> None:
    """As in a container: the repository is elsewhere, and the folder has nothing but a study."""
    outer.write_study(STUDY)
    arguments = ("--snakefile", str(REPOSITORY / "Snakefile"), "--configfile", "study.yaml")
    assert outer.snakemake("--dry-run", *arguments).jobs == {**JOBS, "all": 1}


def test_where_the_catalog_looks(workspace: Workspace) -> None:
    """The same jobs from `workflow/Snakefile`; typed at the root, Snakemake takes the root's."""
    workspace.write_study(STUDY)
    there = workspace.snakemake("--dry-run", "--snakefile", "workflow/Snakefile", "--configfile", "study.yaml")
    assert there.jobs == {**JOBS, "default": 1}
    assert workspace.plan() == {**JOBS, "all": 1}


def test_what_the_catalog_asks_for() -> None:
    catalog = yaml.safe_load((REPOSITORY / ".snakemake-workflow-catalog.yml").read_text(encoding="utf-8"))
    usage = catalog["usage"]
    assert set(usage) == {"mandatory-flags", "software-stack-deployment", "report"}
    assert all(isinstance(text, str) for text in usage["mandatory-flags"].values())
    assert usage["software-stack-deployment"] == {"conda": True, "apptainer": False, "apptainer+conda": False}
    assert usage["report"] is True
    assert (REPOSITORY / "config" / "README.md").exists()
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8").lower()
    assert all(word in readme for word in ("snakemake", "workflow"))


def test_the_documented_snippet_is_the_tested_one() -> None:
    text = (REPOSITORY / "docs" / "module.md").read_text(encoding="utf-8")
    lines = [line for line in OUTER.replace("{snakefile}", "/path/to/xlift/workflow/Snakefile").splitlines() if line]
    shown = [line.removeprefix("    ") for line in text.splitlines() if line.startswith("    ")]
    assert any(shown[at : at + len(lines)] == lines for at in range(len(shown)))
