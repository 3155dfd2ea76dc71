"""One training run from its specification to its published checkpoint."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import polars as pl
import torch
from safetensors.torch import save
from torch import nn

from xlift.artifacts import MANIFEST, VOUCHING, fingerprint, publish_folder, read_manifest, verified
from xlift.catalog.task import MLM, Task
from xlift.compute import Compute, choose_compute
from xlift.encoder.adapt import Trainable, trained_state
from xlift.encoder.model import read_config
from xlift.errors import UserError
from xlift.hooks import recorded, step_pause
from xlift.metrics import score_predictions
from xlift.predict import predict_split
from xlift.tasks.encoded import SPLITS, Batch, Encoded
from xlift.tasks.families import FAMILIES
from xlift.tasks.family import Objective
from xlift.tasks.mlm import MaskedHead
from xlift.training.build import Built, Inputs, build, recipes_of, stages_of
from xlift.training.checkpoint import WEIGHTS, check_encoder, joined_weights
from xlift.training.cost import EncoderShape, conventional_flops, head_flops, tied_flops, training_flops
from xlift.training.execution import Execution, Weights, memory_plan
from xlift.training.feed import example_lengths
from xlift.training.loop import Realised, TrainingLoop
from xlift.training.parts import dev_of_parts
from xlift.training.state import State, StateFolder, read_state, write_state

TRUNK_STATE = "state.safetensors"
LOG = "log.jsonl"
MANIFEST_ENTRIES = {
    "fingerprint": "sha256 of the specification's canonical JSON.",
    "specification": "All that the run depends on: task, source, recipe, schedule, seed, what it starts from.",
    "parent": "Fingerprint of the run that it starts from; null: from the encoder.",
    "start": "Path of the manifest of the trunk's segment that it branches from; null where there is none.",
    "encoder_sha256": "sha256 of the weights of the prepared encoder.",
    "batch_size": "Examples an optimiser step.",
    "steps": "Optimiser steps since the run's first, those of a trunk before it counted.",
    "examples": "Training examples of these steps, repetitions counted.",
    "tokens": "Their tokens without padding.",
    "padded_tokens": "Their token positions, padding counted.",
    "flops": "Their floating-point operations that were run, forward and backward.",
    "conventional_flops": "6 x encoder weights without embeddings x tokens.",
    "job_steps": "Steps without those that a trunk had made before.",
    "job_flops": "Operations of these.",
    "seconds": "Seconds inside the training loop, without a trunk's before.",
    "seconds_to_first_step": "Seconds from the process' start to its first step; null where it made none.",
    "seconds_job": "Seconds from the process' start to its publishing the run.",
    "final_loss": "Loss of the last step.",
    "best_step": "Step whose weights were kept under `training.select: best_dev`; null where the last one's were.",
    "dev": "English dev: metric, score, floor, collapsed; what was chosen there; of a mixture its parts. Null: trunk.",
    "mlm_head": "Of a run with masked-language modelling: `pretrained` or `fresh`, what its head began as.",
    "parts": "Of a mixture or a target in stages: task, steps, examples, tokens, padded_tokens and flops of each.",
    "micro_batch_tokens": "Most token positions of one forward and backward pass.",
    "gradient_checkpointing": "Whether activations were computed anew to save memory.",
    "peak_memory_mib": "Most memory, MiB: of the GPU where there is one, else of the process.",
    "device": "Name of the GPU or processor.",
    "dtype": "`bf16` or `fp32`: what matrix products were computed in.",
    "threads": "CPU threads.",
    "platform": "System, machine and number of processors.",
    "versions": "Versions of Python and of the libraries that decide results; `test_hooks` where there were any.",
    **VOUCHING,
}
"""manifest.json of a run; `parts` is only in that of several, `mlm_head` in that with masked-language modelling."""
RECORDED_VERSIONS = ("xlift", "torch", "transformers", "peft", "tokenizers", "safetensors", "polars", "babel")


def train_run(
    tasks: Sequence[Task],
    specification: Mapping[str, Any],
    inputs: Inputs,
    out: Path,
    started: float,
    execution: Execution | None = None,
) -> dict[str, Any]:
    """Train, look at English dev, publish weights, log and manifest in `out`. Returns the manifest.

    `tasks`: what the run is trained on, in the order of the specification's parts or stages. A trunk's segment
    publishes its state instead of weights, and has no look at dev. `started` is the time (seconds since the epoch) at
    which the job began. Goes on from the run's own state where a stopped job left one.
    """
    run = run_name(specification, out)
    if (inputs.parent is None) != (specification["parent"] is None):
        raise ValueError(f"{run}: the specification and the inputs disagree on whether there is a parent run")
    execution = execution or Execution()
    compute = choose_compute(specification["training"]["precision"], specification["training"]["threads"])
    built = build(tasks, specification, inputs, compute)
    sizes = run_sizes(specification, inputs, built)
    batch_sizes = [recipe["batch_size"] for recipe in recipes_of(specification)]
    longest = max(map(positions_together, built.families, built.encoded, batch_sizes))
    plan = memory_plan(execution, compute, sizes.shape, sizes.weights, longest)
    if plan.checkpointing:
        built.encoder.checkpoint_layers()

    def dev() -> dict[str, Any]:
        return dev_of_run(tasks, specification, built, inputs, compute)

    loop = TrainingLoop(
        built.encoder,
        built.head,
        stages_of(tasks, specification, built, run_cost(specification, sizes, plan.checkpointing)),
        compute,
        plan.micro_batch_tokens,
        run,
        forward=torch.compile(built.encoder, dynamic=True) if execution.compile else None,
        dev_score=(lambda: float(dev()["score"])) if specification["select"] == "best_dev" else None,
        log=out / LOG,
        pause=step_pause(),
    )
    states = None
    if inputs.state is not None:
        # Of these very encoder weights too: an encoder without a pinned revision can be another one by now.
        mark = fingerprint([specification, inputs.encoder_sha256])
        states = StateFolder(inputs.state, mark, execution.save_every)
    if states is not None and (state := states.load()) is not None:
        loop.restore(state)
    elif inputs.start is not None:
        check_encoder(inputs.start, inputs.encoder_sha256)
        loop.restore(trunk_state(inputs.start, specification), branch=True)
    (out / MANIFEST).unlink(missing_ok=True)  # the log in this folder is of this run from here on
    realised = loop.run(states)
    is_trunk = specification["kind"] == "trunk"

    def write(folder: Path) -> None:
        if is_trunk:
            write_state(folder / TRUNK_STATE, loop.state())
        else:
            weights = joined_weights(trained_state(built.encoder), built.head)
            (folder / WEIGHTS).write_bytes(save(weights))
        (folder / LOG).write_text(realised.log_lines(), encoding="utf-8")

    facts = {
        **manifest_facts(specification, realised, None if is_trunk else dev(), compute, started),
        "conventional_flops": conventional_flops(sizes.body, realised.total.tokens),
        "micro_batch_tokens": plan.micro_batch_tokens,
        "gradient_checkpointing": plan.checkpointing,
        "encoder_sha256": inputs.encoder_sha256,
        "start": None if inputs.start is None else str(inputs.start / MANIFEST),
    }
    if len(tasks) > 1 or "stages" in specification:
        facts["parts"] = amounts_of_parts(tasks, realised)
    if built.mlm_head is not None:
        facts["mlm_head"] = built.mlm_head
    manifest = publish_folder(out, write, facts)
    if states is not None:
        states.remove()
    return manifest


@dataclass(frozen=True)
class Sizes:
    """What decides a run's cost and memory; `body`: encoder weights without embeddings, adapters left out."""

    shape: EncoderShape
    weights: Weights
    body: int


def run_sizes(specification: Mapping[str, Any], inputs: Inputs, model: Built) -> Sizes:
    """Sizes of a run's model."""
    named = [(n, p) for module in (model.encoder, model.head) for n, p in module.named_parameters()]
    trained = sum(p.numel() for _, p in named if p.requires_grad)
    frozen_bytes = sum(p.numel() * p.element_size() for _, p in named if not p.requires_grad)
    body = sum(p.numel() for n, p in model.encoder.named_parameters() if "embeddings." not in n and ".lora_" not in n)
    layers = specification["trainable"].get("layers")
    return Sizes(encoder_shape(inputs.encoder, layers), Weights(trained, frozen_bytes), body)


def run_cost(
    specification: Mapping[str, Any], sizes: Sizes, checkpointing: bool
) -> Callable[[Objective, nn.Module], Callable[[Batch], float]]:
    """Operations of a forward and backward pass over a batch, given a family and its head."""
    trainable = Trainable(**specification["trainable"])

    def of_part(family: Objective, head: nn.Module) -> Callable[[Batch], float]:
        matrices = sum(p.numel() for p in head.parameters() if p.ndim == 2)
        tied = head.words if isinstance(head, MaskedHead) else None

        def cost(batch: Batch) -> float:
            sequences, width = batch.tokens.shape
            rows = family.head_rows(batch)
            encoder = training_flops(sizes.shape, sequences, width, trainable.method, trainable.rank, checkpointing)
            decoder = 0.0 if tied is None else tied_flops(tied.numel(), rows, tied.requires_grad)
            return encoder + head_flops(matrices, rows) + decoder

        return cost

    return of_part


def positions_together(family: Objective, encoded: Encoded, batch_size: int) -> int:
    """Token positions that training has to compute in one pass, at most.

    Those of the largest example, all its sequences padded to its longest one; or, where the loss needs a whole
    optimiser step, as many for each of its queries and each of their documents.
    """
    first = encoded.first_sequence()
    positions = (example_lengths(encoded) * (first[1:] - first[:-1]))[encoded.split == SPLITS.index("train")]
    largest = int(positions.max()) if len(positions) else 0  # of no examples: refused when batches are made
    return 2 * batch_size * largest if family.whole_batch else largest


def trunk_state(segment: Path, specification: Mapping[str, Any]) -> State:
    """The state at the end of a trunk's segment; `UserError` where it is a trunk of other settings."""
    manifest = read_manifest(segment)
    ours, theirs = (trunk_settings(settings) for settings in (specification, manifest["specification"]))
    differing = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    if differing:
        raise UserError(
            f"{segment}: is a trunk with another {differing[0]} than this run's; run the workflow again to remake it"
        )
    return read_state(verified(segment, TRUNK_STATE, manifest))


def trunk_settings(specification: Mapping[str, Any]) -> dict[str, Any]:
    """What a trunk's segments and branches share: all but where they end."""
    kept = {name: value for name, value in specification.items() if name not in ("kind", "recipe", "schedule")}
    kept |= {f"recipe.{name}": value for name, value in specification["recipe"].items() if name != "steps"}
    return {**kept, "schedule.warmup_steps": specification["schedule"]["warmup_steps"]}


def run_name(specification: Mapping[str, Any], out: Path) -> str:
    """How errors and logs name the run: task, budget and seed as in its path."""
    return f"{specification['kind']} run {'/'.join(out.parts[-4:])}"


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


def dev_of_run(
    tasks: Sequence[Task], specification: Mapping[str, Any], built: Built, inputs: Inputs, compute: Compute
) -> dict[str, Any]:
    """English dev of a run: of its only or last task, or of all parts of a mixture. Texts mixed in have no dev."""
    looked_at = [
        one for one in zip(tasks, built.heads, built.encoded, inputs.data, strict=True) if one[0].family != MLM
    ][0 if "parts" in specification else -1 :]
    found = {
        task.name: evaluate_dev(task, built.encoder, head, encoded, data, compute)
        for task, head, encoded, data in looked_at
    }
    return dev_of_parts(found) if "parts" in specification else found[looked_at[-1][0].name]


def amounts_of_parts(tasks: Sequence[Task], realised: Realised) -> list[dict[str, Any]]:
    """What a run of several parts or stages did of each, in their order."""
    names = ("steps", "examples", "tokens", "padded_tokens", "flops")
    return [
        {"task": task.name, **{name: getattr(amounts, name) for name in names}}
        for task, amounts in zip(tasks, realised.parts, strict=True)
    ]


def evaluate_dev(
    task: Task, encoder: nn.Module, head: nn.Module, encoded: Encoded, data: Path, compute: Compute
) -> dict[str, Any]:
    """Dev score on the primary metric, and the score of ignoring the input (both in points).

    English alone, or the mean over languages of a task that is trained on several. And what is chosen on dev, where
    the task has something to choose (`Family.calibrate`).
    """
    frame = pl.read_parquet(data)
    predictions = predict_split(task, encoder, head, frame, encoded, "dev", compute)
    if predictions.is_empty():
        raise UserError(
            f"{data}: {task.name} has no English dev examples, so a collapsed run could not be told; add a dev split"
        )
    family = FAMILIES[task.family]
    chosen = family.calibrate(task, predictions)
    predictions = family.calibrated(task, predictions, chosen)
    scores = score_predictions(predictions, task.metrics[0])
    rows = frame.filter(pl.col("split") == "dev")
    floors = [
        family.floor(rows.filter(pl.col("language") == code), task, predictions.filter(pl.col("language") == code))
        for code in scores["language"]
    ]
    score, floor = fmean(scores["score"]), fmean(floors)
    facts = {"metric": task.metrics[0], "score": score, "floor": floor, "collapsed": score <= floor}
    return {**facts, "chosen": chosen} if chosen else facts


def manifest_facts(
    specification: Mapping[str, Any],
    realised: Realised,
    dev: Mapping[str, Any] | None,
    compute: Compute,
    started: float,
) -> dict[str, Any]:
    """What the manifest says beside the files.

    Steps to FLOPs are since the run's very first step; `job_*` leave out what a trunk had done before.
    """
    own = realised.total.minus(realised.inherited)
    return {
        "fingerprint": fingerprint(specification),
        "specification": dict(specification),
        "parent": specification["parent"],
        "batch_size": specification["recipe"]["batch_size"],
        "steps": realised.total.steps,
        "examples": realised.total.examples,
        "tokens": realised.total.tokens,
        "padded_tokens": realised.total.padded_tokens,
        "flops": realised.total.flops,
        "job_steps": own.steps,
        "job_flops": own.flops,
        "seconds": own.seconds,
        # None where a run that was stopped after its last step was only published by this process.
        "seconds_to_first_step": None if realised.first_step_at is None else realised.first_step_at - started,
        "seconds_job": time.time() - started,
        "final_loss": realised.losses[-1],
        "best_step": realised.best_step,
        "dev": None if dev is None else dict(dev),
        "peak_memory_mib": compute.peak_memory_mib(),
        "device": compute.describe(),
        "dtype": compute.dtype_name,
        "threads": torch.get_num_threads(),
        "platform": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
        "versions": recorded_versions(),
    }


def recorded_versions() -> dict[str, str]:
    """Versions of the libraries that decide results, and any test hooks."""
    libraries = {name: importlib.metadata.version(name) for name in RECORDED_VERSIONS}
    return {"python": platform.python_version(), **libraries, **recorded()}
