"""Every task prepared from small real data: numbers of rows, labels, languages, and a property each, by hand."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mirror import ABSENT, HERE, ROOT
from xlift.catalog import CATALOG
from xlift.errors import UserError
from xlift.grid import Grid
from xlift.jobs.prepare import prepare_data
from xlift.sources import reading
from xlift.study import parse_study

pytestmark = pytest.mark.skipif(not HERE, reason=ABSENT)

CCG = {"folders": {"ccg": str(ROOT / "local" / "ccg-ud2ccg")}}


def specification(task: str, languages: list[str] | None, data: dict[str, Any]) -> dict[str, Any]:
    target = "target" in CATALOG[task].roles
    settings = {
        "study": "real",
        "intermediates": ["mnli" if target else task],
        "budgets": [1],
        "seeds": [1],
        "targets": [task if target else "xnli"],
        "data": data,
    }
    if languages is not None:
        settings["languages"] = languages
    if CATALOG[task].roles == ("stage",):  # stages are part of no study by themselves
        return {"task": task, "languages": ["en"], "source": {"source": "hub"}}
    return Grid(parse_study(settings, "x"), "x").data_specification(task)


def prepared(
    folder: Path, task: str, languages: list[str] | None = None, **data: Any
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """A task's prepared rows and their manifest, with what has a validation split scored on it."""
    given = {"root": str(ROOT), "score_on": "validation", **data}
    path = folder / f"{task}.parquet"
    made = specification(task, languages, given)
    prepare_data(made, path, path.with_suffix(".json"), given["root"], given.get("folders"))
    return pl.read_parquet(path), json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))


def words(text: str) -> int:
    return len(text.split())


# Rows of train and dev, the labels, and something that holds of the rows and could easily not.
ENGLISH: dict[str, tuple[int, int, set[str], Callable[[pl.DataFrame], bool]]] = {
    "mnli": (
        8302,
        1513,
        {"entailment", "neutral", "contradiction"},
        # Negation marks contradiction in MNLI, as is well known.
        lambda f: (
            _share(f.filter(pl.col("text_b").str.contains(r"\b(?:never|nobody|nothing)\b")), "contradiction") > 0.5
        ),
    ),
    "anli_plus": (
        18725,
        4130,
        {"entailment", "neutral", "contradiction"},
        lambda f: f["id"].str.split("-").list.first().n_unique() == 10,
    ),
    "qqp": (
        17092,
        3120,
        {"not_duplicate", "duplicate"},
        lambda f: (f["text_a"].str.ends_with("?").mean() or 0) > 0.9 and 0.3 < _share(f, "duplicate") < 0.45,
    ),
    "squad": (12000, 1000, set(), lambda f: _answers_stand(f) and (f["answers"].list.len() == 1).all()),
    "squad_v1": (12000, 1000, set(), lambda f: _answers_stand(f) and (f["answers"].list.len() == 1).all()),
    "squad_v2": (8182, 1529, set(), lambda f: _answers_stand(f) and (f["answers"].list.len() == 0).sum() == 5063),
    "hellaswag": (8502, 1540, set("0123"), lambda f: (f["choices"].list.len() == 4).all()),
    "cosmos_qa": (2536, 449, set("0123"), lambda f: _none_of_the_above(f) > 0.2),
    "commonsense_qa": (9741, 1221, set("01234"), lambda f: (f["choices"].list.len() == 5).all()),
    "social_iqa": (1659, 295, set("012"), lambda f: (f["choices"].list.len() == 3).all()),
    "copa": (400, 100, set("01"), lambda f: f["prompt"].str.contains(r" What was the (?:cause|effect)\?$").all()),
}


def _share(frame: pl.DataFrame, label: str) -> float:
    return (frame["label"] == label).sum() / frame.height


def _answers_stand(frame: pl.DataFrame) -> bool:
    return all(
        context[start : start + len(answer)] == answer
        for context, answers, starts in frame.select("context", "answers", "answer_starts").iter_rows()
        for answer, start in zip(answers, starts, strict=True)
    )


def _none_of_the_above(frame: pl.DataFrame) -> float:
    return frame["choices"].list.join("|").str.contains("None of the above").sum() / frame.height


@pytest.mark.parametrize("task", sorted(ENGLISH))
def test_english_tasks(task, tmp_path):
    train, dev, labels, holds = ENGLISH[task]
    frame, manifest = prepared(tmp_path, task)
    assert manifest["rows"] == {"train/en": train, "dev/en": dev}
    assert (manifest["dropped"], manifest["notes"]) == ({}, {})
    assert {source["revision"] for source in manifest["sources"]} == {"local"}
    if labels:
        for split in ("train", "dev"):
            assert set(frame.filter(split=split)["label"]) == labels
    assert holds(frame)


def test_supertags_of_the_free_substitute(tmp_path):
    frame, manifest = prepared(tmp_path, "ccg", **CCG)
    assert manifest["rows"] == {"train/en": 11303, "dev/en": 1864}
    names = manifest["supertags"]
    assert len(names) == 499
    taught = frame.filter(split="train").explode("tokens", "tags")
    counts = taught["tags"].value_counts().sort("count", descending=True)
    assert counts["tags"].to_list()[:3] == ["tag000", "tag001", "tag002"]
    articles = taught.filter(pl.col("tokens") == "the")["tags"].value_counts().sort("count", descending=True)
    assert names[articles["tags"][0]] == "NP/NP"  # in this substitute, which has no N


def test_xnli(tmp_path):
    frame, manifest = prepared(tmp_path, "xnli")
    languages = CATALOG["xnli"].languages
    expected = {"train/en": 8302, "dev/en": 1513, **{f"test/{code}": 2490 for code in languages}}
    assert manifest["rows"] == expected
    labels = [frame.filter(split="test", language=code)["label"].to_list() for code in languages]
    assert all(row == labels[0] for row in labels)  # the same pairs in every language
    assert pl.Series(labels[0]).value_counts().sort("")["count"].to_list() == [830, 830, 830]
    thai = frame.filter(split="test", language="th")["text_a"].str.contains(r"[\u0E00-\u0E7F]").mean()
    assert thai is not None and thai > 0.99  # noqa: PT018


def test_xcopa(tmp_path):
    frame, manifest = prepared(tmp_path, "xcopa", score_on="test")
    languages = CATALOG["xcopa"].languages
    assert manifest["rows"] == {"train/en": 400, "dev/en": 100, **{f"test/{code}": 500 for code in languages}}
    for code in languages:
        labels = frame.filter(split="test", language=code)["label"]
        assert labels.value_counts().sort("label")["count"].to_list() == [250, 250]
    on_validation, _ = prepared(tmp_path, "xcopa", ["qu", "sw"])
    assert on_validation.filter(split="test").height == 200


def test_copas_withheld_labels_are_no_data(tmp_path, monkeypatch):
    copa = CATALOG["copa"]
    slices = tuple(dataclasses.replace(part, rows="test") if part.split == "dev" else part for part in copa.slices)
    monkeypatch.setitem(CATALOG, "copa", dataclasses.replace(copa, slices=slices))
    with pytest.raises(UserError, match=r"^data of copa: 500 of 500 rows of dev in 'en' cannot be used"):
        prepared(tmp_path, "copa")


def test_udpos(tmp_path):
    frame, manifest = prepared(tmp_path, "udpos", ["de", "kk", "te"])
    # German has no test split here and Kazakh no validation split anywhere.
    expected = {"train/en": 8000, "dev/en": 500, "test/de": 500, "test/en": 500, "test/kk": 500, "test/te": 131}
    assert manifest["rows"] == expected
    assert set(frame["tags"].explode()) == set(CATALOG["udpos"].labels)
    stops = frame.explode("tokens", "tags").filter(pl.col("tokens") == ".")["tags"]
    assert (stops == "PUNCT").mean() > 0.99
    assert manifest["notes"]["train/en"]["its context is in dev or test too"] > 0


def test_the_languages_that_xtreme_r_adds_to_udpos(tmp_path, monkeypatch):
    """Read from another repository of the same columns, by links in a root of the test's own."""
    added = {"lt": "Lithuanian", "pl": "Polish", "ro": "Romanian", "uk": "Ukrainian", "wo": "Wolof"}
    root, home = tmp_path / "hub", tmp_path / "hub" / "izhx" / "xtreme-r-udpos"
    home.mkdir(parents=True)
    (root / "google").symlink_to(ROOT / "google")
    features = (ROOT / "local" / "udpos-extra" / "README.md").read_text(encoding="utf-8")
    for code, name in added.items():
        (home / code).symlink_to(ROOT / "local" / "udpos-extra" / f"udpos.{name}")
        features = features.replace(f"udpos.{name}", code)
    (home / "README.md").write_text(features, encoding="utf-8")
    _, manifest = prepared(tmp_path, "udpos", ["pl", "wo"], root=str(root))
    assert manifest["rows"] == {"train/en": 8000, "dev/en": 500, "test/en": 500, "test/pl": 500, "test/wo": 449}


def test_panx(tmp_path):
    frame, manifest = prepared(tmp_path, "panx", ["de", "my", "sw", "zh"])
    expected = {"train/en": 10000, "dev/en": 1000} | {f"test/{code}": 1000 for code in ("de", "en", "sw", "zh")}
    assert manifest["rows"] == {**expected, "test/my": 100}
    assert set(frame["tags"].explode()) == set(CATALOG["panx"].labels)
    spans = [re.sub("[BI]-", "", " ".join(tags)) for tags in frame.filter(language="sw")["tags"]]
    assert {tag for row in spans for tag in row.split()} == {"O", "PER", "ORG", "LOC"}
    # IOB2: an inside tag follows a tag of its own kind.
    assert all(
        before.endswith(tag[2:]) and before != "O"
        for tags in frame.filter(language="de")["tags"]
        for before, tag in zip(["O", *tags], tags, strict=False)
        if tag.startswith("I-")
    )
    assert frame.filter(split="dev")["tokens"].to_list() == (
        frame.filter(split="test", language="en")["tokens"].to_list()
    )


def test_a_language_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(UserError) as caught:
        prepared(tmp_path, "panx", ["th"])
    assert str(caught.value).startswith("data set unimelb-nlp/wikiann")
    assert "th" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_xquad(tmp_path):
    frame, manifest = prepared(tmp_path, "xquad", ["ru", "zh"])
    assert manifest["rows"] == {"train/en": 12000, "dev/en": 1000} | {f"test/{c}": 1190 for c in ("en", "ru", "zh")}
    assert _answers_stand(frame)
    first = frame.filter(split="test", language="en")["id"].to_list()
    assert frame.filter(split="test", language="zh")["id"].to_list() == first


def test_mlqa(tmp_path):
    frame, manifest = prepared(tmp_path, "mlqa")
    expected = {"ar": 517, "de": 512, "en": 1148, "es": 500, "hi": 507, "vi": 511, "zh": 504}
    assert manifest["rows"] == {"train/en": 12000, "dev/en": 1000} | {f"test/{c}": n for c, n in expected.items()}
    assert _answers_stand(frame)


TYDIQA = {"ar": 921, "bn": 113, "en": 440, "fi": 782, "id": 565, "ko": 276, "ru": 812, "sw": 499, "te": 669}


def test_tydiqa(tmp_path):
    frame, manifest = prepared(tmp_path, "tydiqa")
    assert manifest["rows"] == {"train/en": 3696, "dev/en": 1000} | {f"test/{c}": n for c, n in TYDIQA.items()}
    assert _answers_stand(frame)
    assert frame.filter(split="test")["answers"].list.len().sum() == 8754
    assert frame.filter(language="te")["context"].str.contains(r"[\u0C00-\u0C7F]").all()


def test_offsets_as_the_hub_has_them_are_put_right(tmp_path, monkeypatch):
    """The hub's script strips a context and keeps the offset: here the offsets are moved by what could be stripped."""
    right, _ = prepared(tmp_path, "tydiqa", ["sw", "te"])
    read_split = reading.read_split

    def shifted(*arguments):
        rows = read_split(*arguments)
        if "tydiqa" not in arguments[0]:
            return rows
        table = rows.frame.to_dicts()
        for number, row in enumerate(table):
            row["answers"]["answer_start"] = [start + number % 3 for start in row["answers"]["answer_start"]]
        return type(rows)(pl.DataFrame(table, schema=rows.frame.schema), rows.class_names, rows.source)

    monkeypatch.setattr(reading, "read_split", shifted)
    found, manifest = prepared(tmp_path, "tydiqa", ["sw", "te"])
    assert found.drop("answer_starts").equals(right.drop("answer_starts"))
    assert _answers_stand(found)
    moved = (found["answer_starts"] != right["answer_starts"]).mean()
    assert moved < 0.01  # the same text right behind, nearer to the moved offset
    assert manifest["notes"]["test/sw"]["answer moved to its text's place nearest the stated one"] > 300
    assert manifest["dropped"] == {}


TATOEBA_SMALL = {"jv": 205, "te": 234, "ta": 307, "sw": 390, "th": 548, "kk": 575, "ml": 687, "ka": 746}


def test_tatoeba(tmp_path):
    frame, manifest = prepared(tmp_path, "tatoeba_direct")
    languages = CATALOG["tatoeba_direct"].languages
    assert manifest["rows"] == {f"test/{code}": 2 * TATOEBA_SMALL.get(code, 1000) for code in languages}
    assert frame["text"].str.contains(r"^\s|\s$").sum() == 0
    queries = frame.filter(role="query")
    assert (queries["gold"].list.first() == queries["id"]).all()
    # Who is Tom in English is Tom in German: pairs stand beside each other.
    german = frame.filter(language="de")
    sides = german.filter(role="query").join(german.filter(role="document"), on="id", suffix="_de")
    toms = sides.filter(pl.col("text").str.contains(r"\bTom\b"))
    assert toms.height > 20
    assert toms["text_de"].str.contains("Tom").all()


def test_tatoeba_after_squad(tmp_path):
    """The same sentences and no others: what is trained on is the stage's."""
    frame, manifest = prepared(tmp_path, "tatoeba_squad", ["sw"], examples={"test": 50})
    assert manifest["rows"] == {"test/sw": 100}
    assert frame.equals(prepared(tmp_path, "tatoeba_direct", ["sw"], examples={"test": 50})[0])


def test_lareqa(tmp_path):
    frame, manifest = prepared(tmp_path, "lareqa", ["de", "th"])
    test = frame.filter(split="test")
    sentences = {"ar": 1222, "de": 1276, "el": 1234, "en": 1180, "es": 1215, "hi": 1244, "ru": 1219, "th": 852}
    sentences |= {"tr": 1167, "vi": 1209, "zh": 1196}
    documents = test.filter(role="document")
    assert dict(documents.group_by("language").len().sort("language").iter_rows()) == sentences
    asked = test.filter(role="query")
    assert dict(asked.group_by("language").len().iter_rows()) == {"de": 1190, "en": 1190, "th": 1190}
    assert documents.height == 13_014
    # One in each language, and a Chinese paragraph says one thing twice.
    assert set(asked["gold"].list.len()) <= {11, 12}
    assert (asked["gold"].list.len() == 11).mean() > 0.99
    stands = documents.select(found=pl.col("text_b").str.contains(pl.col("text"), literal=True))["found"]
    assert (~stands).sum() == 1  # one Turkish sentence of the source has a mangled fraction
    assert manifest["dropped"] == {}
    # In SQuAD's part the sentence holds what the question is answered by: never the whole of a long paragraph.
    taught = frame.filter(split="train", role="document")
    lengths = taught.select(pl.col("text").str.len_chars() / pl.col("text_b").str.len_chars()).to_series()
    assert 0.1 < lengths.mean() < 0.4


def test_pawsx_without_its_training_data_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"^data set google-research-datasets/paws-x, en[:,].*train"):
        prepared(tmp_path, "pawsx")


def test_pawsx_with_training_data_of_qqp(tmp_path, monkeypatch):
    taught = dataclasses.replace(CATALOG["qqp"].slices[0], labels={"not_duplicate": "0", "duplicate": "1"})
    pawsx = CATALOG["pawsx"]
    monkeypatch.setitem(CATALOG, "pawsx", dataclasses.replace(pawsx, slices=(taught, *pawsx.slices[1:])))
    frame, manifest = prepared(tmp_path, "pawsx")
    expected = {"train/en": 17092, "dev/en": 2000, **{f"test/{code}": 2000 for code in pawsx.languages}}
    assert manifest["rows"] == expected
    assert set(frame["label"]) == {"0", "1"}
    # Pairs are made of nearly the same words, paraphrases or not.
    english = frame.filter(split="test", language="en")
    close = [set(a.lower().split()) ^ set(b.lower().split()) for a, b in english.select("text_a", "text_b").iter_rows()]
    assert sum(len(other) for other in close) / english.height < 4


def test_prepared_rows_are_the_same_every_time(tmp_path):
    paths = [tmp_path / name for name in ("a", "b")]
    for path in paths:
        path.mkdir()
        prepared(path, "commonsense_qa", examples={"train": 300, "dev": 50})
    first, second = ((path / "commonsense_qa.parquet").read_bytes() for path in paths)
    assert first == second
    more, _ = prepared(tmp_path, "commonsense_qa", examples={"train": 600, "dev": 50})
    fewer = pl.read_parquet(paths[0] / "commonsense_qa.parquet")
    assert set(fewer["id"]) < set(more["id"])
    assert fewer.filter(split="train").height == 300


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"repository": "tau/commonsense"}, "data set tau/commonsense"),
        ({"configs": {"en": "other"}}, "tau/commonsense_qa"),
        ({"rows": "testing"}, "tau/commonsense_qa, default"),
        (
            {"columns": {"question": "asked"}},
            "tau/commonsense_qa, default, train: has no column 'asked', only id, question",
        ),
    ],
)
def test_what_is_not_in_the_repository_is_one_sentence(tmp_path, monkeypatch, change, problem):
    task = CATALOG["commonsense_qa"]
    slices = (dataclasses.replace(task.slices[0], **change), task.slices[1])
    monkeypatch.setitem(CATALOG, "commonsense_qa", dataclasses.replace(task, slices=slices))
    with pytest.raises(UserError) as caught:
        prepared(tmp_path, "commonsense_qa")
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)
