"""Every metric of every target task, in points 0..100, and what a model that learnt nothing scores.

Each metric takes aligned sequences, predictions and golds, and uses every pair: a pair that cannot be scored is a
`UserError`, never a row left out. `METRICS` gives them one signature over the rows of a predictions file,
`score_predictions` applies one of them language by language, `floor` gives the score of the trivial prediction that a
trained run has to beat. One module a shape of rows: labels and tags, answers, rankings, bitext.
"""

from __future__ import annotations

from xlift.metrics.answers import (
    ALWAYS,
    MLQA_LANGUAGES,
    mlqa_em,
    mlqa_f1,
    no_answer_threshold,
    squad_em,
    squad_f1,
    squad_v2_em,
    squad_v2_f1,
)
from xlift.metrics.bitext import bitext_f1, margin_threshold
from xlift.metrics.labels import accuracy, majority_accuracy, span_f1, token_accuracy, xtreme_f1
from xlift.metrics.rankings import COMMON_POOL, RANKING_DEPTH, accuracy_at_1, accuracy_at_1_common, map_at_20
from xlift.metrics.rows import Rows, Shape
from xlift.metrics.table import METRICS, Metric, floor, metric_named, score_predictions

__all__ = [
    "ALWAYS",
    "COMMON_POOL",
    "METRICS",
    "MLQA_LANGUAGES",
    "RANKING_DEPTH",
    "Metric",
    "Rows",
    "Shape",
    "accuracy",
    "accuracy_at_1",
    "accuracy_at_1_common",
    "bitext_f1",
    "floor",
    "majority_accuracy",
    "map_at_20",
    "margin_threshold",
    "metric_named",
    "mlqa_em",
    "mlqa_f1",
    "no_answer_threshold",
    "score_predictions",
    "span_f1",
    "squad_em",
    "squad_f1",
    "squad_v2_em",
    "squad_v2_f1",
    "token_accuracy",
    "xtreme_f1",
]
