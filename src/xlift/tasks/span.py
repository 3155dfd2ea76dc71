"""Extractive question answering: the best span over the windows of a context."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xlift.catalog.task import Task
from xlift.errors import UserError
from xlift.metrics import floor, no_answer_threshold
from xlift.sources.reading import NOWHERE
from xlift.tasks.encoded import IGNORED, SPLITS, Batch, Builder, Encoded
from xlift.tasks.family import Family, LinearHead, prediction_frame
from xlift.tasks.windows import windows

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

LONGEST_ANSWER = 30
"""Tokens of the longest answer considered (the usual limit of SQuAD readers)."""
NO_ANSWER = "no_answer"
"""Column of predictions: score of no answer less that of the best span, where questions may have no answer."""


class Span(Family):
    """Start and end of the answer in the context. A window without the whole answer points at the first token.

    An answer whose `answer_starts` is -1 is right without being in the context: it is scored by its text, and no
    training row has such answers only.

    Where questions may have no answer (`Task.unanswerable`), the score of none is that of the first token, the least
    over the windows, as in BERT's reader of SQuAD 2.0. None is the prediction where it beats the best span by more than
    a threshold chosen on English dev (`no_answer_threshold`). The best span is all that is kept of a question: neither
    the metrics nor the public evaluation's files read an n-best list.
    """

    name = "span"
    outputs_by_token = True
    columns: ClassVar[Mapping[str, pl.DataType]] = {
        "context": pl.String(),
        "question": pl.String(),
        "answers": pl.List(pl.String()),
        "answer_starts": pl.List(pl.Int64()),
    }
    meanings: ClassVar[Mapping[str, str]] = {
        "context": "Text that the answer is in.",
        "question": "The question.",
        "answers": "Every right answer; empty where there is none.",
        "answer_starts": "Where each answer begins in the context, in characters from 0.",
        NO_ANSWER: "Score of no answer less that of the best span; no answer is predicted above the run's threshold.",
    }
    text_columns = ("context", "question")

    def check_values(self, frame: pl.DataFrame, task: Task) -> None:
        for split, identifier, context, answers, starts in frame.select(
            "split", "id", "context", "answers", "answer_starts"
        ).iter_rows():
            if task.unanswerable and not answers and not starts:
                continue
            if not answers or len(answers) != len(starts):
                raise UserError(f"data of {task.name}: example {identifier!r} has no answer or no offset; give both")
            if split == "train" and max(starts) == NOWHERE:
                raise UserError(
                    f"data of {task.name}: no answer of {identifier!r} is in its context, and training needs to know "
                    "where; drop the example"
                )
            for answer, start in zip(answers, starts, strict=True):
                if not answer or (start != NOWHERE and context[start : start + len(answer)] != answer):
                    raise UserError(
                        f"data of {task.name}: the answer {answer!r} of {identifier!r} is not at offset {start} of its "
                        "context; correct the offset"
                    )
        for split in SPLITS:
            answers = frame.filter(pl.col("split") == split)["answers"]
            if len(answers) and answers.list.len().max() == 0:
                raise UserError(
                    f"data of {task.name}: no question of {split} has an answer; the source has no real labels, use "
                    "another copy"
                )

    def encode(self, frame: pl.DataFrame, tokenizer: Tokenizer, task: Task, max_length: int, stride: int) -> Encoded:
        tokenizer.no_truncation()
        builder = Builder()
        texts = frame.select("question", "context").rows()
        encodings = tokenizer.encode_batch(texts)
        for row, encoding in zip(frame.iter_rows(named=True), encodings, strict=True):
            builder.example(row["split"])
            # The first answer that is in the context; a question without one has none in any window.
            places = zip(row["answer_starts"], row["answers"], strict=True)
            answer = next(((start, start + len(text)) for start, text in places if start != NOWHERE), (0, 0))
            self._add_windows(
                builder,
                encoding,
                row["context"],
                answer,
                max_length,
                stride,
                f"{task.name}, example {row['id']!r}",
            )
        return builder.build()

    def _add_windows(
        self,
        builder: Builder,
        encoding: Encoding,
        context: str,
        answer: tuple[int, int],
        max_length: int,
        stride: int,
        where: str,
    ) -> None:
        """Add the windows of one question and its context."""
        # Each of these attributes is a fresh list at every look.
        ids, types, offsets, parts = encoding.ids, encoding.type_ids, encoding.offsets, encoding.sequence_ids
        inside = [i for i, part in enumerate(parts) if part == 1]
        if not inside:
            raise UserError(f"{where}: the encoder's tokenizer finds nothing in the context; drop the example")
        spans = [
            _trimmed(context, span) if part == 1 else (IGNORED, IGNORED)
            for span, part in zip(offsets, parts, strict=True)
        ]
        answer_tokens = {i for i in inside if _touches(spans[i], answer)}
        head, tail = range(inside[0]), range(inside[-1] + 1, len(ids))
        room = max_length - len(head) - len(tail)
        if room < max(1, stride + 1):
            raise UserError(
                f"{where}: the question leaves no room for its context in {max_length} tokens; raise max_length"
            )
        for window in windows([1] * len(inside), room, stride):
            places = [*head, *(inside[i] for i in window), *tail]
            # The window's tokens of the answer; a window that lacks some of them points at the first token.
            held = [place for place, i in enumerate(places) if i in answer_tokens]
            whole = held and len(held) == len(answer_tokens)
            builder.sequence(
                [ids[i] for i in places],
                [types[i] for i in places],
                {"char_start": [spans[i][0] for i in places], "char_end": [spans[i][1] for i in places]},
                start=held[0] if whole else 0,
                end=held[-1] if whole else 0,
            )

    def head(self, hidden: int, task: Task, dropout: float) -> nn.Module:
        return LinearHead(hidden, 2, dropout)

    def loss(self, head: nn.Module, hidden: Tensor, batch: Batch, encoded: Encoded) -> Tensor:
        scores = self._scores(head, hidden, batch)
        start, end = (encoded.by_sequence[name][batch.sequences].to(hidden.device) for name in ("start", "end"))
        losses = (
            F.cross_entropy(scores[..., 0], start, reduction="sum"),
            F.cross_entropy(scores[..., 1], end, reduction="sum"),
        )
        return (losses[0] + losses[1]) / 2

    def _scores(self, head: nn.Module, hidden: Tensor, batch: Batch) -> Tensor:
        """Scores of start and end [sequences, tokens, 2]; only the first token and the context can be chosen."""
        allowed = batch.by_token["char_start"] != IGNORED
        allowed[:, 0] = True
        return head(hidden).float().masked_fill(~allowed[..., None], torch.finfo(torch.float32).min)

    def without_content(self, encoded: Encoded, examples: Tensor, generator: torch.Generator) -> dict[str, Any]:
        """Each answer moved to a random place of its window's context, as long as before.

        Windows without an answer stay without one.
        """
        start, end = (encoded.by_sequence[name].clone() for name in ("start", "end"))
        for sequence in self.sequences(encoded, examples).tolist():
            if start[sequence] == 0 and end[sequence] == 0:
                continue
            here = slice(encoded.offsets[sequence], encoded.offsets[sequence + 1])
            context = (encoded.by_token["char_start"][here] != IGNORED).nonzero().flatten()
            length = int(end[sequence] - start[sequence])
            places = context[: len(context) - length]
            start[sequence] = places[torch.randint(len(places), (), generator=generator)]
            end[sequence] = start[sequence] + length
        return {"by_sequence": {**encoded.by_sequence, "start": start, "end": end}}

    def outputs(self, head: nn.Module, hidden: Tensor, batch: Batch) -> Tensor:
        return self._scores(head, hidden, batch)

    def decode(
        self, frame: pl.DataFrame, task: Task, encoded: Encoded, examples: Tensor, outputs: list[Tensor]
    ) -> pl.DataFrame:
        position = iter(zip(self.sequences(encoded, examples).tolist(), outputs, strict=True))
        first = encoded.first_sequence()
        contexts = frame["context"]
        predictions, differences = [], []
        for example in examples.tolist():
            best, none = (-torch.inf, ""), torch.inf
            for _ in range(int(first[example]), int(first[example + 1])):
                sequence, scores = next(position)
                here = slice(encoded.offsets[sequence], encoded.offsets[sequence + 1])
                score, span = best_span(
                    scores, encoded.by_token["char_start"][here], encoded.by_token["char_end"][here]
                )
                if score > best[0]:
                    best = (score, contexts[example][span[0] : span[1]])
                none = min(none, float(scores[0].sum()))
            predictions.append([best[1]])
            differences.append(none - best[0])
        golds = [answers or [""] for answers in frame["answers"][examples.tolist()].to_list()]
        further = [pl.Series(NO_ANSWER, differences, pl.Float64)] if task.unanswerable else []
        return prediction_frame(frame, examples, predictions, golds, further)

    def further_columns(self, task: Task) -> Mapping[str, pl.DataType]:
        return {NO_ANSWER: pl.Float64()} if task.unanswerable else {}

    def calibrates(self, task: Task) -> bool:
        return task.unanswerable

    def calibrate(self, task: Task, predictions: pl.DataFrame) -> dict[str, Any]:
        """The no-answer threshold by which the primary metric is best."""
        if not task.unanswerable:
            return {}
        answers, golds = predictions["prediction"].list.first().to_list(), predictions["gold"].to_list()
        threshold = no_answer_threshold(task.metrics[0], answers, golds, predictions[NO_ANSWER].to_list())
        return {"no_answer_threshold": threshold}

    def calibrated(self, task: Task, predictions: pl.DataFrame, chosen: Mapping[str, Any]) -> pl.DataFrame:
        """The empty answer where no answer beats the best span by more than the threshold."""
        if not task.unanswerable:
            return predictions
        silent = pl.col(NO_ANSWER) > chosen["no_answer_threshold"]
        none = pl.lit([""], dtype=pl.List(pl.String()))
        return predictions.with_columns(prediction=pl.when(silent).then(none).otherwise("prediction"))

    def floor(self, frame: pl.DataFrame, task: Task, predictions: pl.DataFrame) -> float:
        """Answering with the whole context, or never where that is better."""
        contexts = dict(frame.select("id", "context").iter_rows())
        ordered = [contexts[identifier] for identifier in predictions["id"]]
        return floor(task.metrics[0], predictions["gold"].to_list(), predictions["language"][0], contexts=ordered)

    def units(self, encoded: Encoded) -> Tensor:
        first = encoded.first_sequence()
        return first[1:] - first[:-1]


def _trimmed(text: str, span: tuple[int, int]) -> tuple[int, int]:
    """A token's characters without the white space some tokenizers count to it."""
    start, end = span
    while start < end and text[start].isspace():
        start += 1
    return start, end


def _touches(span: tuple[int, int], answer: tuple[int, int]) -> bool:
    """Whether a token has characters of the answer."""
    return span[0] < span[1] and span[0] < answer[1] and span[1] > answer[0]


def best_span(scores: Tensor, char_start: Tensor, char_end: Tensor) -> tuple[float, tuple[int, int]]:
    """Best start and end token of one window: their summed score and the characters they cover.

    `scores` [tokens, 2]; only tokens of the context (char_start not IGNORED), end not before start, at most
    LONGEST_ANSWER tokens.
    """
    places = (char_start != IGNORED).nonzero().flatten()
    start, end = scores[places, 0], scores[places, 1]
    table = start[:, None] + end[None, :]
    size = len(places)
    allowed = torch.ones(size, size, dtype=torch.bool).triu().tril(LONGEST_ANSWER - 1)
    table = table.masked_fill(~allowed, -torch.inf)
    best = int(table.argmax())
    i, j = int(places[best // size]), int(places[best % size])
    return float(table.max()), (int(char_start[i]), int(char_end[j]))
