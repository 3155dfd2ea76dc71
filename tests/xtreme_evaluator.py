"""A second evaluator of XTREME's file layout, written from its description; it shares no code with xlift's metrics.

As the public one: files are `<folder>/<task>/test-<language>.<tsv, json or jsonl>`, scores are points, printed with two
decimals. Sequence labelling is seqeval's, SQuAD's and MLQA's answers are compared as their scripts say.
"""

from __future__ import annotations

import collections
import json
import re
import string
import sys
import unicodedata
from pathlib import Path

from seqeval.metrics import f1_score
from sklearn.metrics import accuracy_score

QUESTIONS = ("xquad", "mlqa", "tydiqa")
TAGGED = ("udpos", "panx")
ARTICLES = {
    "en": r"\b(a|an|the)\b",
    "es": r"\b(un|una|unos|unas|el|la|los|las)\b",
    "de": r"\b(ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b",
    "vi": r"\b(của|là|cái|chiếc|những)\b",
    "ar": r"\sال^|ال",
}
PUNCTUATION = {chr(i) for i in range(sys.maxunicode) if unicodedata.category(chr(i)).startswith("P")} | set(
    string.punctuation
)


def evaluate(task: str, predictions: Path, labels: Path, language: str) -> dict[str, float]:
    """Scores of one language's two files by the evaluator's names of them."""
    if task in QUESTIONS:
        return questions(task, json.loads(predictions.read_text()), json.loads(labels.read_text())["data"], language)
    if task == "mewslix":
        return {"map@20": reciprocal_ranks(json.loads(predictions.read_text()), json.loads(labels.read_text()))}
    if task in TAGGED:
        return {"f1": 100 * f1_score(sentences(labels), sentences(predictions))}
    found, right = ([line.strip() for line in path.read_text().splitlines()] for path in (predictions, labels))
    if task == "xcopa":
        found, right = ([json.loads(line)["label"] for line in lines] for lines in (found, right))
        assert all(isinstance(label, int) for label in (*found, *right))
    if task == "bucc2018":
        shared = len(set(found) & set(right))
        precision, recall = shared / max(1, len(set(found))), shared / len(set(right))
        return {"f1": 100 * 2 * precision * recall / (precision + recall) if shared else 0.0}
    assert len(found) == len(right)
    return {"accuracy": 100 * accuracy_score(right, found)}


def reciprocal_ranks(rankings: dict[str, list[str]], rights: dict[str, list[str]]) -> float:
    """Mean over the labelled queries of 1 / rank of the only right document; 0 where it is not among the first 20."""
    total = 0.0
    for query, (right,) in rights.items():
        best = rankings.get(query, [])[:20]
        total += 1 / (best.index(right) + 1) if right in best else 0.0
    return 100 * total / len(rights)


def sentences(path: Path) -> list[list[str]]:
    """Tags by sentence: an empty line ends one."""
    return [block.split("\n") for block in path.read_text().strip("\n").split("\n\n")]


def questions(task: str, predictions: dict[str, str], articles: list[dict], language: str) -> dict[str, float]:
    total, exact, overlap = 0, 0.0, 0.0
    for article in articles:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                total += 1
                found = words(task, predictions[question["id"]], language)
                rights = [words(task, answer["text"], language) for answer in question["answers"]]
                exact += max(float(found == right) for right in rights)
                overlap += max(word_f1(found, right) for right in rights)
    return {"exact_match": 100 * exact / total, "f1": 100 * overlap / total}


def words(task: str, answer: str, language: str) -> list[str]:
    """An answer's words after normalising."""
    mlqa = task == "mlqa"
    left_out = PUNCTUATION if mlqa else set(string.punctuation)
    text = "".join(character for character in answer.lower() if character not in left_out)
    if not mlqa or language in ARTICLES:
        text = re.sub(ARTICLES[language if mlqa else "en"], " ", text)
    if mlqa and language == "zh":
        text = re.sub("([\u4e00-\u9fa5])", r" \1 ", text)
    return text.split()


def word_f1(found: list[str], right: list[str]) -> float:
    same = sum((collections.Counter(found) & collections.Counter(right)).values())
    if same == 0:
        return 0.0
    precision, recall = same / len(found), same / len(right)
    return 2 * precision * recall / (precision + recall)
