"""What the tests of the task families share: encoding made-up rows, and changing one of them."""

from __future__ import annotations

from typing import Any

import polars as pl
import torch
from hypothesis import HealthCheck, settings
from tokenizers import Tokenizer

from xlift.catalog.task import Task
from xlift.tasks.encoded import Batch, Encoded, collate
from xlift.tasks.families import FAMILIES

SHARED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def encode(
    family: str, tokenizer: Tokenizer, frame: pl.DataFrame, task: Task, max_length: int = 32, stride: int = 8
) -> Encoded:
    """Rows checked and turned into tokens."""
    FAMILIES[family].check(frame, task)
    return FAMILIES[family].encode(frame, tokenizer, task, max_length, stride)


def everything(family: str, encoded: Encoded) -> Batch:
    """All sequences in one batch, examples in order."""
    rows = FAMILIES[family].sequences(encoded, torch.arange(len(encoded.split)))
    return collate(encoded, rows, 1)


def first_row(**values: Any) -> list[pl.Expr]:
    """Expressions that replace values in the first row."""
    return [
        pl.when(pl.int_range(pl.len()) == 0).then(pl.lit(v, dtype=_dtype(v))).otherwise(k).alias(k)
        for k, v in values.items()
    ]


def _dtype(value: Any) -> pl.DataType:
    inner = {str: pl.String(), int: pl.Int64()}
    if isinstance(value, list):
        return pl.List(next((inner[type(v)] for v in value if v is not None), pl.String()))
    return inner[type(value)]
