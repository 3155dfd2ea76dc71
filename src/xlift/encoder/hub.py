"""Any encoder of the Hugging Face hub, or of a folder laid out like it, brought into the one layout the rest
reads.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xlift.encoder.pretrained_head import MLM_HEAD, head_of
from xlift.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

_FILES = (
    "config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-*.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
)
_COPIED = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_FIRST_WEIGHTS = (
    "embeddings.word_embeddings.weight",
    "embeddings.tok_embeddings.weight",
    "embed_tokens.weight",
)
_NOT_ENCODER = (
    "pooler.",
    "lm_head.",
    "cls.",
    "classifier.",
    "qa_outputs.",
    "lm_predictions.",
    "mask_predictions.",
)
_BUFFERS = ("position_ids", "embeddings.token_type_ids")
_LARGEST_HALF = 65504.0


def write_hub(model_id: str, revision: str | None, root: Path | None, out: Path) -> None:
    """Writes config.json, model.safetensors and the tokenizer of `model_id` into the existing folder `out`.

    Reads `root/<org>/<name>` where `root` is given (`revision` is then whatever was downloaded there), the
    hub otherwise. Pooler, name prefixes and heads are dropped, but for that of masked-language modelling, which is
    written beside the rest; weights become float16 where all of them fit.
    Only safetensors and JSON are read: no pickle, no code of the repository's. UserError for an unknown id,
    no network, a missing file, or weights in another format.
    """
    source = _download(model_id, revision) if root is None else root / model_id
    if not source.is_dir():
        raise UserError(f"encoder {model_id}: there is no folder {source}: put it there, or leave the root out")
    config = _read_json(model_id, source, "config.json")
    if not (source / "tokenizer.json").is_file():
        raise UserError(
            f"encoder {model_id}: {source} has no tokenizer.json: save its fast tokenizer there"
            " (AutoTokenizer.from_pretrained(...).save_pretrained(...)) or choose another encoder"
        )
    stored = _read_weights(model_id, source)
    weights = _half(_bare(model_id, stored))
    config.pop("auto_map", None)  # names code of the repository's, which is never run
    config.pop("torch_dtype", None)
    config["dtype"] = str(next(iter(weights.values())).dtype).removeprefix("torch.")

    from safetensors.torch import save_file

    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    if head := head_of(stored):
        save_file(head, out / MLM_HEAD)
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    for path in out.glob("*.safetensors"):  # which safetensors makes private
        path.chmod((out / "config.json").stat().st_mode)
    for name in _COPIED:
        if (source / name).is_file():
            shutil.copyfile(source / name, out / name)


def _download(model_id: str, revision: str | None) -> Path:
    from xlift.download import checked, explained, fetch

    settings = {"id": "`encoder.id`", "revision": "`encoder.revision`", "root": "a root"}
    with explained("encoder", model_id, revision, settings):
        folder, listing = fetch("model", model_id, revision, [*_FILES, *_PICKLED[1:]])
        for name, git_id in listing.items():
            if (folder / name).is_file():
                checked("model", model_id, folder, name, git_id)
    return folder


def _read_json(model_id: str, source: Path, name: str) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads((source / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"encoder {model_id}: {source / name} cannot be read: {error}") from error
    return content


def _read_weights(model_id: str, source: Path) -> dict[str, Tensor]:
    """All tensors of the model's one file, or of its shards."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    names = ["model.safetensors"]
    if not (source / names[0]).is_file():
        if not (source / "model.safetensors.index.json").is_file():
            only = "only pickled weights, which are never read" if _has_pickle(source) else "no model.safetensors"
            raise UserError(
                f"encoder {model_id}: {source} has {only}: convert it to safetensors or choose another revision"
            )
        index = _read_json(model_id, source, "model.safetensors.index.json")
        names = sorted(set(index["weight_map"].values()))
    weights: dict[str, Tensor] = {}
    for name in names:
        if Path(name).name != name:
            raise UserError(f"encoder {model_id}: the index names {name!r}, which is not a file beside it")
        try:
            weights |= load_file(source / name)
        except (OSError, SafetensorError) as error:
            raise UserError(f"encoder {model_id}: {source / name} cannot be read: {error}") from error
    return weights


def _has_pickle(source: Path) -> bool:
    return any((source / name).exists() for name in _PICKLED)


def _bare(model_id: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's own weights under bare names, sorted; heads, pooler and buffers are left out."""
    firsts = [name for name in sorted(weights) if name.endswith(_FIRST_WEIGHTS)]
    if len(firsts) != 1:
        raise UserError(
            f"encoder {model_id}: {len(firsts)} word embeddings are among its {len(weights)} weights"
            " where an encoder has one: choose an encoder-only model"
        )
    ending = next(ending for ending in _FIRST_WEIGHTS if firsts[0].endswith(ending))
    prefix = firsts[0].removesuffix(ending)
    bare = {}
    for name in sorted(weights):
        short = name.removeprefix(prefix)
        if name.startswith(prefix) and not short.startswith(_NOT_ENCODER) and not short.endswith(_BUFFERS):
            # Old checkpoints keep TensorFlow's names for layer norms.
            short = short.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
            bare[short] = weights[name]
    return bare


def _half(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Float16 where every value of every weight fits (and is a number), float32 throughout otherwise."""
    import torch

    fits = all(bool((weight.abs() <= _LARGEST_HALF).all()) for weight in weights.values())
    kind = torch.float16 if fits else torch.float32
    return {name: weight.to(kind).contiguous() for name, weight in weights.items()}
