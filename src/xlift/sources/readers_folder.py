"""Readers of data that no hub repository holds, from a folder that the study gives: CCGbank, LAReQA, Mewsli-X, BUCC.

These read all languages of a slice at once, and return a frame with `language` too.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from xlift.catalog.task import Slice, Task
from xlift.errors import UserError
from xlift.sources.alignment import check_aligned
from xlift.sources.readers_labelled import tagged_frame
from xlift.sources.readers_retrieval import retrieval_frame
from xlift.sources.reading import CONTEXT, DROPPED, Reading, column, numbered

CCGBANK_SECTIONS = {"train": range(2, 22), "validation": range(0, 1)}
"""The sections of the Wall Street Journal that are usually trained and developed on."""
_LEAF = re.compile(r"<L (\S+) \S+ \S+ (\S+) [^\s>]+>")
_SENTENCE = re.compile(r"ID=(\S+)")
_BRACKETS = {"-LRB-": "(", "-RRB-": ")", "-LCB-": "{", "-RCB-": "}", "-LSB-": "[", "-RSB-": "]"}

Sentences = list[tuple[str, list[str], list[str]]]


def ccg(reading: Reading, part: Slice, languages: Sequence[str], task: Task) -> pl.DataFrame:
    """Supertags. The folder holds CCGbank as the LDC ships it, `data/AUTO/<section>/<file>.auto` (or `AUTO/...`), or a
    repository in the Hugging Face layout with the columns `tokens` and `supertags` and the splits train and validation.

    An .auto file has a line `ID=wsj_0201.1 ...` before each derivation, whose leaves are
    `(<L category modified-tag original-tag word predicate-argument-category>)`. Sections 02 to 21 are train, 00 is dev.

    A task's labels are fixed and CCGbank's categories are not known without it, so a category is named by its place
    among those of the training data, most frequent first (equally frequent ones in alphabetical order), and all beyond
    the task's number are its last label. The manifest's `supertags` says which is which.
    """
    folder = reading.folder(part.repository)
    kept = [tag for tag, _ in _ranked(_ccg_sentences(reading, folder, part, "train"))][: len(task.labels) - 1]
    reading.facts["supertags"] = dict(zip(task.labels, kept, strict=False))
    names = dict(zip(kept, task.labels, strict=False))
    found = _ccg_sentences(reading, folder, part, part.rows)
    tags = [[names.get(tag, task.labels[-1]) for tag in row] for _, _, row in found]
    frame = tagged_frame([identifier for identifier, _, _ in found], [words for _, words, _ in found], tags)
    return frame.with_columns(language=pl.lit(languages[0]))


def _ranked(found: Sentences) -> list[tuple[str, int]]:
    counts = Counter(tag for _, _, tags in found for tag in tags)
    return sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))


def _ccg_sentences(reading: Reading, folder: Path, part: Slice, rows: str) -> Sentences:
    """Id, words and categories of each sentence."""
    auto = next((path for path in (folder / "data" / "AUTO", folder / "AUTO") if path.is_dir()), None)
    if auto is None:
        read = reading.folder_rows(folder, part.configs["en"], rows)
        words, tags = (column(read, part, name).to_list() for name in ("tokens", "supertags"))
        return list(zip(numbered(len(words)), words, tags, strict=True))
    key = f"ccg {rows}"
    if key not in reading.kept:
        files = [
            path for section in CCGBANK_SECTIONS[rows] for path in sorted((auto / f"{section:02d}").glob("*.auto"))
        ]
        if not files:
            raise UserError(
                f"data of {reading.task}: {auto} (data.folders.{part.repository}) has no .auto file in the sections of "
                f"{rows}; put CCGbank's there"
            )
        reading.kept[key] = [row for path in files for row in _derivations(reading.file(part.repository, folder, path))]
    found: Sentences = reading.kept[key]
    return found


def _derivations(path: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    identifier = ""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if stated := _SENTENCE.match(line):
            identifier = stated.group(1)
            continue
        leaves = _LEAF.findall(line)
        if not leaves or not identifier:
            raise UserError(f"{path}, line {number}: is no derivation after an ID line; put CCGbank's own file there")
        yield identifier, [_BRACKETS.get(word, word) for _, word in leaves], [category for category, _ in leaves]
        identifier = ""


def lareqa(reading: Reading, part: Slice, languages: Sequence[str], task: Task) -> pl.DataFrame:
    """Questions, and the sentences of all languages as one pool. The folder holds LAReQA's own `<language>.json` (its
    `xquad-r/`), or a repository in the Hugging Face layout with a config a language, split validation.

    The JSON is SQuAD's with `sentence_breaks` ([start, end] in the context) beside each paragraph's `context` and
    `qas`. The repository's columns are id, question, answer_sentence (its number among `sentences`; -1: none), context
    and sentences. As in XTREME's evaluation, the documents are all sentences of every language, whatever is scored; a
    question's right ones are those that hold its answer, in any language, and those of the same paragraph that read the
    same. A question whose own answer begins in no sentence cannot be scored.
    """
    folder = reading.folder(part.repository)
    wanted = {code: list(_lareqa_rows(reading, folder, part, code)) for code in sorted(part.configs)}
    gold: dict[str, list[str]] = {}
    frames = []
    for code, rows in wanted.items():
        paragraphs = {row["context"]: row["sentences"] for row in rows}
        first = dict(zip(paragraphs, accumulate(map(len, paragraphs.values()), initial=0), strict=False))
        for row in rows:
            if row["answer_sentence"] >= 0:
                right = row["sentences"][row["answer_sentence"]]
                numbers = [first[row["context"]] + n for n, text in enumerate(row["sentences"]) if text == right]
                gold.setdefault(row["id"], []).extend(f"{code}-{number:05d}" for number in numbers)
        pool = [(text, context) for context, found in paragraphs.items() for text in found]
        ids = [f"{code}-{number:05d}" for number in range(len(pool))]
        contexts = [context for _, context in pool]
        passages = [text for text, _ in pool]
        frame = retrieval_frame("document", ids, passages, ["all"] * len(pool), [[] for _ in pool], contexts)
        frames.append(_marked(frame, code, contexts, [None] * len(pool)))
    for code in languages:
        rows = wanted[code]
        ids = [row["id"] for row in rows]
        frame = retrieval_frame(
            "query", ids, [row["question"] for row in rows], ["all"] * len(ids), [gold.get(name, []) for name in ids]
        )
        unplaced = ["answer in no sentence" if row["answer_sentence"] < 0 else None for row in rows]
        frames.append(_marked(frame, code, [row["context"] for row in rows], unplaced))
    return pl.concat(frames)


def _marked(frame: pl.DataFrame, code: str, contexts: list[str], dropped: Sequence[str | None]) -> pl.DataFrame:
    return frame.with_columns(
        pl.lit(code).alias("language"),
        pl.Series(CONTEXT, contexts, pl.String),
        pl.Series(DROPPED, list(dropped), pl.String),
    )


def _lareqa_rows(reading: Reading, folder: Path, part: Slice, code: str) -> Iterator[dict[str, Any]]:
    path = folder / f"{code}.json"
    if not path.is_file() and (folder / "README.md").is_file():
        read = reading.folder_rows(folder, part.configs[code], part.rows)
        for name in ("id", "question", "answer_sentence", "context", "sentences"):
            column(read, part, name)
        yield from read.frame.iter_rows(named=True)
        return
    try:
        content = json.loads(reading.file(part.repository, folder, path).read_text(encoding="utf-8"))
        for paragraph in (p for article in content["data"] for p in article["paragraphs"]):
            context, breaks = paragraph["context"], paragraph["sentence_breaks"]
            for asked in paragraph["qas"]:
                start = asked["answers"][0]["answer_start"]
                holding = [number for number, (a, b) in enumerate(breaks) if a <= start < b]
                yield {
                    "id": asked["id"],
                    "question": asked["question"],
                    "context": context,
                    "sentences": [context[a:b] for a, b in breaks],
                    "answer_sentence": holding[0] if holding else -1,
                }
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise UserError(f"{path}: is not in LAReQA's form ({error!r}); put its xquad-r/{code}.json there") from None


def mewslix(reading: Reading, part: Slice, languages: Sequence[str], task: Task) -> pl.DataFrame:
    """Mentions and entities. The folder holds the .jsonl files that Mewsli-X's get-mewsli-x.sh makes.

    `wikipedia_pairs-{train,dev}.jsonl`: `contextual_mention` {`context` {text, sentence_spans}, `mention` {example_id,
    entity_id, mention_span}} and `entity`. `wikinews_mentions-{dev,test}.jsonl`: `context` and a list `mentions`.
    `candidate_set_entities.jsonl`: entities {entity_id, description, sentence_spans}. Spans are {start, end}.
    Texts are made as XTREME's third_party/utils_mewslix.py makes them. Train and dev search among their own entities,
    scored mentions among all candidates. What training and evaluation must not share is the sentence that a mention
    stands in, which is all that is read of its article; entities are shared by design.
    """
    folder = reading.folder(part.repository)
    if part.split in ("train", "dev"):
        entities: dict[str, str] = {}
        asked = []
        for where, row in _json_lines(
            reading.file(part.repository, folder, folder / f"wikipedia_pairs-{part.rows}.jsonl")
        ):
            with _form(where):
                mention = row["contextual_mention"]
                asked.append(_mention(where, "en", mention["context"], mention["mention"]))
                entities.setdefault(row["entity"]["entity_id"], _description(row["entity"]))
        return _linking(asked, entities, part.split)
    path = reading.file(part.repository, folder, folder / f"wikinews_mentions-{part.rows}.jsonl")
    asked = []
    for where, row in _json_lines(path):
        with _form(where):
            if row["context"]["language"] in languages:
                asked += [
                    _mention(where, row["context"]["language"], row["context"], mention) for mention in row["mentions"]
                ]
    candidates = reading.file(part.repository, folder, folder / "candidate_set_entities.jsonl")
    entities = {}
    for where, row in _json_lines(candidates):
        with _form(where):
            entities[row["entity_id"]] = _description(row)
    return _linking(asked, entities, "all")


class _Mention(NamedTuple):
    """A mention of an entity; `text` as it is read, `sentence` as it stands in the article."""

    language: str
    identifier: str
    entity: str
    text: str
    sentence: str


def _linking(asked: list[_Mention], entities: dict[str, str], pool: str) -> pl.DataFrame:
    for mention in asked:
        if mention.entity not in entities:
            raise UserError(
                f"data of mewslix: the entity {mention.entity} of mention {mention.identifier!r} is not among "
                "the candidates; put the files of one release together"
            )
    queries = retrieval_frame(
        "query",
        [mention.identifier for mention in asked],
        [mention.text for mention in asked],
        [pool] * len(asked),
        [[mention.entity] for mention in asked],
    ).with_columns(
        pl.Series("language", [mention.language for mention in asked], pl.String),
        pl.Series(CONTEXT, [mention.sentence for mention in asked], pl.String),
    )
    documents = retrieval_frame(
        "document", list(entities), list(entities.values()), [pool] * len(entities), [[] for _ in entities]
    ).with_columns(pl.lit("en").alias("language"), pl.lit(None, pl.String).alias(CONTEXT))
    return pl.concat([queries, documents])


def _mention(where: str, language: str, context: dict[str, Any], mention: dict[str, Any]) -> _Mention:
    """Read as the mention, and the sentence it is in with the mention between braces."""
    text, span = context["text"], mention["mention_span"]
    start, end = span["start"], span["end"]
    if not text:
        raise UserError(f"{where}: has no article text, as in the release; run Mewsli-X's get-mewsli-x.sh")
    around = [s for s in context["sentence_spans"] if s["start"] <= start and end <= s["end"]]
    if text[start:end] != span["text"] or not around:
        raise UserError(f"{where}: the mention {mention['example_id']!r} is not in a sentence of its text; get it anew")
    first, last = around[0]["start"], around[0]["end"]
    left, right = (re.sub(r"\{(.*?)\}", r"(\1)", half) for half in (text[first:start], text[end:last]))
    read = " ".join(f"{span['text']}: {left} {{ {span['text']} }} {right}".split())
    return _Mention(language, mention["example_id"], mention["entity_id"], read, text[first:last])


def _description(entity: dict[str, Any]) -> str:
    """The sentences of an entity's description."""
    text = entity["description"]
    return " ".join(" ".join(text[s["start"] : s["end"]] for s in entity["sentence_spans"]).split())


@contextmanager
def _form(where: str) -> Iterator[None]:
    """Says of which line of which file it is that it is not in Mewsli-X's form."""
    try:
        yield
    except (KeyError, TypeError, IndexError) as error:
        raise UserError(f"{where}: is not in Mewsli-X's form ({error!r}); get the file anew") from None


def _json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            where = f"{path}, line {number}"
            try:
                yield where, json.loads(line)
            except json.JSONDecodeError:
                raise UserError(f"{where}: is not JSON; get the file anew") from None


def bucc(reading: Reading, part: Slice, languages: Sequence[str], task: Task) -> pl.DataFrame:
    """Sentences of a language as queries, English ones as documents, the right ones where there are any.

    The folder holds BUCC 2018's own files `<language>-en.{sample,training}.{<language>,en,gold}`, or `<language>-en/`
    with them: a line is an id, a tab and a sentence; a line of `gold` an id of each side with a tab between.
    """
    folder = reading.folder(part.repository)
    frames = []
    for code in languages:
        stem = f"{code}-en.{part.rows}"
        inner = folder / f"{code}-en"
        inner = inner if inner.is_dir() else folder
        sides = {
            side: _tab_lines(reading.file(part.repository, folder, inner / f"{stem}.{side}"))
            for side in (code, "en", "gold")
        }
        queries, documents = dict(sides[code]), dict(sides["en"])
        gold: dict[str, list[str]] = {}
        for query, document in sides["gold"]:
            if query not in queries or document not in documents:
                raise UserError(
                    f"{inner / stem}.gold: the pair {query}, {document} is not among the sentences, so that the files "
                    "do not align; put those of one release together"
                )
            gold.setdefault(query, []).append(document)
        if not gold:
            raise UserError(f"{inner / stem}.gold: has no pairs; put BUCC's own file there")
        pairs = [(queries[query], documents[document]) for query, document in sides["gold"]]
        check_aligned(f"{inner / stem}.gold", *zip(*pairs, strict=True))
        right = [gold.get(query, []) for query in queries]
        pair = (
            retrieval_frame("query", list(queries), list(queries.values()), [code] * len(queries), right),
            retrieval_frame(
                "document", list(documents), list(documents.values()), [code] * len(documents), [[] for _ in documents]
            ),
        )
        frames.append(pl.concat(pair).with_columns(language=pl.lit(code)))
    return pl.concat(frames)


def _tab_lines(path: Path) -> list[tuple[str, str]]:
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        first, tab, second = line.partition("\t")
        if not tab or not first or not second.strip():
            raise UserError(f"{path}, line {number}: is not two fields with a tab between; put BUCC's own file there")
        found.append((first, second.strip()))
    return found
