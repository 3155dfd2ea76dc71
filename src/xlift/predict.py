"""Predictions of one model for every example of a split, in every language."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor, nn

from xlift.catalog.task import Task
from xlift.compute import Compute, choose_compute
from xlift.encoder.adapt import Trainable, merge_trained
from xlift.encoder.model import load_encoder
from xlift.errors import UserError
from xlift.tasks.encoded import Encoded, collate, token_capped
from xlift.tasks.families import FAMILIES
from xlift.tasks.family import Family

BATCH_TOKENS = {"cpu": 1024, "cuda": 65536}
"""Token positions of one forward pass; on a CPU what fits its caches."""


def predict_split(
    task: Task,
    encoder: nn.Module,
    head: nn.Module,
    frame: pl.DataFrame,
    encoded: Encoded,
    split: str,
    compute: Compute,
) -> pl.DataFrame:
    """Predictions (language, id, prediction, gold) for the examples of a split, sorted by language and id."""
    if frame.height != len(encoded.split):
        raise UserError(
            f"data of {task.name}: {frame.height} rows but {len(encoded.split)} encoded examples; encode the task again"
        )
    family = FAMILIES[task.family]
    examples = encoded.examples(split)
    if len(examples) == 0:
        return pl.DataFrame(
            schema={
                "language": pl.String,
                "id": pl.String,
                "prediction": pl.List(pl.String),
                "gold": pl.List(pl.String),
            }
        )
    outputs = forward(encoder, head, family, encoded, family.sequences(encoded, examples), compute)
    return family.decode(frame, task, encoded, examples, outputs)


@torch.inference_mode()
def forward(
    encoder: nn.Module, head: nn.Module, family: Family, encoded: Encoded, sequences: Tensor, compute: Compute
) -> list[Tensor]:
    """Each sequence's output, in the order given; sequences of like length are computed together."""
    encoder.eval()
    head.eval()
    lengths = encoded.lengths[sequences]
    found: list[Tensor] = [torch.empty(0)] * len(sequences)
    for group in token_capped(lengths, torch.ones_like(lengths), BATCH_TOKENS[compute.device.type]):
        batch = collate(encoded, sequences[group], encoder.pad_id).on(compute.device)  # type: ignore[arg-type]
        with compute.autocast():
            hidden = encoder(batch.tokens, batch.mask, batch.types)
            outputs = family.outputs(head, hidden, batch).cpu()
        for place, output, length in zip(group.tolist(), outputs, batch.lengths.tolist(), strict=True):
            found[place] = output[:length] if family.outputs_by_token else output
    return found


def predict_cell(
    task: Task,
    specification: Mapping[str, Any],
    encoder_folder: Path,
    encoded: Encoded,
    data: Path,
    weights: tuple[Mapping[str, Tensor], Mapping[str, Tensor]] | None,
    trainable: Trainable,
) -> pl.DataFrame:
    """A cell's predictions on the test split. `weights`: the encoder's and the head's; None: the encoder as it is."""
    compute = choose_compute(specification["precision"], specification["threads"])
    encoder = load_encoder(encoder_folder, dtype=compute.dtype, device=compute.device, dropout=0.0)
    head = FAMILIES[task.family].head(encoder.hidden_size, task, 0.0)
    if weights is not None:
        merge_trained(encoder, weights[0], trainable)
        if task.trained:
            head.load_state_dict(weights[1])
    frame = pl.read_parquet(data)
    started = time.perf_counter()
    predictions = predict_split(task, encoder, head.to(compute.device), frame, encoded, "test", compute)
    print(f"{predictions.height} predictions in {time.perf_counter() - started:.3f} s", flush=True)
    if predictions.is_empty():
        raise UserError(f"{data}: {task.name} has no test examples; prepare it again")
    return predictions
