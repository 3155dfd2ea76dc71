"""What a dry-run plans, and what stops a study before any job."""

from __future__ import annotations

import re
import time
from collections import Counter

import pytest
import yaml
from harness import REPOSITORY, Ended, Workspace, refused, tiny_study

STUDIES = sorted(path.name for path in (REPOSITORY / "config").glob("*.yaml"))
SMALL = {
    "study": "small",
    "intermediates": ["cldr_pairs"],
    "budgets": [1],
    "seeds": [1],
    "targets": ["cldr_kind"],
}


def planned(ended: Ended) -> Counter[tuple[str, str]]:
    """Rule and outputs of every planned job."""
    return Counter(re.findall(r"^(?:local)?rule (\w+):\n(?: +input: .*\n)?(?: +output: (.*)\n)?", ended.output, re.M))


def test_default_study(workspace: Workspace, record_property) -> None:
    ended = workspace.snakemake("--dry-run")
    assert ended.code == 0, ended.output
    assert ended.jobs == {
        "prepare_encoder": 1,
        "prepare_data": 5,
        "encode_task": 5,
        "train_intermediate": 18,
        "train_target": 42,
        "predict_cell": 63,
        "plan_analysis": 1,
        "score_cells": 1,
        "collect_runs": 1,
        "estimate_contrasts": 1,
        "render_report": 1,
        "all": 1,
    }
    assert not (workspace.folder / "results").exists()
    record_property("dry_run_seconds", ended.seconds)
    print(f"dry-run of the default study: {ended.seconds:.1f} s")


ONCE = ("prepare_encoder", "plan_analysis", "score_cells", "collect_runs", "estimate_contrasts", "render_report", "all")
# Intermediate runs: tasks x budgets x seeds. A target has a cell for each of them and for each seed's baseline, and a
# run of its own for each cell where it is trained (tatoeba_direct is not). Examples: of every intermediate task but the
# mixture, which is of the others; of every target; of XCOPA's two stages and the one of tatoeba_squad.
COUNTS = {
    "config.yaml": {"train_intermediate": 2 * 3 * 3, "train_target": 2 * 21, "predict_cell": 3 * 21, "examples": 2 + 3},
    "xtreme_r.yaml": {
        "train_intermediate": 10 * 5 * 5,
        "train_target": 10 * 255,
        "predict_cell": 11 * 255,
        "examples": 9 + 11 + 2 + 1,
    },
    "xtreme_r_base.yaml": {
        "train_intermediate": 3 * 5 * 5,
        "train_target": 5 * 80,
        "predict_cell": 6 * 80,
        "examples": 3 + 6 + 2,
    },
    "xtreme_r_cpu.yaml": {
        "train_intermediate": 3 * 3 * 3,
        "train_target": 4 * 30,
        "predict_cell": 5 * 30,
        "examples": 3 + 5,
    },
}


PROFILES = ("slurm", "profiles/local-gpu")
ALL_SECONDS = 60
BUSY = 2
"""Times as long as on an idle machine that a test may take; 43 s when this was written."""
TOOK: dict[str, float] = {}
"""Seconds of the two dry-runs of each study."""


@pytest.mark.parametrize("name", STUDIES)
def test_studies_plan_these_very_jobs(workspace: Workspace, name: str) -> None:
    settings = yaml.safe_load((REPOSITORY / "config" / name).read_text(encoding="utf-8"))
    data = settings.get("data", {})
    for folder in (*data.get("folders", {}).values(), *([data["root"]] if "root" in data else [])):
        (workspace.folder / folder).mkdir(parents=True)  # planning reads none of the data in it
    started = time.monotonic()
    arguments = ("--dry-run", "--configfile", f"config/{name}", "--profile")
    processes = {profile: workspace.start(*arguments, profile) for profile in PROFILES}
    counts = dict(COUNTS[name])
    sets = counts.pop("examples")
    for profile, process in processes.items():
        output, _ = process.communicate(timeout=300)
        ended = Ended(process.returncode, output, time.monotonic() - started)
        assert ended.code == 0, output
        assert ended.jobs == {**counts, "prepare_data": sets, "encode_task": sets, **dict.fromkeys(ONCE, 1)}, profile
    TOOK[name] = ended.seconds
    print(f"dry-runs of {name}: {sum(ended.jobs.values())} jobs each, {ended.seconds:.1f} s")


def test_all_of_them_take_a_minute() -> None:
    if sorted(TOOK) != STUDIES:
        pytest.skip("not all of the dry-runs before this test were made")
    print(f"dry-runs of all studies: {sum(TOOK.values()):.1f} s")
    assert sum(TOOK.values()) <= BUSY * ALL_SECONDS, TOOK


def test_gpus_can_be_asked_for_as_a_generic_resource(workspace: Workspace) -> None:
    workspace.write_study(SMALL)
    ended = workspace.snakemake("--dry-run", "--profile", "profiles/slurm-gres", "--configfile", "study.yaml")
    assert ended.code == 0, ended.output
    asked = [line for line in ended.output.splitlines() if line.lstrip().startswith("resources:") and "gres=" in line]
    assert len(asked) == sum(ended.jobs[rule] for rule in ("train_intermediate", "train_target", "predict_cell"))
    assert all("gres=gpu:1" in line and "gpu=0" in line for line in asked)


def test_hash_seeds_plan_the_same_jobs(workspace: Workspace) -> None:
    first, second = (workspace.snakemake("--dry-run", PYTHONHASHSEED=seed) for seed in ("1", "2"))
    assert planned(first) == planned(second)
    assert sum(planned(first).values()) == sum(first.jobs.values())


BAD = {
    "unknown key": ({"seed": [1]}, "seed: is not a setting; did you mean 'seeds'?"),
    "unknown nested key": ({"training": {"warm_up": 0.1}}, "training.warm_up: is not a setting"),
    "unknown intermediate": ({"intermediates": ["cldr_pair"]}, "intermediates: 'cldr_pair' is not"),
    "unknown target": ({"targets": ["mnli"]}, "targets: 'mnli' is not a target task"),
    "unknown language": ({"languages": ["de", "xx"]}, "languages: 'xx' is not"),
    "negative budget": ({"budgets": [-1]}, "budgets: -1 is not a budget"),
    "negative seed": ({"seeds": [-1]}, "seeds.0: -1 is not right"),
    "repeated seed": ({"seeds": [1, 2, 1]}, "seeds: 1 is listed twice"),
    "budget of no step": ({"budgets": [0.001]}, "budgets: 0.001 of cldr_pairs's "),
    "path as a name": ({"study": "../../elsewhere"}, "study: '../../elsewhere' does not match"),
    "no name": ({"study": None}, "study: "),
}


@pytest.mark.parametrize(("change", "sentence"), BAD.values(), ids=list(BAD))
def test_bad_studies_stop_before_any_job(workspace: Workspace, change: dict, sentence: str) -> None:
    workspace.write_study({**SMALL, **change})
    said = refused(workspace.run())
    assert f"study.yaml: {sentence}" in said
    assert not (workspace.folder / "results").exists()
    assert not (workspace.folder.parents[1] / "elsewhere").exists()


def test_a_study_file_without_a_name_does_not_become_the_default_study(workspace: Workspace) -> None:
    workspace.write_study({key: value for key, value in SMALL.items() if key != "study"})
    assert "study.yaml: study: is missing" in refused(workspace.run())


def test_a_key_given_twice(workspace: Workspace) -> None:
    (workspace.folder / "study.yaml").write_text(yaml.safe_dump(SMALL) + "seeds: [1, 2]\n", encoding="utf-8")
    said = refused(workspace.run())
    assert "study.yaml, line " in said
    assert "'seeds' is given twice" in said


CONTENTS = {
    "missing file": None,
    "invalid YAML": b"study: [a\nseeds: 1",
    "no such day": b"study: 2026-13-45",
    "another encoding": b"study: caf\xe9",
    "deeper than can be read": b"a: " + b"[" * 3000,
    "a template with Python in it": b"__use_yte__: true\nstudy: ?open('made', 'w').name",
}


@pytest.mark.parametrize("content", CONTENTS.values(), ids=list(CONTENTS))
def test_files_that_cannot_be_read(workspace: Workspace, content: bytes | None) -> None:
    """Snakemake reads `--configfile` before our Snakefile, and evaluates a template; `xlift run` looks at it first."""
    if content is not None:
        (workspace.folder / "study.yaml").write_bytes(content)
    for command in ("check", "run"):
        checked = workspace.xlift(command, "study.yaml")
        assert checked.code == 1
        assert re.fullmatch(r"error: study\.yaml(, line \d+)?: [^\n]+\n", checked.output)
    assert not (workspace.folder / "made").exists()
    ended = workspace.run()
    assert ended.code != 0
    assert "Job stats" not in ended.output
    if content is not None and b"yte" in content:
        assert "__use_yte__: makes Snakemake evaluate parts of this file as Python" in refused(ended)


def test_default_study_missing(workspace: Workspace) -> None:
    (workspace.folder / "config" / "config.yaml").unlink()
    ended = workspace.snakemake("--dry-run")
    assert ended.code != 0
    assert "config/config.yaml" in ended.output
    assert "Traceback" not in ended.output


def test_config_overrides(workspace: Workspace) -> None:
    default = workspace.snakemake("--dry-run").jobs
    ended = workspace.snakemake("--dry-run", "--config", "seeds=[1,2]", "budgets=[0.5,1,2]")
    assert ended.jobs["train_intermediate"] * 3 == default["train_intermediate"] * 2
    assert "x0.5/seed2" in ended.output
    renamed = workspace.snakemake("--dry-run", "--config", "study=other", "recipes={cldr_kind: {learning_rate: 1e-4}}")
    assert renamed.jobs == default
    assert "results/other/report/index.html" in renamed.output


OVERRIDES = {
    "repeated": ("seeds=[1,1]", "seeds: 1 is listed twice"),
    "not a list": ("seeds=1", "seeds: 1 is not a list"),
    "no number": ("budgets=[much]", "budgets.0: 'much' is not a number"),
    "unknown": ("seedz=[1]", "seedz: is not a setting; did you mean 'seeds'?"),
    "path": ("study=../up", "study: '../up' does not match"),
}


@pytest.mark.parametrize(("override", "sentence"), OVERRIDES.values(), ids=list(OVERRIDES))
def test_bad_overrides(workspace: Workspace, override: str, sentence: str) -> None:
    said = refused(workspace.snakemake("--cores", "1", "--config", override))
    assert said.startswith(f"config/config.yaml with --config {override.partition('=')[0]}: {sentence}")


def test_tiny_study_is_every_family(workspace: Workspace, tmp_path) -> None:
    """The plan of the study the other tests run."""
    workspace.write_study(tiny_study(tmp_path))
    assert workspace.plan() == {
        "prepare_encoder": 1,
        "prepare_data": 5,
        "encode_task": 5,
        "train_intermediate": 2,
        "train_target": 6,
        "predict_cell": 9,
        "plan_analysis": 1,
        "score_cells": 1,
        "collect_runs": 1,
        "estimate_contrasts": 1,
        "render_report": 1,
        "all": 1,
    }
