"""Preparing the encoder, examples and token ids."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from xlift.artifacts import (
    SEAL,
    VOUCHING,
    fingerprint,
    publish_folder,
    publish_json,
    publishing,
    read_manifest,
    read_sealed,
    sealed,
    sha256_of,
    verified,
)
from xlift.catalog import task_of
from xlift.catalog.task import TEXTS, TRANSLATED, Task
from xlift.errors import UserError

SIZE_TOLERANCE = 0.01
"""Share by which the number of training examples may differ from what budgets were resolved with."""


ENCODER_ENTRIES = {
    "fingerprint": "sha256 of the specification's canonical JSON.",
    "specification": "Source, repository and revision, or the package's version.",
    **VOUCHING,
}
"""manifest.json of the prepared encoder."""
DATA_ENTRIES = {
    "fingerprint": "sha256 of the specification's canonical JSON.",
    "specification": "Source with its reader's version and revisions, languages, limits.",
    "sha256": "sha256 of the parquet file.",
    "rows": "Rows by `<split>/<language>`.",
    "sources": "What was read: repository, config, split and commit, or folder and file, with its sha256.",
    "dropped": "Rows left out by `<split>/<language>` and reason.",
    "notes": "Rows that stay and something was done to, by `<split>/<language>` and what.",
    "supertags": "Of `ccg`: the supertag that each class stands for.",
    SEAL: "sha256 of the canonical JSON of all other entries.",
}
"""<task>.json beside prepared examples; what is after `rows` only where repositories or folders were read."""
ENCODED_ENTRIES = {
    "fingerprint": "sha256 of the specification's canonical JSON.",
    "specification": "Examples' and encoder's fingerprints, lengths, the number of training examples expected.",
    "tokenizer_sha256": "sha256 of the tokenizer.json that cut the texts.",
    "examples": "Examples of all splits.",
    "sequences": "Token sequences of these: choices, windows.",
    "tokens": "Tokens of all sequences.",
    "train": "Examples, sequences and tokens of the training split.",
    "tokens_per_character": "Tokens a character by language, on the scored texts.",
    **VOUCHING,
}
"""manifest.json of a task's token ids."""


def prepare_encoder(specification: dict[str, Any], hub_root: str | None, manifest: Path) -> None:
    """Bring the study's encoder into the folder of `manifest` in the Hugging Face layout.

    `hub_root`: folder with repositories as `<org>/<name>`; None: the hub. Where a repository is read from is no part of
    the specification: the same revision is the same encoder.
    """
    from xlift.encoder.hub import write_hub
    from xlift.encoder.packaged import write_packaged

    def write(folder: Path) -> None:
        if specification["source"] == "packaged":
            write_packaged(folder)
        else:
            root = None if hub_root is None else Path(hub_root)
            write_hub(specification["id"], specification["revision"], root, folder)

    publish_folder(manifest.parent, write, {"fingerprint": fingerprint(specification), "specification": specification})


def prepare_data(
    specification: dict[str, Any],
    examples: Path,
    manifest: Path,
    hub_root: str | None = None,
    folders: Mapping[str, str] | None = None,
) -> None:
    """Write a task's prepared examples and their manifest.

    `hub_root`: as in `prepare_encoder`; `folders`: the user's folders of data by name.
    """
    from xlift.tasks.families import OBJECTIVES

    task = task_of(specification)
    frame, found = _examples(specification, task, None if hub_root is None else Path(hub_root), folders or {})
    OBJECTIVES[task.family].check(frame, task)
    for place, reasons in found.get("dropped", {}).items():
        for reason, rows in reasons.items():
            print(f"{task.name}, {place}: {rows:,} rows left out: {reason}", flush=True)
    with publishing(examples) as temporary:
        frame.write_parquet(temporary)
    counts = frame.group_by("split", "language").len().sort("split", "language")
    facts = {
        "fingerprint": fingerprint(specification),
        "specification": specification,
        "sha256": sha256_of(examples),
        "rows": {f"{split}/{language}": rows for split, language, rows in counts.iter_rows()},
        **found,
    }
    publish_json(manifest, sealed(facts))


def _examples(
    specification: dict[str, Any], task: Task, root: Path | None, folders: Mapping[str, str]
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """A task's examples from where it says they are, and what its manifest says of their making."""
    languages, limits = specification["languages"], specification.get("examples", {})
    if task.source == TRANSLATED:
        from xlift.sources import translated
        from xlift.sources.readers import limited

        frame, counts = translated.prepare(Path(specification["folder"]), task)
        return limited(frame, limits), counts
    if task.source == TEXTS:
        from xlift.sources import texts
        from xlift.sources.readers import limited

        return limited(texts.read(Path(specification["folder"]), languages), limits), {}
    if not task.slices:
        from xlift.sources import cldr
        from xlift.sources.readers import limited

        return limited(cldr.prepare(task.name, languages), limits), {}
    from xlift.sources.readers import read_task

    score_on = specification.get("score_on", "test")
    found = read_task(task, languages, score_on=score_on, examples=limits, root=root, folders=folders)
    facts = {"sources": found.sources, "dropped": found.dropped, "notes": found.notes, **found.facts}
    return found.frame, facts


def checked_encoder(manifest: Path) -> Path:
    """Folder of the prepared encoder after what a forward pass reads was checked against its manifest."""
    folder = manifest.parent
    facts = read_manifest(folder)
    for name in ("config.json", "model.safetensors"):
        verified(folder, name, facts)
    return folder


def encoder_sha256(manifest: Path) -> str:
    """sha256 of the prepared encoder's weights, as its manifest has it."""
    return str(read_manifest(manifest.parent)["files"]["model.safetensors"]["sha256"])


def checked_tokens(manifest: Path, encoder: Path) -> Path:
    """Folder of a task's token ids, refused where another tokenizer than the encoder's made them. From manifests."""
    found = read_manifest(manifest.parent).get("tokenizer_sha256")
    expected = read_manifest(encoder.parent)["files"]["tokenizer.json"]["sha256"]
    if found != expected:
        raise UserError(
            f"{manifest.parent}: was encoded by a tokenizer with sha256 {found}, and the prepared encoder's is "
            f"{expected}; delete this folder and run the workflow again"
        )
    return manifest.parent


def checked_examples(examples: Path) -> Path:
    """Path of prepared examples after they were checked against the manifest beside them."""
    manifest = examples.with_suffix(".json")
    expected = read_sealed(manifest, str(examples))["sha256"]
    found = sha256_of(examples)
    if found != expected:
        raise UserError(
            f"{examples}: sha256 is {found} where its manifest says {expected}; delete it and run the workflow again"
        )
    return examples


def encode_task(specification: dict[str, Any], examples: Path, encoder: Path, manifest: Path) -> None:
    """Write a task's token ids for the prepared encoder in folder `encoder`."""
    from tokenizers import Tokenizer

    from xlift.tasks.encoded import SPLITS, TOKENS
    from xlift.tasks.families import OBJECTIVES
    from xlift.tasks.fertility import tokens_per_character
    from xlift.tasks.retrieval import prefixed

    task = task_of(specification)
    vocabulary = verified(encoder, "tokenizer.json")
    tokenizer = Tokenizer.from_file(str(vocabulary))
    tokenizer.no_padding()  # some exports pad by default, and their pads would count as text
    frame = pl.read_parquet(checked_examples(examples))
    texts = prefixed(frame, **specification["prefixes"]) if "prefixes" in specification else frame
    family = OBJECTIVES[task.family]
    encoded = family.encode(texts, tokenizer, task, specification["max_length"], specification["stride"])
    of_train = encoded.split[encoded.owner] == SPLITS.index("train")
    if not task.direct:
        found = len(family.training_examples(encoded))
        check_train_examples(task.name, found, specification["train_examples"], examples)
    facts = {
        "fingerprint": fingerprint(specification),
        "specification": specification,
        "tokenizer_sha256": sha256_of(vocabulary),
        "examples": len(encoded.split),
        "sequences": len(encoded.owner),
        "tokens": len(encoded.tokens),
        "train": {
            "examples": len(encoded.examples("train")),
            "sequences": int(of_train.sum()),
            "tokens": int(encoded.lengths[of_train].sum()),
        },
        "tokens_per_character": tokens_per_character(frame, family.text_columns, tokenizer),
    }
    publish_folder(manifest.parent, lambda folder: encoded.save(folder / TOKENS), facts)


def check_train_examples(task: str, found: int, expected: int | None, examples: Path) -> None:
    """Refuse data of quite another size than budgets were resolved with; None: they did not need it.

    Up to `SIZE_TOLERANCE` the number of passes over the data is right to that share, and what a run really did is in
    its manifest: rows may have been left out for what they share with the rows that are evaluated on.
    """
    if expected is None or found == expected:
        return
    print(f"{task}: {found} training examples where {expected} were expected", flush=True)
    if abs(found - expected) > SIZE_TOLERANCE * expected:
        raise UserError(
            f"{examples}: has {found} training examples of {task} where {expected} are expected, so that its budgets "
            f"would be wrong; set recipes.{task}.train_examples to {found} if this data is meant"
        )
