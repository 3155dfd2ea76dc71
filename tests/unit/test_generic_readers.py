"""The readers of a user's own tasks: hand-made rows in, the columns of the family out, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from topics import examples, write_topics
from xlift.catalog.fields import READER_FIELDS
from xlift.catalog.task import Slice, Split, Task
from xlift.errors import UserError
from xlift.sources.generic import GENERIC_READERS
from xlift.sources.reading import BY_TEXT, CONTEXT, DROPPED, NOTE, NOWHERE, locate
from xlift.study import parse_study
from xlift.tasks.families import FAMILIES


@dataclass(frozen=True)
class Table:
    """Rows as `read_split` gives them."""

    frame: pl.DataFrame
    class_names: dict[str, tuple[str, ...]] = field(default_factory=dict)


def read(
    family: str,
    rows: dict[str, Any],
    names: dict[str, tuple[str, ...]] | None = None,
    *,
    known: tuple[str, ...] = (),
    language: str = "de",
    split: Split = "test",
    unanswerable: bool = False,
    **of_slice: Any,
) -> pl.DataFrame:
    """What the family's reader makes of rows; `known`: the task's labels; the rest are fields of the slice."""
    part = Slice(split, "me/mine", {language: "all"}, "rows", family, **of_slice)
    facts = {"labels": known, "slices": (part,), "unanswerable": unanswerable}
    task = Task("mine", family, "hub", ("target",), (language,), ("x",), **facts)  # type: ignore[arg-type]
    return GENERIC_READERS[family](Table(pl.DataFrame(rows), names or {}), part, language, task)


def refused(*arguments: Any, **named: Any) -> str:
    with pytest.raises(UserError) as caught:
        read(*arguments, **named)
    message = str(caught.value)
    assert message.startswith("data of mine: me/mine, all, rows: ")
    assert "\n" not in message
    return message


def test_there_is_a_reader_for_every_family_that_fields_are_listed_of():
    assert set(GENERIC_READERS) == set(READER_FIELDS)


PAIR = {"text_a": "s1", "text_b": "s2", "label": "y"}


def test_texts_and_classes():
    rows = {"s1": [" a ", "b"], "s2": ["c", "d"], "y": [1, 0]}
    found = read("classification", rows, {"y": ("no", "yes")}, known=("yes", "no"), columns=PAIR)
    assert found.drop(DROPPED, CONTEXT).rows() == [("00000000", "a", "c", "yes"), ("00000001", "b", "d", "no")]
    single = read("classification", {"text_a": ["a"], "label": ["x"]}, known=("x", "y"))
    assert single["text_b"].to_list() == [None]
    assert single.schema["text_b"] == pl.String


def test_labels_are_mapped_and_rows_left_out_are_told():
    rows = {"text_a": ["a", "b", "c", "d"], "label": [0, 1, 2, -1]}
    found = read("classification", rows, known=("x", "y"), labels={"0": "x", "1": "y", "2": "y", "-1": ""})
    assert found["label"].to_list() == ["x", "y", "y", ""]
    assert [reason is None for reason in found[DROPPED]] == [True, True, True, False]
    # The column is always there, so that the frames of all languages go together.
    assert read("classification", {"text_a": ["a"], "label": ["x"]}, known=("x",)).schema[DROPPED] == pl.String
    assert "leave every row out" in refused("classification", {"text_a": ["a"], "label": [3]}, labels={"3": ""})


def test_several_columns_are_one_text_and_columns_of_structs_are_reached():
    rows = {"q": [{"title": "a", "body": "b"}], "label": ["x"]}
    found = read("classification", rows, known=("x",), columns={"text_a.0": "q.title", "text_a.1": "q.body"})
    assert found["text_a"].to_list() == ["a b"]
    message = refused("classification", rows, known=("x",), columns={"text_a": "q.head"})
    assert "there is no column 'q.head'; it has q, label" in message


def test_ids_are_the_columns_own_or_row_numbers():
    rows = {"text_a": ["a", "b"], "label": ["x", "x"], "key": [7, 8]}
    assert read("classification", rows, known=("x",))["id"].to_list() == ["00000000", "00000001"]
    assert read("classification", rows, known=("x",), columns={"id": "key"})["id"].to_list() == ["7", "8"]
    twice = {**rows, "key": [7, 7]}
    assert "column 'key' has '7' twice" in refused("classification", twice, known=("x",), columns={"id": "key"})


def test_rows_of_a_language_by_its_column():
    rows = {"text_a": ["a", "b", "c"], "label": ["x", "x", "x"], "lang": ["swh", "de", "swh"]}
    columns = {"language": "lang"}
    options = {"known": ("x",), "columns": columns}
    found = read("classification", rows, language="sw", codes={"sw": "swh"}, **options)
    assert found.select("id", "text_a").rows() == [("00000000", "a"), ("00000002", "c")]
    assert read("classification", rows, **options)["text_a"].to_list() == ["b"]
    by_class = {**rows, "lang": [1, 0, 1]}
    named = read("classification", by_class, {"lang": ("de", "sw")}, language="sw", **options)
    assert named["text_a"].to_list() == ["a", "c"]
    assert "column 'lang' names no row 'sw', only de, swh" in refused("classification", rows, language="sw", **options)


def test_choices_in_one_column_or_in_several():
    lists = read("multiple_choice", {"prompt": ["p"], "choices": [["a", "b", "c"]], "label": [2]})
    assert lists.drop(DROPPED, CONTEXT).rows() == [("00000000", "p", ["a", "b", "c"], "2")]
    columns = {"choices.0": "e0", "choices.1": "e1", "prompt": "p"}
    rows = {"p": ["p", "q"], "e0": ["a", "c"], "e1": ["b", "d"], "label": ["A", "B"]}
    found = read("multiple_choice", rows, columns=columns, labels={"A": "0", "B": "1"})
    assert found["choices"].to_list() == [["a", "b"], ["c", "d"]]
    assert found["label"].to_list() == ["0", "1"]
    # Ten columns and more keep their order.
    many = {f"c{place}": [str(place)] for place in range(12)}
    names = {f"choices.{place}": f"c{place}" for place in range(12)}
    wide = read("multiple_choice", {**many, "prompt": ["p"], "label": [11]}, columns=names)
    assert wide["choices"].to_list() == [[str(place) for place in range(12)]]
    assert "label of row 1 is no choice's place" in refused("multiple_choice", rows, columns=columns, labels={"A": "0"})


def test_a_class_of_a_choice_counts_by_its_number():
    rows = {"prompt": ["p", "q"], "choices": [["a", "b"], ["c", "d"]], "label": [1, 0]}
    assert read("multiple_choice", rows, {"label": ("choice1", "choice2")})["label"].to_list() == ["1", "0"]


def test_words_and_tags():
    rows = {"tokens": [["a", "b"], ["c"]], "ner_tags": [[0, 1], [0]]}
    found = read("tagging", rows, {"ner_tags": ("O", "B-X")}, known=("O", "B-X"), columns={"tags": "ner_tags"})
    assert found["tags"].to_list() == [["O", "B-X"], ["O"]]
    uneven = {"tokens": [["a", "b"]], "tags": [["O"]]}
    assert "tags of row 0 are not one a word" in refused("tagging", uneven, known=("O",))
    strange = {"tokens": [["a"], ["b"]], "tags": [["O"], ["Q"]]}
    assert "tags of row 1 hold 'Q', which is no tag of the task" in refused("tagging", strange, known=("O",))
    empty = {"tokens": [["a"], []], "tags": [["O"], []]}
    assert "tokens of row 1 is empty" in refused("tagging", empty, known=("O",))


QUESTION = {"context": ["ab cd ab"], "question": ["q"]}


@pytest.mark.parametrize(
    ("answers", "columns", "starts"),
    [
        ({"answers": [{"text": ["ab"], "answer_start": [5]}]}, {}, [6]),
        ({"answers": [{"text": ["ab"], "answer_start": [2]}]}, {}, [0]),
        ({"answers": ["cd"]}, {}, [3]),
        ({"answers": [["ab", "cd"]]}, {}, [0, 3]),
        ({"answers": ["ab"], "at": [6]}, {"answer_starts": "at"}, [6]),
        ({"gold": [["ab"]], "at": [[4]]}, {"answers": "gold", "answer_starts": "at"}, [6]),
    ],
)
def test_answers_are_where_their_text_is_nearest_the_offset(answers, columns, starts):
    found = read("span", {**QUESTION, **answers}, columns=columns)
    assert found["answer_starts"].to_list() == [starts]
    assert found.schema["answer_starts"] == pl.List(pl.Int64)
    for answer, start in zip(found["answers"][0], starts, strict=True):
        assert "ab cd ab"[start : start + len(answer)] == answer


def test_answers_that_are_not_there():
    rows = {**QUESTION, "answers": [["xy"]]}
    assert "answers of row 0 is not in its context" in refused("span", rows, split="train")
    # What is not trained on is scored by its texts.
    found = read("span", rows)
    assert found.select("answers", "answer_starts", NOTE).rows() == [(["xy"], [-1], BY_TEXT)]
    several = read("span", {**QUESTION, "answers": [["xy", "cd"]]}, split="train")
    assert several.select("answers", "answer_starts", NOTE).rows() == [(["xy", "cd"], [-1, 3], None)]
    none = {**QUESTION, "answers": [{"text": [], "answer_start": []}]}
    frame = {name: pl.Series(value) for name, value in none.items() if name != "answers"}
    struct = pl.Struct({"text": pl.List(pl.String), "answer_start": pl.List(pl.Int64)})
    frame["answers"] = pl.Series(none["answers"], dtype=struct)
    assert "answers of row 0 has no answer" in refused("span", frame)
    assert read("span", frame, unanswerable=True)["answers"].to_list() == [[]]
    assert "answers are Int64" in refused("span", {**QUESTION, "answers": [3]})
    assert "answer_starts are String" in refused(
        "span", {**QUESTION, "answers": ["ab"], "at": ["0"]}, columns={"answer_starts": "at"}
    )


def test_what_training_and_evaluation_must_not_share_is_told():
    choice = {"prompt": ["p"], "choices": [["a", "b"]], "label": [0]}
    words = {"tokens": [["a", "b"]], "tags": [["O", "O"]]}
    pair = {"text_a": ["t"], "text_b": ["u"], "label": ["x"]}
    assert read("classification", pair, known=("x",))[CONTEXT].to_list() == ["t"]
    assert read("multiple_choice", choice)[CONTEXT].to_list() == ["p"]
    assert read("tagging", words, known=("O",))[CONTEXT].to_list() == ["a b"]
    assert read("span", {**QUESTION, "answers": ["cd"]})[CONTEXT].to_list() == ["ab cd ab"]


def test_an_answer_is_located_by_hand():
    assert locate("aXbXc", "X", 2) == 1  # as near as 3: the first
    assert locate("aXbXc", "X", 3) == 3
    assert locate("aXbXc", "X", None) == 1
    assert locate("aaa", "aa", 1) == 1  # places may overlap
    assert locate("abc", "x", 0) == locate("abc", "", 1) == locate(None, "x", 0) == NOWHERE


def test_pairs_of_retrieval():
    found = read("retrieval", {"en": ["one", "two"], "de": ["eins", "zwei"]}, columns={"source": "en", "target": "de"})
    assert found.rows() == [
        ("00000000", "query", "one", "de", ["00000000"]),
        ("00000001", "query", "two", "de", ["00000001"]),
        ("00000000", "document", "eins", "de", []),
        ("00000001", "document", "zwei", "de", []),
    ]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ({"text": ["a"], "label": ["x"]}, "there is no column 'text_a'; did you mean 'text'?"),
        ({"text_a": [1], "label": ["x"]}, "column 'text_a' is Int64 and should be text"),
        ({"text_a": ["a", " "], "label": ["x", "x"]}, "text_a of row 1 is empty (and 0 more such rows)"),
        ({"text_a": ["a", None], "label": ["x", "x"]}, "text_a of row 1 is empty"),
        ({"text_a": ["a", "b"], "label": ["x", "z"]}, "label of row 1 is 'z', and not one of x, y"),
        ({"text_a": ["a", "b"], "label": ["x", ""]}, "label of row 1 is empty, and not one of x, y"),
        ({"text_a": ["a", "b"], "label": ["x", None]}, "label of row 1 is empty, and not one of x, y"),
        ({"text_a": [], "label": []}, "has no rows"),
    ],
)
def test_bad_rows_are_named_in_one_sentence(rows, expected):
    assert expected in refused("classification", rows, known=("x", "y"))


def split_of(root: Path, part: Slice, language: str) -> Table:
    """Rows of the made-up repository, as `datasets` finds them by its README."""
    from datasets import load_dataset

    cache = root.parent / "cache"
    found = load_dataset(str(root / part.repository), part.configs[language], split=part.rows, cache_dir=str(cache))
    frame = pl.from_arrow(found.with_format("arrow")[:])
    assert isinstance(frame, pl.DataFrame)
    return Table(frame)


def test_the_documents_example_is_read_into_what_its_family_takes(tmp_path):
    write_topics(tmp_path / "hub")
    task = parse_study(examples()[0], "docs").catalog["topics"]
    frames = []
    for part in task.slices:
        for language in part.configs:
            found = GENERIC_READERS[part.reader](split_of(tmp_path / "hub", part, language), part, language, task)
            kept = found.filter(pl.col(DROPPED).is_null()).drop(DROPPED, CONTEXT)
            frames.append(kept.select(pl.lit(part.split).alias("split"), pl.lit(language).alias("language"), pl.all()))
    frame = pl.concat(frames)
    FAMILIES["classification"].check(frame, task)
    counts = {(split, code): rows for split, code, rows in frame.group_by("split", "language").len().iter_rows()}
    # Of 51 rows three are unclear (17th, 34th, 51st), of 24 one, of 12 none.
    assert counts == {("train", "en"): 48, ("dev", "en"): 12, **{("test", code): 23 for code in ("de", "en", "sw")}}
    assert frame.filter(pl.col("language") == "sw")["text_a"][0].startswith("daktari")
    assert set(frame["label"]) == {"health", "sport", "travel"}
