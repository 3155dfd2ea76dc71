"""What the workflow tests share: a user's checkout in small, a tiny encoder, tiny studies."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

REPOSITORY = Path(__file__).parents[2]
PARTS = ("Snakefile", "workflow", "profiles", "config", "envs")
STUDY_FILE = "study.yaml"
MODEL_ID = "test/tiny"
FEW_STEPS = {"steps": 4, "batch_size": 4}
SCORED = {"score_cells": 1, "estimate_contrasts": 1, "render_report": 1, "all": 1}
"""What follows a changed score."""
TRAINED = {**SCORED, "collect_runs": 1}
"""What follows a changed training run."""
CORES = 2


@dataclass(frozen=True)
class Ended:
    """A command that ended: exit code, what it said on both streams, seconds."""

    code: int
    output: str
    seconds: float

    @property
    def jobs(self) -> dict[str, int]:
        """Jobs by rule in Snakemake's table, without the total; empty where nothing is to be done."""
        found = re.search(r"^Job stats:\njob +count\n[- ]+\n((?:\w+ +\d+\n)+)", self.output, re.MULTILINE)
        if found is None:
            assert "Nothing to be done" in self.output, self.output
            return {}
        jobs = {rule: int(count) for rule, count in (line.split() for line in found[1].splitlines())}
        total = jobs.pop("total")
        assert sum(jobs.values()) == total
        return jobs


def refused(ended: Ended) -> str:
    """The one sentence of a run that was refused while the Snakefile was read."""
    assert ended.code != 0, ended.output
    assert "Traceback" not in ended.output
    assert "Job stats" not in ended.output
    found = re.search(r"^WorkflowError in file .*common\.smk.*:\n(.+)\n", ended.output, re.MULTILINE)
    assert found is not None, ended.output
    return found[1]


class Workspace:
    """A folder with the repository's workflow (its `parts`) in which Snakemake runs; results are its own."""

    def __init__(self, folder: Path, parts: Sequence[str] = PARTS) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        for part in parts:
            source = REPOSITORY / part
            if source.is_dir():
                shutil.copytree(source, folder / part)
            else:
                shutil.copy2(source, folder / part)
        if "profiles" in parts:
            (folder / "slurm").symlink_to("profiles/slurm")

    def copy(self, folder: Path) -> Workspace:
        """The same workspace in another place: results, Snakemake's records and all times of modification."""
        subprocess.run(["cp", "-a", str(self.folder), str(folder)], check=True)
        other = object.__new__(Workspace)
        other.folder = folder
        return other

    def write_study(self, settings: Mapping[str, Any], name: str = STUDY_FILE) -> None:
        """Write a study file."""
        (self.folder / name).write_text(yaml.safe_dump(dict(settings), sort_keys=False), encoding="utf-8")

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start Snakemake in a process group of its own."""
        command = [sys.executable, "-m", "snakemake", "--nocolor", *arguments]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env={**clean_environment(), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def snakemake(self, *arguments: str, **environment: str) -> Ended:
        """Run Snakemake to its end."""
        started = time.monotonic()
        process = self.start(*arguments, **environment)
        output, _ = process.communicate(timeout=900)
        return Ended(process.returncode, output, time.monotonic() - started)

    def run(self, *arguments: str, study: str = STUDY_FILE) -> Ended:
        """Run a study on all cores."""
        return self.snakemake("--cores", str(CORES), *arguments, "--configfile", study)

    def plan(self, *arguments: str, study: str = STUDY_FILE, **environment: str) -> dict[str, int]:
        """Jobs by rule that a run of a study would have now."""
        ended = self.snakemake("--dry-run", *arguments, "--configfile", study, **environment)
        assert ended.code == 0, ended.output
        return ended.jobs

    def xlift(self, *arguments: str) -> Ended:
        """Run the `xlift` command."""
        started = time.monotonic()
        ended = subprocess.run(
            [sys.executable, "-m", "xlift.cli", *arguments],
            cwd=self.folder,
            env=clean_environment(),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return Ended(ended.returncode, ended.stdout + ended.stderr, time.monotonic() - started)

    def results(self, study: str = "tiny") -> Path:
        """Where a study's results are."""
        return self.folder / "results" / study

    def state(self, study: str = "tiny") -> dict[str, tuple[int, int]]:
        """Every file of a study's results with its size and time of modification in ns."""
        root = self.results(study)
        files = sorted(path for path in root.rglob("*") if path.is_file())
        return {str(path.relative_to(root)): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def clean_environment() -> dict[str, str]:
    """The environment without what would change how Snakemake or a job behaves."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SNAKEMAKE_", "PYTEST_"))}
    return {**kept, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def tiny_study(root: Path, **changes: Any) -> dict[str, Any]:
    """A study of seconds: every family, one budget, one seed, two low- and two high-resource languages."""
    trained = ("cldr_pairs", "cldr_choice", "cldr_qa", "cldr_kind", "cldr_entities")
    settings: dict[str, Any] = {
        "study": "tiny",
        "encoder": {"source": "hub", "id": MODEL_ID},
        "trainable": {"method": "lora", "rank": 2, "alpha": 4},
        "intermediates": ["cldr_choice", "cldr_qa"],
        "budgets": [1],
        "seeds": [1],
        "targets": ["cldr_retrieval", "cldr_kind", "cldr_entities"],
        "languages": ["af", "de", "fr", "sw"],
        "data": {"root": str(root)},
        **changes,
    }
    used = {*settings["intermediates"], *settings["targets"]}
    recipes = {task: {**FEW_STEPS, **changes.get("recipes", {}).get(task, {})} for task in trained if task in used}
    return {**settings, "recipes": recipes}


def write_tiny_bert(folder: Path) -> None:
    """A random BERT under transformers' names and a Unigram tokenizer of English CLDR names."""
    import torch
    from safetensors.torch import save_file
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    from xlift.encoder.model import Encoder
    from xlift.sources.cldr_items import raw_names

    special = ["<s>", "<pad>", "</s>", "<unk>"]
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=400, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(raw_names("en").values(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.add_special_tokens(["<mask>"])
    config = {
        "model_type": "bert",
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 160,
        "type_vocab_size": 2,
        "pad_token_id": 1,
    }
    with torch.device("meta"):
        shapes = {name: weight.shape for name, weight in Encoder(config).state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    weights = {name: torch.randn(shape, generator=generator) * 0.1 for name, shape in sorted(shapes.items())}
    weights |= {name: 1 + weight for name, weight in weights.items() if name.endswith("LayerNorm.weight")}
    folder.mkdir(parents=True)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    tokenizer.save(str(folder / "tokenizer.json"))


def processes_below(pid: int) -> list[tuple[psutil.Process, str]]:
    """A process's descendants with their command lines; any of them, or all, may end while one looks."""
    found: list[tuple[psutil.Process, str]] = []
    with suppress(psutil.Error):
        for child in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.Error):
                found.append((child, " ".join(child.cmdline())))
    return found


@dataclass(frozen=True)
class Finished:
    """A study that ran to its end: its workspace, its settings, how it ended."""

    workspace: Workspace
    settings: dict[str, Any]
    ended: Ended
