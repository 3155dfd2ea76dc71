"""What finished jobs tell of costs: manifests of runs and token ids, and Snakemake's benchmark files."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xlift.catalog.task import MLM

RUN_FOLDERS = {"trunk": "train_trunk", "intermediate": "train_intermediate", "target": "train_target"}
"""Folders of training runs, and the rule that fills each."""
SCORED = re.compile(r"^(\d+) cells scored in ([0-9.]+) s, \d+ kept$", re.MULTILINE)
"""What a scoring says of itself in its log."""


@dataclass(frozen=True)
class RunRecord:
    """What one training run took.

    `flops` and `steps` are the job's own, without what a trunk had done before; `seconds` of the training loop, in
    which they were spent; `job_seconds` of the whole job; `bytes` of its checkpoint. `model`: what was trained over
    what (a trunk's state is larger than weights: `rule`).
    """

    rule: str
    task: str
    length: int
    batch_size: int
    model: str
    device: str
    steps: int
    examples: int
    tokens: int
    padded_tokens: int
    run_flops: float
    flops: float
    seconds: float
    job_seconds: float
    bytes: int


@dataclass(frozen=True)
class JobRecord:
    """What another job took: seconds by Snakemake's clock, the bytes of its output; `target`: of a prediction."""

    rule: str
    target: str | None
    study: str
    seconds: float
    bytes: int


@dataclass(frozen=True)
class TokenRecord:
    """Token ids of a task: examples, sequences and tokens of its training split, and sequences and tokens in all."""

    task: str
    length: int
    encoder: str
    examples: int
    sequences: int
    tokens: int
    all_sequences: int
    all_tokens: int


@dataclass(frozen=True)
class ScoringRecord:
    """What one scoring took: how many cells were scored, and seconds by the clock with the workers it had."""

    cells: int
    seconds: float


@dataclass(frozen=True)
class Evidence:
    """All records of some studies' results."""

    runs: tuple[RunRecord, ...]
    jobs: tuple[JobRecord, ...]
    tokens: tuple[TokenRecord, ...]
    scorings: tuple[ScoringRecord, ...] = ()


def read_evidence(results: Path, studies: list[str]) -> Evidence:
    """Records of the named studies; what is missing, damaged or of an older format is left out."""
    runs, jobs, tokens, scorings = [], [], [], []
    for study in studies:
        folder = results / study
        runs += [record for record in _runs(folder) if record is not None]
        jobs += list(_jobs(folder))
        for path in sorted(folder.glob("encoded/*/length*/manifest.json")):
            record = _tokens(_json(path))
            tokens += [record] if record is not None else []
        scorings += list(_scorings(folder / "logs" / "score_cells.log"))
    return Evidence(tuple(runs), tuple(jobs), tuple(tokens), tuple(scorings))


def studies_at_hand(results: Path) -> list[str]:
    """Studies with results, sorted."""
    return sorted(path.name for path in results.iterdir() if path.is_dir()) if results.is_dir() else []


def model_key(encoder: str, trainable: dict[str, Any]) -> str:
    """What of a run decides its cost an example beside task and length: the encoder and what of it is trained."""
    return json.dumps([encoder, trainable], sort_keys=True)


def _runs(folder: Path) -> Iterator[RunRecord | None]:
    for kind, rule in RUN_FOLDERS.items():
        for path in sorted((folder / kind).rglob("manifest.json")):
            manifest = _json(path)
            place = path.parent.relative_to(folder / kind)
            benchmark = _seconds(folder / "benchmarks" / rule / f"{place}.tsv")
            yield None if manifest is None else _run(rule, manifest, benchmark)


def _run(rule: str, manifest: dict[str, Any], benchmark: float | None) -> RunRecord | None:
    try:
        specification = manifest["specification"]
        return RunRecord(
            rule=rule,
            task=specification["task"] + (f".{MLM}" if MLM in specification else ""),
            length=specification["recipe"]["max_length"],
            batch_size=specification["recipe"]["batch_size"],
            model=model_key(specification["encoder"], specification["trainable"]),
            device=manifest["device"],
            steps=manifest["job_steps"],
            examples=manifest["examples"],
            tokens=manifest["tokens"],
            padded_tokens=manifest["padded_tokens"],
            run_flops=float(manifest["flops"]),
            flops=float(manifest["job_flops"]),
            seconds=float(manifest["seconds"]),
            job_seconds=float(manifest["seconds_job"] if benchmark is None else benchmark),
            bytes=sum(file["bytes"] for file in manifest["files"].values()),
        )
    except (KeyError, TypeError, AttributeError):
        return None


def _jobs(folder: Path) -> Iterator[JobRecord]:
    for path in sorted((folder / "benchmarks").rglob("*.tsv")):
        place = path.relative_to(folder / "benchmarks").with_suffix("")
        rule, seconds = place.parts[0], _seconds(path)
        if seconds is not None and rule not in RUN_FOLDERS.values():
            target = place.parts[1] if rule == "predict_cell" else None
            yield JobRecord(rule, target, folder.name, seconds, _output_bytes(folder, place))


def _output_bytes(folder: Path, place: Path) -> int:
    """Bytes of what the job with this benchmark made, in a file or a folder; 0 where they are not told apart."""
    of_rule = {
        "prepare_encoder": "encoder",
        "prepare_data": "data",
        "encode_task": "encoded",
        "predict_cell": "predictions",
        "score_cells": "scores",
        "render_report": "report",
    }
    if place.parts[0] not in of_rule:
        return 0
    output = folder.joinpath(of_rule[place.parts[0]], *place.parts[1:])
    files = [*output.rglob("*"), Path(f"{output}.parquet")]
    return sum(path.stat().st_size for path in files if path.is_file())


def _scorings(log: Path) -> Iterator[ScoringRecord]:
    """What the last scoring says of itself, where it scored anything."""
    try:
        found = SCORED.search(log.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    if found is not None and int(found[1]) > 0:
        yield ScoringRecord(int(found[1]), float(found[2]))


def _tokens(manifest: dict[str, Any] | None) -> TokenRecord | None:
    try:
        assert manifest is not None
        specification, train = manifest["specification"], manifest["train"]
        return TokenRecord(
            task=specification["task"],
            length=specification["max_length"],
            encoder=specification["encoder"],
            examples=train["examples"],
            sequences=train["sequences"],
            tokens=train["tokens"],
            all_sequences=manifest["sequences"],
            all_tokens=manifest["tokens"],
        )
    except (AssertionError, KeyError, TypeError):
        return None


def _json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _seconds(path: Path) -> float | None:
    """Wall seconds of Snakemake's benchmark file: the mean over its repeats."""
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            found = [float(row["s"]) for row in csv.DictReader(stream, delimiter="\t")]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return sum(found) / len(found) if found else None
