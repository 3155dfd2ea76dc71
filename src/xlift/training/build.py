"""What a run is made of before its first step: encoder, heads, examples, and the stages it is trained in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from xlift.artifacts import verified
from xlift.catalog.task import MLM, SHUFFLED_LABELS, Task
from xlift.compute import Compute
from xlift.encoder.adapt import Trainable, load_trained, make_trainable
from xlift.encoder.model import AnyEncoder, load_encoder, read_config, word_embeddings
from xlift.encoder.pretrained_head import pretrained_head
from xlift.tasks.encoded import TOKENS, Batch, Encoded
from xlift.tasks.families import FAMILIES
from xlift.tasks.family import Objective
from xlift.tasks.mlm import MaskedHead, MaskedLanguageModelling
from xlift.training.checkpoint import check_encoder, read_weights, split_weights
from xlift.training.parts import Optimisation, Part, Stage, part_seed
from xlift.training.schedule import schedule_of


@dataclass(frozen=True)
class Inputs:
    """Where a run finds what it starts from.

    `encoded` and `data`: token ids and prepared examples, of each of its parts or stages. `parent`: the run whose
    weights it takes (None: the encoder's own). `start`: the segment of its trunk it goes on from (None: from its first
    step). `state`: where it keeps its state while it trains (None: nowhere).
    """

    encoder: Path
    encoded: Sequence[Path]
    data: Sequence[Path]
    parent: Path | None
    start: Path | None = None
    state: Path | None = None
    encoder_sha256: str | None = None


@dataclass(frozen=True)
class Built:
    """A run before its first step: encoder, all heads under one roof, and for each part or stage its own head (which
    stages share), family and token ids. `mlm_head`: `pretrained` or `fresh`; None without masked-language modelling."""

    encoder: AnyEncoder
    head: nn.Module
    heads: Sequence[nn.Module]
    families: Sequence[Objective]
    encoded: Sequence[Encoded]
    mlm_head: str | None = None


def build(tasks: Sequence[Task], specification: Mapping[str, Any], inputs: Inputs, compute: Compute) -> Built:
    """Encoder, heads and examples of a run before its first step, every random choice drawn from the run's number."""
    seed = specification["draw"]
    dropout = specification["training"]["dropout"]
    trainable = Trainable(**specification["trainable"])
    families = [objective(task, specification) for task in tasks]
    encoded = [Encoded.load(verified(folder, TOKENS)) for folder in inputs.encoded]
    if specification["control"] == SHUFFLED_LABELS:
        named = [FAMILIES[task.family] for task in tasks]
        encoded = [family.shuffled(tokens, seed) for family, tokens in zip(named, encoded, strict=True)]
    encoder = load_encoder(
        inputs.encoder, dtype=frozen_dtype(compute, trainable), device=compute.device, dropout=dropout
    )
    make_trainable(encoder, trainable, seed)
    if inputs.parent is not None:
        check_encoder(inputs.parent, inputs.encoder_sha256)
        load_trained(encoder, split_weights(read_weights(inputs.parent, specification["parent"]))[0], trainable)
    # Heads are drawn after everything else has been set up, from the run's own draw.
    torch.manual_seed(seed)
    words = word_embeddings(encoder)
    if not {"parts", MLM} & specification.keys():
        head = families[-1].fresh_head(encoder.hidden_size, words, tasks[-1], dropout).to(compute.device)
        return Built(encoder, head, [head] * len(tasks), families, encoded)
    by_name = nn.ModuleDict(
        {
            task.name: family.fresh_head(encoder.hidden_size, words, task, dropout)
            for task, family in zip(tasks, families, strict=True)
        }
    )
    origin = None
    if MLM in specification:
        origin = "pretrained" if take_over(cast(MaskedHead, by_name[MLM]), inputs.encoder) else "fresh"
    by_name.to(compute.device)
    return Built(encoder, by_name, [by_name[task.name] for task in tasks], families, encoded, origin)


def take_over(head: MaskedHead, encoder: Path) -> bool:
    """Give a head of masked-language modelling the weights of the encoder's pretraining; False where it has none."""
    weights = pretrained_head(encoder)
    if not weights:
        return False
    head.load_state_dict(weights)
    head.norm.eps = read_config(encoder).get("layer_norm_eps", 1e-12)
    return True


def objective(task: Task, specification: Mapping[str, Any]) -> Objective:
    """What a run learns from a task's examples."""
    return MaskedLanguageModelling(specification[MLM]["mask"]) if task.family == MLM else FAMILIES[task.family]


def recipes_of(specification: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The recipe of each of a run's parts, which share one with texts that are mixed in, or stages."""
    stages = specification.get("stages")
    if stages is not None:
        return [stage["recipe"] for stage in stages]
    return [specification["recipe"]] * (len(specification.get("parts", [None])) + (MLM in specification))


def stages_of(
    tasks: Sequence[Task],
    specification: Mapping[str, Any],
    built: Built,
    cost: Callable[[Objective, nn.Module], Callable[[Batch], float]],
) -> list[Stage]:
    """What a run is trained on: one stage of one part, or of the parts of a mixture, or several of one part each.
    Texts that are mixed in are the last part of the only stage.

    A part of a mixture is drawn in proportion to its training examples, all of them whatever share the run sees, up to
    the cap.
    """
    cap = specification.get("cap")
    parts = [
        Part(
            task.name,
            family,
            head,
            encoded,
            cost(family, head),
            1.0 if cap is None else float(min(len(family.training_examples(encoded)), cap)),
        )
        for task, family, head, encoded in zip(tasks, built.families, built.heads, built.encoded, strict=True)
    ]
    stages = specification.get("stages")
    if stages is None:
        beside = specification[MLM]["share"] if MLM in specification else None
        return [Stage(parts, optimisation(specification), beside)]
    seed = specification["draw"]
    return [
        Stage([part], optimisation({**specification, **stage, "draw": part_seed(seed, part.name)}))
        for part, stage in zip(parts, stages, strict=True)
    ]


def optimisation(specification: Mapping[str, Any]) -> Optimisation:
    """The optimiser's settings from a specification."""
    training = specification["training"]
    return Optimisation(
        schedule=schedule_of(specification),
        batch_size=specification["recipe"]["batch_size"],
        weight_decay=training["weight_decay"],
        clip=training["clip"],
        seed=specification["draw"],
        unique_fraction=specification["unique_fraction"],
        subset_seed=specification["seed"],
    )


def frozen_dtype(compute: Compute, trainable: Trainable) -> torch.dtype:
    """Dtype of the loaded weights: the compute dtype where they stay frozen, fp32 where they are trained."""
    return compute.dtype if trainable.method == "lora" else torch.float32
