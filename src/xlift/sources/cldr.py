"""The offline benchmark: tasks of every family from Unicode CLDR's names of things, without a network.

English for training, 49 languages for zero-shot scoring. Every item (a territory, a language, ...) is in
train, dev or test once for all tasks and languages (`cldr_items.split_of`), so that no item that any run
trains on is ever scored in any language. No sentence is written in another language: beside English templates
there are only names and CLDR's list patterns. Names within a kind share words ("German", "German Mark"):
items are held out, words are not.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from importlib.metadata import version

import polars as pl

from xlift.errors import UserError
from xlift.sources.cldr_items import (
    KINDS,
    LANGUAGES,
    hash_order,
    items,
    keys_by_kind,
    kind_of,
    list_text,
    list_tokens,
)

READER_VERSION = 1

QUERIES_PER_LANGUAGE = 32
NAMES_PER_LANGUAGE = 40
ENTITY_SENTENCES = {"train": 2000, "dev": 100, "test": 14}
INTERMEDIATE_EXAMPLES = {"train": 6000, "dev": 100, "test": 100}

ENTITY_KINDS = ("territory", "language", "currency")  # scripts and units are distractors, tagged O
PAIR_LABELS = ("listed", "same_kind", "other_kind")

# Many scripts are known by the name of a language that is no item of its own ("Tagbanwa"): where an answer
# has to be unique, the two kinds do not meet.
_CONFUSABLE = {"language": "script", "script": "language"}

_CONTEXTS = (
    "The first page mentions {0}. The second page mentions {1}.",
    "One card reads {0}, while the other card reads {1}.",
    "Somebody wrote down {0}. Later {1} came up as well.",
    "The speaker began with {0} and ended with {1}.",
    "Among the notes were {0}; the margin added {1}.",
)
_QUESTIONS = (
    "Which one is a {0}?",
    "Which {0} is mentioned?",
    "What is the only {0} named here?",
    "Which of these is a {0}?",
)
_NOUNS = {
    "territory": "country or region",
    "language": "language",
    "script": "writing system",
    "currency": "currency",
    "unit": "unit of measurement",
}

_COMMON: dict[str, pl.DataType] = {"split": pl.String(), "language": pl.String(), "id": pl.String()}
_STRINGS = pl.List(pl.String())
SCHEMAS: dict[str, dict[str, pl.DataType]] = {
    "classification": {**_COMMON, "text_a": pl.String(), "text_b": pl.String(), "label": pl.String()},
    "multiple_choice": {**_COMMON, "prompt": pl.String(), "choices": _STRINGS, "label": pl.String()},
    "tagging": {**_COMMON, "tokens": _STRINGS, "tags": _STRINGS},
    "span": {
        **_COMMON,
        "context": pl.String(),
        "question": pl.String(),
        "answers": _STRINGS,
        "answer_starts": pl.List(pl.Int64()),
    },
    "retrieval": {**_COMMON, "role": pl.String(), "text": pl.String(), "pool": pl.String(), "gold": _STRINGS},
}


@dataclass(frozen=True)
class Example:
    """One prepared example, with the keys of the items whose names it shows: the held-out rule is theirs."""

    split: str
    language: str
    id: str
    keys: tuple[str, ...]
    fields: dict[str, object]


_Made = tuple[tuple[str, ...], dict[str, object]] | None  # keys and fields; None: draw once more


@dataclass(frozen=True)
class _Task:
    family: str
    build: Callable[[Sequence[str]], Iterable[Example]]


def source_version() -> dict[str, object]:
    """What the prepared data depends on beside the task and its languages; Babel itself is not imported."""
    return {"source": "cldr", "reader": READER_VERSION, "babel": version("Babel")}


def build(task: str, languages: Sequence[str]) -> list[Example]:
    """The examples of a task, sorted by split, language and id.

    Train and dev are English whatever the languages; test holds the given languages. Of the intermediate
    tasks the test split is English too. Raises UserError for a task or a language that the benchmark does not
    have.
    """
    if task not in _TASKS:
        raise UserError(f"The offline benchmark has no task '{task}'; choose one of {', '.join(TASK_NAMES)}.")
    unknown = sorted(set(languages) - set(LANGUAGES))
    if unknown:
        raise UserError(
            f"The offline benchmark ({task}) has no names in {', '.join(unknown)}; leave that out of the "
            f"languages, which can be {' '.join(LANGUAGES)}."
        )
    examples = _TASKS[task].build(sorted(set(languages)))
    return sorted(examples, key=lambda example: (example.split, example.language, example.id))


def prepare(task: str, languages: Sequence[str]) -> pl.DataFrame:
    """The prepared examples of a task: its family's columns of SCHEMAS, sorted by split, language and id.

    Raises UserError for an unknown task or language.
    """
    rows = [
        {"split": example.split, "language": example.language, "id": example.id, **example.fields}
        for example in build(task, languages)
    ]
    return pl.DataFrame(rows, schema=SCHEMAS[_TASKS[task].family], orient="row")


def _generator(*place: object) -> random.Random:
    """Random numbers that depend on the place (task, split, number, attempt) and on nothing else."""
    digest = sha256("|".join(str(part) for part in place).encode()).digest()
    return random.Random(int.from_bytes(digest[:8], "big"))


def _generate(
    task: str,
    split: str,
    language: str,
    count: int,
    make: Callable[[random.Random, int], _Made],
) -> list[Example]:
    """`count` examples, no two with the same inputs: a repetition, or None, is drawn once more.

    The language is no part of the seed: sentences are as parallel across languages as their names allow.
    """
    examples: list[Example] = []
    seen: set[str] = set()
    for index in range(count):
        for attempt in range(1000):
            made = make(_generator(task, split, index, attempt), index)
            if made is None:
                continue
            keys, fields = made
            inputs = repr([value for name, value in fields.items() if name != "label"])
            if inputs not in seen:
                seen.add(inputs)
                examples.append(Example(split, language, f"{split}-{index:05d}", keys, fields))
                break
        else:
            raise RuntimeError(f"{task}: no new example for {split} {index} in {language}")
    return examples


def _names(keys: Iterable[str]) -> list[str]:
    return [items("en")[key] for key in keys]


def _retrieval(languages: Sequence[str]) -> Iterable[Example]:
    """Test only: a name is the query, the English names of all test territories and languages are the pool.

    English is no query language: its query would be the document itself. The cap keeps the first keys in one
    hash order for all languages, so that the queries are as parallel as the languages' names allow.
    """
    pool = sorted((*keys_by_kind("en", "test")["territory"], *keys_by_kind("en", "test")["language"]), key=hash_order)
    for key in pool:
        fields: dict[str, object] = {"role": "document", "text": items("en")[key], "pool": "en", "gold": []}
        yield Example("test", "en", key, (key,), fields)
    for language in languages:
        if language == "en":
            continue
        for key in [key for key in pool if key in items(language)][:QUERIES_PER_LANGUAGE]:
            fields = {"role": "query", "text": items(language)[key], "pool": "en", "gold": [key]}
            yield Example("test", language, key, (key,), fields)


def _balanced(language: str, split: str, count: int) -> list[str]:
    """Up to `count` keys, as even over the kinds as the language's names allow, each kind in hash order.

    A kind that runs out leaves its places to the others, one at a time.
    """
    left = {kind: list(keys) for kind, keys in keys_by_kind(language, split).items()}
    chosen: list[str] = []
    while len(chosen) < count and any(left.values()):
        for kind in KINDS:
            if left[kind] and len(chosen) < count:
                chosen.append(left[kind].pop(0))
    return chosen


def _kind(languages: Sequence[str]) -> Iterable[Example]:
    """The kind of a name. Train has all English train names, but no kind more than the second largest.

    Without that cut two names in five would be languages, which are one in five in dev and test (both
    balanced).
    """
    train = keys_by_kind("en", "train")
    second_largest = sorted(len(keys) for keys in train.values())[-2]
    chosen = [("train", "en", key) for kind in KINDS for key in train[kind][:second_largest]]
    chosen += [("dev", "en", key) for key in _balanced("en", "dev", NAMES_PER_LANGUAGE)]
    for language in languages:
        chosen += [("test", language, key) for key in _balanced(language, "test", NAMES_PER_LANGUAGE)]
    for split, language, key in chosen:
        fields: dict[str, object] = {"text_a": items(language)[key], "text_b": None, "label": kind_of(key)}
        yield Example(split, language, key, (key,), fields)


def _entity_keys(generator: random.Random, language: str, split: str) -> list[str]:
    """The items of one sentence: 2 to 5, kinds and preferences drawn from all English items of the split.

    Each place takes the first item of its kind, in the drawn order, that the language has a name for; a
    language without one falls back on the next kind.
    """
    kinds = generator.choices(KINDS, k=generator.randint(2, 5))
    fallbacks = generator.sample(KINDS, len(KINDS))
    orders = {kind: generator.sample(keys, len(keys)) for kind, keys in keys_by_kind("en", split).items()}
    chosen: list[str] = []
    for kind in kinds:
        candidates = (key for each in (kind, *fallbacks) for key in orders[each])
        chosen.append(next(key for key in candidates if key in items(language) and key not in chosen))
    return chosen


def _tagged(key: str, language: str) -> list[tuple[str, str]]:
    """A name's words with their IOB2 tags; a name written without spaces is one word."""
    words = items(language)[key].split()
    if kind_of(key) not in ENTITY_KINDS:
        return [(word, "O") for word in words]
    label = kind_of(key).upper()
    return [(word, f"{'I' if place else 'B'}-{label}") for place, word in enumerate(words)]


def _make_sentence(generator: random.Random, index: int, split: str, language: str) -> _Made:
    keys = _entity_keys(generator, language, split)
    if not any(kind_of(key) in ENTITY_KINDS for key in keys):
        return None
    pairs = list_tokens([_tagged(key, language) for key in keys], language)
    return tuple(keys), {"tokens": [token for token, _ in pairs], "tags": [tag for _, tag in pairs]}


def _entities(languages: Sequence[str]) -> Iterable[Example]:
    """Enumerations in each locale's own list pattern; at least one item of each is an entity."""
    places = [("train", "en"), ("dev", "en"), *(("test", language) for language in languages)]
    for split, language in places:
        make = partial(_make_sentence, split=split, language=language)
        yield from _generate("cldr_entities", split, language, ENTITY_SENTENCES[split], make)


def _others(kind: str) -> list[str]:
    """The kinds that cannot be taken for this one."""
    return [other for other in KINDS if other not in (kind, _CONFUSABLE.get(kind))]


def _make_pair(generator: random.Random, index: int, split: str) -> _Made:
    """A list of three or four items of one kind, and an item: in the list, of its kind, or of another kind.

    Labels and kinds take turns, so both are balanced.
    """
    keys = keys_by_kind("en", split)
    label, kind = PAIR_LABELS[index % 3], KINDS[index // 3 % len(KINDS)]
    *listed, same = generator.sample(keys[kind], generator.randint(4, 5))
    other = generator.choice(keys[generator.choice(_others(kind))])
    asked = {"listed": generator.choice(listed), "same_kind": same, "other_kind": other}[label]
    text_a, text_b = list_text(_names(listed), "en"), items("en")[asked]
    if label != "listed" and text_b.casefold() in text_a.casefold():
        return None  # "Guinea" beside "Guinea-Bissau"
    return (*listed, asked), {"text_a": text_a, "text_b": text_b, "label": label}


def _make_choice(generator: random.Random, index: int, split: str) -> _Made:
    """Three items of one kind, and which of four belongs with them; the right one's place takes turns."""
    keys = keys_by_kind("en", split)
    kind, right = KINDS[index // 4 % len(KINDS)], index % 4
    *listed, answer = generator.sample(keys[kind], 4)
    choices = [generator.choice(keys[other]) for other in generator.sample(_others(kind), 3)]
    choices.insert(right, answer)
    fields: dict[str, object] = {
        "prompt": list_text(_names(listed), "en"),
        "choices": _names(choices),
        "label": str(right),
    }
    return (*listed, *choices), fields


def _make_question(generator: random.Random, index: int, split: str) -> _Made:
    """Four to six items in two clauses, one of them of the kind that the question asks for."""
    keys = keys_by_kind("en", split)
    kind = KINDS[index % len(KINDS)]
    answer = generator.choice(keys[kind])
    distractors = [key for other in _others(kind) for key in keys[other]]
    shown = [answer, *generator.sample(distractors, generator.randint(3, 5))]
    generator.shuffle(shown)
    cut = generator.randint(1, len(shown) - 1)
    template = generator.choice(_CONTEXTS)
    context = template.format(list_text(_names(shown[:cut]), "en"), list_text(_names(shown[cut:]), "en"))
    text = items("en")[answer]
    if context.casefold().count(text.casefold()) != 1:
        return None  # "Mali" beside "Malian Franc": one answer, one place
    fields: dict[str, object] = {
        "context": context,
        "question": generator.choice(_QUESTIONS).format(_NOUNS[kind]),
        "answers": [text],
        "answer_starts": [context.index(text)],
    }
    return tuple(shown), fields


def _english(languages: Sequence[str], *, task: str, make: Callable[..., _Made]) -> Iterable[Example]:
    """An intermediate task: English in all splits, whatever the languages asked for."""
    for split, count in INTERMEDIATE_EXAMPLES.items():
        yield from _generate(task, split, "en", count, partial(make, split=split))


_TASKS = {
    "cldr_retrieval": _Task("retrieval", _retrieval),
    "cldr_kind": _Task("classification", _kind),
    "cldr_entities": _Task("tagging", _entities),
    "cldr_pairs": _Task("classification", partial(_english, task="cldr_pairs", make=_make_pair)),
    "cldr_choice": _Task("multiple_choice", partial(_english, task="cldr_choice", make=_make_choice)),
    "cldr_qa": _Task("span", partial(_english, task="cldr_qa", make=_make_question)),
}
TASK_NAMES = tuple(_TASKS)
