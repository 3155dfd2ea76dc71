"""Files that are whole or absent: atomic publishing, checksums, canonical JSON, manifests.

A checkpoint is a folder whose ``manifest.json`` is written last and lists the sha256 of every other file in it, and
its own (``sha256``: of the canonical JSON of all else in it); without its manifest a folder is not a checkpoint, and a
file that differs from its manifest is refused, as is a manifest that differs from itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from xlift.errors import UserError

MANIFEST = "manifest.json"
VOUCHING: Mapping[str, str] = {
    "files": "sha256 and bytes of each other file of the folder.",
    "sha256": "sha256 of the canonical JSON of all other entries.",
}
"""The entries by which a manifest vouches for its folder and for itself, and what they say."""
SEAL = "sealed"
"""The entry by which facts that vouch for a file beside them vouch for themselves."""


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no white space: equal values give equal strings in every process."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def fingerprint(value: Any) -> str:
    """sha256 (hex) of the canonical JSON of `value`."""
    return text_fingerprint(canonical_json(value))


def text_fingerprint(text: str) -> str:
    """sha256 (hex) of a text that is canonical JSON already."""
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """sha256 (hex) of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@cache
def file_sizes(folder: Path, pattern: str) -> dict[str, int]:
    """Bytes of each file of a folder, by name; looked at once a process."""
    return {path.name: path.stat().st_size for path in sorted(folder.glob(pattern))}


@contextmanager
def publishing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path`; on success fsync it and rename it to `path`, else remove it.

    The temporary file lies in the same folder, so that the rename is atomic.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def check_writable(folder: Path) -> None:
    """Refuse a folder, there or yet to be made, in which nothing can be written."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise UserError(
            f"{folder}: cannot be written; give this user the right to, or run Snakemake in another folder "
            "(--directory)"
        )


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish_text(path: Path, text: str) -> None:
    """Write `text` atomically as UTF-8."""
    with publishing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def publish_json(path: Path, value: Any) -> None:
    """Write `value` atomically as indented JSON with sorted keys."""
    publish_text(path, json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def sealed(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts with `sealed`: the sha256 of the canonical JSON of them all."""
    return {**facts, SEAL: fingerprint(facts)}


def read_sealed(path: Path, at_fault: str) -> dict[str, Any]:
    """Sealed facts at `path`; `UserError` where they are not what was written: then `at_fault` is to be deleted."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        whole = found[SEAL] == fingerprint({key: value for key, value in found.items() if key != SEAL})
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise UserError(f"{path}: is missing or damaged; delete {at_fault} and run the workflow again")
    return dict(found)


def publish_folder(folder: Path, write: Callable[[Path], Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Publish the files that `write` makes in an empty folder, then the manifest that vouches for them.

    An old manifest is removed first: a folder is never seen with new files under an old manifest.
    Returns the manifest: `facts`, `files` (each file's sha256 and bytes), and its own `sha256`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    for left_over in folder.glob(".staging.*"):
        shutil.rmtree(left_over)  # of a job that was killed
    staging = folder / f".staging.{os.getpid()}"
    staging.mkdir()
    try:
        write(staging)
        made = sorted(path for path in staging.iterdir())
        files = {path.name: {"sha256": sha256_of(path), "bytes": path.stat().st_size} for path in made}
        for path in made:
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
            os.replace(path, folder / path.name)
    finally:
        shutil.rmtree(staging)
    manifest = {**facts, "files": files}
    manifest["sha256"] = fingerprint(manifest)
    publish_json(folder / MANIFEST, manifest)
    return manifest


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a published folder; `UserError` where there is none, or it is not what was written."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{folder}: no {MANIFEST}, so nothing was published here; run the workflow again to make it"
        ) from None
    except ValueError:
        raise UserError(f"{path}: is not valid JSON; delete the folder {folder} and run the workflow again") from None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise UserError(f"{path}: lists no files; delete the folder {folder} and run the workflow again")
    if fingerprint({key: value for key, value in manifest.items() if key != "sha256"}) != manifest.get("sha256"):
        raise UserError(
            f"{path}: its sha256 is not the one it carries, so that it was altered; delete the folder {folder} and run "
            "the workflow again"
        )
    return manifest


def manifest_of(path: Path, expected: str) -> dict[str, Any]:
    """The manifest at `path`, refused where the fingerprint of what it is of does not begin with `expected`."""
    manifest = read_manifest(path.parent)
    if not str(manifest.get("fingerprint")).startswith(expected):
        raise UserError(
            f"{path}: was made with other settings than this study's; delete the folder {path.parent} and run the "
            "workflow again"
        )
    return manifest


def holds(path: Path, expected: str) -> bool:
    """Whether a published manifest or parquet table was made for the specification with fingerprint `expected`."""
    if path.suffix == ".json":
        return current_manifest(path, expected) is not None
    try:
        # A parquet file ends in its metadata, their length (4 bytes, little-endian) and "PAR1". Read by hand: this
        # runs for every cell while the Snakefile is parsed, where polars would be a slow import.
        with path.open("rb") as stream:
            stream.seek(-8, os.SEEK_END)
            size = int.from_bytes(stream.read(4), "little")
            stream.seek(-8 - size, os.SEEK_END)
            return expected.encode() in stream.read(size)
    except (OSError, ValueError):
        return False


def current_manifest(path: Path, expected: str) -> dict[str, Any] | None:
    """A manifest that was made for the specification with fingerprint `expected`; None where there is no such one."""
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and manifest.get("fingerprint") == expected else None


def verified(folder: Path, name: str, manifest: Mapping[str, Any] | None = None) -> Path:
    """Path of a file in a published folder after its sha256 was checked against the manifest."""
    files = (read_manifest(folder) if manifest is None else manifest)["files"]
    path = folder / name
    if name not in files:
        raise UserError(f"{folder}: its {MANIFEST} lists no file {name}; delete the folder and run the workflow again")
    if not path.exists():
        raise UserError(f"{path}: is missing; delete the folder {folder} and run the workflow again")
    expected, found = files[name]["sha256"], sha256_of(path)
    if expected != found:
        raise UserError(
            f"{path}: sha256 is {found} where the manifest says {expected}; "
            f"the file was altered or cut short: delete the folder {folder} and run the workflow again"
        )
    return path
