"""The encoder's forward pass: BERT, RoBERTa and XLM-R in plain torch, anything else through transformers.

Many short jobs load an encoder, each in its own process, and importing transformers costs twice what
importing torch does; so the common architectures are written out here, with transformers' parameter names and
its numbers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from xlift.errors import UserError

NATIVE_TYPES = ("bert", "roberta", "xlm-roberta")
WORD_EMBEDDINGS = "embeddings.word_embeddings.weight"
_SHORT = 256  # tokens
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
}


class Encoder(nn.Module):
    """A Transformer encoder as in BERT and RoBERTa (Devlin et al., 2019; Liu et al., 2019).

    Layer norms stand behind the residual sums; positions are learned and absolute. All parameters start
    frozen: `adapt.make_trainable` says what is trained. The word embeddings stay in the precision they are
    stored in, and only the rows looked up are cast: they are most of a multilingual encoder's bytes.
    """

    def __init__(self, config: dict[str, Any], dropout: float | None = None) -> None:
        super().__init__()
        self.model_type: str = config["model_type"]
        self.hidden_size: int = config["hidden_size"]
        self.layers: int = config["num_hidden_layers"]
        self.vocabulary: int = config["vocab_size"]
        self.pad_id: int = config.get("pad_token_id", 0 if self.model_type == "bert" else 1)
        self.position_offset = 0 if self.model_type == "bert" else self.pad_id + 1
        self.max_tokens: int = config["max_position_embeddings"] - self.position_offset
        hidden_dropout = config.get("hidden_dropout_prob", 0.1) if dropout is None else dropout
        self.embeddings = _Embeddings(config, hidden_dropout)
        self.encoder = _Layers(config, hidden_dropout, dropout)

    @classmethod
    def from_folder(
        cls, folder: Path, *, dtype: torch.dtype, device: torch.device, dropout: float | None = None
    ) -> Encoder:
        """Loads config.json and model.safetensors; `dropout` replaces both of the configuration's rates.

        UserError where a file is missing, the architecture is not one of `NATIVE_TYPES`, or a weight is
        missing, unexpected or of another shape.
        """
        config = read_config(folder)
        if not is_native(config):
            raise UserError(f"{folder / 'config.json'}: {config.get('model_type')!r} is not one of {NATIVE_TYPES}")
        try:
            with torch.device("meta"):
                model = cls(config, dropout)
        except KeyError as error:
            raise UserError(f"{folder / 'config.json'} lacks the key {error}") from error
        model.load_state_dict(_read_weights(folder, model, dtype, device), assign=True)
        return model.requires_grad_(False)

    def forward(
        self,
        tokens: Tensor,
        mask: Tensor | None = None,
        types: Tensor | None = None,
        layer: int | None = None,
    ) -> Tensor:
        """Hidden states [batch, tokens, hidden] of the last layer, or of layer `layer` (0: the embeddings).

        `tokens`: int64 ids [batch, tokens]. `mask`: bool [batch, tokens], true for real tokens; None says
        that nothing is padded, which is faster. `types`: int64 [batch, tokens], None for all zeros.
        """
        if tokens.shape[1] > self.max_tokens:
            raise UserError(
                f"{tokens.shape[1]} tokens are more than the {self.max_tokens} positions of this encoder:"
                " lower the task's maximum length"
            )
        if self.position_offset:
            real = tokens.ne(self.pad_id)
            positions = (real.cumsum(1) * real).add_(self.pad_id)
        else:
            positions = torch.arange(tokens.shape[1], device=tokens.device)
        hidden = self.embeddings(tokens, positions, types)
        # One cast here instead of one in front of each linear layer that reads the same tensor.
        kind = hidden.device.type
        if torch.is_autocast_enabled(kind):
            hidden = hidden.to(torch.get_autocast_dtype(kind))
        bias = None
        if mask is not None:
            # Added to the scores. Finite, so that a row without any real token gives numbers and not NaN.
            bias = torch.zeros(mask.shape, dtype=hidden.dtype, device=mask.device)
            bias = bias.masked_fill_(~mask, torch.finfo(hidden.dtype).min)[:, None, None, :]
        return cast(Tensor, self.encoder(hidden, bias, check_layer(layer, self.layers)))

    def checkpoint_layers(self) -> None:
        """Compute each layer again in the backward pass instead of keeping its activations."""
        self.encoder.checkpointing = True


class _Linear(nn.Linear):
    def reset_parameters(self) -> None:
        """Nothing: values come from a file, and drawing on the meta device imports torch._dynamo: 1.6 s."""


class _Embedding(nn.Embedding):
    def reset_parameters(self) -> None:
        """Nothing, for the same reason."""


class _Embeddings(nn.Module):
    def __init__(self, config: dict[str, Any], dropout: float) -> None:
        super().__init__()
        hidden = config["hidden_size"]
        self.word_embeddings = _Embedding(config["vocab_size"], hidden)
        self.position_embeddings = _Embedding(config["max_position_embeddings"], hidden)
        self.token_type_embeddings = _Embedding(config["type_vocab_size"], hidden)
        self.LayerNorm = nn.LayerNorm(hidden, eps=config.get("layer_norm_eps", 1e-12))
        self.dropout = _dropout(dropout)

    def forward(self, tokens: Tensor, positions: Tensor, types: Tensor | None) -> Tensor:
        kinds = self.token_type_embeddings.weight[0] if types is None else self.token_type_embeddings(types)
        words = self.word_embeddings(tokens).to(self.LayerNorm.weight.dtype)
        summed = words + kinds + self.position_embeddings(positions)
        return cast(Tensor, self.dropout(self.LayerNorm(summed)))


class _Layers(nn.Module):
    def __init__(self, config: dict[str, Any], hidden_dropout: float, dropout: float | None) -> None:
        super().__init__()
        attention_dropout = config.get("attention_probs_dropout_prob", 0.1) if dropout is None else dropout
        self.checkpointing = False
        self.layer = nn.ModuleList(
            _Layer(config, hidden_dropout, attention_dropout) for _ in range(config["num_hidden_layers"])
        )

    def forward(self, hidden: Tensor, bias: Tensor | None, layers: int) -> Tensor:
        for index in range(layers):
            if self.checkpointing and self.training:
                hidden = checkpoint(self.layer[index], hidden, bias, use_reentrant=False)
            else:
                hidden = self.layer[index](hidden, bias)
        return hidden


class _Layer(nn.Module):
    def __init__(self, config: dict[str, Any], hidden_dropout: float, attention_dropout: float) -> None:
        super().__init__()
        hidden, inner = config["hidden_size"], config["intermediate_size"]
        epsilon = config.get("layer_norm_eps", 1e-12)
        self.attention = nn.ModuleDict(
            {
                "self": _SelfAttention(hidden, config["num_attention_heads"], attention_dropout),
                "output": _Output(hidden, hidden, epsilon, hidden_dropout),
            }
        )
        self.intermediate = nn.ModuleDict({"dense": _Linear(hidden, inner)})
        self.output = _Output(inner, hidden, epsilon, hidden_dropout)
        self.activation = _ACTIVATIONS[config.get("hidden_act", "gelu")]

    def forward(self, hidden: Tensor, bias: Tensor | None) -> Tensor:
        hidden = self.attention["output"](self.attention["self"](hidden, bias), hidden)
        return cast(Tensor, self.output(self.activation(self.intermediate["dense"](hidden)), hidden))


class _SelfAttention(nn.Module):
    def __init__(self, hidden: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, Dropout(dropout)
        self.query, self.key, self.value = (_Linear(hidden, hidden) for _ in range(3))

    def forward(self, hidden: Tensor, bias: Tensor | None) -> Tensor:
        batch, tokens, size = hidden.shape
        query, key, value = (
            part(hidden).view(batch, tokens, self.heads, size // self.heads).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        mixed = _attention(query, key, value, bias, self.dropout)
        return mixed.transpose(1, 2).reshape(batch, tokens, size)


def _attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, dropout: Dropout) -> Tensor:
    """Softmax attention over [batch, heads, tokens, head size], as `F.scaled_dot_product_attention`.

    Which is what runs, but in low precision on a CPU: there torch 2.13's flash kernel is slower than three
    plain operations (backward, 16 tokens: tenfold) up to a length where their memory starts to matter.
    """
    if query.device.type == "cpu" and query.dtype != torch.float32 and query.shape[2] <= _SHORT:
        scores = (query * query.shape[3] ** -0.5) @ key.transpose(2, 3)
        if bias is not None:
            scores = scores + bias
        return cast(Tensor, dropout(scores.softmax(-1))) @ value
    rate = dropout.rate if dropout.training else 0.0
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=rate)


class _Output(nn.Module):
    def __init__(self, inner: int, hidden: int, epsilon: float, dropout: float) -> None:
        super().__init__()
        self.dense = _Linear(inner, hidden)
        self.LayerNorm = nn.LayerNorm(hidden, eps=epsilon)
        self.dropout = _dropout(dropout)

    def forward(self, inner: Tensor, residual: Tensor) -> Tensor:
        # CUDA's autocast gives float32 from a layer norm, CPU's does not: cast back once, for all readers.
        summed = self.dropout(self.dense(inner)) + residual
        return cast(Tensor, self.LayerNorm(summed)).to(residual.dtype)


class Dropout(nn.Module):
    """Dropout (Srivastava et al., 2014) that draws four decisions from each random number on a CPU.

    There torch draws one number an element, in one thread: an eighth of a step. The rate is kept to 1 / 65,536.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, values: Tensor) -> Tensor:
        if not self.training or not self.rate:
            return values
        if values.device.type != "cpu":
            return F.dropout(values, self.rate)
        dropped = round(self.rate * 2**16)
        drawn = torch.empty((values.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        kept = drawn.view(torch.int16)[: values.numel()].view(values.shape) >= dropped - 2**15
        return values * (kept * (2**16 / (2**16 - dropped))).to(values.dtype)


def _dropout(rate: float) -> nn.Module:
    return Dropout(rate) if rate else nn.Identity()


class WrappedEncoder(nn.Module):
    """Any other architecture: transformers' own class behind the interface of `Encoder`."""

    def __init__(self, backbone: nn.Module, config: Any) -> None:
        super().__init__()
        self.backbone = backbone
        self.model_type: str = config.model_type
        self.hidden_size: int = config.hidden_size
        self.layers: int = config.num_hidden_layers
        self.vocabulary: int = config.vocab_size
        self.pad_id: int = getattr(config, "pad_token_id", None) or 0
        positions = getattr(getattr(backbone, "embeddings", None), "position_embeddings", None)
        # Set by RoBERTa's relatives, whose positions start behind it.
        padding = getattr(positions, "padding_idx", None)
        self.max_tokens: int = config.max_position_embeddings - (0 if padding is None else padding + 1)
        self.has_types: bool = getattr(config, "type_vocab_size", 0) > 1

    @classmethod
    def from_folder(
        cls, folder: Path, *, dtype: torch.dtype, device: torch.device, dropout: float | None = None
    ) -> WrappedEncoder:
        """As `Encoder.from_folder`; UserError where transformers cannot load it or weights differ."""
        from transformers import AutoConfig, AutoModel

        try:
            config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            if dropout is not None:
                for name, value in config.to_dict().items():
                    if "dropout" in name and isinstance(value, float):
                        setattr(config, name, dropout)
            # Attention is left to transformers: SDPA wherever the architecture has it.
            backbone, loaded = AutoModel.from_pretrained(
                folder,
                config=config,
                dtype=dtype,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"{folder}: transformers cannot load this encoder: {reason}") from error
        backbone.pooler = None  # no task reads it, and it must not look like something to train
        missing = [name for name in loaded["missing_keys"] if not _ignored(name)]
        unexpected = [name for name in loaded["unexpected_keys"] if not _ignored(name)]
        _refuse_other_names(folder / "model.safetensors", missing, unexpected)
        return cls(backbone.to(device).requires_grad_(False), config)

    def forward(
        self,
        tokens: Tensor,
        mask: Tensor | None = None,
        types: Tensor | None = None,
        layer: int | None = None,
    ) -> Tensor:
        """As `Encoder.forward`, but an earlier layer costs the whole pass."""
        inputs: dict[str, Any] = {"input_ids": tokens}
        if mask is not None:
            inputs["attention_mask"] = mask.long()
        if types is not None and self.has_types:
            inputs["token_type_ids"] = types
        wanted = check_layer(layer, self.layers)
        output = self.backbone(**inputs, output_hidden_states=layer is not None)
        return cast(Tensor, output.last_hidden_state if layer is None else output.hidden_states[wanted])

    def checkpoint_layers(self) -> None:
        """As `Encoder.checkpoint_layers`."""
        cast(Any, self.backbone).gradient_checkpointing_enable({"use_reentrant": False})


AnyEncoder = Encoder | WrappedEncoder


def load_encoder(folder: Path, *, dtype: torch.dtype, device: torch.device, dropout: float | None = None) -> AnyEncoder:
    """The encoder in `folder` (Hugging Face layout), frozen, in evaluation mode.

    With our own forward pass where there is one for its architecture, and transformers' otherwise.
    """
    kind = Encoder if is_native(read_config(folder)) else WrappedEncoder
    return kind.from_folder(folder, dtype=dtype, device=device, dropout=dropout).eval()


def word_embeddings(encoder: AnyEncoder) -> nn.Parameter:
    """The matrix that tokens are looked up in [vocabulary, size]."""
    if isinstance(encoder, WrappedEncoder):
        return cast(nn.Parameter, cast(Any, encoder.backbone).get_input_embeddings().weight)
    return cast(nn.Parameter, encoder.embeddings.word_embeddings.weight)


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's config.json; UserError where it is missing or not JSON."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as an encoder's configuration: {error}") from error
    if not isinstance(config, dict):
        raise UserError(f"{path} is not an encoder's configuration: it holds no JSON object")
    return config


def is_native(config: dict[str, Any]) -> bool:
    """Whether `Encoder` computes exactly what this configuration asks for."""
    return (
        config.get("model_type") in NATIVE_TYPES
        and config.get("hidden_act", "gelu") in _ACTIVATIONS
        and config.get("position_embedding_type", "absolute") == "absolute"
        and not config.get("is_decoder", False)
    )


def check_layer(layer: int | None, layers: int) -> int:
    """Number of layers to run for `layer`; UserError where the encoder has fewer."""
    if layer is not None and not 0 <= layer <= layers:
        raise UserError(f"layer {layer} is asked for, and this encoder has layers 0 (embeddings) to {layers}")
    return layers if layer is None else layer


def _read_weights(folder: Path, model: Encoder, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / "model.safetensors"
    try:
        stored = load_file(path)  # mapped, not read
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read as an encoder's weights: {error}") from error
    stored = {name: weight for name, weight in stored.items() if not _ignored(name)}
    expected = model.state_dict()
    _refuse_other_names(path, sorted(expected.keys() - stored.keys()), sorted(stored.keys() - expected.keys()))
    for name, weight in stored.items():
        if weight.shape != expected[name].shape:
            raise UserError(
                f"{path}: {name} has shape {list(weight.shape)} where config.json says {list(expected[name].shape)}"
            )
    return {
        name: weight.to(device, weight.dtype if name == WORD_EMBEDDINGS else dtype) for name, weight in stored.items()
    }


def _ignored(name: str) -> bool:
    return name.startswith("pooler.") or name.endswith("position_ids") or name.endswith("embeddings.token_type_ids")


def _refuse_other_names(path: Path, missing: list[str], unexpected: list[str]) -> None:
    for problem, names in (("lacks", missing), ("has unknown", unexpected)):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise UserError(
                f"{path} {problem} the weight {names[0]}{more}: it is not the encoder config.json describes"
            )
