"""What every block of a study file is made of: strict numbers, and settings that cannot change after reading."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict

LARGEST_NUMBER = 1e12
"""No setting is anywhere near: beyond it are slips of the pen, and numbers that overflow later."""
LONGEST_PATH, LONGEST_NAME = 1024, 255
"""Characters of a path, and bytes of a name in it, that every file system takes."""


def plain_number(value: Any) -> Any:
    """Refuse what pydantic would quietly turn into a number: true, "1". But 1e-3, text to YAML 1.1, is a number."""
    if isinstance(value, str) and re.fullmatch(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]{1,3}", value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{value!r} is not a number; write a number without quotes")
    # Compared, because an integer of hundreds of digits has no float to ask about.
    if not -LARGEST_NUMBER <= value <= LARGEST_NUMBER:
        what = "not finite" if isinstance(value, float) and not math.isfinite(value) else "out of range"
        raise ValueError(f"the number is {what}; write a plain one")
    return value


def plain_path(value: str) -> str:
    """Refuse what no file system takes, or what would break the sentences that name it."""
    if not value or not value.isprintable() or len(value) > LONGEST_PATH:
        shown = value if len(value) <= 40 else f"{value[:40]}..."
        raise ValueError(f"{shown!r} is not a path; give one of printable characters, at most {LONGEST_PATH} of them")
    if any(len(part.encode("utf-8", "surrogatepass")) > LONGEST_NAME for part in value.split("/")):
        raise ValueError(f"a name in {value[:40]!r}... has more than {LONGEST_NAME} bytes; give a shorter one")
    return value


Place = Annotated[str, AfterValidator(plain_path)]
"""A path that a study names."""
Number = Annotated[float, BeforeValidator(plain_number)]
Count = Annotated[int, BeforeValidator(plain_number)]


class Block(BaseModel):
    """A block of the study file: unknown keys are refused, values cannot be changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)
