"""What is wrong with a study file's settings, in one sentence with the key and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from xlift.blocks import Block
from xlift.budgets import BudgetEntry, Cross
from xlift.own_tasks import SPLITS, OwnRecipe, OwnSlice, OwnTask
from xlift.settings import (
    Contrasts,
    Data,
    Examples,
    HubEncoder,
    MaskedLanguageModelling,
    Mixture,
    PackagedEncoder,
    Power,
    RecipeOverride,
    Trainable,
    Training,
)


def first_problem(error: ValidationError, study: type[Block]) -> str:
    """The first problem as `key: what is wrong; what to do`, and how many more there are."""
    # A list with a bad entry is reported as too short as well: leave that out.
    problems = [p for p in error.errors(include_url=False) if not (p["type"] == "too_short" and p["input"])]
    first = problems[0]
    keys = [str(part) for part in first["loc"] if not _is_branch(str(part))]
    where = ".".join(keys)
    if keys == ["languages"] and first["type"] != "value_error":
        return f"languages: {first['input']!r} is not right; write `all` or a list of codes such as [de, sw]"
    kind, message = first["type"], first["msg"].removeprefix("Value error, ")
    if kind == "extra_forbidden":
        message = f"is not a setting; {_near_key(first['loc'], study)}"
    elif kind == "missing":
        message = "is missing; add it (config/README.md describes every setting)"
    elif kind == "string_pattern_mismatch":
        message = f"{first['input']!r} does not match {first['ctx']['pattern']}; use such a name"
    elif kind == "tuple_type":
        message = f"{first['input']!r} is not a list; write one such as [1, 2, 3]"
    elif kind == "too_short":
        message = "the list is empty; give at least one"
    elif kind.startswith("union_tag"):
        message = "needs `source: packaged` or `source: hub`; write one of them"
    elif kind != "value_error":
        message = f"{first['input']!r} is not right: {message[:1].lower()}{message[1:]}"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    text = f"{where}: {message}" if where else message
    return " ".join(text.split()) + more


def _is_branch(part: str) -> bool:
    """Whether a part of pydantic's path names a branch of a union (by tag or type) instead of a key of the file."""
    return part in {"packaged", "hub", "[key]"} or part.startswith(("literal[", "tuple[", "constrained"))


def _near_key(location: Sequence[Any], study: type[Block]) -> str:
    """Name the setting that an unknown key probably meant, or all that are allowed there."""
    model: Any = study
    for part in location[:-1]:
        if isinstance(part, int):
            continue
        if location[0] == "tasks":  # a task may have any name, a setting's too
            inner = location[2] if len(location) > 3 else None
            model = OwnSlice if inner in SPLITS else OwnRecipe if inner == "recipe" else OwnTask
            continue
        model = {
            "encoder": study,
            "packaged": PackagedEncoder,
            "hub": HubEncoder,
            "trainable": Trainable,
            "training": Training,
            "budgets": BudgetEntry,
            "cross": Cross,
            "mixture": Mixture,
            "mlm": MaskedLanguageModelling,
            "contrasts": Contrasts,
            "power": Power,
            "data": Data,
            "examples": Examples,
        }.get(str(part), RecipeOverride)
    allowed = sorted(model.model_fields)
    close = difflib.get_close_matches(str(location[-1]), allowed, n=1)
    return f"did you mean {close[0]!r}?" if close else f"the settings here are {', '.join(allowed)}"
