"""xlift's engine on the same sentences, encoder, batch, learning rate and number of epochs as the peer."""

from __future__ import annotations

import math
import time
from pathlib import Path

import polars as pl
import torch
from panx import LABELS, Sentences
from peers import Measured
from tokenizers import Tokenizer
from torch import nn

from xlift.catalog.task import Recipe, Task
from xlift.compute import Compute, choose_compute
from xlift.encoder.adapt import Trainable, make_trainable
from xlift.encoder.model import AnyEncoder, load_encoder
from xlift.metrics import score_predictions
from xlift.predict import predict_split
from xlift.tasks.encoded import Batch, Encoded
from xlift.tasks.families import FAMILIES
from xlift.training.build import frozen_dtype
from xlift.training.cost import training_flops
from xlift.training.execution import CPU_TOKENS
from xlift.training.loop import TrainingLoop
from xlift.training.parts import Optimisation, Part, Stage
from xlift.training.run import encoder_shape
from xlift.training.schedule import Schedule

TASK = Task(
    name="panx",
    family="tagging",
    source="hub",
    roles=("target",),
    languages=("en",),
    metrics=("span_f1",),
    labels=LABELS,
    recipe=Recipe(steps=1, batch_size=32, learning_rate={}, max_length=128, stride=32),
)
FULL, LORA = Trainable(method="full"), Trainable(rank=8, alpha=16.0)


class Engine:
    """Prepares the data once, as a rule does, then trains and predicts like a job."""

    def __init__(self, encoder: Path, train: Sentences, dev: Sentences, test: Sentences, threads: int) -> None:
        self._folder = encoder
        self.compute: Compute = choose_compute("auto", threads)
        self._frame = pl.concat(_frame(part, split) for part, split in ((train, "train"), (dev, "dev"), (test, "test")))
        tokenizer = Tokenizer.from_file(str(encoder / "tokenizer.json"))
        self._encoded: Encoded = FAMILIES["tagging"].encode(self._frame, tokenizer, TASK, 128, 32)

    def _model(self, trainable: Trainable, seed: int = 1) -> tuple[AnyEncoder, nn.Module]:
        dtype = frozen_dtype(self.compute, trainable)
        encoder = load_encoder(self._folder, dtype=dtype, device=self.compute.device, dropout=0.1)
        make_trainable(encoder, trainable, seed)
        torch.manual_seed(seed)
        head = FAMILIES["tagging"].head(encoder.hidden_size, TASK, 0.1).to(self.compute.device)
        return encoder, head

    def train(self, trainable: Trainable, rate: float, batch: int, warmup: int, seed: int) -> Measured:
        """One epoch."""
        encoder, head = self._model(trainable, seed)
        examples = len(self._encoded.examples("train"))
        steps = math.ceil(examples / batch)
        # As Trainer's defaults: linear decay, no weight decay, clip 1.
        settings = Optimisation(Schedule(rate, steps, warmup, warmup), batch, 0.0, 1.0, seed=seed)
        shape = encoder_shape(self._folder, trainable.layers)

        def cost(held: Batch) -> float:
            return training_flops(shape, *held.tokens.shape, trainable.method, trainable.rank)

        cap = CPU_TOKENS if self.compute.device.type == "cpu" else 16384
        part = Part("panx", FAMILIES["tagging"], head, self._encoded, cost)
        loop = TrainingLoop(encoder, head, [Stage([part], settings)], self.compute, cap, "bench")
        started = time.perf_counter()
        realised = loop.run()
        seconds = time.perf_counter() - started
        predictions = predict_split(TASK, encoder, head, self._frame, self._encoded, "dev", self.compute)
        score = float(score_predictions(predictions, "span_f1")["score"][0])
        self.flops_per_second = realised.total.flops / seconds
        return Measured(seconds, realised.total.examples, score)

    def predict(self) -> Measured:
        """The untrained model's tags of the test sentences."""
        encoder = load_encoder(self._folder, dtype=self.compute.dtype, device=self.compute.device, dropout=0.0)
        head = FAMILIES["tagging"].head(encoder.hidden_size, TASK, 0.0).to(self.compute.device)
        started = time.perf_counter()
        found = predict_split(TASK, encoder, head, self._frame, self._encoded, "test", self.compute)
        return Measured(time.perf_counter() - started, found.height)

    def flops_at(self, trainable: Trainable, sequences: int, width: int, repeats: int) -> float:
        """FLOP/s of forward and backward passes over full batches, the median of `repeats`."""
        encoder, _ = self._model(trainable)
        encoder.train()
        shape = encoder_shape(self._folder, trainable.layers)
        tokens = torch.randint(5, 1000, (sequences, width), generator=torch.Generator().manual_seed(1))
        tokens = tokens.to(self.compute.device)
        rates = []
        for _ in range(repeats + 1):
            started = time.perf_counter()
            with self.compute.autocast():
                hidden = encoder(tokens)
            hidden.float().sum().backward()
            rates.append(training_flops(shape, sequences, width, trainable.method, trainable.rank))
            rates[-1] /= time.perf_counter() - started
        return sorted(rates[1:])[repeats // 2]

    def gemm_peak(self, repeats: int = 15) -> float:
        """FLOP/s of the best of a few square and encoder-shaped matrix products in the same dtype."""
        best = 0.0
        for rows, inner, columns in ((2048, 2048, 2048), (2048, 384, 1536), (4096, 4096, 4096)):
            left = torch.randn(rows, inner).to(self.compute.device, self.compute.dtype)
            right = torch.randn(inner, columns).to(self.compute.device, self.compute.dtype)
            for _ in range(repeats):
                started = time.perf_counter()
                left @ right
                if self.compute.device.type == "cuda":
                    torch.cuda.synchronize()
                best = max(best, 2.0 * rows * inner * columns / (time.perf_counter() - started))
        return best


def _frame(sentences: Sentences, split: str) -> pl.DataFrame:
    rows = {
        "split": [split] * len(sentences.words),
        "language": sentences.languages,
        "id": [f"{index:06d}" for index in range(len(sentences.words))],
        "tokens": sentences.words,
        "tags": sentences.tags,
    }
    return pl.DataFrame(rows)
