"""The training loop: exact optimiser steps over micro-batches, from a seed."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from xlift.compute import Compute
from xlift.errors import UserError
from xlift.tasks.encoded import Batch, Encoded, collate, token_capped
from xlift.tasks.family import Family
from xlift.training.batches import plan_batches
from xlift.training.cost import EncoderShape, training_flops
from xlift.training.schedule import learning_rate

MICRO_BATCH_TOKENS = {"cpu": 2048, "cuda": 16384}
"""Token positions of one forward and backward pass; larger batches are accumulated."""
CHECK_EVERY = 10
"""Steps between looks at the loss: each look waits for the device."""


@dataclass(frozen=True)
class Optimisation:
    """How a run is optimised; `steps` steps of `batch_size` examples."""

    steps: int
    batch_size: int
    learning_rate: float
    warmup: float
    weight_decay: float
    clip: float
    seed: int


@dataclass
class Realised:
    """What a run really did."""

    steps: int = 0
    examples: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    flops: float = 0.0
    seconds: float = 0.0
    first_step_at: float = 0.0
    losses: list[float] = field(default_factory=list)
    log: list[dict[str, Any]] = field(default_factory=list)

    def log_lines(self) -> str:
        """The log as JSON lines."""
        return "".join(json.dumps(entry, sort_keys=True) + "\n" for entry in self.log)


def train(
    encoder: nn.Module,
    head: nn.Module,
    family: Family,
    encoded: Encoded,
    settings: Optimisation,
    compute: Compute,
    shape: EncoderShape,
    method: str,
    rank: int,
    run: str,
) -> Realised:
    """Train `encoder` and `head` in place. `run` names the run in errors.

    The loss of a step is the mean over its units (examples, windows or words); micro-batches add up to exactly that.
    Raises `UserError` at a loss that is not finite.
    """
    examples = family.training_examples(encoded)
    if len(examples) == 0:
        raise UserError(f"{run}: the task has no training examples; choose another task or check its data")
    parameters = [p for module in (encoder, head) for p in module.parameters() if p.requires_grad]
    optimiser = build_optimiser(encoder, head, settings)
    units, longest = family.units(encoded), example_lengths(encoded)
    realised = Realised()
    history = torch.zeros(settings.steps, 2, device=compute.device)
    encoder.train()
    head.train()
    started = time.perf_counter()
    plan = plan_batches(examples, longest[examples], settings.batch_size, settings.steps, settings.seed)
    for step, chosen in enumerate(plan):
        rate = learning_rate(step, settings.steps, settings.learning_rate, settings.warmup)
        for group in optimiser.param_groups:
            group["lr"] = rate
        total = int(units[chosen].sum())
        for batch in micro_batches(family, encoded, chosen, longest, encoder.pad_id, compute):  # type: ignore[arg-type]
            with compute.autocast():
                hidden = encoder(batch.tokens, batch.mask, batch.types)
                loss = family.loss(head, hidden, batch, encoded) / total
            loss.backward()
            history[step, 0] += loss.detach()
            realised.tokens += int(batch.lengths.sum())
            realised.padded_tokens += batch.padded_tokens
            sequences, width = batch.tokens.shape
            realised.flops += training_flops(shape, sequences, width, method, rank)
        history[step, 1] = nn.utils.clip_grad_norm_(parameters, settings.clip)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        realised.steps += 1
        realised.examples += len(chosen)
        if step == 0:
            realised.first_step_at = time.time()
        if (step + 1) % CHECK_EVERY == 0 or step + 1 == settings.steps:
            _log(realised, history, step + 1, settings, run)
    realised.seconds = time.perf_counter() - started
    return realised


def example_lengths(encoded: Encoded) -> Tensor:
    """Tokens of each example's longest sequence [examples]."""
    return torch.zeros(len(encoded.split), dtype=torch.int64).scatter_reduce(0, encoded.owner, encoded.lengths, "amax")


def micro_batches(
    family: Family, encoded: Encoded, chosen: Tensor, longest: Tensor, pad_id: int, compute: Compute
) -> list[Batch]:
    """The sequences of a step's examples in padded batches under the device's token cap."""
    if family.whole_batch:
        groups = [chosen]
    else:
        first = encoded.first_sequence()
        counts = first[chosen + 1] - first[chosen]
        groups = [
            chosen[index] for index in token_capped(longest[chosen], counts, MICRO_BATCH_TOKENS[compute.device.type])
        ]
    return [collate(encoded, family.sequences(encoded, group), pad_id, compute.device) for group in groups]


def build_optimiser(encoder: nn.Module, head: nn.Module, settings: Optimisation) -> torch.optim.AdamW:
    """AdamW, fused, without weight decay on biases, layer norms and scalars."""
    named = [(n, p) for module in (encoder, head) for n, p in module.named_parameters() if p.requires_grad]
    decayed = [p for n, p in named if p.ndim >= 2]
    others = [p for n, p in named if p.ndim < 2]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=settings.learning_rate, eps=1e-8, fused=True)


def _log(realised: Realised, history: Tensor, done: int, settings: Optimisation, run: str) -> None:
    """Bring losses of the last steps over from the device, stop at one that is not finite, and log the newest."""
    fresh = history[len(realised.losses) : done].tolist()
    for loss, norm in fresh:
        step = len(realised.losses) + 1
        if not (abs(loss) < float("inf") and abs(norm) < float("inf")):
            raise UserError(
                f"{run}: step {step} of {settings.steps} has a loss or gradient that is not finite "
                f"(loss {loss}, gradient norm {norm}); lower the learning rate of the task in `recipes`, "
                "or set training.precision to fp32"
            )
        realised.losses.append(loss)
    rate = learning_rate(done - 1, settings.steps, settings.learning_rate, settings.warmup)
    entry = {
        "step": done,
        "loss": fresh[-1][0],
        "gradient_norm": fresh[-1][1],
        "learning_rate": rate,
        "tokens": realised.tokens,
    }
    realised.log.append(entry)
    print(f"step {done}/{settings.steps}  loss {entry['loss']:.4f}  tokens {realised.tokens}", flush=True)
