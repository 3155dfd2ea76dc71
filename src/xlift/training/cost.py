"""Floating-point operations of the encoder's matrix products."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class EncoderShape:
    """Sizes that decide an encoder's cost; `trained_layers` None: all."""

    layers: int
    hidden: int
    intermediate: int
    trained_layers: int | None = None

    @property
    def linear_parameters(self) -> int:
        """Weights of the attention and feed-forward matrices."""
        return self.layers * (4 * self.hidden**2 + 2 * self.hidden * self.intermediate)


def forward_flops(shape: EncoderShape, sequences: int, width: int) -> float:
    """Forward pass over `sequences` x `width` token positions: matrices and attention, 2 operations a multiply-add."""
    positions = sequences * width
    return 2.0 * shape.linear_parameters * positions + 4.0 * shape.layers * shape.hidden * width * positions


def head_flops(weights: int, rows: float) -> float:
    """Forward and backward pass of a head's matrices, `weights` in all, over `rows` token positions or sequences.

    Three forward passes: gradients of its inputs and of its weights are both needed.
    """
    return 6.0 * weights * rows


def tied_flops(weights: int, rows: float, trained: bool) -> float:
    """The same of word embeddings, `weights` in all, that decode `rows` positions: frozen ones need no gradient."""
    return (6.0 if trained else 4.0) * weights * rows


def conventional_flops(weights: int, tokens: int) -> float:
    """6 N D (Kaplan et al., 2020): N encoder weights without embeddings, D tokens without padding."""
    return 6.0 * weights * tokens


def training_flops(
    shape: EncoderShape, sequences: int, width: int, method: str, rank: int, checkpointing: bool = False
) -> float:
    """Forward and backward pass of the encoder that are really run; the head's are `head_flops`.

    Layers below the trained ones: one forward pass. Full fine-tuning: gradients of inputs and of weights, so three
    forward passes. LoRA: gradients of inputs only for the frozen matrices (two forward passes), three for the low-rank
    ones. No gradients of inputs where nothing before is trained: in the lowest trained layer's query, key and value.
    Attention of trained layers costs three. With checkpointing the trained layers' forward pass runs once more.
    """
    trained = shape.layers if shape.trained_layers is None else shape.trained_layers
    below = forward_flops(replace(shape, layers=shape.layers - trained), sequences, width)
    upper = replace(shape, layers=trained)
    positions = sequences * width
    matrices = 2.0 * upper.linear_parameters * positions
    attention = 4.0 * trained * shape.hidden * width * positions
    low_rank = 2.0 * trained * rank * positions * (4 * 2 * shape.hidden + 2 * (shape.hidden + shape.intermediate))
    again = 0.0
    if checkpointing:
        again = matrices + attention + (low_rank if method == "lora" else 0.0)
    if method == "full":
        # Without a limit on layers the embeddings' positions and norm are trained too, and need these gradients.
        not_needed = 0.0 if shape.trained_layers is None else 2.0 * positions * 3 * shape.hidden**2
        return below + 3 * (matrices + attention) - not_needed + again
    not_needed = 2.0 * positions * 3 * (shape.hidden**2 + shape.hidden * rank)
    return below + 2 * matrices + 3 * (attention + low_rank) - not_needed + again
