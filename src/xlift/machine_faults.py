"""Faults of the machine a job runs on, each in one sentence that says what to do."""

from __future__ import annotations

import errno

FULL = (errno.ENOSPC, errno.EDQUOT)
FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)
# Rust libraries (safetensors, polars) and torch raise classes of their own, with the system's words inside.
FULL_WORDS = ("No space left on device", "Disk quota exceeded")
FORBIDDEN_WORDS = ("Read-only file system", "Permission denied")
MEMORY_WORDS = ("out of memory", "can't allocate memory", "Cannot allocate memory")


def machine_fault(error: BaseException) -> str | None:
    """What a fault of the machine is and what to do about it; None for any other fault."""
    number = error.errno if isinstance(error, OSError) else None
    text = str(error)
    of_file = error.filename if isinstance(error, OSError) else None
    where = f"{of_file or text}: "
    if number in FULL or any(words in text for words in FULL_WORDS):
        return (
            f"{where}the disk is full; free some space and run the workflow again: it goes on from what was finished, "
            "and nothing half-written counts"
        )
    if number in FORBIDDEN or any(words in text for words in FORBIDDEN_WORDS):
        return f"{where}cannot be written or read; give this user the right to, and run the workflow again"
    if type(error).__name__ == "OutOfMemoryError" or "CUDA out of memory" in text:
        return (
            "out of the GPU's memory; set training.gradient_checkpointing to `on`, lower training.micro_batch_tokens, "
            "or run on a larger GPU (neither changes what is trained)"
        )
    if isinstance(error, MemoryError) or any(words in text for words in MEMORY_WORDS):
        return (
            "out of memory; run the workflow again with --retries 3, so that each attempt asks for more, or lower "
            "training.micro_batch_tokens"
        )
    return None
