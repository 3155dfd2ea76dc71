"""Extractive question answering: the best span over the windows of a context."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xlift.catalog.task import ANSWERS_KEPT, Task
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
N_BEST = "n_best"
"""Column of predictions: the best answers with their scores, best first."""
_N_BEST_TYPE = pl.List(pl.Struct({"text": pl.String(), "score": pl.Float64()}))


class Span(Family):
    """Start and end of the answer in the context. A window without the whole answer points at the first token.

    An answer whose `answer_starts` is -1 is right without being in the context: it is scored by its text, and no
    training row has such answers only.

    Where questions may have no answer (`Task.unanswerable`), the score of none is that of the first token, the least
    over the windows, as in BERT's reader of SQuAD 2.0. None is the prediction where it beats the best span by more than
    a threshold chosen on English dev (`no_answer_threshold`). Beside the prediction the `ANSWERS_KEPT` best answers are
    kept: no two have the same words, and each has the best score of its spans in all windows.
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
        N_BEST: "The best answers with their scores, best first; the first is the prediction.",
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
        n_best: list[list[dict[str, Any]]] = []
        differences = []
        for example in examples.tolist():
            answers: dict[str, float] = {}
            none = torch.inf
            for _ in range(int(first[example]), int(first[example + 1])):
                sequence, scores = next(position)
                here = slice(encoded.offsets[sequence], encoded.offsets[sequence + 1])
                places = encoded.by_token["char_start"][here], encoded.by_token["char_end"][here]
                for text, score in best_answers(scores, *places, contexts[example], ANSWERS_KEPT).items():
                    answers[text] = max(score, answers.get(text, -torch.inf))
                none = min(none, float(scores[0].sum()))
            if not answers:
                raise UserError(
                    f"{task.name}: the model's scores of example {frame['id'][example]!r} are not numbers; its weights "
                    "are of no use, so train them again with a lower learning rate"
                )
            n_best.append(_best_first(answers))
            differences.append(none - n_best[-1][0]["score"])
        predictions = [[answers[0]["text"]] for answers in n_best]
        golds = [answers or [""] for answers in frame["answers"][examples.tolist()].to_list()]
        further = [pl.Series(N_BEST, n_best, _N_BEST_TYPE)]
        if task.unanswerable:
            further.append(pl.Series(NO_ANSWER, differences, pl.Float64))
        return prediction_frame(frame, examples, predictions, golds, further)

    def further_columns(self, task: Task) -> Mapping[str, pl.DataType]:
        return {N_BEST: _N_BEST_TYPE, **({NO_ANSWER: pl.Float64()} if task.unanswerable else {})}

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
        """The empty answer where no answer beats the best span by more than the threshold.

        It is one of the best answers then, or wherever its score less the threshold has it.
        """
        if not task.unanswerable:
            return predictions
        threshold = chosen["no_answer_threshold"]
        n_best = [
            _with_no_answer(answers, difference - threshold)
            for answers, difference in predictions.select(N_BEST, NO_ANSWER).iter_rows()
        ]
        answers = pl.Series(N_BEST, n_best, _N_BEST_TYPE)
        first = pl.concat_list(pl.col(N_BEST).list.first().struct.field("text"))
        return predictions.with_columns(answers).with_columns(prediction=first)

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


def best_spans(
    scores: Tensor, char_start: Tensor, char_end: Tensor, number: int
) -> list[tuple[float, tuple[int, int]]]:
    """The best spans of one window, best first: their summed scores and the characters they cover.

    `scores` [tokens, 2]; only tokens of the context (char_start not IGNORED), end not before start, at most
    LONGEST_ANSWER tokens. More than `number` where others score as well as the last; equal ones by start, then end.
    """
    places = (char_start != IGNORED).nonzero().flatten()
    start, end = scores[places, 0], scores[places, 1]
    # A row for each start, a column for each length: a thirteenth of all pairs in a window of 384 tokens.
    beyond = end.new_full((LONGEST_ANSWER - 1,), -torch.inf)
    table = start[:, None] + torch.cat([end, beyond]).unfold(0, LONGEST_ANSWER, 1)
    least = table.flatten().topk(min(number, table.numel())).values[-1]
    row, length = ((table >= least) & (table > -torch.inf)).nonzero(as_tuple=True)
    found, order = table[row, length].sort(descending=True, stable=True)
    first, last = places[row[order]], places[(row + length)[order]]
    return list(zip(found.tolist(), zip(char_start[first].tolist(), char_end[last].tolist(), strict=True), strict=True))


def best_answers(scores: Tensor, char_start: Tensor, char_end: Tensor, context: str, number: int) -> dict[str, float]:
    """The `number` best answers of one window with the best scores of their spans, best first."""
    asked = number
    while True:
        spans = best_spans(scores, char_start, char_end, asked)
        answers: dict[str, float] = {}
        for score, (start, end) in spans:
            answers.setdefault(context[start:end], score)
        if len(answers) >= number or len(spans) < asked:
            return dict(islice(answers.items(), number))
        asked *= 4  # words that the context repeats


def _best_first(answers: Mapping[str, float]) -> list[dict[str, Any]]:
    """The answers that are kept."""
    ranked = sorted(answers.items(), key=lambda answer: -answer[1])
    return [{"text": text, "score": score} for text, score in ranked[:ANSWERS_KEPT]]


def _with_no_answer(answers: list[dict[str, Any]], better: float) -> list[dict[str, Any]]:
    """The empty answer among the best spans' answers, given how much better than the best of them it is."""
    empty = {"text": "", "score": answers[0]["score"] + better}
    # Whether it is first is asked of the difference itself, as the threshold was chosen on it.
    place = 0 if better > 0 else max(1, sum(answer["score"] >= empty["score"] for answer in answers))
    kept: dict[str, dict[str, Any]] = {}
    for answer in (*answers[:place], empty, *answers[place:]):
        kept.setdefault(answer["text"], answer)
    return list(kept.values())[:ANSWERS_KEPT]
