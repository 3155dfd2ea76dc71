"""A ledger of injected faults: how many were injected, survived, refused, lost. docs/reliability.md is its table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

HEADER = """# Reliability

What the test suite breaks on purpose, and what came of it. `make reliability` runs these tests and writes this page;
the numbers are counts of one such run.

- *Survived*: the study ended with the very bytes of an undisturbed run, without help or after the one command that the
  message names.
- *Refused*: the damage was found and named in one sentence, and nothing was made of it; where another attempt can mend
  it, the sentence says which. (A run that learns nothing is flagged on the page, and kept.)
- *Lost*: neither.

| fault | injected | survived | refused | lost |
|---|---:|---:|---:|---:|
"""


@dataclass
class Fault:
    """One kind of fault and its counts."""

    kind: str
    injected: int = 0
    survived: int = 0
    refused: int = 0

    @property
    def lost(self) -> int:
        """Faults that were neither survived nor refused."""
        return self.injected - self.survived - self.refused

    def survives(self, times: int = 1) -> None:
        """Count faults that left the result as it would have been."""
        self.injected += times
        self.survived += times

    def refuses(self, times: int = 1) -> None:
        """Count faults that were found, named, and not used."""
        self.injected += times
        self.refused += times


def page(faults: Iterable[Fault]) -> str:
    """docs/reliability.md: one row a kind, sorted."""
    counted: dict[str, Fault] = {}
    for fault in faults:
        total = counted.setdefault(fault.kind, Fault(fault.kind))
        total.injected += fault.injected
        total.survived += fault.survived
        total.refused += fault.refused
    rows = [
        f"| {kind} | {total.injected} | {total.survived} | {total.refused} | {total.lost} |"
        for kind, total in sorted(counted.items())
    ]
    return HEADER + "\n".join(rows) + "\n"
