"""Where a training step's time goes: `step.py <encoder> [threads]` prints shares by operator as Markdown tables.

A step is forward, loss, backward, clipping and the optimiser's update at 2,048 token positions (64 sentences of 32),
full fine-tuning without word embeddings and LoRA, by torch's own profiler; shares are of the operators' own time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from engine import FULL, LORA, TASK
from torch.profiler import ProfilerActivity, profile

from xlift.compute import Compute, choose_compute
from xlift.encoder.adapt import Trainable, make_trainable
from xlift.encoder.model import load_encoder
from xlift.tasks.families import FAMILIES
from xlift.training.loop import Model
from xlift.training.optimiser import AdamW
from xlift.training.run import frozen_dtype

SENTENCES, WIDTH, STEPS = 64, 32, 3
KINDS = {
    "matrix products": ("aten::addmm", "aten::mm", "aten::bmm", "aten::matmul", "aten::linear"),
    "fused attention": ("scaled_dot_product", "flash_attention"),
    "GELU": ("gelu",),
    "layer norm": ("layer_norm",),
    "dropout": ("dropout", "bernoulli"),
    "casts and copies": ("aten::copy_", "aten::_to_copy", "aten::to", "aten::clone", "aten::contiguous"),
    "optimiser and clipping": ("adamw", "foreach", "vector_norm", "linalg"),
    "sums of biases' gradients": ("aten::sum",),
}


def a_step(folder: Path, trainable: Trainable, compute: Compute) -> Callable[[], None]:
    """One optimiser step on made-up tokens and tags."""
    encoder = load_encoder(folder, dtype=frozen_dtype(compute, trainable), device=compute.device, dropout=0.1)
    make_trainable(encoder, trainable, 1)
    family = FAMILIES["tagging"]
    model = Model(encoder, family.head(encoder.hidden_size, TASK, 0.1).to(compute.device), family)
    encoder.train()
    parameters = model.trained()
    optimiser = AdamW(parameters.items(), 0.0)
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(5, 1000, (SENTENCES, WIDTH), generator=generator).to(compute.device)
    labels = torch.randint(0, len(TASK.labels), (SENTENCES * WIDTH,), generator=generator).to(compute.device)

    def step() -> None:
        with compute.autocast():
            scores = model.head(encoder(tokens))
            loss = torch.nn.functional.cross_entropy(scores.float().flatten(0, 1), labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        optimiser.step(1e-4)
        optimiser.zero_grad()

    return step


def shares(step: Callable[[], None]) -> dict[str, float]:
    """Share of the operators' own time by kind, the largest first."""
    step()
    with profile(activities=[ProfilerActivity.CPU]) as found:
        for _ in range(STEPS):
            step()
    totals: dict[str, float] = {}
    for event in found.key_averages():
        kind = next((kind for kind, names in KINDS.items() if any(n in event.key for n in names)), "everything else")
        totals[kind] = totals.get(kind, 0.0) + event.self_cpu_time_total
    whole = sum(totals.values())
    return {kind: value / whole for kind, value in sorted(totals.items(), key=lambda entry: -entry[1])}


def main(folder: Path, threads: int = 1) -> None:
    torch.set_num_threads(threads)
    compute = choose_compute("auto", threads)
    found = {name: shares(a_step(folder, what, compute)) for name, what in (("full", FULL), ("LoRA", LORA))}
    print(f"| kind of operator | {' | '.join(found)} |\n|---|{'---:|' * len(found)}")
    for kind in sorted(
        {kind for part in found.values() for kind in part}, key=lambda kind: -found["full"].get(kind, 0)
    ):
        print(f"| {kind} | {' | '.join(f'{100 * part.get(kind, 0):.1f} %' for part in found.values())} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *(int(argument) for argument in sys.argv[2:]))
