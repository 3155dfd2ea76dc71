"""Readers of folders: CCGbank, LAReQA, Mewsli-X and BUCC 2018 on made-up files in their own formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from repositories import serve
from xlift.catalog import CATALOG
from xlift.errors import UserError
from xlift.sources.readers import read_task
from xlift.sources.sharing import SHARED

AUTO = """ID=wsj_{section}01.1 PARSER=GOLD NUMPARSE=1
(<T S[dcl] 0 2> (<L NP NNP NNP Ann NP>) (<T S[dcl]\\NP 0 2> (<L (S[dcl]\\NP)/NP VBZ VBZ reads (S[dcl]\\NP_1)/NP_2>) \
(<L NP NNS NNS -LRB- NP>) ) )
ID=wsj_{section}01.2 PARSER=GOLD NUMPARSE=1
(<T NP 0 2> (<L NP/N DT DT the NP_9/N_9>) (<L N NN NN {word} N>) )
"""


def ccgbank(folder: Path, where: str = "data/AUTO") -> Path:
    for section, word in (("02", "cat"), ("21", "dog"), ("00", "cow"), ("23", "never")):
        path = folder / where / section / f"wsj_{section}01.auto"
        path.parent.mkdir(parents=True)
        path.write_text(AUTO.format(section=section, word=word), encoding="utf-8")
    return folder


@pytest.mark.parametrize("where", ["data/AUTO", "AUTO"])
def test_ccgbank_as_the_ldc_ships_it(tmp_path, where):
    found = read_task(CATALOG["ccg"], ["en"], folders={"ccg": str(ccgbank(tmp_path, where))})
    # In training NP four times, the others twice each and so in alphabetical order.
    assert found.facts["supertags"] == {"tag000": "NP", "tag001": "(S[dcl]\\NP)/NP", "tag002": "N", "tag003": "NP/N"}
    assert found.frame.select("split", "id", "tokens", "tags").rows() == [
        ("train", "wsj_0201.1", ["Ann", "reads", "("], ["tag000", "tag001", "tag000"]),
        ("train", "wsj_0201.2", ["the", "cat"], ["tag003", "tag002"]),
        ("train", "wsj_2101.1", ["Ann", "reads", "("], ["tag000", "tag001", "tag000"]),
        ("train", "wsj_2101.2", ["the", "dog"], ["tag003", "tag002"]),
        ("dev", "wsj_0001.1", ["Ann", "reads", "("], ["tag000", "tag001", "tag000"]),
        ("dev", "wsj_0001.2", ["the", "cow"], ["tag003", "tag002"]),
    ]
    assert [source["file"] for source in found.sources] == [
        f"{where}/{section}/wsj_{section}01.auto" for section in ("02", "21", "00")
    ]
    assert all(len(source["sha256"]) == 64 for source in found.sources)


def test_supertags_of_a_repository_beyond_the_most_frequent_are_rare(tmp_path, monkeypatch):
    folder = tmp_path / "local" / "ccg"
    folder.mkdir(parents=True)
    labels = CATALOG["ccg"].labels
    common = [f"N{n:03d}" for n in range(len(labels) - 1)]
    rows = [{"tokens": ["w"] * len(common), "supertags": common}] * 2 + [{"tokens": ["w"], "supertags": ["S"]}]
    dev = [{"tokens": ["a", "b", "c"], "supertags": ["S", "N498", "unseen"]}]
    serve(monkeypatch, {("local/ccg", "default", "train"): rows, ("local/ccg", "default", "validation"): dev})
    found = read_task(CATALOG["ccg"], ["en"], root=tmp_path)
    assert found.frame.filter(split="dev")["tags"].to_list() == [["rare", "tag498", "rare"]]
    assert found.frame["tags"].to_list()[2] == ["rare"]
    assert len(found.facts["supertags"]) == len(labels) - 1


def test_what_is_no_derivation_is_refused(tmp_path):
    folder = ccgbank(tmp_path)
    path = folder / "data/AUTO/02/wsj_0201.auto"
    path.write_text("(<L NP NNP NNP Ann NP>)\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"wsj_0201\.auto, line 1: is no derivation after an ID line"):
        read_task(CATALOG["ccg"], ["en"], folders={"ccg": str(folder)})
    path.unlink()
    (folder / "data/AUTO/21/wsj_2101.auto").unlink()
    with pytest.raises(UserError, match=r"has no \.auto file in the sections of train"):
        read_task(CATALOG["ccg"], ["en"], folders={"ccg": str(folder)})


@pytest.mark.parametrize("task", ["ccg", "lareqa", "mewslix", "bucc2018"])
def test_an_absent_folder_is_one_sentence(task, tmp_path, monkeypatch):
    squad = {"id": "q", "context": "A cat.", "question": "?", "answers": {"text": ["cat"], "answer_start": [2]}}
    rows = {("rajpurkar/squad", "plain_text", name): [squad] for name in ("train", "validation")}
    serve(monkeypatch, rows)
    with pytest.raises(UserError, match=rf"^data of {task}: comes from a folder, .* set data\.folders\.{task} "):
        read_task(CATALOG[task], list(CATALOG[task].languages), root=tmp_path)
    with pytest.raises(UserError, match=rf"^data of {task}: there is no folder .*none; correct data\.folders\.{task}$"):
        read_task(CATALOG[task], list(CATALOG[task].languages), folders={task: str(tmp_path / "none")})


# LAReQA


def lareqa_json(language: str, sentences: list[str], starts: list[int]) -> dict[str, Any]:
    context = " ".join(sentences)
    breaks, place = [], 0
    for sentence in sentences:
        breaks.append([place, place + len(sentence)])
        place += len(sentence) + 1
    asked = [
        {"id": f"id{n}", "question": f"{language}{n}?", "answers": [{"text": "x", "answer_start": start}]}
        for n, start in enumerate(starts)
    ]
    return {"data": [{"paragraphs": [{"context": context, "sentence_breaks": breaks, "qas": asked}]}]}


def lareqa_folder(folder: Path) -> Path:
    for code in CATALOG["lareqa"].languages:
        content = lareqa_json(code, [f"{code} one.", f"{code} two."], [3, 12])
        (folder / f"{code}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def squad_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"text": ["cat"], "answer_start": [2]}
    contexts = {"train": ["A cat. A dog.", "DE one. de two."], "validation": ["A cat too.", "En  one. en two."]}
    rows = {
        ("rajpurkar/squad", "plain_text", name): [
            {"id": f"{name}{n}", "context": text, "question": "?", "answers": answers if n == 0 else one(text)}
            for n, text in enumerate(texts)
        ]
        for name, texts in contexts.items()
    }
    serve(monkeypatch, rows)


def one(text: str) -> dict[str, Any]:
    return {"text": ["one"], "answer_start": [text.index("one")]}


def test_a_question_of_lareqa_whose_answer_begins_in_no_sentence_is_refused_where_it_is_scored(tmp_path, monkeypatch):
    squad_rows(monkeypatch)
    folder = lareqa_folder(tmp_path)
    # In Thai the second answer begins in the space between the sentences.
    between = lareqa_json("th", ["th one.", "th two."], [3, 7])
    (folder / "th.json").write_text(json.dumps(between), encoding="utf-8")
    given = {"lareqa": str(folder)}
    with pytest.raises(
        UserError, match=r"1 of 2 rows of test in 'th' .* \(the first is 'id1': answer in no sentence\)"
    ):
        read_task(CATALOG["lareqa"], ["en", "th"], folders=given)
    # Where it is not, the question is right in the sentences of the other languages.
    found = read_task(CATALOG["lareqa"], ["en"], folders=given).frame.filter(split="test", role="query", id="id1")
    assert found["gold"].to_list() == [
        [f"{code}-00001" for code in sorted(CATALOG["lareqa"].languages) if code != "th"]
    ]


def test_lareqas_pool_is_all_languages_whatever_is_scored(tmp_path, monkeypatch):
    squad_rows(monkeypatch)
    found = read_task(CATALOG["lareqa"], ["en", "th"], folders={"lareqa": str(lareqa_folder(tmp_path))})
    test = found.frame.filter(split="test")
    documents = test.filter(role="document")
    languages = sorted(CATALOG["lareqa"].languages)
    assert documents["id"].to_list() == [f"{code}-{n:05d}" for code in languages for n in (0, 1)]
    assert documents.filter(language="th").select("text", "text_b").rows() == [
        ("th one.", "th one. th two."),
        ("th two.", "th one. th two."),
    ]
    assert set(test["pool"]) == {"all"}
    asked = test.filter(role="query")
    assert asked.select("language", "id", "text").rows() == [
        ("en", "id0", "en0?"),
        ("en", "id1", "en1?"),
        ("th", "id0", "th0?"),
        ("th", "id1", "th1?"),
    ]
    everywhere = [[f"{code}-0000{number}" for code in languages] for number in (0, 1)]
    assert asked["gold"].to_list() == everywhere * 2
    # SQuAD's dev paragraph that XQuAD has in English goes with its sentences; a training one in German stays.
    assert found.frame.filter(split="dev", role="query")["id"].to_list() == ["validation0"]
    assert found.frame.filter(split="dev", role="document")["text"].to_list() == ["A cat too."]
    assert found.frame.filter(split="train", role="query").height == 2


def test_sentences_that_read_the_same_in_a_paragraph_are_all_right(tmp_path, monkeypatch):
    squad_rows(monkeypatch)
    folder = lareqa_folder(tmp_path)
    twice = lareqa_json("zh", ["zh one.", "zh two.", "zh one."], [3, 12])
    (folder / "zh.json").write_text(json.dumps(twice), encoding="utf-8")
    found = read_task(CATALOG["lareqa"], ["en"], folders={"lareqa": str(folder)}).frame.filter(split="test")
    assert found.filter(role="document", language="zh")["id"].to_list() == ["zh-00000", "zh-00001", "zh-00002"]
    gold = found.filter(role="query")["gold"].to_list()
    assert [name for name in gold[0] if name.startswith("zh")] == ["zh-00000", "zh-00002"]
    assert [name for name in gold[1] if name.startswith("zh")] == ["zh-00001"]


def test_lareqa_of_a_repository(tmp_path, monkeypatch):
    squad_rows(monkeypatch)
    folder = tmp_path / "local" / "lareqa"
    folder.mkdir(parents=True)
    (folder / "README.md").touch()
    made = lareqa_folder(tmp_path)
    from xlift.sources import reading

    of_squad = reading.read_split

    def read_split(repository, config, rows, revision, root):
        if repository != "local/lareqa":
            return of_squad(repository, config, rows, revision, root)
        paragraph = json.loads((made / f"{config}.json").read_text())["data"][0]["paragraphs"][0]
        context = paragraph["context"]
        spans = paragraph["sentence_breaks"]
        table = [
            {
                "id": asked["id"],
                "question": asked["question"],
                "answer_sentence": next(
                    (n for n, (a, b) in enumerate(spans) if a <= asked["answers"][0]["answer_start"] < b), -1
                ),
                "context": context,
                "sentences": [context[a:b] for a, b in spans],
            }
            for asked in paragraph["qas"]
        ]
        return reading.Rows(pl.DataFrame(table), {}, {"repository": repository, "config": config})

    monkeypatch.setattr(reading, "read_split", read_split)
    of_repository = read_task(CATALOG["lareqa"], ["en", "th"], root=tmp_path).frame
    assert of_repository.equals(read_task(CATALOG["lareqa"], ["en", "th"], folders={"lareqa": str(made)}).frame)


def test_lareqa_in_another_form_is_refused(tmp_path, monkeypatch):
    squad_rows(monkeypatch)
    (lareqa_folder(tmp_path) / "el.json").write_text('{"data": [{"paragraphs": [{"context": "x", "qas": []}]}]}')
    with pytest.raises(UserError, match=r"el\.json: is not in LAReQA's form \(KeyError\('sentence_breaks'\)\)"):
        read_task(CATALOG["lareqa"], ["en"], folders={"lareqa": str(tmp_path)})
    (tmp_path / "de.json").unlink()
    with pytest.raises(UserError, match=r"^data of lareqa: the folder .* \(data\.folders\.lareqa\) has no file de"):
        read_task(CATALOG["lareqa"], ["en"], folders={"lareqa": str(tmp_path)})


# Mewsli-X


def entity(name: str, *sentences: str) -> dict[str, Any]:
    text = "  ".join(sentences)
    spans = [{"start": text.index(s), "end": text.index(s) + len(s)} for s in sentences]
    return {"entity_id": name, "title": name, "description": text, "sentence_spans": spans}


def context(text: str, language: str = "en") -> dict[str, Any]:
    first = text.index(".") + 1
    spans = [{"start": 0, "end": first}, {"start": first + 1, "end": len(text)}]
    return {"document_id": "d", "language": language, "text": text, "sentence_spans": spans}


def mention(text: str, word: str, identifier: str, of: str) -> dict[str, Any]:
    start = text.index(word)
    span = {"start": start, "end": start + len(word), "text": word}
    return {"example_id": identifier, "entity_id": of, "mention_span": span}


def lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def mewslix_folder(folder: Path) -> Path:
    for split, text, word, of in (
        ("train", "It rained. Ann {who} met\nBob  there.", "Ann", "Q1"),
        ("dev", "It rained. Cy {he} met\nBob  there.", "Bob", "Q2"),
    ):
        pair = {"contextual_mention": {"context": context(text), "mention": mention(text, word, f"{split}1", of)}}
        lines(folder / f"wikipedia_pairs-{split}.jsonl", [{**pair, "entity": entity(of, f"{of} is one.", "Two.")}])
    news = "Es regnet. Wien wächst."
    for split in ("dev", "test"):
        rows = [
            {
                "context": context(news, code),
                "mentions": [
                    mention(news, "Wien", f"{split}-{code}", "Q3"),
                    mention(news, "Es", f"{split}-{code}2", "Q1"),
                ],
            }
            for code in CATALOG["mewslix"].languages
        ]
        lines(folder / f"wikinews_mentions-{split}.jsonl", rows)
    lines(folder / "candidate_set_entities.jsonl", [entity(f"Q{n}", f"{n} is one.") for n in range(1, 6)])
    return folder


def test_mewslix(tmp_path):
    found = read_task(CATALOG["mewslix"], ["de", "en"], folders={"mewslix": str(mewslix_folder(tmp_path))})
    columns = ("split", "language", "id", "role", "text", "pool", "gold")
    rows = found.frame.select(columns).rows()
    assert rows[:2] == [
        ("train", "en", "train1", "query", "Ann: { Ann } (who) met Bob there.", "train", ["Q1"]),
        ("train", "en", "Q1", "document", "Q1 is one. Two.", "train", []),
    ]
    assert rows[2][4] == "Bob: Cy (he) met { Bob } there."
    asked = found.frame.filter(split="test", role="query")
    assert asked.select("language", "id", "text", "gold").rows() == [
        ("de", "test-de", "Wien: { Wien } wächst.", ["Q3"]),
        ("de", "test-de2", "Es: { Es } regnet.", ["Q1"]),
        ("en", "test-en", "Wien: { Wien } wächst.", ["Q3"]),
        ("en", "test-en2", "Es: { Es } regnet.", ["Q1"]),
    ]
    assert found.frame.filter(split="test", role="document")["id"].to_list() == ["Q1", "Q2", "Q3", "Q4", "Q5"]
    dev = read_task(CATALOG["mewslix"], ["de"], score_on="validation", folders={"mewslix": str(tmp_path)})
    assert dev.frame.filter(split="test", role="query")["id"].to_list() == ["dev-de", "dev-de2"]


def test_mewslix_sentences_of_dev_are_not_trained_on(tmp_path):
    folder = mewslix_folder(tmp_path)
    (kept,) = [json.loads(line) for line in (folder / "wikipedia_pairs-train.jsonl").read_text().splitlines()]
    # The sentence of dev's mention of Bob, with another mention; the same sentence elsewhere is another context.
    shared = context("Yesterday. CY {he}  met Bob there.")
    pairs = [
        kept,
        {
            "contextual_mention": {"context": shared, "mention": mention(shared["text"], "CY", "train2", "Q2")},
            "entity": entity("Q2", "Q2 is one."),
        },
    ]
    lines(folder / "wikipedia_pairs-train.jsonl", pairs)
    found = read_task(CATALOG["mewslix"], ["en"], folders={"mewslix": str(folder)})
    train = found.frame.filter(split="train")
    assert train.filter(role="query")["id"].to_list() == ["train1"]
    assert train.filter(role="document")["id"].to_list() == ["Q1", "Q2"]  # entities are shared by design
    assert found.dropped == {"train/en": {SHARED: 1}}


def test_mewslix_that_is_not_whole_is_refused(tmp_path):
    folder = mewslix_folder(tmp_path)
    given = {"mewslix": str(folder)}
    candidates = folder / "candidate_set_entities.jsonl"
    lines(candidates, [entity("Q1", "1 is one.")])
    with pytest.raises(UserError, match=r"the entity Q3 of mention 'test-de' is not among the candidates"):
        read_task(CATALOG["mewslix"], ["de"], folders=given)
    candidates.write_text('{"entity_id": "Q1"}\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"entities\.jsonl, line 1: is not in Mewsli-X's form \(KeyError"):
        read_task(CATALOG["mewslix"], ["de"], folders=given)
    candidates.write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match=r"entities\.jsonl, line 1: is not JSON"):
        read_task(CATALOG["mewslix"], ["de"], folders=given)
    news = folder / "wikinews_mentions-test.jsonl"
    released = json.loads(news.read_text().splitlines()[1])
    assert released["context"]["language"] == "de"
    released["context"]["text"] = ""
    lines(news, [released])
    with pytest.raises(UserError, match=r"test\.jsonl, line 1: has no article text, .*get-mewsli-x\.sh"):
        read_task(CATALOG["mewslix"], ["de"], folders=given)
    released["context"]["text"] = "Es regnet. Linz wächst."
    lines(news, [released])
    with pytest.raises(UserError, match=r"the mention 'test-de' is not in a sentence of its text"):
        read_task(CATALOG["mewslix"], ["de"], folders=given)


# BUCC 2018


def bucc_folder(folder: Path, nested: bool = False) -> Path:
    for code in CATALOG["bucc2018"].languages:
        inner = folder / f"{code}-en" if nested else folder
        inner.mkdir(exist_ok=True)
        for rows in ("sample", "training"):
            stem = f"{code}-en.{rows}"
            for side, number in ((code, 3), ("en", 4)):
                text = "".join(f"{side}-{n:09d}\t{rows} {side} {n}\n" for n in range(number))
                (inner / f"{stem}.{side}").write_text(text, encoding="utf-8")
            (inner / f"{stem}.gold").write_text(f"{code}-000000001\ten-000000003\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize("nested", [False, True])
def test_bucc(tmp_path, nested):
    found = read_task(CATALOG["bucc2018"], ["de", "zh"], folders={"bucc2018": str(bucc_folder(tmp_path, nested))})
    zh = found.frame.filter(split="test", language="zh").select("role", "id", "text", "pool", "gold")
    assert zh.rows() == [
        ("query", "zh-000000000", "training zh 0", "zh", []),
        ("query", "zh-000000001", "training zh 1", "zh", ["en-000000003"]),
        ("query", "zh-000000002", "training zh 2", "zh", []),
        *(("document", f"en-{n:09d}", f"training en {n}", "zh", []) for n in range(4)),
    ]
    assert found.frame.filter(split="dev")["language"].unique().sort().to_list() == ["de", "zh"]
    assert found.frame.filter(split="dev", language="de")["text"][0] == "sample de 0"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (
            "zh-000000009\ten-000000001\n",
            r"the pair zh-000000009, en-000000001 is not among the sentences, .*not align",
        ),
        ("zh-000000001\ten-000000009\n", r"the pair zh-000000001, en-000000009 is not among the sentences"),
        ("", r"gold: has no pairs"),
        ("zh-000000001 en-000000001\n", r"gold, line 1: is not two fields with a tab between"),
    ],
)
def test_bucc_that_does_not_align_is_refused(tmp_path, content, problem):
    (bucc_folder(tmp_path) / "zh-en.training.gold").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=problem):
        read_task(CATALOG["bucc2018"], ["zh"], folders={"bucc2018": str(tmp_path)})


def test_bucc_whose_gold_pairs_are_not_translations_is_refused(tmp_path):
    folder = bucc_folder(tmp_path)
    lengths = [(7 * n) % 100 + 1 for n in range(100)]
    for side in ("zh", "en"):
        text = "".join(f"{side}-{n:09d}\t{'x' * length}\n" for n, length in enumerate(lengths))
        (folder / f"zh-en.training.{side}").write_text(text, encoding="utf-8")
    gold = folder / "zh-en.training.gold"
    for shift, aligned in ((0, True), (50, False)):
        pairs = "".join(f"zh-{n:09d}\ten-{(n + shift) % 100:09d}\n" for n in range(100))
        gold.write_text(pairs, encoding="utf-8")
        if aligned:
            read_task(CATALOG["bucc2018"], ["zh"], folders={"bucc2018": str(folder)})
            continue
        with pytest.raises(UserError, match=r"zh-en\.training\.gold: the lengths of rows 0 to 99 .* do not align"):
            read_task(CATALOG["bucc2018"], ["zh"], folders={"bucc2018": str(folder)})
