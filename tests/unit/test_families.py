"""Task families: prepared rows are checked, and every row is encoded."""

from __future__ import annotations

import polars as pl
import pytest

from encoding import encode, first_row
from toy import toy_frame, toy_task
from xlift.errors import UserError
from xlift.tasks.families import FAMILIES


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_toy_frames_pass_and_encode_row_by_row(family, tokenizer):
    frame, task = toy_frame(family), toy_task(family)
    encoded = encode(family, tokenizer, frame, task)
    assert len(encoded.split) == frame.height
    assert encoded.owner.unique().tolist() == list(range(frame.height))
    assert int(encoded.lengths.max()) <= 32
    assert encoded.examples("test").tolist() == frame.with_row_index().filter(split="test")["index"].to_list()
    # Training sees nothing but training rows.
    assert (encoded.split[FAMILIES[family].training_examples(encoded)] == 0).all()


COMMON_FAULTS = {
    "missing column": (lambda f: f.drop("language"), r"column 'language' should be String and is no such column"),
    "other type": (lambda f: f.with_columns(id=pl.int_range(pl.len())), r"column 'id' should be String and is Int64"),
    "null": (lambda f: f.with_columns(id=pl.when(pl.int_range(pl.len()) > 0).then("id")), r"column 'id' has empty"),
    "repeated id": (lambda f: pl.concat([f, f.tail(1)]), r"an id appears twice"),
    "unknown split": (
        lambda f: f.with_columns(split=pl.col("split").replace("dev", "validation")),
        r"unknown split 'validation'; use train",
    ),
}


@pytest.mark.parametrize("fault", sorted(COMMON_FAULTS))
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_check_refuses_common_faults(family, fault):
    change, message = COMMON_FAULTS[fault]
    with pytest.raises(UserError, match=rf"^data of toy_{family}: .*{message}"):
        FAMILIES[family].check(change(toy_frame(family)), toy_task(family))


FAULTS = [
    ("classification", first_row(label="plant"), "label 'plant' is not one of its labels"),
    ("classification", [pl.lit("stone").alias("label")], "every train label is 'stone'"),
    ("multiple_choice", first_row(label="7"), "label '7'"),
    ("multiple_choice", first_row(label="-1"), "label '-1'"),
    ("multiple_choice", first_row(choices=["one"], label="0"), "has 1 choices"),
    ("multiple_choice", [pl.lit("0").alias("label")], "every train label is '0'"),
    ("multiple_choice", first_row(choices=["one", None]), "column 'choices' has empty values"),
    ("tagging", first_row(tokens=["one"]), "has 1 words and"),
    ("tagging", first_row(tokens=[], tags=[]), "has 0 words and 0 tags"),
    ("tagging", first_row(tokens=["one"], tags=["B-PLANT"]), "tag 'B-PLANT' is not one of its labels"),
    ("tagging", first_row(tokens=["one"], tags=[None]), "column 'tags' has empty values"),
    ("tagging", [pl.col("tags").list.eval(pl.lit("O"))], "every train tag is 'O'"),
    ("span", first_row(answers=["nowhere"]), "the answer 'nowhere' of '000' is not at offset"),
    ("span", first_row(answers=[""]), "the answer '' of '000'"),
    ("span", [pl.col("answer_starts").list.eval(pl.element() + 1)], "is not at offset"),
    ("span", first_row(answers=[], answer_starts=[]), "has no answer or no offset"),
    ("retrieval", first_row(role="passage"), "unknown role 'passage'"),
    ("retrieval", [pl.when(role="query").then(pl.lit(["d99"])).otherwise("gold").alias("gold")], "no right document"),
    ("retrieval", [pl.when(role="query").then(pl.lit([], pl.List(pl.String))).alias("gold")], "column 'gold' has"),
    (
        "retrieval",
        [pl.when(role="query").then(pl.lit([], pl.List(pl.String))).otherwise("gold").alias("gold")],
        "query 'q0' has no right document",
    ),
    ("retrieval", [pl.when(role="query").then(pl.lit("else")).otherwise("pool").alias("pool")], "pool 'else'"),
]


@pytest.mark.parametrize(("family", "change", "message"), FAULTS, ids=[f"{f}-{m[:24]}" for f, _, m in FAULTS])
def test_check_refuses_a_familys_own_faults(family, change, message):
    with pytest.raises(UserError, match=f"^data of toy_{family}: .*{message}") as caught:
        FAMILIES[family].check(toy_frame(family).with_columns(change), toy_task(family))
    assert "\n" not in str(caught.value)


def test_constant_labels_are_refused_in_every_split():
    for split in ("train", "dev", "test"):
        frame = toy_frame("classification").with_columns(
            label=pl.when(pl.col("split") == split).then(pl.lit("stone")).otherwise("label")
        )
        with pytest.raises(UserError, match=f"every {split} label is 'stone'"):
            FAMILIES["classification"].check(frame, toy_task("classification"))


def test_a_negative_offset_that_python_would_read_from_the_end_is_refused():
    frame = toy_frame("span").with_columns(first_row(context="one goat", answers=["goat"], answer_starts=[-4]))
    with pytest.raises(UserError, match="offset -4"):
        FAMILIES["span"].check(frame, toy_task("span"))


def test_a_document_twice_in_a_pool_is_refused():
    frame = toy_frame("retrieval")
    twin = frame.filter(role="document", split="test").head(1).with_columns(language=pl.lit("fr"))
    with pytest.raises(UserError, match="a document's id appears twice in a pool"):
        FAMILIES["retrieval"].check(pl.concat([frame, twin]), toy_task("retrieval"))
