"""How a run is carried out on its device: what changes its speed and memory and not what it computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from xlift.compute import Compute
from xlift.errors import UserError
from xlift.training.cost import EncoderShape

CPU_TOKENS = 2048
"""Token positions of one pass on a CPU: more do not compute faster, and fill its caches."""
FEWEST_CUDA_TOKENS, MOST_CUDA_TOKENS = 4096, 65536
"""Below the first a GPU waits for work: recompute activations instead. Above the second nothing is gained."""
USABLE = 0.85
"""Share of a device's memory that is planned with; the rest is for its libraries and fragmentation."""


@dataclass(frozen=True)
class Execution:
    """A study's settings on speed and memory; `save_every` in seconds, `micro_batch_tokens` None: from memory."""

    save_every: float = 300.0
    compile: bool = False
    gradient_checkpointing: Literal["auto", "on", "off"] = "auto"
    micro_batch_tokens: int | None = None


@dataclass(frozen=True)
class MemoryPlan:
    """Token positions of one forward and backward pass, and whether layers are computed again in the backward one."""

    micro_batch_tokens: int
    checkpointing: bool


@dataclass(frozen=True)
class Weights:
    """Number of trained weights (float32, gradient, two moments), and bytes of frozen ones as they are held."""

    trained: int
    frozen_bytes: int

    @property
    def bytes(self) -> int:
        """Memory during training."""
        return 16 * self.trained + self.frozen_bytes


def activation_bytes(shape: EncoderShape, checkpointing: bool, itemsize: int) -> int:
    """Bytes kept for the backward pass, a token position, with `itemsize` bytes in the compute dtype.

    Attention is by a fused kernel. A layer keeps about 11 vectors of the hidden and 2 of the inner size in the compute
    dtype, two layer norms' inputs in 32 bits and two dropout masks (counted as in Korthikanti et al., 2022, arXiv
    2205.05198, section 4.1). With checkpointing a layer keeps its input, and one layer at a time all of this.
    """
    layer = itemsize * (11 * shape.hidden + 2 * shape.intermediate) + 8 * shape.hidden + 2 * shape.hidden
    return shape.layers * itemsize * shape.hidden + layer if checkpointing else shape.layers * layer


def memory_plan(
    execution: Execution, compute: Compute, shape: EncoderShape, weights: Weights, longest: int
) -> MemoryPlan:
    """Fit a run into its device's memory. `longest`: token positions that have to be computed together.

    On CUDA as many positions as fit, a power of two; checkpointing where fewer than a GPU needs to be busy would fit
    without it. UserError where not even `longest` fit.
    """
    wanted = execution.gradient_checkpointing
    if compute.device.type == "cpu":
        return MemoryPlan(execution.micro_batch_tokens or CPU_TOKENS, wanted == "on")
    memory = compute.memory_bytes()
    itemsize = compute.dtype.itemsize
    held = weights.bytes
    room = max(USABLE * memory - held, 0)
    fitting = {choice: int(room // activation_bytes(shape, choice, itemsize)) for choice in (False, True)}
    least = max(longest, execution.micro_batch_tokens or 0)
    enough = least if execution.micro_batch_tokens else max(longest, FEWEST_CUDA_TOKENS)
    checkpointing = wanted == "on" or (wanted == "auto" and fitting[False] < enough)
    fits = fitting[checkpointing]
    if fits < least:
        raise UserError(
            f"the device's {memory / 2**30:.0f} GiB hold {held / 2**30:.1f} GiB of weights and about {fits} token "
            f"positions of activations where {least} are needed; use "
            "trainable.method lora, a smaller max_length or training.micro_batch_tokens, gradient checkpointing, "
            "or a larger device"
        )
    tokens = execution.micro_batch_tokens or min(MOST_CUDA_TOKENS, 2 ** (fits.bit_length() - 1))
    return MemoryPlan(tokens, checkpointing)
