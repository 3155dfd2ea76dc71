"""Extractive answers: targets over windows, the best span, loss, questions without an answer."""

from __future__ import annotations

import math
from itertools import product

import polars as pl
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from encoding import SHARED, encode, everything
from toy import toy_frame, toy_task
from xlift.catalog.task import ANSWERS_KEPT
from xlift.errors import UserError
from xlift.tasks.encoded import IGNORED
from xlift.tasks.families import FAMILIES
from xlift.tasks.span import LONGEST_ANSWER, best_answers, best_spans

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
@given(st.integers(1, 45), st.integers(0, 10_000), st.booleans(), st.integers(1, 30))
def test_best_spans_are_the_best_of_all(size, seed, ties, number):
    """Of whole numbers many spans score the same."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(size + 3, 2, generator=generator)
    scores = scores.round() if ties else scores
    char_start = torch.tensor([IGNORED, IGNORED, *range(0, 2 * size, 2), IGNORED])
    char_end = torch.tensor([IGNORED, IGNORED, *range(1, 2 * size, 2), IGNORED])
    every = sorted(
        (
            (float(scores[i + 2, 0] + scores[j + 2, 1]), (2 * i, 2 * j + 1))
            for i, j in product(range(size), repeat=2)
            if i <= j < i + LONGEST_ANSWER
        ),
        key=lambda span: (-span[0], span[1]),
    )
    least = every[min(number, len(every)) - 1][0]
    assert best_spans(scores, char_start, char_end, number) == [span for span in every if span[0] >= least]


@pytest.mark.parametrize(("last", "expected"), [(29, (0, 30)), (30, (30, 31))])
def test_answers_have_thirty_tokens_at_most(last, expected):
    scores = torch.zeros(40, 2)
    scores[0, 0] = scores[last, 1] = 5.0  # thirty tokens from 0 to 29
    scores[last, 0] = 1.0  # the next best start
    found = best_spans(scores, torch.arange(40), torch.arange(1, 41), 1)
    assert found == [(10.0 if last == 29 else 6.0, expected)]


def letters(text, starts, ends):
    """Scores and characters of a window: a first token, the letters of a text, a last token."""
    places = range(len(text))
    outside = [torch.finfo(torch.float32).min]
    scores = torch.tensor([[0.0, *starts, *outside], [0.0, *ends, *outside]]).T
    return scores, torch.tensor([IGNORED, *places, IGNORED]), torch.tensor([IGNORED, *(i + 1 for i in places), IGNORED])


def test_best_answers_by_hand():
    """Of "aba" the spans are a 6 + 1, ab 6 + 3, aba 6 + 0, b 2 + 3, ba 2 + 0 and the other a 5 + 0."""
    window = letters("aba", [6.0, 2.0, 5.0], [1.0, 3.0, 0.0])
    assert best_answers(*window, "aba", 5) == {"ab": 9.0, "a": 7.0, "aba": 6.0, "b": 5.0, "ba": 2.0}
    assert list(best_answers(*window, "aba", 5)) == ["ab", "a", "aba", "b", "ba"]
    assert best_answers(*window, "aba", 2) == {"ab": 9.0, "a": 7.0}
    # The context says one thing again and again: other answers are found however far behind they are.
    same = letters("aaaaaaaab", [9.0] * 8 + [0.0], [9.0] * 8 + [0.0])
    assert best_answers(*same, "aaaaaaaab", 5) == {"a" * length: 18.0 for length in range(1, 6)}
    single = letters("x", [1.0], [2.0])
    assert best_answers(*single, "x", 5) == {"x": 3.0}


def decoded(outputs, encoded, frame):
    return FAMILIES["span"].decode(frame, toy_task("span"), encoded, torch.tensor([0]), outputs)


WORDS = st.lists(st.sampled_from(["goat", "whale", "red"]), min_size=1, max_size=12)


@settings(SHARED, max_examples=60)
@given(WORDS, st.integers(0, 10_000), st.booleans())
def test_n_best_is_that_of_all_spans_in_all_windows(tokenizer, words, seed, ties):
    context = " ".join(words)
    frame = span_frame(context, 0, len(words[0]))
    encoded = FAMILIES["span"].encode(frame, tokenizer, toy_task("span"), 12, 3)
    generator = torch.Generator().manual_seed(seed)
    outputs, every = [], {}
    for sequence, length in enumerate(encoded.lengths.tolist()):
        scores = torch.randn(length, 2, generator=generator)
        outputs.append(scores.round() if ties else scores)
        here = slice(int(encoded.offsets[sequence]), int(encoded.offsets[sequence + 1]))
        first, last = (encoded.by_token[name][here].tolist() for name in ("char_start", "char_end"))
        inside = [place for place in range(length) if first[place] != IGNORED]
        for i, j in product(inside, repeat=2):
            if i <= j < i + LONGEST_ANSWER:
                text = context[first[i] : last[j]]
                every[text] = max(every.get(text, -math.inf), float(outputs[-1][i, 0] + outputs[-1][j, 1]))
    found = decoded(outputs, encoded, frame)
    (n_best,) = found["n_best"].to_list()
    assert found["prediction"].to_list() == [[n_best[0]["text"]]]
    assert [answer["score"] for answer in n_best] == sorted(every.values(), reverse=True)[:ANSWERS_KEPT]
    assert len({answer["text"] for answer in n_best}) == len(n_best)
    assert all(every[answer["text"]] == answer["score"] for answer in n_best)


def test_the_same_answer_of_two_windows_has_the_better_score(tokenizer):
    context = " ".join(["red", *["goat"] * 30])
    frame = span_frame(context, 0, 3)
    encoded = FAMILIES["span"].encode(frame, tokenizer, toy_task("span"), 16, 4)
    outputs = []
    for sequence, length in enumerate(encoded.lengths.tolist()):
        scores = torch.full((length, 2), -50.0)
        here = slice(int(encoded.offsets[sequence]), int(encoded.offsets[sequence + 1]))
        first, last = (encoded.by_token[name][here].tolist() for name in ("char_start", "char_end"))
        # The first whole "goat" of each window, by its characters.
        begin, end = next(
            (i, j) for i in range(length) for j in range(i, length) if context[first[i] : last[j]] == "goat"
        )
        scores[begin, 0], scores[end, 1] = float(sequence), 1.0
        outputs.append(scores)
    assert len(outputs) > 3
    (n_best,) = decoded(outputs, encoded, frame)["n_best"].to_list()
    assert n_best[0] == {"text": "goat", "score": len(outputs) - 1 + 1.0}
    assert sum(answer["text"] == "goat" for answer in n_best) == 1


def test_scores_that_are_not_numbers_are_refused(tokenizer):
    frame = span_frame("one goat two", 4, 8)
    encoded = FAMILIES["span"].encode(frame, tokenizer, toy_task("span"), 30, 8)
    with pytest.raises(UserError, match="toy_span: the model's scores of example '0' are not numbers"):
        decoded([torch.full((int(encoded.lengths[0]), 2), math.nan)], encoded, frame)


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


def test_an_answer_that_is_not_in_the_context_is_scored_by_its_text_and_not_trained_on(tokenizer):
    family, task = FAMILIES["span"], toy_task("span")
    frame = span_frame("Ann has a goat", 10, 14).with_columns(
        answers=pl.Series([["billy", "goat"]]), answer_starts=pl.Series([[-1, 10]])
    )
    family.check(frame, task)
    plain = family.encode(span_frame("Ann has a goat", 10, 14), tokenizer, task, 30, 12)
    encoded = family.encode(frame, tokenizer, task, 30, 12)
    for side in ("start", "end"):
        assert encoded.by_sequence[side].tolist() == plain.by_sequence[side].tolist() != [0]
    scores = torch.zeros(int(encoded.lengths[0]), 2)
    gold = family.decode(frame, task, encoded, encoded.examples("test"), [scores])["gold"].to_list()
    assert gold == [["billy", "goat"]]
    nowhere = frame.with_columns(answers=pl.Series([["billy"]]), answer_starts=pl.Series([[-1]]))
    family.check(nowhere, task)
    encoded = family.encode(nowhere, tokenizer, task, 30, 12)
    assert (encoded.by_sequence["start"].tolist(), encoded.by_sequence["end"].tolist()) == ([0], [0])
    with pytest.raises(UserError, match=r"no answer of '0' is in its context, and training needs to know where; drop"):
        family.check(nowhere.with_columns(split=pl.lit("train")), task)
    wrong = frame.with_columns(answer_starts=pl.Series([[-1, 9]]))
    with pytest.raises(UserError, match=r"the answer 'goat' of '0' is not at offset 9 of its context"):
        family.check(wrong, task)
