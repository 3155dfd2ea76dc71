"""Every metric under one signature, and a predictions file scored by it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from xlift.errors import UserError
from xlift.metrics.answers import mlqa_em, mlqa_f1, squad_em, squad_f1, squad_v2_em, squad_v2_f1
from xlift.metrics.bitext import bitext_f1
from xlift.metrics.labels import accuracy, most_frequent, span_f1, token_accuracy, xtreme_f1
from xlift.metrics.rankings import accuracy_at_1, accuracy_at_1_common, map_at_20, random_ranking
from xlift.metrics.rows import Rows, Shape, require, wrap

Numbers = Mapping[str, Sequence[int]]
"""Further columns of a predictions file, one number a row."""


@dataclass(frozen=True)
class Metric:
    """A metric over rows of a predictions file: `metric(predictions, golds, language)` gives points 0..100.

    `shape` says what the rows hold; `columns` names the further columns of numbers it reads (a family's own); `score`
    is called once every row is known to have the shape, with those columns.
    """

    shape: Shape
    score: Callable[[Rows, Rows, str, Numbers], float]
    columns: tuple[str, ...] = ()

    def __call__(
        self,
        predictions: Rows,
        golds: Rows,
        language: str,
        names: Sequence[str] | None = None,
        numbers: Numbers | None = None,
    ) -> float:
        """Score aligned rows of one language; `names` (one a row) are what a `UserError` calls them."""
        require(self.shape, predictions, golds, names)
        missing = [column for column in self.columns if column not in (numbers or {})]
        if missing:
            raise UserError(f"Predictions lack the column(s) {', '.join(missing)}: predict again.")
        return self.score(predictions, golds, language, numbers or {})


def _first(rows: Rows) -> list[str]:
    return [row[0] for row in rows]


def _common(golds: Rows, numbers: Numbers) -> float:
    if any(len(gold) != 1 for gold in golds):
        raise UserError("accuracy_at_1_common is for queries with one right document each: use accuracy_at_1.")
    return accuracy_at_1_common(numbers["rank"], numbers["pool_size"])


METRICS: dict[str, Metric] = {
    "accuracy": Metric("label", lambda p, g, *_: accuracy(_first(p), _first(g))),
    "accuracy_at_1": Metric("ranking", lambda p, g, *_: accuracy_at_1(p, g)),
    "accuracy_at_1_common": Metric("ranking", lambda _p, g, _l, n: _common(g, n), ("rank", "pool_size")),
    "bitext_f1": Metric("pair", lambda p, g, *_: bitext_f1(p, g)),
    "map_at_20": Metric("ranking", lambda p, g, *_: map_at_20(p, g)),
    "mlqa_em": Metric("answer", lambda p, g, language, _: mlqa_em(_first(p), g, language)),
    "mlqa_f1": Metric("answer", lambda p, g, language, _: mlqa_f1(_first(p), g, language)),
    "span_f1": Metric("tags", lambda p, g, *_: span_f1(p, g)),
    "squad_em": Metric("answer", lambda p, g, *_: squad_em(_first(p), g)),
    "squad_f1": Metric("answer", lambda p, g, *_: squad_f1(_first(p), g)),
    "squad_v2_em": Metric("answer", lambda p, g, *_: squad_v2_em(_first(p), g)),
    "squad_v2_f1": Metric("answer", lambda p, g, *_: squad_v2_f1(_first(p), g)),
    "token_accuracy": Metric("tags", lambda p, g, *_: token_accuracy(p, g)),
    "xtreme_f1": Metric("tags", lambda p, g, *_: xtreme_f1(p, g)),
}
_SILENCE_COUNTS = ("squad_v2_em", "squad_v2_f1")
"""Metrics by which no answer can be right."""


def metric_named(name: str) -> Metric:
    """The metric of that name, or a `UserError` that lists the names."""
    if name not in METRICS:
        raise UserError(f"There is no metric {name!r}: use one of {', '.join(METRICS)}.")
    return METRICS[name]


def score_predictions(predictions: pl.DataFrame, metric: str) -> pl.DataFrame:
    """Score a predictions file language by language.

    `predictions` has the columns language, id, prediction, gold and the metric's own (others are ignored). Returns
    language, metric, score (f64, points 0..100) and n (i64, number of examples: sentences in tagging), sorted by
    language. Raises `UserError`, naming the first language and id it concerns, for an unknown metric, a
    missing column, no rows, a null or repeated (language, id), a null prediction or gold, and a row without
    the metric's shape.
    """
    chosen = metric_named(metric)
    needed = ("language", "id", "prediction", "gold", *chosen.columns)
    missing = [c for c in needed if c not in predictions.columns]
    if missing:
        raise UserError(f"Predictions lack the column(s) {', '.join(missing)}: predict again.")
    if predictions.is_empty():
        raise UserError(f"Predictions have no rows, so there is nothing to score by {metric}: predict again.")
    keys = predictions.select("language", "id")
    if sum(keys.null_count().row(0)):
        raise UserError("A prediction has no language or no id: predict again.")
    repeated = keys.filter(keys.is_duplicated()).sort("language", "id")
    if not repeated.is_empty():
        language, row_id = repeated.row(0)
        raise UserError(f"Predictions repeat language {language!r}, id {row_id!r}: predict again.")
    for column in chosen.columns:
        if predictions[column].null_count() or not predictions.schema[column].is_integer():
            raise UserError(f"Predictions have rows without a whole number as {column}: predict again.")
    scores = []
    for rows in predictions.partition_by("language", maintain_order=True):
        language = rows["language"][0]
        names = [f"language {language!r}, id {row_id!r}" for row_id in rows["id"]]
        numbers = {column: rows[column].to_list() for column in chosen.columns}
        score = chosen(rows["prediction"].to_list(), rows["gold"].to_list(), language, names, numbers)
        scores.append((language, metric, score, len(rows)))
    schema = {"language": pl.String, "metric": pl.String, "score": pl.Float64, "n": pl.Int64}
    return pl.DataFrame(scores, schema=schema, orient="row").sort("language")


def floor(
    metric: str,
    golds: Rows,
    language: str,
    *,
    contexts: Sequence[str] | None = None,
    pool_sizes: Sequence[int] | None = None,
) -> float:
    """What a model that learnt nothing scores, in points.

    Labels: always the most frequent one. Tags: `O` everywhere for span F1 (0), the most frequent tag
    everywhere otherwise. Answers: the whole context (`contexts`, one a row), or none where none can be right and that
    is better. Pairs: nothing mined (0). Rankings: the expected score of a random order of the query's pool
    (`pool_sizes`, documents, one a row). Raises `UserError` where the one that is needed is missing or of another
    length.
    """
    chosen = metric_named(metric)
    if chosen.shape == "answer":
        if contexts is None or len(contexts) != len(golds):
            raise UserError(f"The floor of {metric} needs `contexts`: give {len(golds)}, one a row.")
        whole = chosen(wrap(contexts), golds, language)
        return max(whole, chosen([[""]] * len(golds), golds, language)) if metric in _SILENCE_COUNTS else whole
    if chosen.shape == "pair":
        return chosen([[]] * len(golds), golds, language)
    require(chosen.shape, golds, golds)
    if chosen.shape == "ranking":
        if pool_sizes is None or len(pool_sizes) != len(golds):
            raise UserError(f"The floor of {metric} needs `pool_sizes`: give {len(golds)}, one a row.")
        return random_ranking(metric, golds, pool_sizes)
    constant = "O" if metric == "span_f1" else most_frequent(tag for row in golds for tag in row)
    return chosen([[constant] * len(row) for row in golds], golds, language)
