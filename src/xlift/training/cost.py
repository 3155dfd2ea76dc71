"""Floating-point operations of the encoder's matrix products."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EncoderShape:
    """Sizes that decide an encoder's cost."""

    layers: int
    hidden: int
    intermediate: int

    @property
    def linear_parameters(self) -> int:
        """Weights of the attention and feed-forward matrices."""
        return self.layers * (4 * self.hidden**2 + 2 * self.hidden * self.intermediate)


def forward_flops(shape: EncoderShape, sequences: int, width: int) -> float:
    """Forward pass over `sequences` x `width` token positions: matrices and attention, 2 operations a multiply-add."""
    positions = sequences * width
    return 2.0 * shape.linear_parameters * positions + 4.0 * shape.layers * shape.hidden * width * positions


def training_flops(shape: EncoderShape, sequences: int, width: int, method: str, rank: int) -> float:
    """Forward and backward pass that are really run.

    Full fine-tuning: gradients of inputs and of weights, so three forward passes. LoRA: gradients of inputs only for
    the frozen matrices (two forward passes), three for the low-rank ones. Attention always costs three. The head is
    left out: it is below one per cent.
    """
    positions = sequences * width
    matrices = 2.0 * shape.linear_parameters * positions
    attention = 4.0 * shape.layers * shape.hidden * width * positions
    if method == "full":
        return 3 * (matrices + attention)
    low_rank = 2.0 * shape.layers * rank * positions * (4 * 2 * shape.hidden + 2 * (shape.hidden + shape.intermediate))
    return 2 * matrices + 3 * (attention + low_rank)
