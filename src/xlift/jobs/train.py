"""A training job."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from xlift.catalog import task_of
from xlift.jobs.prepare import checked_encoder, checked_examples, checked_tokens, encoder_sha256
from xlift.training.build import Inputs
from xlift.training.execution import Execution
from xlift.training.run import train_run


def train_job(
    specification: dict[str, Any],
    encoder: str,
    encoded: Sequence[str],
    examples: Sequence[str],
    parent: str | None,
    manifest: str,
    start: str | None = None,
    execution: dict[str, Any] | None = None,
) -> None:
    """Train one run. Paths are those of manifests and of the prepared examples, of each part or stage in its order.

    `parent` None: from the encoder; `start` None: from the first step. `execution`: settings that change no result.
    """
    inputs = Inputs(
        encoder=checked_encoder(Path(encoder)),
        encoded=[checked_tokens(Path(tokens), Path(encoder)) for tokens in encoded],
        data=[checked_examples(Path(rows)) for rows in examples],
        parent=None if parent is None else Path(parent).parent,
        start=None if start is None else Path(start).parent,
        state=state_folder(Path(manifest).parent, specification["kind"]),
        encoder_sha256=encoder_sha256(Path(encoder)),
    )
    started = psutil.Process().create_time()
    train_run(
        [task_of(facts) for facts in trained_on(specification)],
        specification,
        inputs,
        Path(manifest).parent,
        started,
        Execution(**execution or {}),
    )


def trained_on(specification: dict[str, Any]) -> list[dict[str, Any]]:
    """The facts of each task that a run is trained on: parts, stages, or the run's only one; then texts mixed in."""
    found: list[dict[str, Any]] = specification.get("parts") or specification.get("stages") or [specification]
    return [*found, specification["mlm"]] if "mlm" in specification else found


def state_folder(run: Path, kind: str) -> Path:
    """Where the run in folder `run` keeps its state while it trains: `<study>/state/`, then its path in the study."""
    study = next(above.parent for above in run.parents if above.name == kind)
    return study / "state" / run.relative_to(study)
