"""Task families: from rows to token sequences, to a loss, and back to predictions."""

from __future__ import annotations

import dataclasses
import math
from itertools import product

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from toy import toy_frame, toy_task
from xlift.errors import UserError
from xlift.metrics import score_predictions
from xlift.tasks import span as span_module
from xlift.tasks.encoded import IGNORED, Builder, Encoded, collate, token_capped
from xlift.tasks.families import FAMILIES
from xlift.tasks.retrieval import DualEncoderHead, mean_pooled, search
from xlift.tasks.span import best_span

CPU = torch.device("cpu")
SHARED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def encode(family, tokenizer, frame, task, max_length=32, stride=8):
    FAMILIES[family].check(frame, task)
    return FAMILIES[family].encode(frame, tokenizer, task, max_length, stride)


def everything(family, encoded):
    """All sequences in one batch, examples in order."""
    rows = FAMILIES[family].sequences(encoded, torch.arange(len(encoded.split)))
    return collate(encoded, rows, 1)


# --- Encoded, collate, token_capped ---


ROWS = st.lists(  # examples of sequences of tokens
    st.lists(st.lists(st.integers(2, 99), min_size=1, max_size=9), min_size=1, max_size=3), min_size=1, max_size=8
)


def built(examples) -> Encoded:
    builder = Builder()
    for index, sequences in enumerate(examples):
        builder.example(("train", "dev", "test")[index % 3], label=index * 2)
        for tokens in sequences:
            builder.sequence(tokens, [t % 2 for t in tokens], {"extra": [t * 10 for t in tokens]}, size=len(tokens))
    return builder.build()


@SHARED
@given(ROWS)
def test_saved_and_loaded_is_the_same(tmp_path, examples):
    encoded = built(examples)
    encoded.save(tmp_path / "tokens.safetensors")
    found = Encoded.load(tmp_path / "tokens.safetensors")
    for name in ("tokens", "offsets", "owner", "split"):
        assert torch.equal(getattr(found, name), getattr(encoded, name))
    for level in ("by_token", "by_sequence", "by_example"):
        before, after = getattr(encoded, level), getattr(found, level)
        assert sorted(before) == sorted(after)
        assert all(torch.equal(before[name], after[name]) for name in before)
    assert found.lengths.tolist() == [len(tokens) for sequences in examples for tokens in sequences]
    assert found.examples("dev").tolist() == list(range(1, len(examples), 3))


@SHARED
@given(ROWS, st.data())
def test_collate_pads_and_masks_exactly(examples, data):
    encoded = built(examples)
    flat = [tokens for sequences in examples for tokens in sequences]
    chosen = data.draw(st.lists(st.integers(0, len(flat) - 1), min_size=1, max_size=6))
    batch = collate(encoded, torch.tensor(chosen), pad_id=1)
    width = max(len(flat[i]) for i in chosen)
    assert batch.tokens.tolist() == [flat[i] + [1] * (width - len(flat[i])) for i in chosen]
    expected = [[True] * len(flat[i]) + [False] * (width - len(flat[i])) for i in chosen]
    assert (batch.mask.tolist() == expected) if batch.mask is not None else all(map(all, expected))
    assert batch.by_token["extra"].tolist() == [
        [t * 10 for t in flat[i]] + [IGNORED] * (width - len(flat[i])) for i in chosen
    ]
    if batch.types is not None:
        assert batch.types.tolist() == [[t % 2 for t in flat[i]] + [0] * (width - len(flat[i])) for i in chosen]
    else:
        assert not any(t % 2 for tokens in flat for t in tokens)
    assert batch.padded_tokens == width * len(chosen)
    assert batch.lengths.tolist() == [len(flat[i]) for i in chosen]


@SHARED
@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 5)), min_size=1, max_size=40),
    st.integers(1, 200),
)
def test_token_capped_holds_every_index_once_under_the_cap(items, cap):
    lengths, counts = (torch.tensor(column) for column in zip(*items, strict=True))
    groups = token_capped(lengths, counts, cap)
    assert sorted(torch.cat(groups).tolist()) == list(range(len(items)))
    for group in groups:
        positions = int(counts[group].sum()) * int(lengths[group].max())
        assert positions <= cap or len(group) == 1
    longest = [int(lengths[group].max()) for group in groups]
    assert longest == sorted(longest, reverse=True)


def test_a_row_of_another_length_than_its_tokens_is_refused():
    builder = Builder()
    builder.example("train")
    with pytest.raises(ValueError, match="extra has 1 entries for 2 tokens"):
        builder.sequence([5, 6], [0, 0], {"extra": [1]})


# --- Every family ---


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


def first_row(**values) -> list[pl.Expr]:
    """Expressions that replace values in the first row."""
    return [
        pl.when(pl.int_range(pl.len()) == 0).then(pl.lit(v, dtype=_dtype(v))).otherwise(k).alias(k)
        for k, v in values.items()
    ]


def _dtype(value):
    inner = {str: pl.String(), int: pl.Int64()}
    if isinstance(value, list):
        return pl.List(next((inner[type(v)] for v in value if v is not None), pl.String()))
    return inner[type(value)]


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


# --- Classification and multiple choice ---


def test_classification_loss_and_decoding(tokenizer):
    frame, task = toy_frame("classification"), toy_task("classification")
    family = FAMILIES["classification"]
    encoded = encode("classification", tokenizer, frame, task)
    torch.manual_seed(1)
    head = family.head(6, task, 0.0)
    batch = everything("classification", encoded)
    hidden = torch.randn(*batch.tokens.shape, 6)
    scores = (hidden[:, 0] @ head.linear.weight.T + head.linear.bias).double()
    right = [task.labels.index(label) for label in frame["label"]]
    expected = sum(math.log(sum(math.exp(s) for s in row)) - row[r] for row, r in zip(scores.tolist(), right))  # noqa: B905
    assert family.loss(head, hidden, batch, encoded).item() == pytest.approx(expected, rel=1e-5)
    test = encoded.examples("test")
    outputs = list(family.outputs(head, hidden, batch)[test])
    found = family.decode(frame, task, encoded, test, outputs)
    rows = frame.filter(split="test").with_columns(
        expected=pl.Series([[task.labels[i]] for i in scores[test].argmax(1).tolist()])
    )
    rows = rows.sort("language", "id")
    assert found.select("language", "id").equals(rows.select("language", "id"))
    assert found["prediction"].to_list() == rows["expected"].to_list()
    assert found["gold"].to_list() == [[label] for label in rows["label"]]


def test_multiple_choice_loss_by_hand_with_differing_numbers(tokenizer):
    frame, task = toy_frame("multiple_choice").head(6), toy_task("multiple_choice")
    family = FAMILIES["multiple_choice"]
    encoded = encode("multiple_choice", tokenizer, frame, task)
    counts = [len(choices) for choices in frame["choices"]]
    assert counts == [2, 3, 4, 2, 3, 4]
    head = family.head(1, task, 0.0)
    torch.nn.init.ones_(head.linear.weight)
    # An example may be in a step twice, and is then two terms of the loss.
    for examples in ([0, 1, 2, 3, 4, 5], [2, 0, 2], [1, 1]):
        batch = collate(encoded, family.sequences(encoded, torch.tensor(examples)), 1)
        scores = torch.randn(len(batch.tokens), generator=torch.Generator().manual_seed(7))
        hidden = scores[:, None, None].expand(*batch.tokens.shape, 1).clone()
        hidden[:, 1:] = 1e3  # only the first token counts
        expected, start = 0.0, 0
        for example in examples:
            own = scores[start : start + counts[example]].tolist()
            start += counts[example]
            right = int(frame["label"][example])
            expected += math.log(sum(math.exp(score) for score in own)) - own[right]
        assert family.loss(head, hidden, batch, encoded).item() == pytest.approx(expected, rel=1e-5)


def test_multiple_choice_decodes_the_best_of_each_example(tokenizer):
    frame, task = toy_frame("multiple_choice"), toy_task("multiple_choice")
    encoded = encode("multiple_choice", tokenizer, frame, task)
    test = encoded.examples("test")
    rows = frame.filter(split="test")
    # Later examples score higher throughout: the best is looked for within an example only.
    outputs = [
        torch.tensor([place * 100.0 + (index == int(label))])
        for place, (choices, label) in enumerate(rows.select("choices", "label").iter_rows())
        for index in range(len(choices))
    ]
    found = FAMILIES["multiple_choice"].decode(frame, task, encoded, test, outputs)
    assert found["prediction"].to_list() == found["gold"].to_list()
    assert score_predictions(found, "accuracy")["score"].to_list() == [100.0, 100.0]


def test_pairs_are_framed_as_the_tokenizer_frames_them(tokenizer):
    frame, task = toy_frame("multiple_choice"), toy_task("multiple_choice")
    encoded = encode("multiple_choice", tokenizer, frame, task)
    prompt, choices = frame["prompt"][1], frame["choices"][1]
    tokenizer.no_truncation()
    first = int(encoded.first_sequence()[1])
    for index, choice in enumerate(choices):
        own = slice(int(encoded.offsets[first + index]), int(encoded.offsets[first + index + 1]))
        assert encoded.tokens[own].tolist() == tokenizer.encode(prompt, choice).ids


def test_a_choice_too_long_for_its_length_is_one_sentence(tokenizer):
    frame = toy_frame("multiple_choice").with_columns(first_row(choices=["goat " * 40, "marble"], label="0"))
    with pytest.raises(UserError, match="a choice leaves no room for its prompt in 16 tokens"):
        encode("multiple_choice", tokenizer, frame, toy_task("multiple_choice"), max_length=16)


# --- Tagging ---


WORDS = st.sampled_from(
    ["goat", "granite", "a", "ж", "\u200b", "\x07", " ", "antidisestablishmentarianism" * 3, "สวัสดี", "-", "old"]
)


@SHARED
@given(st.lists(st.lists(st.tuples(WORDS, st.integers(0, 2)), min_size=1, max_size=40), min_size=1, max_size=4))
def test_every_word_gets_its_own_tag_back_over_any_windows(tokenizer, sentences):
    task = toy_task("tagging")
    frame = pl.DataFrame(
        {
            "split": ["test"] * len(sentences),
            "language": ["en"] * len(sentences),
            "id": [f"{i}" for i in range(len(sentences))],
            "tokens": [[word for word, _ in sentence] for sentence in sentences],
            "tags": [[task.labels[tag] for _, tag in sentence] for sentence in sentences],
        }
    )
    encoded = FAMILIES["tagging"].encode(frame, tokenizer, task, 12, 4)
    assert int(encoded.lengths.max()) <= 12
    labels, word = encoded.by_token["label"], encoded.by_token["word"]
    # One training label a word, on the token that is read for it.
    assert ((labels != IGNORED) == (word != IGNORED)).all()
    for example, sentence in enumerate(sentences):
        places = torch.cat(
            [
                word[encoded.offsets[s] : encoded.offsets[s + 1]]
                for s in (encoded.owner == example).nonzero().flatten().tolist()
            ]
        )
        assert sorted(places[places != IGNORED].tolist()) == list(range(len(sentence)))
    # An oracle that answers the label where there is one and rubbish elsewhere.
    outputs = [
        torch.where(labels[a:b] == IGNORED, torch.full_like(labels[a:b], 1), labels[a:b])
        for a, b in zip(encoded.offsets[:-1], encoded.offsets[1:], strict=True)
    ]
    found = FAMILIES["tagging"].decode(frame, task, encoded, encoded.examples("test"), outputs)
    assert found["prediction"].to_list() == found["gold"].to_list() == frame.sort("id")["tags"].to_list()


def test_tagging_reads_the_first_token_of_a_word_and_its_widest_window(tokenizer):
    task = toy_task("tagging")
    words = ["goat", "antidisestablishmentarianism", "old", "granite", "near", "marble"]
    frame = pl.DataFrame(
        {"split": ["train"], "language": ["en"], "id": ["0"], "tokens": [words], "tags": [["O", "B-STONE"] * 3]}
    )
    encoded = FAMILIES["tagging"].encode(frame, tokenizer, task, 64, 8)
    pieces = [tokenizer.encode(word, add_special_tokens=False).ids for word in words]
    assert encoded.tokens.tolist() == [0, *(piece for word in pieces for piece in word), 2]
    expected = [IGNORED]
    for place, own in enumerate(pieces):
        expected += [place, *[IGNORED] * (len(own) - 1)]
    assert encoded.by_token["word"].tolist() == [*expected, IGNORED]
    assert FAMILIES["tagging"].units(encoded).tolist() == [6]


def test_tagging_loss_by_hand(tokenizer):
    frame, task = toy_frame("tagging").head(3), toy_task("tagging")
    encoded = FAMILIES["tagging"].encode(frame, tokenizer, task, 32, 8)
    batch = everything("tagging", encoded)
    head = torch.nn.Identity()
    hidden = torch.randn(*batch.tokens.shape, 3, generator=torch.Generator().manual_seed(2))
    expected = 0.0
    for row, labels in enumerate(batch.by_token["label"].tolist()):
        for column, label in enumerate(labels):
            if label != IGNORED:
                scores = hidden[row, column].tolist()
                expected += math.log(sum(map(math.exp, scores))) - scores[label]
    assert float(FAMILIES["tagging"].loss(head, hidden, batch, encoded)) == pytest.approx(expected, rel=1e-5)
    assert int((batch.by_token["label"] != IGNORED).sum()) == sum(len(tags) for tags in frame["tags"])


# --- Span ---


PIECES = st.sampled_from(["goat", "Санкт", "ａｂ", "ﬁne", "é", "e\u0301", "\u200b", "ไทย", "12", "x"])
GAPS = st.sampled_from(["", " ", "  ", "\t", "\n ", "\u3000", "\u00a0", "-"])
CONTEXTS = st.lists(st.tuples(PIECES, GAPS), min_size=1, max_size=25)


def span_frame(context, start, stop):
    return pl.DataFrame(
        {
            "split": ["test"],
            "language": ["en"],
            "id": ["0"],
            "context": [context],
            "question": ["which one"],
            "answers": [[context[start:stop]]],
            "answer_starts": [[start]],
        }
    )


def answer_in_tokens(encoding, context, start, stop):
    """Characters of the answer that some token of the context has (a removed character has none)."""
    covered = {
        place
        for (a, b), part in zip(encoding.offsets, encoding.sequence_ids, strict=True)
        if part == 1
        for place in range(a, b)
    }
    return [place for place in range(start, stop) if place in covered and not context[place].isspace()]


@settings(SHARED, max_examples=150)
@given(CONTEXTS, st.data())
def test_span_targets_cover_the_answer_and_an_oracle_gives_it_back(tokenizer, pieces, data):
    context = "".join(piece + gap for piece, gap in pieces)
    start = data.draw(st.integers(0, len(context) - 1))
    stop = data.draw(st.integers(start + 1, min(len(context), start + 12)))
    tokenizer.no_truncation()
    encoding = tokenizer.encode("which one", context)
    needed = answer_in_tokens(encoding, context, start, stop)
    assume(needed)
    frame, task = span_frame(context, start, stop), toy_task("span")
    family = FAMILIES["span"]
    family.check(frame, task)
    encoded = family.encode(frame, tokenizer, task, 30, 12)
    held = []
    outputs = []
    for sequence in range(len(encoded.owner)):
        here = slice(int(encoded.offsets[sequence]), int(encoded.offsets[sequence + 1]))
        begin, end = (int(encoded.by_sequence[name][sequence]) for name in ("start", "end"))
        first, last = encoded.by_token["char_start"][here], encoded.by_token["char_end"][here]
        scores = torch.zeros(here.stop - here.start, 2)
        if (begin, end) != (0, 0):
            held.append(sequence)
            assert begin <= end
            # The target's characters cover the answer, and no token at its ends could be left out.
            assert int(first[begin]) <= needed[0]
            assert int(last[end]) > needed[-1]
            assert int(last[begin]) > needed[0]
            assert int(first[end]) <= needed[-1]
            scores[begin, 0] = scores[end, 1] = 5.0
        outputs.append(scores)
    assume(held)
    found = family.decode(frame, task, encoded, torch.tensor([0]), outputs)
    prediction = found["prediction"][0][0]
    assert context[needed[0] : needed[-1] + 1] in prediction
    # Nothing but the answer's own tokens: what is more is part of a token that overlaps it.
    touching = [
        (a, b)
        for (a, b), part in zip(encoding.offsets, encoding.sequence_ids, strict=True)
        if part == 1 and a < stop and b > start and context[a:b].strip()
    ]
    assert prediction in context[min(a for a, _ in touching) : max(b for _, b in touching)]


def test_a_whole_word_answer_comes_back_exactly_across_windows(tokenizer):
    task, family = toy_task("span"), FAMILIES["span"]
    words = [f"w{i}" for i in range(40)]
    for place in range(0, 40, 3):
        context = " ".join([*words[:place], "goat", *words[place:]])
        start = context.index("goat")
        frame = span_frame(context, start, start + 4)
        encoded = family.encode(frame, tokenizer, task, 40, 12)
        assert len(encoded.owner) > 3
        starts, ends = encoded.by_sequence["start"], encoded.by_sequence["end"]
        assert (starts > 0).any()
        outputs = []
        for sequence, length in enumerate(encoded.lengths.tolist()):
            scores = torch.zeros(length, 2)
            scores[int(starts[sequence]), 0] = scores[int(ends[sequence]), 1] = 3.0
            outputs.append(scores)
        assert family.decode(frame, task, encoded, torch.tensor([0]), outputs)["prediction"].to_list() == [["goat"]]
        assert family.units(encoded).tolist() == [len(encoded.owner)]


@pytest.mark.parametrize("answer", [" goat ", "goat\u200b", "\tgoat", "goat  "])
def test_an_answer_with_blanks_at_its_ends_is_still_learnt(tokenizer, answer):
    context = f"one{answer if answer[0].isspace() else ' ' + answer} two"
    start = context.index(answer)
    family = FAMILIES["span"]
    frame = span_frame(context, start, start + len(answer))
    encoded = family.encode(frame, tokenizer, toy_task("span"), 40, 12)
    begin, end = int(encoded.by_sequence["start"][0]), int(encoded.by_sequence["end"][0])
    text = context[int(encoded.by_token["char_start"][begin]) : int(encoded.by_token["char_end"][end])]
    assert text.strip(" \t\u200b") == "goat"


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 45), st.integers(0, 10_000))
def test_best_span_is_the_best_of_all(size, seed):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(size + 3, 2, generator=generator)
    char_start = torch.tensor([IGNORED, IGNORED, *range(0, 2 * size, 2), IGNORED])
    char_end = torch.tensor([IGNORED, IGNORED, *range(1, 2 * size, 2), IGNORED])
    best = max(
        (float(scores[i + 2, 0] + scores[j + 2, 1]), (2 * i, 2 * j + 1))
        for i, j in product(range(size), repeat=2)
        if i <= j < i + span_module.LONGEST_ANSWER
    )
    score, characters = best_span(scores, char_start, char_end)
    assert score == pytest.approx(best[0])
    assert characters == best[1]


@pytest.mark.parametrize(("last", "expected"), [(29, (0, 30)), (30, (30, 31))])
def test_answers_have_thirty_tokens_at_most(last, expected):
    scores = torch.zeros(40, 2)
    scores[0, 0] = scores[last, 1] = 5.0  # thirty tokens from 0 to 29
    scores[last, 0] = 1.0  # the next best start
    score, characters = best_span(scores, torch.arange(40), torch.arange(1, 41))
    assert (score, characters) == (10.0 if last == 29 else 6.0, expected)


def test_span_loss_by_hand(tokenizer):
    frame, task, family = toy_frame("span").head(3), toy_task("span"), FAMILIES["span"]
    encoded = encode("span", tokenizer, frame, task)
    batch = everything("span", encoded)
    hidden = torch.randn(*batch.tokens.shape, 2, generator=torch.Generator().manual_seed(2))
    expected = 0.0
    for row in range(len(batch.tokens)):
        places = [0, *(batch.by_token["char_start"][row] != IGNORED).nonzero().flatten().tolist()]
        for kind, name in enumerate(("start", "end")):
            scores = {place: float(hidden[row, place, kind]) for place in places}
            right = int(encoded.by_sequence[name][row])
            expected += (math.log(sum(map(math.exp, scores.values()))) - scores[right]) / 2
    assert float(family.loss(torch.nn.Identity(), hidden, batch, encoded)) == pytest.approx(expected, rel=1e-5)


def test_span_refuses_a_question_that_fills_the_window_and_an_empty_context(tokenizer):
    frame = span_frame("one goat two", 4, 8).with_columns(question=pl.lit("which one " * 10))
    with pytest.raises(UserError, match=r"toy_span, example '0': the question leaves no room .* in 30 tokens"):
        FAMILIES["span"].encode(frame, tokenizer, toy_task("span"), 30, 8)
    with pytest.raises(UserError, match="finds nothing in the context"):
        FAMILIES["span"].encode(span_frame("\x07", 0, 1), tokenizer, toy_task("span"), 30, 8)


# --- Retrieval ---


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.integers(1, 40), st.integers(1, 25), st.integers(0, 1000))
def test_search_is_a_stable_sort_of_all_scores(queries, documents, best, seed):
    draw = np.random.default_rng(seed)
    # Small integers tie often, and their products are exact.
    left, right = draw.integers(-2, 3, (queries, 3)), draw.integers(-2, 3, (documents, 3))
    expected = np.argsort(-(left @ right.T), axis=1, kind="stable")[:, :best]
    found = search(torch.tensor(left).float(), torch.tensor(right).float(), best)
    assert found.tolist() == expected.tolist()


def test_search_over_more_queries_than_a_chunk():
    generator = torch.Generator().manual_seed(0)
    queries, documents = torch.randn(1100, 4, generator=generator), torch.randn(9, 4, generator=generator)
    assert torch.equal(search(queries, documents, 9), (queries @ documents.T).argsort(1, descending=True))


def test_mean_pooling_by_hand():
    hidden = torch.tensor([[[3.0, 0.0], [0.0, 4.0], [9.0, 9.0]]])
    mask = torch.tensor([[True, True, False]])
    expected = torch.tensor([[0.6, 0.8]])  # mean (1.5, 2), norm 2.5
    torch.testing.assert_close(mean_pooled(hidden, mask), expected)
    torch.testing.assert_close(mean_pooled(hidden[:, :2], None), expected)


def test_retrieval_keeps_pools_and_splits_apart(tokenizer):
    frame, task = toy_frame("retrieval"), toy_task("retrieval")
    encoded = encode("retrieval", tokenizer, frame, task)
    test = encoded.examples("test")
    # Every vector is the same: only pool and order decide.
    outputs = [torch.ones(4) / 2] * len(test)
    found = FAMILIES["retrieval"].decode(frame, task, encoded, test, outputs)
    assert found.height == frame.filter(split="test", role="query").height
    for identifier, prediction in found.select("id", "prediction").iter_rows():
        parity = int(identifier[1:]) % 2
        assert prediction == [f"d{i}" for i in range(4) if i % 2 == parity]
    assert found.select("language", "id").rows() == sorted(found.select("language", "id").rows())


def test_splits_searched_together_stay_apart(tokenizer):
    # The pools of all splits have the same names and ids.
    frame, task = toy_frame("retrieval"), toy_task("retrieval")
    encoded = encode("retrieval", tokenizer, frame, task)
    rows = torch.cat([encoded.examples("dev"), encoded.examples("test")])
    found = FAMILIES["retrieval"].decode(frame, task, encoded, rows, [torch.ones(4) / 2] * len(rows))
    expected = {
        (split, parity): [f"d{i}" for i in range(size) if i % 2 == parity]
        for split, size in (("dev", 8), ("test", 4))
        for parity in (0, 1)
    }
    queries = frame.filter(pl.col("split") != "train", role="query").sort("language", "id", maintain_order=True)
    assert sorted(found["prediction"].to_list()) == sorted(
        expected[split, int(identifier[1:]) % 2] for split, identifier in queries.select("split", "id").rows()
    )


def test_an_oracle_finds_every_document(tokenizer):
    frame, task = toy_frame("retrieval"), toy_task("retrieval")
    encoded = encode("retrieval", tokenizer, frame, task)
    test = encoded.examples("test")
    rows = frame[test.tolist()]
    outputs = [torch.nn.functional.one_hot(torch.tensor(int(i[1:])), 8).float() for i in rows["id"]]
    found = FAMILIES["retrieval"].decode(frame, task, encoded, test, outputs)
    assert score_predictions(found, "accuracy_at_1")["score"].to_list() == [100.0, 100.0]


def test_retrieval_loss_is_the_softmax_over_the_steps_documents(tokenizer):
    frame, task, family = toy_frame("retrieval"), toy_task("retrieval"), FAMILIES["retrieval"]
    # Two queries with one and the same document: it stands in the softmax once.
    shared = pl.col("gold").list.eval(pl.when(pl.element() == "d2").then(pl.lit("d0")).otherwise(pl.element()))
    frame = frame.with_columns(gold=shared)
    encoded = encode("retrieval", tokenizer, frame, task)
    numbers = {identifier: row for row, identifier in enumerate(frame["id"]) if frame["split"][row] == "train"}
    queries = ["q0", "q2", "q5", "q1", "q5"]
    chosen = torch.tensor([numbers[name] for name in queries])
    batch = collate(encoded, family.sequences(encoded, chosen), 1)
    assert sorted(frame["id"][batch.sequences.tolist()]) == sorted([*queries, "d0", "d1", "d5"])
    hidden = torch.randn(*batch.tokens.shape, 5, generator=torch.Generator().manual_seed(3))
    vectors = {}
    for row, place in enumerate(batch.sequences.tolist()):
        pooled = hidden[row, : batch.lengths[row]].mean(0)
        vectors.setdefault(frame["id"][place], []).append((pooled / pooled.norm()).tolist())
    expected = 0.0
    for query, gold in (("q0", "d0"), ("q2", "d0"), ("q5", "d5"), ("q1", "d1"), ("q5", "d5")):
        vector = vectors[query].pop(0)
        scores = {d: 20 * sum(map(float.__mul__, vector, vectors[d][0])) for d in ("d0", "d1", "d5")}
        expected += math.log(sum(map(math.exp, scores.values()))) - scores[gold]
    assert family.loss(DualEncoderHead(), hidden, batch, encoded).item() == pytest.approx(expected, rel=1e-5)


def test_queries_carry_the_tasks_prefix(tokenizer):
    frame = toy_frame("retrieval").filter(split="train")
    task = dataclasses.replace(toy_task("retrieval"), query_prefix="query: ")
    encoded = FAMILIES["retrieval"].encode(frame, tokenizer, task, 32, 0)
    expected = tokenizer.encode(f"query: {frame['text'][0]}").ids
    assert encoded.tokens[: len(expected)].tolist() == expected
