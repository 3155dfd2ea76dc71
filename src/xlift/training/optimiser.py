"""AdamW over named parameters, with a state that is plain tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

BETAS = (0.9, 0.999)
EPSILON = 1e-8


class AdamW:
    """Decoupled weight decay (Loshchilov & Hutter, 2019), fused; none on biases, layer norms and scalars.

    `torch.optim.AdamW` computes the same with the same kernel; its class imports torch's compiler, which takes longer
    than loading an encoder, and its state is not made of tensors only.
    """

    def __init__(self, named: Iterable[tuple[str, nn.Parameter]], weight_decay: float) -> None:
        self.parameters = dict(named)
        self._groups = [
            (decay, names)
            for decay, names in (
                (weight_decay, [name for name, parameter in self.parameters.items() if parameter.ndim >= 2]),
                (0.0, [name for name, parameter in self.parameters.items() if parameter.ndim < 2]),
            )
            if names
        ]
        self._moments = {
            name: (torch.zeros_like(parameter), torch.zeros_like(parameter), torch.zeros((), device=parameter.device))
            for name, parameter in self.parameters.items()
        }

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One update of every parameter that has a gradient."""
        for decay, members in self._groups:
            names = [name for name in members if self.parameters[name].grad is not None]
            if not names:
                continue
            first, second, counts = (list(row) for row in zip(*(self._moments[name] for name in names), strict=True))
            adamw(
                [self.parameters[name] for name in names],
                [gradient for name in names if (gradient := self.parameters[name].grad) is not None],
                first,
                second,
                [],
                counts,
                fused=True,
                amsgrad=False,
                maximize=False,
                beta1=BETAS[0],
                beta2=BETAS[1],
                lr=rate,
                weight_decay=decay,
                eps=EPSILON,
            )

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self.parameters.values():
            parameter.grad = None

    def state(self) -> dict[str, Tensor]:
        """Moments and step counts of every parameter, by name."""
        return {
            f"{part}.{name}": tensor
            for name, moments in self._moments.items()
            for part, tensor in zip(("mean", "square", "count"), moments, strict=True)
        }

    @torch.no_grad()
    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` gave."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])
