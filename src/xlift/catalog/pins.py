"""The commits that the catalog's repositories are read at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from xlift.catalog.task import Task


@dataclass(frozen=True)
class Pin:
    """A commit of a repository, and the file of public code that it was read in.

    That code reads the repository at this commit by its data files, without a loading script. The hub itself was not
    asked.
    """

    revision: str
    read_in: str


PINS: Mapping[str, Pin] = {
    "Rowan/hellaswag": Pin(
        "218ec52e09a7e7462a5400043bb9a69a41d06b76", "dhyunkim92/kkoma-llm: scripts/prepare_downstream_data.py"
    ),
    "cambridgeltl/xcopa": Pin(
        "042f78955ba48e6404616762fa6e05e839c3907a", "ufakai/ufakzeka-karar: data/decontam/references.py"
    ),
    "facebook/anli": Pin(
        "8e4813d81f46d313dac7892e1c28076917cfcdf9", "armbues/mlx-decision: scripts/accuracy_benchmark.py"
    ),
    "facebook/xnli": Pin(
        "b8dd5d7af51114dbda02c0e3f6133f332186418e", "ufakai/ufakzeka-karar: data/decontam/references.py"
    ),
    "google-research-datasets/paws-x": Pin(
        "4cd8187c404bda33cb1f62b49b001115862acf37", "skyoo2003/krite: training/krite_train/data.py"
    ),
    "google-research-datasets/tydiqa": Pin(
        "da78f23f9119363459acbaf46bf89426ff26c259", "robbypambudi/DiLLeMa: apps/evaluation/public_rag_eval.py"
    ),
    "google/xquad": Pin(
        "51adfef1c1287aab1d2d91b5bead9bcfb9c68583",
        "embeddings-benchmark/mteb: mteb/tasks/retrieval/multilingual/x_qu_ad_retrieval.py",
    ),
    "google/xtreme": Pin(
        "ec5f1f46e9af79639a90684a7a70a956c4998f04", "webmasterscity/leobot2026: experiments/f18_pawsx_inventory.py"
    ),
    "mteb/tatoeba-bitext-mining": Pin(
        "69e8f12da6e31d59addadda9a9c8a2e601a0e282",
        "embeddings-benchmark/mteb: mteb/tasks/bitext_mining/multilingual/tatoeba_bitext_mining.py",
    ),
    "nyu-mll/glue": Pin("bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c", "SkAndMl/intelif: training/data.py"),
    "rajpurkar/squad": Pin(
        "7b6d24c440a36b6815f21b70d25016731768db1f", "ELRdn/OpenTernary: scripts/freeze_quality_dataset.py"
    ),
    "rajpurkar/squad_v2": Pin(
        "3ffb306f725f7d2ce8394bc1873b24868140c412",
        "AlphaAvatar/AlphaAvatar-distill: scripts/data/build_c1_confirmation_battery.py",
    ),
    "stanfordnlp/snli": Pin("cdb5c3d5eed6ead6e5a341c8e56e669bb666725b", "SkAndMl/intelif: training/data.py"),
    "tau/commonsense_qa": Pin("94630fe30dad47192a8546eb75f094926d47e155", "SkAndMl/intelif: training/data.py"),
    "unimelb-nlp/wikiann": Pin(
        "f0a3be6dc5564c0cc4150bb660144800a1f539d4", "NoeFlandre/geoparser: scripts/panx_benchmark/constants.py"
    ),
}
"""By repository. Those that are read from the hub's own parquet copy have none, for that is a branch."""


def at_revisions(task: Task, revisions: Mapping[str, str]) -> Task:
    """The task with its rows of these repositories read at these commits, tags or branches."""
    if not any(part.repository in revisions for part in task.slices):
        return task
    slices = (replace(part, revision=revisions.get(part.repository, part.revision)) for part in task.slices)
    return replace(task, slices=tuple(slices))


def pinned(task: Task) -> Task:
    """The task read at the pinned commits; its provenance says where they are from and what has none."""
    found = at_revisions(task, {repository: pin.revision for repository, pin in PINS.items()})
    read = {part.repository: part.revision for part in found.slices if not part.in_folder}
    pins = [f"{repository} ({PINS[repository].read_in})" for repository in sorted(read) if repository in PINS]
    others = [f"{name} ({read[name] or 'its main branch'})" for name in sorted(read) if name not in PINS]
    said = [task.provenance]
    if pins:
        said.append(f"Pinned to a commit that public code reads: {', '.join(pins)}.")
    if others:
        said.append(f"Not pinned: {', '.join(others)}; the manifest of prepared data has the commit that was read.")
    return replace(found, provenance=" ".join(said))
