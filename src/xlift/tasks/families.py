"""The five families by name, and all that a run can be trained on."""

from __future__ import annotations

from collections.abc import Mapping

from xlift.tasks.classification import Classification
from xlift.tasks.family import Family, Objective
from xlift.tasks.mlm import MaskedLanguageModelling
from xlift.tasks.multiple_choice import MultipleChoice
from xlift.tasks.retrieval import Retrieval
from xlift.tasks.span import Span
from xlift.tasks.tagging import Tagging

FAMILIES: Mapping[str, Family] = {
    family.name: family for family in (Classification(), MultipleChoice(), Tagging(), Span(), Retrieval())
}
OBJECTIVES: Mapping[str, Objective] = {**FAMILIES, MaskedLanguageModelling.name: MaskedLanguageModelling()}
"""The families and masked-language modelling, whose texts are prepared like a task's examples."""
