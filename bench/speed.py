"""Training and prediction against Hugging Face's Trainer: paired runs in one process, in the order A B A B."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from engine import FULL, LORA, Engine
from panx import read
from peers import Measured, Peer

RATE, LORA_RATE = 5e-4, 5e-3
WARMUP = 10
BATCH = 32
TRAIN, DEV, TEST = 1500, 1000, 200
PREDICTED = ("de", "ru", "sw", "te", "tr")
PAIRS = 2


def paired(ours: Callable[[int], Measured], theirs: Callable[[int], Measured]) -> dict[str, Any]:
    """Ratios of examples a second, ours over theirs, over pairs of runs, each of its own seed, and all dev scores."""
    runs = [(theirs(seed), ours(seed)) for seed in range(1, PAIRS + 1)]
    ratios = [mine.rate / other.rate for other, mine in runs]
    found = {
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "ours_per_s": statistics.median(mine.rate for _, mine in runs),
        "theirs_per_s": statistics.median(other.rate for other, _ in runs),
    }
    scores = [(other.dev, mine.dev) for other, mine in runs if other.dev is not None and mine.dev is not None]
    if not scores:
        return found
    theirs_dev, ours_dev = ([pair[side] for pair in scores] for side in (0, 1))
    ahead = statistics.fmean(ours_dev) - statistics.fmean(theirs_dev)
    return {**found, "ours_dev_f1": ours_dev, "theirs_dev_f1": theirs_dev, "dev_f1_ahead": ahead}


def measure(encoder: Path, root: Path, threads: int) -> dict[str, Any]:
    """All comparisons."""
    torch.set_num_threads(threads)
    train, dev = read(root, ("en",), "train", TRAIN), read(root, ("en",), "validation", DEV)
    test = read(root, PREDICTED, "validation", TEST)
    engine = Engine(encoder, train, dev, test, threads)
    default, tuned = (Peer(encoder, train, dev, test, tuned=choice) for choice in (False, True))
    found: dict[str, Any] = {}
    found["predict_vs_trainer"] = paired(lambda _: engine.predict(), lambda _: default.predict())
    for name, peer in (("train_vs_trainer_tuned", tuned), ("train_vs_trainer_default", default)):
        found[name] = paired(
            lambda seed: engine.train(FULL, RATE, BATCH, WARMUP, seed),
            lambda seed, peer=peer: peer.train(RATE, BATCH, WARMUP, seed),  # type: ignore[misc]
        )
    lora = engine.train(LORA, LORA_RATE, BATCH, WARMUP, 1)
    found["recipe"] = {"learning_rate": RATE, "lora_learning_rate": LORA_RATE, "warmup_steps": WARMUP}
    found["train_lora"] = {
        "ours_per_s": lora.rate,
        "ours_dev_f1": lora.dev,
        "over_default": lora.rate / found["train_vs_trainer_default"]["theirs_per_s"],
    }
    peak = engine.gemm_peak()
    rates = {name: engine.flops_at(what, 64, 32, 9) for name, what in (("full", FULL), ("lora", LORA))}
    found["mfu"] = {
        "gemm_peak_gflops": peak / 1e9,
        "dtype": engine.compute.dtype_name,
        **{name: rate / peak for name, rate in rates.items()},
    }
    return found
