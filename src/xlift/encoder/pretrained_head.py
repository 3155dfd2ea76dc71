"""The head that an encoder was pretrained with by masked-language modelling, where its repository has one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from xlift.artifacts import read_manifest, verified

if TYPE_CHECKING:
    from torch import Tensor

MLM_HEAD = "mlm_head.safetensors"
"""Its file in the prepared encoder's folder."""
_NAMES: tuple[Mapping[str, str], ...] = (
    {"dense": "lm_head.dense", "norm": "lm_head.layer_norm", "bias": "lm_head.bias"},
    {
        "dense": "cls.predictions.transform.dense",
        "norm": "cls.predictions.transform.LayerNorm",
        "bias": "cls.predictions.bias",
    },
    {"dense": "vocab_transform", "norm": "vocab_layer_norm", "bias": "vocab_projector.bias"},
)
"""Names in a repository of RoBERTa and XLM-R, of BERT, and of DistilBERT."""


def head_of(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The head among a repository's weights, in float32 under `xlift.tasks.mlm.MaskedHead`'s names; nothing where it is
    not whole. Its decoder is left out: it is the word embeddings."""
    modern = {
        name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias"): name
        for name in weights
    }
    for theirs in _NAMES:
        parts = [(part, kind) for part in ("dense", "norm") for kind in ("weight", "bias")]
        wanted = {f"{part}.{kind}": f"{theirs[part]}.{kind}" for part, kind in parts} | {"bias": theirs["bias"]}
        if modern.keys() >= set(wanted.values()):
            return {ours: weights[modern[name]].float().contiguous() for ours, name in wanted.items()}
    return {}


def pretrained_head(encoder: Path) -> dict[str, Tensor]:
    """The head in a prepared encoder's folder, checked against its manifest; nothing where there is none."""
    from safetensors.torch import load_file

    manifest = read_manifest(encoder)
    return load_file(verified(encoder, MLM_HEAD, manifest)) if MLM_HEAD in manifest["files"] else {}
