"""A prediction job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from xlift.artifacts import fingerprint, read_manifest, verified
from xlift.catalog import task_of
from xlift.encoder.adapt import Trainable
from xlift.hooks import recorded
from xlift.jobs.prepare import checked_encoder, checked_examples, checked_tokens, encoder_sha256
from xlift.predict import predict_cell
from xlift.tables import publish_table
from xlift.tasks.encoded import TOKENS, Encoded
from xlift.training.checkpoint import check_encoder, read_weights, split_weights


def predict_job(
    specification: dict[str, Any],
    encoder: str,
    encoded: str,
    examples: str,
    model: str | None,
    predictions: str,
) -> None:
    """Write a cell's predictions. `model` is the manifest of the last run; None predicts with the encoder as it is."""
    if (model is None) != (specification["weights"] is None):
        raise ValueError(
            f"{predictions}: the specification and the inputs disagree on whether there is a run to predict with"
        )
    task = task_of(specification)
    weights, trainable, chosen = None, Trainable(), None
    if model is not None:
        run = Path(model).parent
        check_encoder(run, encoder_sha256(Path(encoder)))
        facts = read_manifest(run)
        trainable = Trainable(**facts["specification"]["trainable"])
        if not task.direct:
            chosen = facts["dev"].get("chosen", {})
        weights = split_weights(read_weights(run, specification["weights"]))
    tokens = Encoded.load(verified(checked_tokens(Path(encoded), Path(encoder)), TOKENS))
    folder, data = checked_encoder(Path(encoder)), checked_examples(Path(examples))
    frame = predict_cell(task, specification, folder, tokens, data, weights, trainable, chosen)
    publish_table(Path(predictions), frame, fingerprint=fingerprint(specification), **recorded())
