"""A training job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil

from xlift.catalog import CATALOG
from xlift.jobs.prepare import checked_encoder, checked_examples, checked_tokens, encoder_sha256
from xlift.training.run import Inputs, train_run


def train_job(
    specification: dict[str, Any],
    encoder: str,
    encoded: str,
    examples: str,
    parent: str | None,
    manifest: str,
) -> None:
    """Train one run. Paths are those of manifests and of the prepared examples; `parent` None: from the encoder."""
    inputs = Inputs(
        encoder=checked_encoder(Path(encoder)),
        encoded=checked_tokens(Path(encoded), Path(encoder)),
        data=checked_examples(Path(examples)),
        parent=None if parent is None else Path(parent).parent,
        encoder_sha256=encoder_sha256(Path(encoder)),
    )
    started = psutil.Process().create_time()
    train_run(CATALOG[specification["task"]], specification, inputs, Path(manifest).parent, started)
