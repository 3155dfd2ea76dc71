"""Device, threads, memory, disk and results folder of this machine."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from xlift.doctor.finding import Finding, ok, problem, warning
from xlift.settings import Training


def check_device(training: Training) -> Iterator[Finding]:
    """Whether torch can be imported, what it computes on, whether that has bf16, and how many threads a job takes."""
    try:
        import torch

        from xlift.compute import cpu_has_bf16, processor_name
    except (ImportError, OSError) as error:
        advice = "install it again from PyTorch's index for this machine (README, Installing it your own way)"
        yield problem("torch", f"cannot be imported ({error})", advice)
        return
    yield ok("torch", torch.__version__)
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(number)
            yield ok(f"GPU {number}", f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB")
        yield check_bf16(training.precision, "GPU", torch.cuda.is_bf16_supported(including_emulation=False))
    else:
        if torch.version.cuda is not None and shutil.which("nvidia-smi"):
            advice = (
                "check that `nvidia-smi` lists the GPU and that its driver suits this torch, or install another torch"
            )
            yield warning("device", f"no GPU that torch {torch.__version__} can use, yet nvidia-smi is here", advice)
        else:
            yield ok("device", f"CPU ({processor_name()}), no GPU")
        yield check_bf16(training.precision, "CPU", cpu_has_bf16())
    yield check_threads(training.threads, usable_cores())


def check_bf16(precision: str, device: str, native: bool) -> Finding:
    """Whether the device multiplies bf16 natively, against what the study asks for."""
    if native:
        return ok("bf16", f"native on this {device}")
    if precision == "bf16":
        if device == "GPU":
            return problem("bf16", "training.precision is bf16, which this GPU has not", "set it to auto or fp32")
        return warning("bf16", "training.precision is bf16, which this CPU emulates, slowly", "set it to auto or fp32")
    return ok("bf16", f"not native on this {device}: runs compute in fp32")


def check_threads(asked: int, cores: int) -> Finding:
    """Threads of a job against the processor's cores."""
    if asked > cores:
        return warning("threads", f"training.threads is {asked}, and {cores} cores are here", f"set it to {cores}")
    return ok("threads", f"{asked} a job, {cores} cores")


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_memory(needed_mb: int, threads: int, available: int | None = None, cores: int | None = None) -> Finding:
    """Free memory against what one training job asks for, and what as many as there are cores for would."""
    available = psutil.virtual_memory().available if available is None else available
    together = max(1, (usable_cores() if cores is None else cores) // threads)
    found = f"{available / 1e9:.1f} GB free; a training job asks for up to {needed_mb / 1e3:.1f} GB"
    if available < 1e6 * needed_mb:
        return warning("memory", found, "free some, run on a larger machine, or use trainable.method: lora")
    if available < 1e6 * needed_mb * together:
        fitting = int(available / (1e6 * needed_mb))
        return warning("memory", f"{found}, and {together} may run at a time", f"run with --cores {fitting * threads}")
    return ok("memory", found)


def check_disk(needed: float, results: Path, free: int | None = None) -> Finding:
    """Free disk where results come to lie, against what is still to be written."""
    place = _existing(results)
    free = shutil.disk_usage(place).free if free is None else free
    found = f"{free / 1e9:.1f} GB free at {place.resolve()}; what is still to be made takes about {needed / 1e9:.1f} GB"
    if free < needed:
        return problem("disk", found, "free some, or make results/ a link to a larger disk")
    if free < 2 * needed:
        return warning("disk", found, "keep an eye on it: states of runs in progress come on top")
    return ok("disk", found)


def check_writable(results: Path) -> Finding:
    """Whether files can be made in the results folder, or where it will be made."""
    place = _existing(results)
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        return problem(
            "results", f"{place.resolve()} cannot be written to ({error.strerror})", "correct its owner or mode"
        )
    return ok("results", f"{place.resolve()} can be written to")


def _existing(path: Path) -> Path:
    """A folder, or the nearest one above it that is there."""
    path = path.absolute()
    return next(place for place in (path, *path.parents) if place.exists())
