"""Checkpoints: trained weights only, vouched for by their manifest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn

from xlift.artifacts import read_manifest, verified
from xlift.errors import UserError

WEIGHTS = "weights.safetensors"


def read_weights(folder: Path, expected: str | None) -> dict[str, Tensor]:
    """A checkpoint's weights, checked against its manifest and, if given, the fingerprint it should have."""
    manifest = read_manifest(folder)
    if expected is not None and manifest.get("fingerprint") != expected:
        raise UserError(
            f"{folder}: holds a run with other settings than this study's (fingerprint {manifest.get('fingerprint')}, "
            f"expected {expected}); run the workflow again to remake it"
        )
    return load_file(verified(folder, WEIGHTS, manifest))


def check_encoder(folder: Path, encoder: str | None) -> None:
    """Refuse a checkpoint that was trained over other encoder weights than those with sha256 `encoder`.

    A hub encoder without a pinned revision, or a changed local copy, can be another one under the same settings.
    """
    found = read_manifest(folder).get("encoder_sha256")
    if found != encoder:
        raise UserError(
            f"{folder}: was trained over encoder weights with sha256 {found}, and the prepared encoder's is {encoder}; "
            "pin the encoder's revision, or delete this folder and run the workflow again"
        )


def joined_weights(encoder: Mapping[str, Tensor], head: nn.Module) -> dict[str, Tensor]:
    """Encoder and head weights under one roof, sorted by name."""
    tensors = {f"encoder.{name}": tensor for name, tensor in encoder.items()}
    tensors |= {f"head.{name}": tensor.detach().cpu().contiguous() for name, tensor in head.state_dict().items()}
    return {name: tensors[name] for name in sorted(tensors)}


def split_weights(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Encoder and head weights, each by its own names."""
    return (
        {name.removeprefix("encoder."): t for name, t in tensors.items() if name.startswith("encoder.")},
        {name.removeprefix("head."): t for name, t in tensors.items() if name.startswith("head.")},
    )
