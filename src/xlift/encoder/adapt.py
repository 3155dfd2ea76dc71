"""What is trained of an encoder, low-rank adapters (LoRA, Hu et al., 2021) or weights, and how it is kept.

Names and numbers are PEFT's; PEFT itself is not imported: that takes longer than loading the encoder, and its
layers copy each input to float32 and back, a sixth of a step on a CPU. The tests hold the two together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xlift.encoder.model import WORD_EMBEDDINGS, AnyEncoder, WrappedEncoder
from xlift.errors import UserError


@dataclass(frozen=True)
class Trainable:
    """What of the encoder is trained: adapters of this rank, or weights, with or without word embeddings."""

    method: Literal["lora", "full"] = "lora"
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    freeze_word_embeddings: bool = True

    @property
    def scale(self) -> float:
        """What the product of an adapter's matrices is multiplied by."""
        return self.alpha / self.rank


class LoraLinear(nn.Module):
    """A frozen linear layer plus `scale * B A`, with B [outputs, rank] and A [rank, inputs] in float32."""

    def __init__(self, base: nn.Linear, trainable: Trainable) -> None:
        super().__init__()
        self.weight, self.bias = base.weight, base.bias
        self.lora_A = _Matrix(trainable.rank, base.in_features, base.weight.device)
        self.lora_B = _Matrix(base.out_features, trainable.rank, base.weight.device)
        self.dropout = nn.Dropout(trainable.dropout) if trainable.dropout else nn.Identity()
        self.scale = trainable.scale

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., inputs] -> [..., outputs], in the precision that the frozen layer alone would give."""
        rows = inputs.reshape(-1, inputs.shape[-1])
        outputs = F.linear(rows, self.weight, self.bias)
        kind = outputs.dtype
        low = F.linear(self.dropout(rows).to(kind), self.lora_A.weight.to(kind))
        outputs.addmm_(low, self.lora_B.weight.to(kind).t(), alpha=self.scale)
        return outputs.view(*inputs.shape[:-1], outputs.shape[-1])


class _Matrix(nn.Module):
    """A float32 matrix of zeros, as a module, so that its parameter is called `<name>.weight` as in PEFT."""

    def __init__(self, rows: int, columns: int, device: torch.device) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(rows, columns, device=device))


def make_trainable(encoder: AnyEncoder, trainable: Trainable, seed: int) -> None:
    """Marks what is trained, in place; everything else is frozen and never has a gradient.

    `lora`: adapters on every linear layer of attention and feed-forward blocks; A is drawn from `seed` on the
    CPU (the same bytes on every device), B is zero. `full`: all weights in float32 but, if frozen, the word
    embeddings.
    """
    body = _body(encoder)
    body.requires_grad_(False)
    if trainable.method == "full":
        frozen = _frozen_name(encoder, trainable)
        for name, parameter in body.named_parameters():
            if name != frozen:
                parameter.data = parameter.data.float()
                parameter.requires_grad_(True)
        return
    generator = torch.Generator().manual_seed(seed)
    for name in adapted_layers(encoder):
        layer = LoraLinear(cast(nn.Linear, body.get_submodule(name)), trainable)
        down = layer.lora_A.weight
        bound = 1 / math.sqrt(down.shape[1])  # PEFT's default: Kaiming uniform with a = sqrt(5)
        with torch.no_grad():
            down.copy_(torch.empty(down.shape).uniform_(-bound, bound, generator=generator))
        body.set_submodule(name, layer)


def adapted_layers(encoder: AnyEncoder) -> list[str]:
    """Names of the linear layers that LoRA adapts: all that stand in the stack of layers, sorted."""
    body = _body(encoder)
    stacks = tuple(f"{name}." for name, module in body.named_modules() if isinstance(module, nn.ModuleList))
    return sorted(
        name
        for name, module in body.named_modules()
        if isinstance(module, nn.Linear) and name.startswith(stacks)
    )


def trained_state(encoder: AnyEncoder) -> dict[str, Tensor]:
    """Only the trained weights, by name, as contiguous float32 tensors on the CPU, in sorted order."""
    return {
        name: parameter.detach().to("cpu", torch.float32, copy=True).contiguous()
        for name, parameter in sorted(_trained_parameters(encoder).items())
    }


def load_trained(encoder: AnyEncoder, state: Mapping[str, Tensor], trainable: Trainable) -> None:
    """Puts `state` into an encoder that `make_trainable` prepared in the same way, to train it further.

    UserError where a name or shape differs.
    """
    parameters = _trained_parameters(encoder)
    _check(state, {name: parameter.shape for name, parameter in parameters.items()}, trainable)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(state[name])


def merge_trained(encoder: AnyEncoder, state: Mapping[str, Tensor], trainable: Trainable) -> None:
    """Puts `state` into the weights of a freshly loaded encoder, for prediction: no adapter is left.

    Adapters are folded in float32 and the sum is cast to the weight's precision. UserError where a name or
    shape differs.
    """
    parameters = dict(_body(encoder).named_parameters())
    if trainable.method == "full":
        frozen = _frozen_name(encoder, trainable)
        expected = {name: parameter.shape for name, parameter in parameters.items() if name != frozen}
        _check(state, expected, trainable)
        with torch.no_grad():
            for name in expected:
                parameters[name].copy_(state[name])
        return
    expected = {}
    layers = adapted_layers(encoder)
    for layer in layers:
        outputs, inputs = parameters[f"{layer}.weight"].shape
        expected[f"{layer}.lora_A.weight"] = torch.Size((trainable.rank, inputs))
        expected[f"{layer}.lora_B.weight"] = torch.Size((outputs, trainable.rank))
    _check(state, expected, trainable)
    with torch.no_grad():
        for layer in layers:
            weight = parameters[f"{layer}.weight"]
            down, up = (
                state[f"{layer}.lora_{part}.weight"].to(weight.device, torch.float32) for part in "AB"
            )
            weight.copy_(torch.addmm(weight.float(), up, down, alpha=trainable.scale))


def _body(encoder: AnyEncoder) -> nn.Module:
    """The module whose parameters have the encoder's own names."""
    return encoder.backbone if isinstance(encoder, WrappedEncoder) else encoder


def _frozen_name(encoder: AnyEncoder, trainable: Trainable) -> str | None:
    """The parameter that full fine-tuning leaves alone: the word embeddings, if they are frozen."""
    if not trainable.freeze_word_embeddings:
        return None
    if not isinstance(encoder, WrappedEncoder):
        return WORD_EMBEDDINGS
    words = cast(Any, encoder.backbone).get_input_embeddings().weight
    return next(name for name, parameter in encoder.backbone.named_parameters() if parameter is words)


def _trained_parameters(encoder: AnyEncoder) -> dict[str, nn.Parameter]:
    return {
        name: parameter for name, parameter in _body(encoder).named_parameters() if parameter.requires_grad
    }


def _check(state: Mapping[str, Tensor], expected: dict[str, torch.Size], trainable: Trainable) -> None:
    what = f"the trained weights do not fit this encoder with {trainable}"
    for problem, names in (
        ("lacking", sorted(expected.keys() - state.keys())),
        ("with the unknown", sorted(state.keys() - expected.keys())),
    ):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise UserError(
                f"{what}: {problem} {names[0]}{more}; train them again or use the encoder they came from"
            )
    for name, shape in expected.items():
        if state[name].shape != shape:
            raise UserError(
                f"{what}: {name} has shape {list(state[name].shape)} where {list(shape)} is expected"
            )
