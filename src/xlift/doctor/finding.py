"""What one check found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Level(Enum):
    """`warning`: it runs, slower or with less; `problem`: the study, or some job of it, fails."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """`found`: what is there; `advice`: what to do about it, where something is to be done."""

    level: Level
    name: str
    found: str
    advice: str = ""


def ok(name: str, found: str) -> Finding:
    """Nothing is to be done."""
    return Finding(Level.OK, name, found)


def warning(name: str, found: str, advice: str) -> Finding:
    """It runs, slower or with less."""
    return Finding(Level.WARNING, name, found, advice)


def problem(name: str, found: str, advice: str) -> Finding:
    """It does not run."""
    return Finding(Level.PROBLEM, name, found, advice)
