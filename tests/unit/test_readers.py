"""Readers of repositories: what becomes of rows, what is refused, what is left out and counted."""

from __future__ import annotations

import unicodedata

import pytest

from repositories import made, serve
from xlift.catalog import CATALOG
from xlift.catalog.task import Recipe, Slice, Task
from xlift.errors import UserError
from xlift.sources import readers_labelled as labelled
from xlift.sources import readers_retrieval as retrieval
from xlift.sources import readers_span as span
from xlift.sources.readers import read_task
from xlift.sources.reading import BY_TEXT, LEFT_OUT, NOT_IN_CONTEXT, NOWHERE
from xlift.sources.sharing import SHARED, same_text

PART = Slice("train", "some/set", {"en": "default"}, "train", "nli")
NLI_NAMES = {"label": ("entailment", "neutral", "contradiction")}


def task(family: str, *slices: Slice, **more) -> Task:
    languages = tuple(sorted({code for part in slices for code in part.configs}))
    recipe = Recipe(steps=1, batch_size=1, learning_rate={"lora": 1e-3, "full": 1e-3}, max_length=16)
    return Task("made", family, "hub", ("target",), languages, ("accuracy",), recipe=recipe, slices=slices, **more)


def part(split: str, rows: str = "", reader: str = "nli", repository: str = "some/set", **configs: str) -> Slice:
    return Slice(split, repository, configs or {"en": "default"}, rows or split, reader)


def pairs(*premises: str, label: str | None = None) -> list[dict]:
    return [
        {"premise": premise, "hypothesis": f"h{n}", "label": label or ("yes", "no")[n % 2]}
        for n, premise in enumerate(premises)
    ]


# Labelled families.


def test_class_labels_become_the_tasks_names_and_rows_without_one_are_dropped():
    rows = made(
        [{"premise": "p", "hypothesis": "h", "label": number} for number in (0, 2, -1)],
        {"label": ("entailment", "neutral", "contradiction")},
    )
    frame = labelled.nli(rows, PART, "en", CATALOG["mnli"])
    assert frame["label"].to_list() == ["entailment", "contradiction", None]
    assert frame["_dropped"].to_list() == [None, None, "no gold label"]
    assert frame["id"].to_list() == ["0000000", "0000001", "0000002"]


def test_a_slices_labels_rename_the_repositorys():
    renaming = Slice("train", "some/set", {"en": "default"}, "train", "nli", labels={"1": "entailment"})
    rows = made([{"premise": "p", "hypothesis": "h", "label": "1"}])
    assert labelled.nli(rows, renaming, "en", CATALOG["mnli"])["label"].to_list() == ["entailment"]


@pytest.mark.parametrize(
    ("reader", "row", "prompt", "choices", "label"),
    [
        (labelled.hellaswag, {"ctx": "He", "endings": ["a", "b", "c", "d"], "label": "3"}, "He", "abcd", "3"),
        (
            labelled.commonsense_qa,
            {"question": "Q?", "choices": {"label": list("ABCDE"), "text": list("vwxyz")}, "answerKey": "C"},
            "Q?",
            "vwxyz",
            "2",
        ),
        (
            labelled.cosmos_qa,
            {"context": "C.", "question": "Q?", **{f"answer{n}": "abcd"[n] for n in range(4)}, "label": 2},
            "C. Q?",
            "abcd",
            "2",
        ),
        (
            labelled.social_iqa,
            {"context": "C.", "question": "Q?", "answerA": "a", "answerB": "b", "answerC": "c", "label": "3"},
            "C. Q?",
            "abc",
            "2",
        ),
        (
            labelled.copa,
            {"premise": "P.", "question": "effect", "choice1": "a", "choice2": "b", "label": 1},
            "P. What was the effect?",
            "ab",
            "1",
        ),
    ],
)
def test_choices(reader, row, prompt, choices, label):
    frame = reader(made([row]), PART, "en", CATALOG["copa"])
    assert frame.select("prompt", "choices", "label").rows() == [(prompt, list(choices), label)]


def test_copa_reads_class_labels_too():
    rows = made(
        [{"premise": "P.", "question": "cause", "choice1": "a", "choice2": "b", "label": n} for n in (0, 1, -1)],
        {"label": ("choice1", "choice2")},
    )
    frame = labelled.copa(rows, PART, "en", CATALOG["copa"])
    assert frame["label"].to_list() == ["0", "1", None]
    assert frame["prompt"][0] == "P. What was the cause?"


def test_copa_refuses_another_question():
    row = {"premise": "P.", "question": "why", "choice1": "a", "choice2": "b", "label": 1}
    with pytest.raises(UserError, match=r"^data set some/set, default, train: asks for 'why'"):
        labelled.copa(made([row]), PART, "en", CATALOG["copa"])


def test_an_answer_that_is_no_choice_is_refused():
    row = {"question": "Q?", "choices": {"label": ["A", "B"], "text": ["x", "y"]}, "answerKey": "E"}
    with pytest.raises(UserError, match="the answer 'E' is none of its choices"):
        labelled.commonsense_qa(made([row]), PART, "en", CATALOG["commonsense_qa"])


def test_tags_are_class_labels_or_text():
    column = Slice("train", "some/set", {"en": "default"}, "train", "tagged", {"tags": "ner_tags"})
    named = made([{"tokens": ["a", "b"], "ner_tags": [1, 0]}], {"ner_tags": ("O", "B-PER")})
    assert labelled.tagged(named, column, "en", CATALOG["panx"])["tags"].to_list() == [["B-PER", "O"]]
    text = made([{"tokens": ["a"], "ner_tags": ["O"]}, {"tokens": [], "ner_tags": []}])
    frame = labelled.tagged(text, column, "en", CATALOG["panx"])
    assert frame["tags"].to_list() == [["O"], []]
    assert frame["_dropped"].to_list() == [None, "no words"]


def test_a_missing_column_is_named():
    with pytest.raises(UserError) as caught:
        labelled.nli(made([{"premise": "p", "label": 0}]), PART, "en", CATALOG["mnli"])
    assert str(caught.value) == (
        "data set some/set, default, train: has no column 'hypothesis', only premise, label; use another revision or "
        "correct the task's columns"
    )


# Questions.


@pytest.mark.parametrize(
    ("context", "answer", "stated", "expected"),
    [
        ("a cat, a cat", "cat", 2, 2),
        ("a cat, a cat", "cat", 9, 9),
        ("a cat, a cat", "cat", 4, 2),  # 2 and 9: nearer is 2
        ("a cat, a cat", "cat", 7, 9),
        ("cat.....cat", "cat", 4, 0),  # as far from 0 as from 8: the earlier
        ("a cat", "cat", 99, 2),
        ("a cat", "cat", -1, 2),
        ("a cat", "dog", 2, NOWHERE),
        ("a cat", "", 2, NOWHERE),
    ],
)
def test_an_answer_is_where_its_text_is_nearest(context, answer, stated, expected):
    assert span.locate(context, answer, stated) == expected


def question(context: str, *answers: tuple[str, int], identifier: str = "q") -> dict:
    stated = {"text": [text for text, _ in answers], "answer_start": [start for _, start in answers]}
    return {"id": identifier, "context": context, "question": "?", "answers": stated}


def test_answers_are_located_and_what_happened_is_noted():
    rows = made(
        [
            question("the cat sat", ("cat", 4)),
            question("the cat sat", ("cat", 0)),
            question("the cat sat", ("dog", 4), ("sat", 8)),
            question("the cat sat", ("dog", 4)),
        ]
    )
    frame = span.squad(rows, PART, "en", CATALOG["squad_v1"])
    assert frame["answers"].to_list() == [["cat"], ["cat"], ["dog", "sat"], ["dog"]]
    assert frame["answer_starts"].to_list() == [[4], [4], [-1, 8], [-1]]
    assert frame["_note"].to_list() == [None, span.MOVED, span.SOME_BY_TEXT, None]
    assert frame["_dropped"].to_list() == [None, None, None, NOT_IN_CONTEXT]
    # The official scorers compare texts: where nothing is trained, an answer that is nowhere is right all the same.
    scored = span.squad(rows, part("test"), "en", CATALOG["squad_v1"])
    assert scored["answers"].to_list() == frame["answers"].to_list()
    assert scored["_note"].to_list() == [None, span.MOVED, span.SOME_BY_TEXT, BY_TEXT]
    assert scored["_dropped"].null_count() == 4


def test_an_empty_answer_is_none_and_an_answer_without_its_offset_is_refused():
    rows = made([question("the cat sat", ("cat", 4), (" ", 3))])
    assert span.squad(rows, part("test"), "en", CATALOG["squad_v1"])["_dropped"].to_list() == [span.NO_ANSWER]
    uneven = {**question("the cat sat", ("cat", 4)), "answers": {"text": ["cat", "sat"], "answer_start": [4]}}
    with pytest.raises(UserError, match=r"^data set some/set, default, train: 'q' has 2 answers and 1 offsets; use"):
        span.squad(made([uneven]), PART, "en", CATALOG["squad_v1"])


def test_no_answer_is_right_where_the_task_has_such_questions():
    row = {"id": "q", "context": "c", "question": "?", "answers": {"text": [], "answer_start": []}}
    rows = made([row, question("a cat", ("cat", 2))])
    assert span.squad(rows, PART, "en", CATALOG["squad_v2"])["_dropped"].to_list() == [None, None]
    assert span.squad(rows, PART, "en", CATALOG["squad_v1"])["_dropped"].to_list() == [span.NO_ANSWER, None]


def test_tydiqa_is_told_apart_by_its_ids():
    rows = made([question("a cat", ("cat", 2), identifier=i) for i in ("english-1", "swahili-1", "swahili--2-0")])
    frame = span.tydiqa(rows, PART, "sw", CATALOG["tydiqa"])
    assert frame["id"].to_list() == ["swahili-1", "swahili--2-0"]
    with pytest.raises(UserError, match="holds no language 'de'; choose from ar, bn,"):
        span.tydiqa(rows, PART, "de", CATALOG["tydiqa"])


# Retrieval.


def test_tatoebas_english_sentences_are_asked_for_the_others():
    rows = made([{"sentence1": "Hallo.\n", "sentence2": "Hello.\n"}, {"sentence1": "Ja.\n", "sentence2": "Yes.\n"}])
    frame = retrieval.tatoeba(rows, PART, "de", CATALOG["tatoeba_direct"])
    assert frame.select("role", "id", "text", "pool", "gold").rows() == [
        ("query", "0000000", "Hello.", "de", ["0000000"]),
        ("query", "0000001", "Yes.", "de", ["0000001"]),
        ("document", "0000000", "Hallo.", "de", []),
        ("document", "0000001", "Ja.", "de", []),
    ]


@pytest.mark.parametrize("other", ["\n", None])
def test_pairs_that_do_not_align_are_refused(other):
    rows = made([{"sentence1": "Ja.\n", "sentence2": "Yes.\n"}, {"sentence1": other, "sentence2": "Hello.\n"}])
    with pytest.raises(UserError, match="row 1 has a sentence on one side only, so that its pairs do not align"):
        retrieval.tatoeba(rows, PART, "de", CATALOG["tatoeba_direct"])


def test_a_column_in_another_order_is_refused():
    lengths = [(7 * n) % 100 + 1 for n in range(100)]
    rows = [{"sentence1": "x" * n + "\n", "sentence2": "y" * (n + 3) + "\n"} for n in lengths]
    assert retrieval.tatoeba(made(rows), PART, "de", CATALOG["tatoeba_direct"]).height == 200
    wrong = [{**row, "sentence2": other["sentence2"]} for row, other in zip(rows, rows[50:] + rows[:50], strict=True)]
    with pytest.raises(
        UserError, match=r"^data set some/set, default, train: the lengths of rows 0 to 99 .* not align"
    ):
        retrieval.tatoeba(made(wrong), PART, "de", CATALOG["tatoeba_direct"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three? 4 is last.", ["One.", "Two!", "Three?", "4 is last."]),
        ("Dr. J. Smith met the U.S. Senate. He left.", ["Dr. J. Smith met the U.S. Senate.", "He left."]),
        ('He said "No." Then he left.', ['He said "No."', "Then he left."]),
        ("At 3.5 per cent. e.g. this one", ["At 3.5 per cent. e.g. this one"]),
        ("  One.  \n Two ", ["One.", "Two"]),
        ("", []),
    ],
)
def test_english_sentences(text, expected):
    assert [text[a:b] for a, b in retrieval.sentences(text)] == expected


def test_squads_questions_ask_for_the_sentence_with_the_answer():
    context = "A cat sat. A dog ran. A cat sat."
    rows = made(
        [
            question(context, ("dog", 13), identifier="1"),
            question(context, ("cat", 24), identifier="2"),
            question(context, ("cow", 1), identifier="3"),
        ]
    )
    frame = retrieval.squad_sentences_in_context(rows, part("train"), "en", CATALOG["lareqa"])
    assert frame.select("role", "id", "text", "text_b", "gold", "_dropped").rows() == [
        ("query", "1", "?", None, ["000000-001"], None),
        ("query", "2", "?", None, ["000000-000"], None),  # the same sentence twice is one document
        ("query", "3", "?", None, [], NOT_IN_CONTEXT),
        ("document", "000000-001", "A dog ran.", context, [], None),
        ("document", "000000-000", "A cat sat.", context, [], None),
    ]
    dev = retrieval.squad_sentences_in_context(rows, part("dev"), "en", CATALOG["lareqa"])
    assert set(dev["pool"]) == {"dev"}


# Whole tasks.


def test_training_rows_whose_context_is_evaluated_are_left_out_and_counted(monkeypatch):
    cafe = unicodedata.normalize("NFD", "Café in Paris")
    one = task("classification", part("train"), part("dev"), part("test", en="en", de="de"))
    serve(
        monkeypatch,
        {
            ("some/set", "default", "train"): pairs("Alone", "CAFÉ  in Paris", "Scored", "Another", "Deutsch"),
            ("some/set", "default", "dev"): pairs(cafe, "scored", "Only dev", "Dev too"),
            ("some/set", "en", "test"): pairs("Scored ", "Other"),
            ("some/set", "de", "test"): pairs("Deutsch", "Anders"),
        },
    )
    found = read_task(one, ["de", "en"])
    assert found.frame.filter(split="train")["text_a"].to_list() == ["Alone", "Another", "Deutsch"]
    assert found.frame.filter(split="dev")["text_a"].to_list() == [cafe, "Only dev", "Dev too"]
    assert found.frame.filter(split="test").height == 4
    assert found.dropped == {"train/en": {SHARED: 2}, "dev/en": {SHARED: 1}}
    assert same_text(" CAFÉ\tin\nParis ") == same_text(cafe)


def test_dev_rows_that_english_is_scored_on_stay(monkeypatch):
    one = task(
        "classification", part("train"), part("dev", "validation"), part("test"), part("validation", "validation")
    )
    premises = {"train": ("a", "b"), "validation": ("c", "d"), "test": ("e", "f")}
    read = serve(monkeypatch, {("some/set", "default", name): pairs(*texts) for name, texts in premises.items()})
    found = read_task(one, ["en"], score_on="validation")
    assert found.frame.select("split", "text_a").rows() == [
        ("train", "a"),
        ("train", "b"),
        ("dev", "c"),
        ("dev", "d"),
        ("test", "c"),
        ("test", "d"),
    ]
    assert found.dropped == {}
    assert len(read) == 2  # what is read twice is read once, and the test rows never


def test_sentences_to_tag_are_only_counted(monkeypatch):
    rows = [{"tokens": ["a", "b"], "tags": ["X", "Y"]}]
    one = task("tagging", part("train", reader="tagged"), part("dev", reader="tagged"), labels=("X", "Y"))
    serve(monkeypatch, {("some/set", "default", name): rows for name in ("train", "dev")})
    found = read_task(one, ["en"])
    assert found.frame.height == 2
    assert (found.dropped, found.notes) == ({}, {"train/en": {SHARED: 1}})


def test_sources_of_one_split_keep_their_ids_apart(monkeypatch):
    one = task("classification", part("train"), part("train", repository="other/set"), part("dev"))
    serve(
        monkeypatch,
        {
            ("some/set", "default", "train"): pairs("a", "b"),
            ("other/set", "default", "train"): pairs("c", "d"),
            ("some/set", "default", "dev"): pairs("e", "f"),
        },
    )
    found = read_task(one, ["en"])
    assert found.frame["id"].to_list() == ["0-0000000", "0-0000001", "1-0000000", "1-0000001", "0000000", "0000001"]
    assert [source["repository"] for source in found.sources] == ["some/set", "other/set", "some/set"]


def test_labels_that_are_all_the_same_are_refused(monkeypatch):
    one = task("classification", part("train"), part("test", en="en", de="de"))
    serve(
        monkeypatch,
        {
            ("some/set", "default", "train"): pairs("a", "b"),
            ("some/set", "en", "test"): pairs("c", "d"),
            ("some/set", "de", "test"): pairs("e", "f", label="no"),
        },
    )
    with pytest.raises(UserError) as caught:
        read_task(one, ["de", "en"])
    assert str(caught.value) == (
        "data of made: every label of test in 'de' is 'no'; this copy has no real labels, use another one"
    )
    assert read_task(one, ["en"]).frame.height == 4


def test_a_split_without_usable_rows_is_refused(monkeypatch):
    rows = {("some/set", "default", "train"): pairs("a", "b"), ("some/set", "default", "dev"): pairs("b", "a")}
    serve(monkeypatch, rows)
    with pytest.raises(UserError, match=r"^data of made: train has no usable row in 'en'; use another revision"):
        read_task(task("classification", part("train"), part("dev")), ["en"])


# What may be left out.


def unlabelled(number: int, of: int) -> list[dict]:
    """Pairs of which the last few have no gold label."""
    return [
        {"premise": f"p{n}", "hypothesis": "h", "label": ("yes", "no")[n % 2] if n < of - number else -1}
        for n in range(of)
    ]


def made_of(rows: list[dict]) -> list[dict]:
    """Labels as text, so that they are of one type."""
    return [{**row, "label": str(row["label"])} for row in rows]


@pytest.mark.parametrize("split", ["test", "validation"])
def test_what_is_scored_is_scored_whole(monkeypatch, split):
    rows = {
        ("some/set", "en", split): unlabelled(0, 1000),
        ("some/set", "sw", split): unlabelled(990, 1000),
        ("some/set", "default", "train"): pairs("x", "y"),
    }
    rows = {key: made_of(found) for key, found in rows.items()}
    serve(monkeypatch, rows)
    one = task("classification", part("train"), part(split, en="en", sw="sw"))
    with pytest.raises(UserError) as caught:
        read_task(one, ["en", "sw"], score_on=split)
    assert str(caught.value) == (
        "data of made: 990 of 1,000 rows of test in 'sw' cannot be scored (the first is '0000010': no gold label), and "
        "what is scored has to be whole; use another revision or leave the language out"
    )
    # One such row in a thousand is one too many.
    rows["some/set", "sw", split] = made_of(unlabelled(1, 1000))
    serve(monkeypatch, rows)
    with pytest.raises(UserError, match=r"1 of 1,000 rows of test in 'sw' cannot be scored \(the first is '0000999'"):
        read_task(one, ["en", "sw"], score_on=split)
    assert read_task(one, ["en"], score_on=split).frame.filter(split="test").height == 1000


def test_questions_without_an_answer_are_not_scored_on_the_few_that_have_one(monkeypatch):
    rows = [question(f"cat {n}", ("cat", 0), identifier=f"q{n}") for n in range(100)]
    for row in rows[:95]:
        row["answers"] = {"text": [], "answer_start": []}
    serve(monkeypatch, {("some/set", "de", "test"): rows})
    with pytest.raises(
        UserError, match=r"95 of 100 rows of test in 'de' cannot be scored \(the first is 'q0': no answer"
    ):
        read_task(task("span", part("test", reader="squad", de="de")), ["de"])


def test_a_sentence_without_a_tag_is_not_scored_on_the_others(monkeypatch):
    rows = [{"tokens": ["a", "b"], "tags": ["X", None if n == 7 else "Y"]} for n in range(200)]
    serve(monkeypatch, {("some/set", "en", "test"): rows})
    with pytest.raises(UserError, match=r"1 of 200 rows .* \(the first is '0000007': a word without a tag\)"):
        read_task(task("tagging", part("test", reader="tagged", en="en"), labels=("X", "Y")), ["en"])


def test_a_test_question_whose_answer_is_nowhere_is_scored_by_its_text(monkeypatch):
    rows = [question(f"cat {n}", ("cat", 0), identifier=f"q{n}") for n in range(100)]
    rows[3] = question("nothing", ("cat", 0), identifier="q3")
    serve(monkeypatch, {("some/set", "en", "test"): rows})
    found = read_task(task("span", part("test", reader="squad", en="en")), ["en"])
    assert (found.frame.height, found.dropped, found.notes) == (100, {}, {"test/en": {BY_TEXT: 1}})
    assert found.frame.row(3, named=True)["answers"] == ["cat"]
    assert found.frame.row(3, named=True)["answer_starts"] == [-1]
    rows[4] = question("nothing", ("cat", 0), identifier="q4")
    serve(monkeypatch, {("some/set", "en", "test"): rows})
    with pytest.raises(
        UserError, match=r"the answers of 2 of 100 rows of test in 'en' are not in their contexts .*'q3'"
    ):
        read_task(task("span", part("test", reader="squad", en="en")), ["en"])


def test_few_rows_of_training_may_be_without_a_label(monkeypatch):
    one = task("classification", part("train"))
    serve(monkeypatch, {("some/set", "default", "train"): made_of(unlabelled(1, 100))})
    found = read_task(one, ["en"])
    assert (found.frame.height, found.dropped) == (99, {"train/en": {"no gold label": 1}})
    serve(monkeypatch, {("some/set", "default", "train"): made_of(unlabelled(2, 100))})
    with pytest.raises(UserError) as caught:
        read_task(one, ["en"])
    assert str(caught.value) == (
        "data of made: 2 of 100 rows of train in 'en' cannot be used (the first is '0000098': no gold label), and at "
        "most 1% may be left out; use another revision"
    )


def test_rows_that_the_declaration_leaves_out_are_counted_and_are_not_too_many(monkeypatch):
    declared = Slice("train", "some/set", {"en": "default"}, "train", "nli", labels={"-1": ""})
    serve(monkeypatch, {("some/set", "default", "train"): made_of(unlabelled(40, 100))})
    found = read_task(task("classification", declared), ["en"])
    assert (found.frame.height, found.dropped) == (60, {"train/en": {LEFT_OUT: 40}})
    assert set(found.frame["label"]) == {"yes", "no"}
    # Of the catalog only SNLI: 1.6 % of its validation pairs have no label.
    slices = [(entry.name, part) for entry in CATALOG.values() for part in entry.slices if "" in part.labels.values()]
    assert {(name, part.repository) for name, part in slices} == {("anli_plus", "stanfordnlp/snli")}


def test_a_language_without_rows_is_refused():
    with pytest.raises(UserError, match=r"^data of made: has no language 'fr'; its languages are en$"):
        read_task(task("classification", part("train")), ["fr"])


def test_few_answers_outside_their_contexts_are_counted_and_many_refused(monkeypatch):
    good = [question(f"cat {n}", ("cat", 0), identifier=f"good{n}") for n in range(99)]
    bad = [question(f"x {n}", ("cat", 0), identifier=f"bad{n}") for n in range(2)]
    one = task("span", part("train", reader="squad"))
    serve(monkeypatch, {("some/set", "default", "train"): [*good, bad[0]]})
    found = read_task(one, ["en"])
    assert (found.frame.height, found.dropped) == (99, {"train/en": {NOT_IN_CONTEXT: 1}})
    serve(monkeypatch, {("some/set", "default", "train"): [*good, *bad]})
    with pytest.raises(UserError) as caught:
        read_task(one, ["en"])
    assert str(caught.value) == (
        "data of made: the answers of 2 of 101 rows of train in 'en' are not in their contexts (the first is that of "
        "'bad0'), and at most 1% may be; use another revision"
    )


def test_columns_that_help_are_gone_and_the_rest_in_order(monkeypatch):
    serve(monkeypatch, {("some/set", "default", "train"): pairs("a", "b")})
    found = read_task(task("classification", part("train")), ["en"])
    assert found.frame.columns == ["split", "language", "id", "text_a", "text_b", "label"]
