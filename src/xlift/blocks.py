"""What every block of a study file is made of: strict numbers, and settings that cannot change after reading."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

LARGEST_NUMBER = 1e12
"""No setting is anywhere near: beyond it are slips of the pen, and numbers that overflow later."""


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


Number = Annotated[float, BeforeValidator(plain_number)]
Count = Annotated[int, BeforeValidator(plain_number)]


class Block(BaseModel):
    """A block of the study file: unknown keys are refused, values cannot be changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)
