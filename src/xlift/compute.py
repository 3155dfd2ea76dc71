"""Which device and precision a job computes in, and what it used."""

from __future__ import annotations

import os
import platform
import resource
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from xlift.errors import UserError


@dataclass(frozen=True)
class Compute:
    """A device and the dtype of its matrix products (float32: no autocast)."""

    device: torch.device
    dtype: torch.dtype

    def autocast(self) -> AbstractContextManager[Any]:
        """Mixed precision where the dtype asks for it."""
        if self.dtype is torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    @property
    def dtype_name(self) -> str:
        """`bf16` or `fp32`."""
        return "bf16" if self.dtype is torch.bfloat16 else "fp32"

    def describe(self) -> str:
        """The device's model name."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else processor_name()

    def memory_bytes(self) -> int:
        """All memory of a CUDA device."""
        return int(torch.cuda.get_device_properties(self.device).total_memory)

    def peak_memory_mib(self) -> float:
        """Largest memory so far: of the device on CUDA, else resident memory of this process."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if sys.platform == "darwin" else 2**10)


def choose_compute(precision: str, threads: int) -> Compute:
    """The first visible CUDA device (`CUDA_VISIBLE_DEVICES` decides which), else the CPU with `threads` threads.

    `precision` is `auto`, `bf16` or `fp32`; `auto` takes bf16 where the device multiplies it natively.
    """
    torch.set_num_threads(threads)
    if torch.cuda.is_available():
        # Not on the CPU, where the operations used are deterministic and this call costs a second of imports.
        torch.use_deterministic_algorithms(True, warn_only=True)
        # cuBLAS needs this to be set before its first call to be deterministic.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cuda.matmul.allow_tf32 = True
        device, native = torch.device("cuda", 0), torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        device, native = torch.device("cpu"), cpu_has_bf16()
    if precision == "bf16" and device.type == "cuda" and not native:
        raise UserError(
            f"training.precision: bf16 is not native on {torch.cuda.get_device_name(device)}; use fp32 or auto"
        )
    bf16 = precision == "bf16" or (precision == "auto" and native)
    return Compute(device, torch.bfloat16 if bf16 else torch.float32)


def cpu_has_bf16() -> bool:
    """Whether this processor multiplies bfloat16 natively (AVX512-BF16, AMX, or Arm's bf16)."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except OSError:
        return False
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(flags))


def processor_name() -> str:
    """The processor's model name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
