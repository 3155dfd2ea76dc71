"""What every block of a study file is made of, and the blocks of its analysis.

Every field's description is the reference that `config/README.md` and `config/schema.json` are generated from.
"""

from __future__ import annotations

import difflib
import math
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from xlift.errors import UserError
from xlift.resource import MEASURES, measure_of

LARGEST_NUMBER = 1e12
"""No setting is anywhere near: beyond it are slips of the pen, and numbers that overflow later."""


def _number(value: Any) -> Any:
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


Number = Annotated[float, BeforeValidator(_number)]
Count = Annotated[int, BeforeValidator(_number)]


class Block(BaseModel):
    """A block of the study file: unknown keys are refused, values cannot be changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Contrasts(Block):
    """The analysis: which languages are low- and high-resource, how sure intervals are, what size matters."""

    resource: str = Field(
        "cc100",
        min_length=1,
        description="Resource level by `cc100` (GiB of CC-100, what XLM-R saw), `joshi` (class of Joshi et al. 2020), "
        "`wikipedia` (MB in 2020), `mc4` (billion tokens), or a CSV file of your own with the columns `iso2,size`.",
    )
    low_below: Number | None = Field(
        None,
        gt=0,
        description="Size below which a language is low-resource. Unset: 2 GiB of CC-100, Joshi class 3, "
        "128 MB of Wikipedia, 2 billion tokens of mC4; a table of your own needs it.",
    )
    high_from: Number | None = Field(
        None,
        gt=0,
        description="Size from which a language is high-resource. Unset: 20 GiB of CC-100, Joshi class 4, "
        "1,024 MB of Wikipedia, 20 billion tokens of mC4; a table of your own needs it.",
    )
    pretraining: Literal["auto", "xlmr", "mbert", "mc4", "none"] = Field(
        "auto",
        description="Whose pretraining decides which languages are `unseen`; `auto` goes by the encoder's name "
        "(mBERT's, mC4 for mT5, XLM-R's for all others), `none` calls none unseen. A language without text in the "
        "resource is unseen too, and in a table of your own only such a one.",
    )
    confidence: Number = Field(0.95, gt=0.5, lt=1, description="Level of the intervals.")
    smallest_effect: Number = Field(
        0.2,
        gt=0,
        description="Smallest effect of interest, in points per doubling per standard deviation of the resource level; "
        "the equivalence tests ask whether the effect is smaller. Fix it before the first score.",
    )
    bootstrap_draws: Count = Field(2000, ge=100, le=1_000_000, description="Draws of the bootstrap.")
    permutations: Count = Field(2000, ge=100, le=1_000_000, description="Permutations, at most, of each test.")

    @field_validator("resource")
    @classmethod
    def _known_resource(cls, value: str) -> str:
        if value not in MEASURES and not value.endswith(".csv"):
            known = [*MEASURES]
            close = difflib.get_close_matches(value, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(known)}, or give a .csv file"
            raise ValueError(f"{value!r} is not a resource measure; {hint}")
        return value

    @model_validator(mode="after")
    def _ordered(self) -> Contrasts:
        try:
            measure_of(self.resource, self.low_below, self.high_from)
        except UserError as error:
            raise ValueError(str(error)) from None
        return self


class Power(Block):
    """Standard deviations that `xlift power` assumes, in points; docs/statistics.md explains each."""

    language_slope: Number = Field(0.3, ge=0, description="Of gain per doubling between languages.")
    target_language_slope: Number = Field(0.2, ge=0, description="The same, of a target's own.")
    task_language_slope: Number = Field(0.1, ge=0, description="The same, of an intermediate task's own.")
    pair_language_slope: Number = Field(0.1, ge=0, description="The same, of a target and intermediate task's own.")
    checkpoint_tilt: Number = Field(
        0.5, ge=0, description="By how much an intermediate run favours a language one SD richer, by chance."
    )
    target_run_tilt: Number = Field(0.5, ge=0, description="The same of a target run.")
    noise: Number = Field(1.0, ge=0, description="Of one run's score in one language.")
