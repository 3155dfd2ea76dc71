"""What the reference recipes of the real tasks have in common."""

from __future__ import annotations

import math

from xlift.catalog.task import Recipe

CONVERTED = "refs/convert/parquet"
"""The branch where the hub keeps its own parquet copy of a repository that has only a loading script."""

MEMORY = "recalled, not looked up"
PHANG = "Phang et al. 2020 (arXiv 2005.13013) and jiant's scripts for it"
XTREME = "google-research/xtreme, scripts/"
LORA = "LoRA rates are xlift's own, ten times the full ones."


def recipe(
    epochs: float,
    examples: int,
    base: float,
    large: float,
    max_length: int,
    *,
    batch_size: int = 32,
    stride: int = 0,
    warmup: float | None = None,
) -> Recipe:
    """`epochs` over `examples` in whole batches; full learning rates for base and large encoders, LoRA's ten times."""
    rates = {"full": base, "lora": round(10 * base, 12)}
    if large != base:
        rates.update({"full.large": large, "lora.large": round(10 * large, 12)})
    return Recipe(
        steps=math.ceil(epochs * examples / batch_size),
        batch_size=batch_size,
        learning_rate=rates,
        max_length=max_length,
        stride=stride,
        warmup=warmup,
    )
