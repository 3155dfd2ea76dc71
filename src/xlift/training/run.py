"""One training run from its specification to its published checkpoint."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch
from safetensors.torch import save
from torch import nn

from xlift.artifacts import fingerprint, publish_folder, verified
from xlift.catalog import Task
from xlift.compute import Compute, choose_compute
from xlift.encoder.adapt import Trainable, load_trained, make_trainable, trained_state
from xlift.encoder.model import load_encoder, read_config
from xlift.errors import UserError
from xlift.metrics import score_predictions
from xlift.predict import predict_split
from xlift.tasks.encoded import TOKENS, Encoded
from xlift.tasks.families import FAMILIES
from xlift.training.checkpoint import WEIGHTS, check_encoder, joined_weights, read_weights, split_weights
from xlift.training.cost import EncoderShape
from xlift.training.loop import Optimisation, Realised, train

LOG = "log.jsonl"
RECORDED_VERSIONS = ("xlift", "torch", "transformers", "peft", "tokenizers", "safetensors", "polars", "babel")


@dataclass(frozen=True)
class Inputs:
    """Where a run finds what it starts from; `parent` None starts from the encoder itself."""

    encoder: Path
    encoded: Path
    data: Path
    parent: Path | None
    encoder_sha256: str | None = None


def train_run(
    task: Task, specification: Mapping[str, Any], inputs: Inputs, out: Path, started: float
) -> dict[str, Any]:
    """Train, look at English dev, publish weights, log and manifest in `out`. Returns the manifest.

    `started` is the time (seconds since the epoch) at which the job began.
    """
    run = run_name(specification, out)
    if (inputs.parent is None) != (specification["parent"] is None):
        raise ValueError(f"{run}: the specification and the inputs disagree on whether there is a parent run")
    compute = choose_compute(specification["training"]["precision"], specification["training"]["threads"])
    seed = specification["draw"]
    torch.manual_seed(seed)
    trainable = Trainable(**specification["trainable"])
    family = FAMILIES[task.family]
    encoded = Encoded.load(verified(inputs.encoded, TOKENS))
    encoder = load_encoder(
        inputs.encoder,
        dtype=frozen_dtype(compute, trainable),
        device=compute.device,
        dropout=specification["training"]["dropout"],
    )
    make_trainable(encoder, trainable, seed)
    if inputs.parent is not None:
        check_encoder(inputs.parent, inputs.encoder_sha256)
        load_trained(encoder, split_weights(read_weights(inputs.parent, specification["parent"]))[0], trainable)
    # The head is drawn after everything else has been set up, from the run's own draw.
    torch.manual_seed(seed)
    head = family.head(encoder.hidden_size, task, specification["training"]["dropout"]).to(compute.device)
    settings = optimisation(specification)
    shape = encoder_shape(inputs.encoder, trainable.layers)
    realised = train(encoder, head, family, encoded, settings, compute, shape, trainable.method, trainable.rank, run)
    dev = evaluate_dev(task, encoder, head, encoded, inputs.data, compute)

    def write(folder: Path) -> None:
        weights = folder / WEIGHTS
        weights.write_bytes(save(joined_weights(trained_state(encoder), head)))
        (folder / LOG).write_text(realised.log_lines(), encoding="utf-8")

    facts = manifest_facts(specification, realised, dev, compute, started)
    return publish_folder(out, write, {**facts, "encoder_sha256": inputs.encoder_sha256})


def run_name(specification: Mapping[str, Any], out: Path) -> str:
    """How errors and logs name the run: task, budget and seed as in its path."""
    return f"{specification['kind']} run {'/'.join(out.parts[-4:])}"


def optimisation(specification: Mapping[str, Any]) -> Optimisation:
    """The optimiser's settings from a specification."""
    recipe, training = specification["recipe"], specification["training"]
    return Optimisation(
        steps=recipe["steps"],
        batch_size=recipe["batch_size"],
        learning_rate=recipe["learning_rate"],
        warmup=training["warmup"],
        weight_decay=training["weight_decay"],
        clip=training["clip"],
        seed=specification["draw"],
    )


def frozen_dtype(compute: Compute, trainable: Trainable) -> torch.dtype:
    """Dtype of the loaded weights: the compute dtype where they stay frozen, fp32 where they are trained."""
    return compute.dtype if trainable.method == "lora" else torch.float32


def encoder_shape(folder: Path, trained_layers: int | None) -> EncoderShape:
    """Sizes of a prepared encoder; DistilBERT and its kin name them otherwise."""
    config = read_config(folder)
    layers, hidden, intermediate = (
        next(int(config[name]) for name in names if name in config)
        for names in (
            ("num_hidden_layers", "n_layers"),
            ("hidden_size", "dim"),
            ("intermediate_size", "hidden_dim"),
        )
    )
    return EncoderShape(layers, hidden, intermediate, trained_layers)


def evaluate_dev(
    task: Task, encoder: nn.Module, head: nn.Module, encoded: Encoded, data: Path, compute: Compute
) -> dict[str, Any]:
    """English dev score on the primary metric, and the score of ignoring the input (both in points)."""
    frame = pl.read_parquet(data)
    predictions = predict_split(task, encoder, head, frame, encoded, "dev", compute)
    if predictions.is_empty():
        raise UserError(
            f"{data}: {task.name} has no English dev examples, so a collapsed run could not be told; add a dev split"
        )
    score = float(score_predictions(predictions, task.metrics[0])["score"][0])
    floor = FAMILIES[task.family].floor(frame.filter(pl.col("split") == "dev"), task, predictions)
    return {"metric": task.metrics[0], "score": score, "floor": floor, "collapsed": score <= floor}


def manifest_facts(
    specification: Mapping[str, Any],
    realised: Realised,
    dev: Mapping[str, Any],
    compute: Compute,
    started: float,
) -> dict[str, Any]:
    """What the manifest says beside the files."""
    return {
        "fingerprint": fingerprint(specification),
        "specification": dict(specification),
        "parent": specification["parent"],
        "batch_size": specification["recipe"]["batch_size"],
        "steps": realised.steps,
        "examples": realised.examples,
        "tokens": realised.tokens,
        "padded_tokens": realised.padded_tokens,
        "flops": realised.flops,
        "seconds": realised.seconds,
        "seconds_to_first_step": realised.first_step_at - started,
        "seconds_job": time.time() - started,
        "final_loss": realised.losses[-1],
        "dev": dict(dev),
        "peak_memory_mib": compute.peak_memory_mib(),
        "device": compute.describe(),
        "dtype": compute.dtype_name,
        "threads": torch.get_num_threads(),
        "platform": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
        "versions": recorded_versions(),
    }


def recorded_versions() -> dict[str, str]:
    """Versions of the libraries that decide results."""
    libraries = {name: importlib.metadata.version(name) for name in RECORDED_VERSIONS}
    return {"python": platform.python_version(), **libraries}
