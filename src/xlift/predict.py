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
from xlift.tasks.family import PREDICTION_COLUMNS, Family

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
    layer: int | None = None,
) -> pl.DataFrame:
    """Predictions (language, id, prediction, gold, the family's further columns) for the examples of a split.

    Sorted by language and id; `layer`: that of the encoder which is read, None for the last. What is chosen on dev is
    not applied yet (`Family.calibrated`).
    """
    if frame.height != len(encoded.split):
        raise UserError(
            f"data of {task.name}: {frame.height} rows but {len(encoded.split)} encoded examples; encode the task again"
        )
    family = FAMILIES[task.family]
    examples = encoded.examples(split)
    if len(examples) == 0:
        return pl.DataFrame(schema={**PREDICTION_COLUMNS, **family.further_columns(task)})
    outputs = forward(encoder, head, family, encoded, family.sequences(encoded, examples), compute, layer)
    return family.decode(frame, task, encoded, examples, outputs)


@torch.inference_mode()
def forward(
    encoder: nn.Module,
    head: nn.Module,
    family: Family,
    encoded: Encoded,
    sequences: Tensor,
    compute: Compute,
    layer: int | None = None,
) -> list[Tensor]:
    """Each sequence's output, in the order given; sequences of like length are computed together."""
    encoder.eval()
    head.eval()
    lengths = encoded.lengths[sequences]
    found: list[Tensor] = [torch.empty(0)] * len(sequences)
    for group in token_capped(lengths, torch.ones_like(lengths), BATCH_TOKENS[compute.device.type]):
        batch = collate(encoded, sequences[group], encoder.pad_id).on(compute.device)  # type: ignore[arg-type]
        with compute.autocast():
            hidden = encoder(batch.tokens, batch.mask, batch.types, layer=layer)
            outputs = family.outputs(head, hidden, batch)
        if not family.outputs_on_device:
            outputs = outputs.cpu()
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
    chosen: Mapping[str, Any] | None = None,
) -> pl.DataFrame:
    """A cell's predictions on the test split. `weights`: the encoder's and the head's; None: the encoder as it is.

    `chosen`: what the target's run chose on English dev; None: there is no such run, and what the task has to choose is
    chosen here, on its own dev rows.
    """
    compute = choose_compute(specification["precision"], specification["threads"])
    encoder = load_encoder(encoder_folder, dtype=compute.dtype, device=compute.device, dropout=0.0)
    family = FAMILIES[task.family]
    head = family.head(encoder.hidden_size, task, 0.0).to(compute.device)
    layer = family.layer(task, encoder.layers, specification.get("sentence", False))
    if weights is not None:
        merge_trained(encoder, weights[0], trainable)
        if not task.direct:
            head.load_state_dict(weights[1])
    frame = pl.read_parquet(data)
    started = time.perf_counter()
    predictions = predict_split(task, encoder, head, frame, encoded, "test", compute, layer)
    print(f"{predictions.height} predictions in {time.perf_counter() - started:.3f} s", flush=True)
    if predictions.is_empty():
        raise UserError(f"{data}: {task.name} has no test examples; prepare it again")
    if chosen is None and family.calibrates(task):
        chosen = family.calibrate(task, predict_split(task, encoder, head, frame, encoded, "dev", compute, layer))
        print(f"chosen on dev: {chosen}", flush=True)
    return family.calibrated(task, predictions, chosen or {})
