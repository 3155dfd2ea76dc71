"""Runs on machine-translated examples: an arm of their task, what they depend on, what a folder has to hold."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import polars as pl
import pytest
from test_grid import everything, kinds
from test_parts import BASE, make

import runs
from toy import toy_frame, toy_task
from xlift.artifacts import file_sizes
from xlift.catalog import CATALOG, task_of
from xlift.catalog.made import translated_task
from xlift.errors import UserError
from xlift.jobs.prepare import prepare_data
from xlift.sources import translated
from xlift.sources.sharing import SHARED
from xlift.study import check_paths, parse_study
from xlift.tasks.families import FAMILIES
from xlift.training.run import train_run


@pytest.fixture
def folder(tmp_path):
    """A folder of made-up translations of cldr_pairs in German and Swahili, in two files."""
    made = tmp_path / "pairs-translated"
    made.mkdir()
    labels = CATALOG["cldr_pairs"].labels
    rows = [
        {
            "split": split,
            "language": code,
            "id": f"{index}",
            "text_a": f"{split} {code} {index}",
            "text_b": "b",
            "label": labels[index % 3],
        }
        for split, size in (("train", 9), ("dev", 4))
        for code in ("de", "sw")
        for index in range(size)
    ]
    frame = pl.DataFrame(rows)
    for code in ("de", "sw"):
        frame.filter(pl.col("language") == code).write_parquet(made / f"{code}.parquet")
    return made


def test_translations_are_an_arm_of_their_task(folder):
    grid = make(intermediates=["cldr_pairs", "cldr_qa"], translated={"cldr_pairs": str(folder)})
    arms = {(run.task, run.arm, run.name, run.budget.label) for run in grid.intermediates if run.arm != "main"}
    assert arms == {("cldr_pairs", "translated", "cldr_pairs.translated", label) for label in ("x0.5", "x1")}
    assert "cldr_pairs.translated" in grid.tasks
    run = next(run for run in grid.intermediates if run.arm == "translated")
    found = grid.intermediate_specification(run)
    plain = grid.intermediate_specification(replace(run, control=None))
    assert found["recipe"] == plain["recipe"]
    assert found["draw"] != plain["draw"]
    assert (found["task"], found["control"]) == ("cldr_pairs.translated", None)
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert found["source"] == {"source": "translated", "reader": 2, "folder": folder.name, "files": sizes}
    assert task_of(found) == translated_task(CATALOG["cldr_pairs"])
    # The runs without it are as they are in a study without it.
    before, after = everything(make(intermediates=["cldr_pairs", "cldr_qa"])), everything(grid)
    assert {name for name in before if before[name] != after[name]} == {"analysis", "report"}


def test_other_translations_repeat_their_runs_only(folder):
    study = {"intermediates": ["cldr_pairs", "cldr_qa"], "translated": {"cldr_pairs": str(folder)}}
    before = everything(make(**study))
    pl.read_parquet(folder / "sw.parquet").tail(8).write_parquet(folder / "sw.parquet")
    file_sizes.cache_clear()
    after = everything(make(**study))
    changed = {name for name in before if before[name] != after[name]}
    assert kinds(changed) == {"data", "encode", "intermediate", "target", "predict", "score"}
    assert all("cldr_pairs.translated" in name for name in changed)


def test_translated_examples_are_prepared(folder, tmp_path):
    grid = make(translated={"cldr_pairs": str(folder)})
    out = tmp_path / "out.parquet"
    prepare_data(grid.data_specification("cldr_pairs.translated"), out, tmp_path / "out.json")
    rows = pl.read_parquet(out)
    counts = {(split, code): size for split, code, size in rows.group_by("split", "language").len().iter_rows()}
    assert counts == {("dev", "de"): 4, ("dev", "sw"): 4, ("train", "de"): 9, ("train", "sw"): 9}
    with pytest.raises(UserError, match="train and dev hold English only"):
        FAMILIES["classification"].check(rows, CATALOG["cldr_pairs"])


def prepared(folder, task, tmp_path):
    """What is prepared of a folder's translations of a task, and the manifest."""
    grid = make(intermediates=[task], translated={task: str(folder)})
    out = tmp_path / "out.parquet"
    prepare_data(grid.data_specification(f"{task}.translated"), out, tmp_path / "out.json")
    return pl.read_parquet(out), json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))


def test_training_rows_whose_context_is_in_dev_are_left_out_and_counted(folder, tmp_path, capsys):
    _, manifest = prepared(folder, "cldr_pairs", tmp_path)
    assert (manifest["dropped"], manifest["notes"]) == ({}, {})
    # Two German rows read in Swahili's dev, and one in German's; case and white space are no difference.
    frame = pl.read_parquet(folder / "de.parquet")
    copied = {"train de 1": "DEV sw  1", "train de 2": "dev sw 1", "train de 5": "dev de 0"}
    frame.with_columns(text_a=pl.col("text_a").replace(copied)).write_parquet(folder / "de.parquet")
    file_sizes.cache_clear()
    found, manifest = prepared(folder, "cldr_pairs", tmp_path)
    assert manifest["dropped"] == {"train/de": {SHARED: 3}}
    assert found.columns == pl.read_parquet(folder / "de.parquet").columns
    kept = found.filter(split="train", language="de")["id"].to_list()
    assert kept == ["0", "3", "4", "6", "7", "8"]
    assert manifest["rows"] == {"dev/de": 4, "dev/sw": 4, "train/de": 6, "train/sw": 9}
    assert f"cldr_pairs.translated, train/de: 3 rows left out: {SHARED}" in capsys.readouterr().out


def test_the_same_rows_in_train_and_dev_are_refused(folder):
    for path in folder.iterdir():
        frame = pl.read_parquet(path)
        dev = frame.filter(pl.col("split") == "dev")
        pl.concat([dev, dev.with_columns(split=pl.lit("train"))]).write_parquet(path)
    with pytest.raises(UserError, match=r"every context of train is in dev too; translate other rows for dev"):
        translated.prepare(folder, translated_task(CATALOG["cldr_pairs"]))


@pytest.mark.parametrize(
    ("task", "columns", "kept"),
    [
        # Questions are in many pairs of QQP: what must not be shared is a pair, in either order.
        ("qqp", {"text_a": ["a", "a", "c"], "text_b": ["b", "c", "a"], "label": ["0", "1", "1"]}, ["0"]),
        ("mnli", {"text_a": ["z", "a", "a"], "text_b": ["c", "c", "b"], "label": ["0", "1", "1"]}, ["0"]),
        ("hellaswag", {"prompt": ["z", "a", "a"], "choices": [["c"], ["c"], ["b"]], "label": ["0", "1", "1"]}, ["0"]),
        ("squad_v1", {"context": ["z", "a", "a"], "question": ["c", "c", "b"]}, ["0"]),
        ("ccg", {"tokens": [["z"], ["a", "b"], ["a", "b"]], "tags": [["x"], ["x", "y"], ["x", "y"]]}, ["0", "2"]),
    ],
)
def test_what_is_not_shared_is_what_the_tasks_own_reader_says(task, columns, kept, tmp_path):
    """Of three rows the second is dev and the third has its context; sentences of tagging are only counted."""
    places = {"split": ["train", "dev", "train"], "language": ["de"] * 3, "id": ["0", "1", "2"]}
    pl.DataFrame({**places, **columns}).write_parquet(tmp_path / "rows.parquet")
    found, counts = translated.prepare(tmp_path, translated_task(CATALOG[task]))
    assert found.filter(pl.col("split") == "train")["id"].to_list() == kept
    assert counts == {"dropped": {}, "notes": {}} | {"notes" if task == "ccg" else "dropped": {"train/de": {SHARED: 1}}}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda f: f.with_columns(split=pl.lit("test")), "has no rows with split 'train'"),
        (lambda f: f.filter(pl.col("split") == "train"), "has no rows with split 'dev'; a translated task needs"),
        (lambda f: pl.concat([f, f.head(1).with_columns(split=pl.lit("test"))]), "has rows with split 'test'"),
        (lambda f: f.with_columns(language=pl.lit("en")), "every row is English, so nothing is translated"),
        (lambda f: f.with_columns(language=pl.lit("German")), "'German' is not a language's code"),
        (lambda f: f.drop("language"), "needs a column 'language' of text"),
    ],
)
def test_translations_that_make_no_sense_are_one_sentence(change, expected, folder):
    frame = change(pl.concat([pl.read_parquet(path) for path in sorted(folder.iterdir())]))
    for path in folder.iterdir():
        path.unlink()
    frame.write_parquet(folder / "all.parquet")
    task = translated_task(CATALOG["cldr_pairs"])
    with pytest.raises(UserError, match=expected):
        translated.read(folder, task)


def test_a_folder_without_translations_is_refused_before_anything_runs(folder, tmp_path):
    task = translated_task(CATALOG["cldr_pairs"])
    study = parse_study({**BASE, "translated": {"cldr_pairs": str(tmp_path / "no")}}, "study.yaml")
    with pytest.raises(
        UserError, match=r"study.yaml: translated.cldr_pairs: there are no .parquet files in .*; give a"
    ):
        check_paths(study, "study.yaml")
    with pytest.raises(UserError, match=r"has no .parquet files, .* give another folder as translated.cldr_pairs"):
        translated.read(tmp_path / "no", task)
    (folder / "torn.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match=r"torn.parquet: is not a whole parquet file"):
        translated.read(folder, task)
    pl.DataFrame({"split": ["dev"]}).write_parquet(folder / "torn.parquet")
    with pytest.raises(UserError, match=r"torn.parquet: has other columns or types than de.parquet"):
        translated.read(folder, task)
    with pytest.raises(UserError, match=r"translated: 'cldr_choice' is not an intermediate task of this study; "):
        make(translated={"cldr_choice": str(folder)})


def test_a_run_on_translations_is_looked_at_in_every_language(tiny_encoder, tmp_path):
    """The dev score is the mean over languages, each against what ignoring the input scores there."""
    frame = toy_frame("classification").filter(pl.col("split") != "test")
    train, dev = (frame.filter(pl.col("split") == split) for split in ("train", "dev"))
    many = pl.concat(
        [
            train.with_columns(language=pl.lit("de")),
            dev.with_columns(language=pl.lit("de")),
            # Three of four are animals, so that Swahili's floor is another than German's.
            dev.filter((pl.col("label") == "animal") | (pl.col("id") == "000")).with_columns(language=pl.lit("sw")),
        ]
    )
    given = runs.publish_inputs("classification", tiny_encoder, tmp_path, many)
    task = translated_task(toy_task("classification"))
    made = runs.specification("classification", recipe__steps=30, recipe__learning_rate=2e-2)
    found = train_run([task], made, given, tmp_path / "out", time.time())["dev"]
    assert found["floor"] == pytest.approx((50 + 80) / 2)
    assert 0 <= found["score"] <= 100
    assert found["metric"] == "accuracy"
