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

RATE = 1e-4
BATCH = 32
TRAIN, DEV, TEST = 1500, 1000, 200
PREDICTED = ("de", "ru", "sw", "te", "tr")
PAIRS = 2


def paired(ours: Callable[[], Measured], theirs: Callable[[], Measured]) -> dict[str, Any]:
    """Ratios of examples a second, ours over theirs, over pairs of runs, and both dev scores."""
    runs = [(theirs(), ours()) for _ in range(PAIRS)]
    ratios = [mine.rate / other.rate for other, mine in runs]
    return {
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "ours_per_s": statistics.median(mine.rate for _, mine in runs),
        "theirs_per_s": statistics.median(other.rate for other, _ in runs),
        "ours_dev_f1": runs[-1][1].dev,
        "theirs_dev_f1": runs[-1][0].dev,
    }


def measure(encoder: Path, root: Path, threads: int) -> dict[str, Any]:
    """All comparisons."""
    torch.set_num_threads(threads)
    train, dev = read(root, ("en",), "train", TRAIN), read(root, ("en",), "validation", DEV)
    test = read(root, PREDICTED, "validation", TEST)
    engine = Engine(encoder, train, dev, test, threads)
    default, tuned = (Peer(encoder, train, dev, test, tuned=choice) for choice in (False, True))
    found: dict[str, Any] = {}
    found["predict_vs_trainer"] = paired(engine.predict, default.predict)
    found["train_vs_trainer_tuned"] = paired(lambda: engine.train(FULL, RATE, BATCH), lambda: tuned.train(RATE, BATCH))
    found["train_vs_trainer_default"] = paired(
        lambda: engine.train(FULL, RATE, BATCH), lambda: default.train(RATE, BATCH)
    )
    lora = engine.train(LORA, 10 * RATE, BATCH)
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
