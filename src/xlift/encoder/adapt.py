"""What is trained of an encoder, low-rank adapters (LoRA, Hu et al., 2021) or weights, and how it is kept.

Encoders that transformers runs are adapted by PEFT. For those written out in `model.py` an adapter is `LowRankLinear`,
which computes what PEFT computes (a test holds them together): importing PEFT, with transformers behind it, takes
longer than all else before a short job's first step. Names and shapes are PEFT's either way, and prediction folds an
adapter into the weights with one matrix product a layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xlift.encoder.model import WORD_EMBEDDINGS, AnyEncoder, Dropout, WrappedEncoder, word_embeddings
from xlift.errors import UserError

ADAPTER = "default"
"""PEFT's name of the one adapter; stored names are without it, as in PEFT's own files."""


@dataclass(frozen=True)
class Trainable:
    """What of the encoder is trained: adapters of this rank, or weights, with or without word embeddings.

    `layers`: only that many of the uppermost layers, and no embeddings; None: all of it. What lies below the lowest
    trained layer needs no backward pass.
    """

    method: Literal["lora", "full"] = "lora"
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    freeze_word_embeddings: bool = True
    layers: int | None = None

    @property
    def scale(self) -> float:
        """What the product of an adapter's matrices is multiplied by."""
        return self.alpha / self.rank


def make_trainable(encoder: AnyEncoder, trainable: Trainable, seed: int) -> None:
    """Marks what is trained, in place; everything else is frozen and never has a gradient.

    `lora`: adapters on every linear layer of attention and feed-forward blocks; A is drawn from `seed` on the
    CPU (the same bytes on every device), B is zero. `full`: all weights in float32 but, if frozen, the word
    embeddings.
    """
    body = _body(encoder)
    body.requires_grad_(False)
    if trainable.method == "full":
        parameters = dict(body.named_parameters())
        for name in _fully_trained(encoder, trainable):
            parameters[name].data = parameters[name].data.float()
            parameters[name].requires_grad_(True)
        return
    _inject_adapters(encoder, trainable, seed)


class _Matrix(nn.Module):
    """One trained matrix [outputs, inputs]."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)


class LowRankLinear(nn.Module):
    """A frozen linear layer W plus its adapter: x W' + b + scale * dropout(x) A' B'.

    A [rank, inputs] is drawn as PEFT draws it (Kaiming uniform with a = sqrt(5)) and B [outputs, rank] is zero; both
    are float32 whatever W is in. Products are in W's precision.
    """

    def __init__(self, base: nn.Linear, trainable: Trainable, generator: torch.Generator) -> None:
        super().__init__()
        self.base_layer = base
        self.scale = trainable.scale
        self.dropout = Dropout(trainable.dropout)
        self.lora_A, self.lora_B = (_Matrix(drawn) for drawn in _drawn(base.weight, trainable.rank, generator))

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., inputs] -> [..., outputs]."""
        weight = self.base_layer.weight
        hidden = hidden.to(weight.dtype)
        down, up = self.lora_A.weight.to(weight.dtype), (self.lora_B.weight * self.scale).to(weight.dtype)
        dropped = self.dropout(hidden)
        return cast(Tensor, _LowRankProduct.apply(hidden, dropped, weight, self.base_layer.bias, down, up))


class _LowRankProduct(torch.autograd.Function):
    """x W' + b + z A' B', z being x after dropout, with each sum taken by the product that ends it.

    Short steps on a CPU are bound by the number of operations: autograd's own would be twice as many.
    """

    @staticmethod
    def forward(
        context: Any, hidden: Tensor, dropped: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor
    ) -> Tensor:
        flat = dropped.reshape(-1, dropped.shape[-1])
        narrow = flat @ down.T
        context.save_for_backward(flat, narrow, weight, down, up)
        context.shared = dropped is hidden
        wide = F.linear(hidden, weight, bias)
        wide.view(-1, wide.shape[-1]).addmm_(narrow, up.T)
        return wide

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        flat, narrow, weight, down, up = context.saved_tensors
        wide = gradients[0].reshape(-1, weight.shape[0])
        thin = wide @ up
        of_hidden = of_dropped = None
        if context.needs_input_grad[0] or context.needs_input_grad[1]:
            of_hidden = wide @ weight
            if context.shared:
                of_hidden.addmm_(thin, down)
            else:
                of_dropped = (thin @ down).view(*gradients[0].shape[:-1], -1)
            of_hidden = of_hidden.view(*gradients[0].shape[:-1], -1)
        return of_hidden, of_dropped, None, None, thin.T @ flat, wide.T @ narrow


def _inject_adapters(encoder: AnyEncoder, trainable: Trainable, seed: int) -> None:
    """Adapters on the wanted layers, drawn from `seed` layer by layer in the order of their names."""
    layers = adapted_layers(encoder, trainable.layers)
    generator = torch.Generator().manual_seed(seed)
    if isinstance(encoder, WrappedEncoder):
        _inject_by_peft(encoder.backbone, layers, trainable, generator)
        return
    for name in layers:
        parent, _, child = name.rpartition(".")
        base = cast(nn.Linear, encoder.get_submodule(name))
        setattr(encoder.get_submodule(parent), child, LowRankLinear(base, trainable, generator))


def _inject_by_peft(backbone: nn.Module, layers: list[str], trainable: Trainable, generator: torch.Generator) -> None:
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.lora import LoraLayer

    config = LoraConfig(
        r=trainable.rank,
        lora_alpha=trainable.alpha,  # type: ignore[arg-type]  # PEFT only divides it by the rank
        lora_dropout=trainable.dropout,
        target_modules=layers,
    )
    body = inject_adapter_in_model(config, backbone)
    for name in layers:
        layer = cast(LoraLayer, body.get_submodule(name))
        # Autocast decides on precisions; PEFT's copies of each input to float32 and back cost a sixth of a CPU step.
        layer.cast_input_dtype_enabled = False
        down, up = (cast(nn.Linear, matrices[ADAPTER]).weight for matrices in (layer.lora_A, layer.lora_B))
        drawn = _drawn(cast(nn.Linear, layer.get_base_layer()).weight, trainable.rank, generator)
        down.data, up.data = drawn


def _drawn(weight: Tensor, rank: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A and B of a fresh adapter of `weight` [outputs, inputs]: the same bytes on every device, float32."""
    outputs, inputs = weight.shape
    bound = 1 / math.sqrt(inputs)
    down = torch.empty(rank, inputs).uniform_(-bound, bound, generator=generator)
    return down.to(weight.device), torch.zeros(outputs, rank, device=weight.device)


def adapted_layers(encoder: AnyEncoder, layers: int | None = None) -> list[str]:
    """Names of the linear layers that LoRA adapts, sorted: all in the stack of layers, or in its uppermost `layers`."""
    upper = _upper_layers(encoder, layers)
    modules = _body(encoder).named_modules()
    return sorted(name for name, module in modules if isinstance(module, nn.Linear) and name.startswith(upper))


def _upper_layers(encoder: AnyEncoder, layers: int | None) -> tuple[str, ...]:
    """Name prefixes of the uppermost `layers` layers (None: of all)."""
    stacks = [(name, module) for name, module in _body(encoder).named_modules() if isinstance(module, nn.ModuleList)]
    depth = len(max(stacks, key=lambda stack: len(stack[1]))[1])
    if layers is not None and layers > depth:
        raise UserError(f"trainable.layers: {layers} is more than the {depth} layers of this encoder; lower it")
    # Architectures that repeat one block have a stack of another length; their blocks count from the top as well.
    return tuple(
        f"{name}.{index}."
        for name, stack in stacks
        for index in range(len(stack) - min(layers or len(stack), len(stack)), len(stack))
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
        expected = {name: parameters[name].shape for name in _fully_trained(encoder, trainable)}
        _check(state, expected, trainable)
        with torch.no_grad():
            for name in expected:
                parameters[name].copy_(state[name])
        return
    expected = {}
    layers = adapted_layers(encoder, trainable.layers)
    for layer in layers:
        outputs, inputs = parameters[f"{layer}.weight"].shape
        expected[f"{layer}.lora_A.weight"] = torch.Size((trainable.rank, inputs))
        expected[f"{layer}.lora_B.weight"] = torch.Size((outputs, trainable.rank))
    _check(state, expected, trainable)
    with torch.no_grad():
        for layer in layers:
            weight = parameters[f"{layer}.weight"]
            down, up = (state[f"{layer}.lora_{part}.weight"].to(weight.device, torch.float32) for part in "AB")
            weight.copy_(torch.addmm(weight.float(), up, down, alpha=trainable.scale))


def _body(encoder: AnyEncoder) -> nn.Module:
    """The module whose parameters have the encoder's own names."""
    return encoder.backbone if isinstance(encoder, WrappedEncoder) else encoder


def _fully_trained(encoder: AnyEncoder, trainable: Trainable) -> list[str]:
    """Names of the parameters that full fine-tuning trains."""
    names = [name for name, _ in _body(encoder).named_parameters()]
    if trainable.layers is not None:
        return [name for name in names if name.startswith(_upper_layers(encoder, trainable.layers))]
    frozen = _frozen_name(encoder, trainable)
    return [name for name in names if name != frozen]


def _frozen_name(encoder: AnyEncoder, trainable: Trainable) -> str | None:
    """The parameter that full fine-tuning leaves alone: the word embeddings, if they are frozen."""
    if not trainable.freeze_word_embeddings:
        return None
    if not isinstance(encoder, WrappedEncoder):
        return WORD_EMBEDDINGS
    words = word_embeddings(encoder)
    return next(name for name, parameter in encoder.backbone.named_parameters() if parameter is words)


def _trained_parameters(encoder: AnyEncoder) -> dict[str, nn.Parameter]:
    return {
        name.replace(f".{ADAPTER}.weight", ".weight"): parameter
        for name, parameter in _body(encoder).named_parameters()
        if parameter.requires_grad
    }


def _check(state: Mapping[str, Tensor], expected: dict[str, torch.Size], trainable: Trainable) -> None:
    what = f"the trained weights do not fit this encoder with {trainable}"
    for problem, names in (
        ("lacking", sorted(expected.keys() - state.keys())),
        ("with the unknown", sorted(state.keys() - expected.keys())),
    ):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise UserError(f"{what}: {problem} {names[0]}{more}; train them again or use the encoder they came from")
    for name, shape in expected.items():
        if state[name].shape != shape:
            raise UserError(f"{what}: {name} has shape {list(state[name].shape)} where {list(shape)} is expected")
