"""What a user would write instead: a token classifier under Hugging Face's Trainer."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from panx import LABELS, Sentences
from seqeval.metrics import f1_score
from transformers import (
    AutoModelForTokenClassification,
    DataCollatorForTokenClassification,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
)


@dataclass(frozen=True)
class Measured:
    """Seconds of one training or prediction, how many examples it saw, and its English dev F1 in points."""

    seconds: float
    examples: int
    dev: float | None = None

    @property
    def rate(self) -> float:
        """Examples a second."""
        return self.examples / self.seconds


class Peer:
    """Trainer with its defaults, or `tuned`: bf16, frozen word embeddings, batches of like length."""

    def __init__(self, encoder: Path, train: Sentences, dev: Sentences, test: Sentences, tuned: bool) -> None:
        self._encoder, self._tuned = encoder, tuned
        self._tokenizer = PreTrainedTokenizerFast(
            tokenizer_file=str(encoder / "tokenizer.json"), pad_token="<pad>", model_max_length=512
        )
        self._train, self._dev, self._test = (self._encoded(part) for part in (train, dev, test))

    def _encoded(self, sentences: Sentences) -> list[dict[str, list[int]]]:
        """Token ids with the first piece of each word labelled, as in transformers' own example."""
        found = self._tokenizer(sentences.words, is_split_into_words=True, truncation=True, max_length=128)
        labels = []
        for row, tags in enumerate(sentences.tags):
            words, before, line = found.word_ids(row), None, []
            for word in words:
                line.append(-100 if word is None or word == before else LABELS.index(tags[word]))
                before = word
            labels.append(line)
        return [
            {"input_ids": tokens, "attention_mask": mask, "labels": line}
            for tokens, mask, line in zip(found["input_ids"], found["attention_mask"], labels, strict=True)
        ]

    def _trainer(self, rate: float, batch: int, warmup: int = 0, seed: int = 1) -> Trainer:
        torch.manual_seed(seed)
        # In float32, as encoders are published; xlift's own copy is stored in 16 bits.
        model = AutoModelForTokenClassification.from_pretrained(
            self._encoder, num_labels=len(LABELS), dtype=torch.float32
        )
        changes: dict[str, object] = {}
        if self._tuned:
            model.bert.embeddings.word_embeddings.weight.requires_grad_(False)
            changes = {"bf16": True, "train_sampling_strategy": "group_by_length"}
        arguments = TrainingArguments(
            output_dir=tempfile.mkdtemp(prefix="peer"),
            per_device_train_batch_size=batch,
            num_train_epochs=1,
            learning_rate=rate,
            warmup_steps=warmup,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
            seed=seed,
            **changes,
        )
        return Trainer(
            model=model,
            args=arguments,
            train_dataset=self._train,  # type: ignore[arg-type]  # anything with a length and rows
            data_collator=DataCollatorForTokenClassification(self._tokenizer),
            processing_class=self._tokenizer,
        )

    def train(self, rate: float, batch: int, warmup: int, seed: int) -> Measured:
        """One epoch from the same start."""
        trainer = self._trainer(rate, batch, warmup, seed)
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
        return Measured(seconds, len(self._train), self._score(trainer))

    def predict(self) -> Measured:
        """The untrained model's tags of the test sentences."""
        trainer = self._trainer(1e-4, 32)
        started = time.perf_counter()
        trainer.predict(self._test)
        return Measured(time.perf_counter() - started, len(self._test))

    def _score(self, trainer: Trainer) -> float:
        found = trainer.predict(self._dev)
        # Trainer returns rows in the order its sampler had them: golds are taken from its own labels.
        best, labels = np.asarray(found.predictions).argmax(-1), np.asarray(found.label_ids)
        kept = labels != -100
        predicted, gold = (
            [[LABELS[tag] for tag in row[mask]] for row, mask in zip(rows, kept, strict=True)]
            for rows in (best, labels)
        )
        return 100 * float(f1_score(gold, predicted))
