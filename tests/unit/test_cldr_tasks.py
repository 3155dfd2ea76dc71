"""The offline benchmark's tasks: the held-out rule, and every task's examples."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import polars as pl
import pytest

from xlift.sources import cldr
from xlift.sources.cldr import (
    ENTITY_SENTENCES,
    INTERMEDIATE_EXAMPLES,
    NAMES_PER_LANGUAGE,
    QUERIES_PER_LANGUAGE,
    TASK_NAMES,
    Example,
    build,
    prepare,
    source_version,
)
from xlift.sources.cldr_items import (
    KINDS,
    LANGUAGES,
    items,
    keys_by_kind,
    kind_of,
    list_text,
    split_of,
)

ROOT = Path(__file__).parents[2]
INTERMEDIATE = ("cldr_pairs", "cldr_choice", "cldr_qa")


@cache
def built(task: str) -> tuple[Example, ...]:
    return tuple(build(task, LANGUAGES))


@cache
def prepared(task: str) -> pl.DataFrame:
    return prepare(task, LANGUAGES)


def shown_texts(example: Example) -> list[str]:
    """Every text that an example shows, casefolded."""
    values = [value for value in example.fields.values() if value is not None]
    texts = [text for value in values for text in (value if isinstance(value, list) else [value])]
    return [str(text).casefold() for text in texts]


# The held-out rule


@pytest.mark.parametrize("task", TASK_NAMES)
def test_items_of_an_example_are_of_its_split(task: str) -> None:
    for example in built(task):
        assert example.keys
        for key in example.keys:
            assert split_of(key) == example.split, (task, example.id)


def test_no_item_trained_on_for_any_task_is_scored_for_any_task_in_any_language() -> None:
    keys: dict[str, set[str]] = {"train": set(), "dev": set(), "test": set()}
    for task in TASK_NAMES:
        for example in built(task):
            keys[example.split].update(example.keys)
    assert keys["train"].isdisjoint(keys["test"])
    assert keys["train"].isdisjoint(keys["dev"])
    assert keys["dev"].isdisjoint(keys["test"])
    assert len(keys["train"]) > 600


@pytest.mark.parametrize("task", TASK_NAMES)
def test_the_keys_of_an_example_are_the_names_it_shows(task: str) -> None:
    for example in built(task):
        if task == "cldr_entities":
            tokens = example.fields["tokens"]
            assert isinstance(tokens, list)
            for key in example.keys:
                assert set(items(example.language)[key].split()) <= set(tokens)
        else:
            texts = shown_texts(example)
            for key in example.keys:
                name = items(example.language)[key].casefold()
                assert any(name in text for text in texts), (example.id, key)


def test_no_english_training_name_is_a_test_name_in_any_language() -> None:
    train = {name.casefold() for key, name in items("en").items() if split_of(key) == "train"}
    for task in ("cldr_retrieval", "cldr_kind"):
        field = "text" if task == "cldr_retrieval" else "text_a"
        for example in built(task):
            if example.split == "test":
                assert str(example.fields[field]).casefold() not in train, (
                    task,
                    example.language,
                    example.id,
                )


# Frames


@pytest.mark.parametrize(
    ("task", "columns"),
    [
        (
            "cldr_retrieval",
            {"role": pl.String, "text": pl.String, "pool": pl.String, "gold": pl.List(pl.String)},
        ),
        ("cldr_kind", {"text_a": pl.String, "text_b": pl.String, "label": pl.String}),
        ("cldr_entities", {"tokens": pl.List(pl.String), "tags": pl.List(pl.String)}),
        ("cldr_pairs", {"text_a": pl.String, "text_b": pl.String, "label": pl.String}),
        ("cldr_choice", {"prompt": pl.String, "choices": pl.List(pl.String), "label": pl.String}),
        (
            "cldr_qa",
            {
                "context": pl.String,
                "question": pl.String,
                "answers": pl.List(pl.String),
                "answer_starts": pl.List(pl.Int64),
            },
        ),
    ],
)
def test_schema(task: str, columns: dict[str, object]) -> None:
    frame = prepared(task)
    assert dict(frame.schema) == {"split": pl.String, "language": pl.String, "id": pl.String, **columns}
    for column in frame.columns:
        if (task, column) != ("cldr_kind", "text_b"):
            assert frame[column].null_count() == 0, column
    assert not frame.select("split", "language", "id").is_duplicated().any()
    assert frame.equals(frame.sort("split", "language", "id"))


@pytest.mark.parametrize("task", TASK_NAMES)
def test_train_and_dev_are_english_and_test_is_every_language(task: str) -> None:
    frame = prepared(task)
    assert set(frame.filter(pl.col("split") != "test")["language"]) <= {"en"}
    expected = {"en"} if task in INTERMEDIATE else set(LANGUAGES)
    assert set(frame.filter(pl.col("split") == "test")["language"]) == expected
    splits = {"test"} if task == "cldr_retrieval" else {"train", "dev", "test"}
    assert set(frame["split"]) == splits


@pytest.mark.parametrize("task", TASK_NAMES)
def test_no_example_twice_in_a_split(task: str) -> None:
    frame = prepared(task)
    targets = ("id", "label", "tags", "gold", "answers", "answer_starts")
    inputs = [name for name in frame.columns if name not in targets]
    seen = Counter(repr(row) for row in frame.select(inputs).rows())
    assert max(seen.values()) == 1


def test_a_language_has_the_same_examples_whatever_is_asked_for_beside_it() -> None:
    for task in ("cldr_retrieval", "cldr_kind", "cldr_entities"):
        few = prepare(task, ["yo", "de", "yo"])
        mine = pl.col("language").is_in(["de", "yo"])
        assert few.filter(mine).equals(prepared(task).filter(mine))
    assert prepare("cldr_pairs", ["yo"]).equals(prepared("cldr_pairs"))


def environment(seed: str = "0") -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONHASHSEED": seed}


def test_bytes_do_not_depend_on_the_process(tmp_path: Path) -> None:
    code = (
        "import sys, hashlib, pathlib; from xlift.sources import cldr\n"
        "for task in cldr.TASK_NAMES:\n"
        "    path = pathlib.Path(sys.argv[1]) / task\n"
        "    cldr.prepare(task, cldr.LANGUAGES).write_parquet(path)\n"
        "    print(task, hashlib.sha256(path.read_bytes()).hexdigest())\n"
    )
    outputs = []
    for seed in ("1", "2"):
        folder = tmp_path / seed
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", code, str(folder)],
            env=environment(seed),
            capture_output=True,
            text=True,
            check=True,
        )
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1]
    assert outputs[0].count("\n") == len(TASK_NAMES)


def test_source_version_does_not_import_babel() -> None:
    code = "import sys; from xlift.sources import cldr; print(cldr.source_version(), 'babel' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{source_version()} False"
    assert source_version()["source"] == "cldr"
    assert source_version()["reader"] == cldr.READER_VERSION


# Tasks


def test_retrieval() -> None:
    frame = prepared("cldr_retrieval")
    documents = frame.filter(pl.col("role") == "document")
    queries = frame.filter(pl.col("role") == "query")
    assert set(documents["language"]) == {"en"}
    assert documents["gold"].list.len().max() == 0
    assert documents["text"].n_unique() == documents.height
    assert set(documents["id"]) == {
        key for key in items("en") if split_of(key) == "test" and kind_of(key) in ("territory", "language")
    }
    assert set(queries["language"]) == set(LANGUAGES) - {"en"}
    assert set(frame["pool"]) == {"en"}
    for row in queries.iter_rows(named=True):
        assert row["gold"] == [row["id"]]
        assert row["text"] == items(row["language"])[row["id"]]
    assert set(queries["id"]) <= set(documents["id"])
    assert queries.group_by("language").len()["len"].max() == QUERIES_PER_LANGUAGE
    # as parallel as can be: languages that name everything have nearly the same queries
    chosen = [set(queries.filter(pl.col("language") == language)["id"]) for language in ("hi", "ru", "te")]
    assert len(set.intersection(*chosen)) >= 0.8 * QUERIES_PER_LANGUAGE


def balance(frame: pl.DataFrame) -> Counter[str]:
    return Counter(frame["label"].to_list())


def test_kind() -> None:
    frame = prepared("cldr_kind")
    assert set(frame["label"]) == set(KINDS)
    assert all(row["label"] == kind_of(row["id"]) for row in frame.iter_rows(named=True))
    assert frame["text_b"].null_count() == frame.height
    train = balance(frame.filter(pl.col("split") == "train"))
    everything = {kind: len(keys) for kind, keys in keys_by_kind("en", "train").items()}
    second = sorted(everything.values())[-2]
    assert train == {kind: min(count, second) for kind, count in everything.items()}
    assert balance(frame.filter(pl.col("split") == "dev")).most_common(1)[0][1] <= 25
    english = balance(frame.filter((pl.col("split") == "test") & (pl.col("language") == "en")))
    assert set(english.values()) == {NAMES_PER_LANGUAGE // 5}
    sizes = frame.filter(pl.col("split") == "test").group_by("language").len()["len"]
    assert sizes.max() == NAMES_PER_LANGUAGE == 40
    wolof = balance(frame.filter((pl.col("split") == "test") & (pl.col("language") == "wo")))
    assert wolof["unit"] == 0
    # one script and three currencies of its own; the rest is shared out evenly
    assert wolof == {"territory": 18, "language": 18, "currency": 3, "script": 1}


def test_entities_are_iob2_and_their_tags_say_what_they_are() -> None:
    for example in built("cldr_entities"):
        tokens, tags = example.fields["tokens"], example.fields["tags"]
        assert isinstance(tokens, list)
        assert isinstance(tags, list)
        assert len(tokens) == len(tags)
        assert all(token and not any(letter.isspace() for letter in token) for token in tokens)
        previous = "O"
        for tag in tags:
            if tag.startswith("I-"):
                assert previous[2:] == tag[2:]
            previous = tag
        spans = [(kind_of(key), len(items(example.language)[key].split())) for key in example.keys]
        expected = [(kind.upper(), size) for kind, size in spans if kind in cldr.ENTITY_KINDS]
        assert entity_spans(tags) == expected
        assert expected
        assert 2 <= len(example.keys) == len(set(example.keys)) <= 5


def entity_spans(tags: Sequence[str]) -> list[tuple[str, int]]:
    spans: list[tuple[str, int]] = []
    for tag in tags:
        if tag.startswith("B-"):
            spans.append((tag[2:], 1))
        elif tag.startswith("I-"):
            spans[-1] = (spans[-1][0], spans[-1][1] + 1)
    return spans


def test_entities_use_the_languages_patterns_and_have_the_stated_sizes() -> None:
    frame = prepared("cldr_entities")
    sizes = {(split, language): n for split, language, n in frame.group_by("split", "language").len().rows()}
    assert sizes == {
        ("train", "en"): 2000,
        ("dev", "en"): 100,
        **{("test", code): ENTITY_SENTENCES["test"] for code in LANGUAGES},
    }
    test = frame.filter(pl.col("split") == "test")
    for language, word in (("de", "und"), ("zh", "、"), ("zh", "和"), ("ar", "و"), ("en", "and")):
        tokens = [token for each in test.filter(pl.col("language") == language)["tokens"] for token in each]
        assert word in tokens
    labels = Counter(tag[2:] for tags in test["tags"] for tag in tags if tag.startswith("B-"))
    assert set(labels) == {"TERRITORY", "LANGUAGE", "CURRENCY"}
    assert min(labels.values()) > 0.2 * sum(labels.values())


def test_pairs_are_labelled_by_what_they_show() -> None:
    for example in built("cldr_pairs"):
        *listed, asked = example.keys
        assert 3 <= len(listed) == len(set(listed)) <= 4
        (kind,) = {kind_of(key) for key in listed}
        expected = "listed" if asked in listed else "same_kind" if kind_of(asked) == kind else "other_kind"
        assert example.fields["label"] == expected
        assert example.fields["text_a"] == list_text([items("en")[key] for key in listed], "en")
        assert example.fields["text_b"] == items("en")[asked]
        inside = str(example.fields["text_b"]).casefold() in str(example.fields["text_a"]).casefold()
        assert inside == (expected == "listed")


@pytest.mark.parametrize(("task", "classes"), [("cldr_pairs", 3), ("cldr_choice", 4)])
def test_intermediate_labels_are_balanced(task: str, classes: int) -> None:
    for split, count in INTERMEDIATE_EXAMPLES.items():
        labels = balance(prepared(task).filter(pl.col("split") == split))
        assert sum(labels.values()) == count
        assert len(labels) == classes
        assert max(labels.values()) - min(labels.values()) <= 1


def test_choice_has_one_option_of_the_kind() -> None:
    for example in built("cldr_choice"):
        prompt, choices = example.keys[:3], example.keys[3:]
        (kind,) = {kind_of(key) for key in prompt}
        kinds = [kind_of(key) for key in choices]
        assert [str(place) for place, each in enumerate(kinds) if each == kind] == [example.fields["label"]]
        assert len(set(kinds)) == 4
        assert len(set(example.keys)) == 7
        assert example.fields["choices"] == [items("en")[key] for key in choices]


def test_answers_are_where_they_say_and_nowhere_else() -> None:
    nouns = {noun: kind for kind, noun in cldr._NOUNS.items()}
    questions = Counter(example.fields["question"] for example in built("cldr_qa"))
    assert len(questions) == 4 * len(KINDS)
    for example in built("cldr_qa"):
        context, question = str(example.fields["context"]), str(example.fields["question"])
        answers, starts = example.fields["answers"], example.fields["answer_starts"]
        assert isinstance(answers, list)
        assert isinstance(starts, list)
        assert len(answers) == len(starts) == 1
        answer, start = answers[0], starts[0]
        assert context[start : start + len(answer)] == answer
        assert context.casefold().count(answer.casefold()) == 1
        asked = max((noun for noun in nouns if noun in question), key=len)
        of_kind = [key for key in example.keys if kind_of(key) == nouns[asked]]
        assert [items("en")[key] for key in of_kind] == [answer]
        assert 4 <= len(example.keys) == len(set(example.keys)) <= 6
        if nouns[asked] in ("language", "script"):
            assert {"language", "script"} - {kind_of(key) for key in example.keys}
