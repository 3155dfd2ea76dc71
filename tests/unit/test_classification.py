"""Classification of texts and pairs, and multiple choice: framing, loss, decoding."""

from __future__ import annotations

import math

import polars as pl
import pytest
import torch

from encoding import encode, everything, first_row
from toy import toy_frame, toy_task
from xlift.metrics import score_predictions
from xlift.tasks.encoded import collate
from xlift.tasks.families import FAMILIES
from xlift.training.feed import Feed


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


def test_of_a_long_pair_the_longer_text_loses_its_end(tokenizer):
    task = toy_task("classification")
    texts = [("goat " * 4, "old " * 30), ("goat " * 30, "old " * 4), ("goat " * 30, "old " * 30), ("goat " * 30, None)]
    rows = [
        {"split": "train", "language": "en", "id": str(i), "text_a": a, "text_b": b, "label": task.labels[i % 2]}
        for i, (a, b) in enumerate(texts)
    ]
    encoded = encode("classification", tokenizer, pl.DataFrame(rows), task, max_length=24)
    tokenizer.no_truncation()
    for row, (first, second) in enumerate(texts):
        one, two = (tokenizer.encode(text or "", add_special_tokens=False).ids for text in (first, second))
        # <s> A </s> </s> B </s>: of 24 tokens twenty are text of a pair, or 22 of one text.
        room = 22 if second is None else 20
        while len(one) + len(two) > room:
            (one if len(one) > len(two) else two).pop()
        expected = [0, *one, 2] if second is None else [0, *one, 2, 2, *two, 2]
        assert encoded.tokens[encoded.offsets[row] : encoded.offsets[row + 1]].tolist() == expected


def choice_rows(counts):
    """One training example for each number of choices, the right one the last."""
    return pl.DataFrame(
        [
            {
                "split": "train",
                "language": "en",
                "id": f"{row:03d}",
                "prompt": " ".join(["near"] * (1 + row % 3)),
                "choices": [" ".join([word] * (1 + row % 2)) for word in ("slate", "goat", "marble", "whale", "old")][
                    :n
                ],
                "label": str(n - 1),
            }
            for row, n in enumerate(counts)
        ]
    )


@pytest.mark.parametrize("cap", [1, 150, 10_000])
def test_two_to_five_choices_in_any_batches(tokenizer, cap):
    # Whatever stands beside an example in its batch, its loss and gradient are those of its own choices alone.
    counts = [2, 5, 3, 4, 5, 2]
    frame, task, family = choice_rows(counts), toy_task("multiple_choice"), FAMILIES["multiple_choice"]
    encoded = encode("multiple_choice", tokenizer, frame, task)
    scores = torch.randn(sum(counts), generator=torch.Generator().manual_seed(5)).requires_grad_()
    expected = sum(
        torch.nn.functional.cross_entropy(own[None], torch.tensor([len(own) - 1])) for own in scores.split(counts)
    )
    (wanted,) = torch.autograd.grad(expected, scores)
    head = family.head(1, task, 0.0)
    torch.nn.init.ones_(head.linear.weight)
    steps = list(Feed(family, encoded, 1, cap).step(torch.arange(len(counts)), [0]).batches)
    assert len(steps) in {1: (6,), 150: range(2, 6), 10_000: (1,)}[cap]
    found = torch.zeros(())
    for batch in steps:
        hidden = scores[batch.sequences][:, None, None].expand(*batch.tokens.shape, 1)
        found = found + family.loss(head, hidden, batch, encoded)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    (gradient,) = torch.autograd.grad(found, scores)
    torch.testing.assert_close(gradient, wanted)
    decoded = family.decode(frame, task, encoded, torch.arange(len(counts)), list(scores.detach()[:, None]))
    assert decoded["prediction"].to_list() == [[str(int(own.argmax()))] for own in scores.split(counts)]


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


def test_a_choice_too_long_for_its_length_is_cut_and_the_others_are_not(tokenizer):
    frame, task = toy_frame("multiple_choice"), toy_task("multiple_choice")
    long = frame.with_columns(first_row(choices=["goat " * 40, "marble"], label="0"))
    found = encode("multiple_choice", tokenizer, long, task, max_length=16)
    plain = encode("multiple_choice", tokenizer, frame, task, max_length=16)
    assert int(found.lengths[0]) == 16
    first = int(found.first_sequence()[1])
    assert found.tokens[found.offsets[first] :].tolist() == plain.tokens[plain.offsets[first] :].tolist()
    # Twelve tokens beside the four special ones: at most half of them are the prompt's, for the choice is the longer.
    tokenizer.no_truncation()
    texts = (frame["prompt"][0], "goat " * 40)
    prompt, choice = (tokenizer.encode(text, add_special_tokens=False).ids for text in texts)
    kept = min(len(prompt), 6)
    assert found.tokens[:16].tolist() == [0, *prompt[:kept], 2, 2, *choice[: 12 - kept], 2]
