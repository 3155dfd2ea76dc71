"""Masked-language modelling in a study: the arm, its steps on top of a budget, what depends on what, texts, plans."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from test_grid import everything, kinds
from test_parts import BASE, make

from xlift.catalog import task_of
from xlift.catalog.made import mlm_task
from xlift.cotraining import steps_beside
from xlift.errors import UserError
from xlift.jobs.prepare import prepare_data
from xlift.jobs.train import trained_on
from xlift.planning.costs import VOCABULARY, CostModel, own_steps
from xlift.planning.dag import study_jobs
from xlift.planning.evidence import Evidence, TokenRecord
from xlift.planning.plan import PACKAGED
from xlift.sources import texts
from xlift.study import check_paths, parse_study
from xlift.training.cost import training_flops

PLAIN: dict[str, Any] = {"intermediates": ["cldr_pairs", "cldr_qa"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Made-up text in the languages of the study, two of them as parquet."""
    made = tmp_path / "wiki"
    made.mkdir()
    (made / "en.txt").write_text("one two\n\n  three  \n", encoding="utf-8")
    (made / "de.txt").write_text("eins zwei\ndrei", encoding="utf-8")
    pl.DataFrame({"text": ["moja", None, "mbili tatu", " "]}).write_parquet(made / "sw.parquet")
    (made / "zz.txt").write_text("of no study", encoding="utf-8")
    return made


def co_trained(folder: Path, **changes: Any) -> dict[str, Any]:
    """Settings of a study with the arm."""
    return {**PLAIN, "mlm": {"texts": str(folder), "tasks": ["cldr_pairs"], **changes}}


# --- The arm ---


def test_steps_beside_by_hand():
    assert [steps_beside(steps, 0.5) for steps in (0, 1, 2, 3, 4, 24)] == [0, 0, 1, 1, 2, 12]
    assert steps_beside(100, 0.29) == 29  # 28.999999999999996 in floats
    assert steps_beside(7, 2) == 14


def test_it_is_an_arm_of_its_task(folder):
    grid = make(**co_trained(folder))
    arms = {(run.task, run.arm, run.name, run.budget.label) for run in grid.intermediates if run.arm != "main"}
    assert arms == {("cldr_pairs", "mlm", "cldr_pairs.mlm", label) for label in ("x0.5", "x1")}
    assert "mlm" in grid.tasks
    run = next(run for run in grid.intermediates if run.arm == "mlm" and run.budget.label == "x1")
    found = grid.intermediate_specification(run)
    plain = grid.intermediate_specification(replace(run, control=None))
    # Half a step on top of each of 24, and a tenth of all rises.
    assert (plain["recipe"]["steps"], found["recipe"]["steps"]) == (24, 36)
    assert (plain["schedule"]["warmup_steps"], found["schedule"]["warmup_steps"]) == (3, 4)
    assert found["recipe"] | {"steps": 0} == plain["recipe"] | {"steps": 0}
    assert found["draw"] != plain["draw"]
    assert run.budget.steps == 24
    assert grid.score_specification(next(c for c in grid.cells if c.intermediate == run))["budget"] == 1
    sizes = {name: (folder / name).stat().st_size for name in ("de.txt", "en.txt", "sw.parquet")}
    assert found["mlm"] == {
        "source": {"source": "texts", "reader": 1, "folder": "wiki", "files": sizes},
        "task": "mlm",
        "labels": [],
        "share": 0.5,
        "mask": 0.15,
        "max_length": 128,
    }
    assert [task_of(facts).name for facts in trained_on(found)] == ["cldr_pairs", "mlm"]
    assert task_of(found["mlm"]) == mlm_task()
    assert grid.run_sets(run) == [("cldr_pairs", 64), ("mlm", 128)]
    assert found.keys() - plain.keys() == {"mlm"}


def test_a_study_without_it_is_as_it_was(folder):
    before, after = everything(make(**PLAIN)), everything(make(**co_trained(folder)))
    assert {name for name in before if before[name] != after[name]} == {"analysis", "report"}
    added = after.keys() - before.keys()
    assert kinds(added) == {"data", "encode", "intermediate", "target", "predict", "score"}
    assert all("mlm" in name for name in added)


def test_all_intermediate_tasks_and_mixtures_unless_some_are_named(folder):
    grid = make(intermediates=["cldr_pairs", "cldr_qa", "mixture"], mlm={"texts": str(folder)})
    assert {run.name for run in grid.intermediates if run.arm == "mlm"} == {
        "cldr_pairs.mlm",
        "cldr_qa.mlm",
        "mixture.mlm",
    }
    run = next(run for run in grid.intermediates if run.name == "mixture.mlm")
    found = grid.intermediate_specification(run)
    assert [part["task"] for part in found["parts"]] == ["cldr_pairs", "cldr_qa"]
    assert [facts["task"] for facts in trained_on(found)] == ["cldr_pairs", "cldr_qa", "mlm"]


@pytest.mark.parametrize(
    ("change", "repeated"),
    [
        ({"share": 0.25}, {"intermediate", "target", "predict", "score"}),
        ({"mask": 0.3}, {"intermediate", "target", "predict", "score"}),
        ({"languages": ["de", "en"]}, {"data", "encode", "intermediate", "target", "predict", "score"}),
    ],
)
def test_a_setting_repeats_its_runs_only(change, repeated, folder):
    before, after = everything(make(**co_trained(folder))), everything(make(**co_trained(folder, **change)))
    changed = {name for name in before if before[name] != after[name]}
    assert kinds(changed) == repeated
    assert all("mlm" in name for name in changed)


def test_other_text_repeats_its_runs_only(folder):
    before = everything(make(**co_trained(folder)))
    (folder / "zz.txt").write_text("still of no study, and longer", encoding="utf-8")
    assert everything(make(**co_trained(folder))) == before
    (folder / "de.txt").write_text("eins zwei\ndrei vier", encoding="utf-8")
    after = everything(make(**co_trained(folder)))
    changed = {name for name in before if before[name] != after[name]}
    assert kinds(changed) == {"data", "encode", "intermediate", "target", "predict", "score"}
    assert all("mlm" in name for name in changed)


def test_a_trunk_and_its_branches_have_its_steps_too(folder):
    grid = make(**co_trained(folder), schedule="trunk", budgets=[1, 2])
    runs = {run.budget.label: run for run in grid.intermediates if (run.name, run.seed) == ("cldr_pairs.mlm", 1)}
    # Of 24 and 48 steps the last 4.8 and 9.6 are the branches': they leave the trunk at 19 and 38; half comes on top.
    trunks = [grid.trunk_specification(run) for run in runs.values()]
    assert [spec["recipe"]["steps"] for spec in trunks] == [19 + 9, 38 + 19]
    # Three of the task's steps rise, and one that is mixed in.
    assert [spec["schedule"]["warmup_steps"] for spec in trunks] == [4, 4]
    branches = [grid.intermediate_specification(run) for run in runs.values()]
    assert [(spec["recipe"]["steps"], spec["schedule"]["branch"]) for spec in branches] == [(36, 28), (72, 57)]
    jobs = [job for job in study_jobs(grid, Path("nowhere")) if job.run in runs.values() and job.cell is None]
    assert [(job.rule, own_steps(grid, job)) for job in jobs] == [
        ("train_trunk", 28),
        ("train_intermediate", 8),
        ("train_trunk", 29),
        ("train_intermediate", 15),
    ]


# --- Plans ---


def test_the_plan_counts_its_steps_tokens_and_head(folder):
    grid = make(**co_trained(folder), budgets=[1], seeds=[1])
    encoder = grid._encoder_fingerprint
    tokens = tuple(
        TokenRecord(task, length, encoder, 10, 10, tokens, 10, tokens)
        for task, length, tokens in (("cldr_pairs", 64, 200), ("mlm", 128, 1000))
    )
    model = CostModel(grid, Evidence((), (), tokens), PACKAGED, "cpu", 1e10)
    jobs = {job.run.name: job for job in study_jobs(grid, Path("nowhere")) if job.rule == "train_intermediate"}
    plain, mixed = (model.estimate(jobs[name]) for name in ("cldr_pairs", "cldr_pairs.mlm"))
    assert (plain.steps, mixed.steps) == (24, 36)
    assert mixed.tokens == pytest.approx(24 * 16 * 20 + 12 * 16 * 100)
    # A sequence of 100 tokens, 115 with padding: the encoder, and for 15 pieces a square matrix, forward and twice
    # backward, and the frozen vocabulary, forward and once backward.
    sequence = training_flops(PACKAGED, 1, 115, "lora", 8) + 15 * (6 * 384**2 + 4 * VOCABULARY * 384)
    assert mixed.flops == pytest.approx(plain.flops + 12 * 16 * sequence, rel=1e-6)
    waits = {(job.rule, job.task, job.length) for job in study_jobs(grid, Path("nowhere")) if job.task == "mlm"}
    assert waits == {("prepare_data", "mlm", 0), ("encode_task", "mlm", 128)}


# --- Texts ---


def test_texts_are_prepared(folder, tmp_path):
    grid = make(**co_trained(folder))
    out = tmp_path / "out.parquet"
    prepare_data(grid.data_specification("mlm"), out, tmp_path / "out.json")
    rows = pl.read_parquet(out)
    assert rows.columns == ["split", "language", "id", "text"]
    assert rows.select("language", "id", "text").rows() == [
        ("de", "000000001", "eins zwei"),
        ("de", "000000002", "drei"),
        ("en", "000000001", "one two"),
        ("en", "000000003", "three"),
        ("sw", "000000001", "moja"),
        ("sw", "000000003", "mbili tatu"),
    ]
    assert set(rows["split"]) == {"train"}
    # The study's limit on training examples is one on passages of a language, too.
    few = make(**co_trained(folder), data={"examples": {"train": 40}})
    assert few.data_specification("mlm")["examples"] == {"train": 40}
    prepare_data({**grid.data_specification("mlm"), "examples": {"train": 1}}, out, tmp_path / "out.json")
    assert pl.read_parquet(out)["language"].to_list() == ["de", "en", "sw"]


def test_a_folder_may_have_a_name_in_the_studys_data(folder):
    named = make(**co_trained(Path("texts")), data={"folders": {"texts": str(folder)}})
    path = make(**co_trained(folder))
    assert everything(named).items() <= {**everything(path), "report": everything(named)["report"]}.items()


def test_languages_are_those_of_the_study_and_english(folder):
    assert make(**co_trained(folder)).data_specification("mlm")["languages"] == ["de", "en", "sw"]
    (folder / "fr.txt").write_text("un", encoding="utf-8")
    own = make(**co_trained(folder, languages=["fr", "de", "fr"]))
    assert own.data_specification("mlm")["languages"] == ["de", "fr"]


def spoil(folder: Path, case: str) -> None:
    """Make text that cannot be read."""
    if case == "missing":
        (folder / "sw.parquet").unlink()
    elif case == "twice":
        (folder / "sw.txt").write_text("moja", encoding="utf-8")
    elif case == "empty":
        (folder / "de.txt").write_text(" \n\n", encoding="utf-8")
    elif case == "latin":
        (folder / "de.txt").write_bytes("eins\nfünf".encode("latin-1"))
    elif case == "torn":
        (folder / "sw.parquet").write_bytes(b"PAR1 and no more")
    elif case == "column":
        pl.DataFrame({"passage": ["moja"]}).write_parquet(folder / "sw.parquet")
    elif case == "numbers":
        pl.DataFrame({"text": [1]}).write_parquet(folder / "sw.parquet")


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("missing", r"mlm.texts: .*wiki has no text in sw; add <language>.txt or <language>.parquet for each, or list"),
        ("twice", r"mlm.texts: .*wiki has both sw.txt and sw.parquet; remove one of them"),
        ("empty", r"de.txt: has no text; put passages into it, or leave de out of mlm.languages"),
        ("latin", r"de.txt, line 2: is not UTF-8 \(invalid start byte\); save the file as UTF-8"),
        ("torn", r"sw.parquet: is not a whole parquet file \(.*\); write it again"),
        ("column", r"sw.parquet: needs a column 'text' of text; add it"),
        ("numbers", r"sw.parquet: needs a column 'text' of text; add it"),
    ],
)
def test_texts_that_cannot_be_read_are_one_sentence(case, expected, folder):
    spoil(folder, case)
    with pytest.raises(UserError, match=expected):
        texts.read(folder, ["de", "en", "sw"])


def test_texts_that_are_not_there_are_refused_before_anything_runs(folder, tmp_path):
    def check(changes: dict[str, Any]) -> None:
        check_paths(parse_study({**BASE, **changes}, "study.yaml"), "study.yaml")

    check(co_trained(folder))
    with pytest.raises(UserError, match=r"^study.yaml: mlm.texts: there is no folder .*no; correct it, or give it a"):
        check(co_trained(tmp_path / "no"))
    with pytest.raises(UserError, match=r"^study.yaml: mlm.texts: .* has no text in fr, ta; add"):
        check(co_trained(folder, languages=["de", "fr", "ta"]))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"tasks": ["cldr_choice"]}, "mlm.tasks: 'cldr_choice' is not an intermediate task of this study; choose from"),
        ({"tasks": []}, "mlm.tasks: the list is empty; give at least one"),
        ({"shere": 1}, "mlm.shere: is not a setting; did you mean 'share'?"),
        ({"share": 0}, "mlm.share: 0 is not right"),
        ({"mask": 1}, "mlm.mask: 1 is not right"),
        ({"max_length": 4}, "mlm.max_length: 4 is not right"),
        ({"texts": ""}, "mlm.texts: '' is not right"),
    ],
)
def test_settings_that_make_no_sense_are_one_sentence(change, expected, folder):
    with pytest.raises(UserError) as error:
        make(**co_trained(folder, **change))
    assert expected in str(error.value)
