"""The study file: one YAML file describes one experiment. Defaults, checks, and one-sentence errors.

Every field's description is the reference that `config/README.md` and `config/schema.json` are generated from.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from xlift.blocks import Block, Count, Place
from xlift.budgets import LARGEST_TIMES, BudgetEntry, Cross, Entry
from xlift.catalog import CATALOG, names
from xlift.catalog.made import mixture_task, mlm_task, translated_task
from xlift.catalog.pins import at_revisions
from xlift.catalog.task import EXTRA_TARGET, LABELLED_FAMILIES, MIXTURE, MLM, NONE, SHUFFLED_LABELS, Task
from xlift.cotraining import text_files, text_folder
from xlift.errors import UserError
from xlift.languages import SOURCE_LANGUAGE
from xlift.own_tasks import OwnTask
from xlift.problems import first_problem
from xlift.resource import MEASURES, read_sizes
from xlift.settings import (
    NAME_PATTERN,
    Contrasts,
    Data,
    HubEncoder,
    MaskedLanguageModelling,
    Mixture,
    PackagedEncoder,
    Power,
    RecipeOverride,
    Trainable,
    Training,
)
from xlift.strict_yaml import read_yaml as read_yaml


class Study(Block):
    """One experiment: encoder, intermediate tasks, budgets, seeds, target tasks, languages, analysis."""

    study: str = Field(pattern=NAME_PATTERN, description="Name; all results are under `results/<study>/`.")
    encoder: PackagedEncoder | HubEncoder = Field(
        default_factory=PackagedEncoder,
        discriminator="source",
        description="The model every run starts from.",
    )
    trainable: Trainable = Field(default_factory=Trainable, description="What of it is trained.")
    tasks: dict[Annotated[str, Field(pattern=NAME_PATTERN)], OwnTask] = Field(
        default_factory=dict, description="Tasks of your own, by name, beside the catalog's (docs/adding-a-task.md)."
    )
    intermediates: tuple[str, ...] = Field(
        min_length=1, description="Intermediate tasks; the baseline `none` is implied."
    )
    budgets: tuple[Entry, ...] = Field(
        min_length=1, description="Multiples of each intermediate task's reference, or mappings as below."
    )
    cross: Cross = Field(default_factory=Cross, description="What every budget is crossed with.")
    schedule: Literal["independent", "trunk"] = Field(
        "independent",
        description="`independent`: a run of its own with full decay for each budget; `trunk`: budgets branch off one.",
    )
    controls: tuple[Literal["extra_target", "shuffled_labels"], ...] = Field(
        (), description="Control arms: the same steps on the target instead; intermediate labels without content."
    )
    mixture: Mixture = Field(default_factory=Mixture, description="What the intermediate task `mixture` is made of.")
    translated: dict[str, Place] = Field(
        default_factory=dict,
        description="Folder of machine-translated examples by intermediate task; the arm `translated`.",
    )
    mlm: MaskedLanguageModelling | None = Field(
        None, description="Masked-language modelling on text per language, mixed into intermediate runs; the arm `mlm`."
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

    @field_validator("tasks")
    @classmethod
    def _new_names(cls, values: dict[str, OwnTask]) -> dict[str, OwnTask]:
        for name in values:
            if name in CATALOG or name in (NONE, MIXTURE, MLM):
                raise ValueError(f"{name!r} is in the catalog already; give the task another name (and `like: {name}`)")
        return values

    @cached_property
    def named(self) -> Mapping[str, Task]:
        """Every task that the study can name, by name: the catalog's and its own, at the revisions that it gives."""
        found = with_own(self.tasks)
        revisions = self.data.revisions
        return {name: at_revisions(task, revisions) for name, task in found.items()} if revisions else found

    @cached_property
    def catalog(self) -> Mapping[str, Task]:
        """The tasks that the study can name and those that it makes of them, by name."""
        made = [mixture_task([self.named[part] for part in self.mixed])] if self.mixed else []
        made += [translated_task(self.named[task]) for task in sorted(self.translated)]
        made += [mlm_task(self.mlm.max_length)] if self.mlm else []
        return {**self.named, **{task.name: task for task in made}} if made else self.named

    @property
    def mixed(self) -> tuple[str, ...]:
        """The parts of the mixture, sorted; none where the study has no mixture."""
        if MIXTURE not in self.intermediates:
            return ()
        chosen = self.intermediates if self.mixture.tasks is None else self.mixture.tasks
        return tuple(sorted(set(chosen) - {MIXTURE}))

    @property
    def text_languages(self) -> list[str]:
        """Languages whose text is trained on beside a task, sorted: by default those that are scored, and English."""
        if self.mlm is not None and self.mlm.languages is not None:
            return sorted(set(self.mlm.languages))
        return sorted({SOURCE_LANGUAGE, *(code for target in self.targets for code in self.target_languages(target))})

    @property
    def cotrained(self) -> tuple[str, ...]:
        """Intermediate tasks with runs that masked-language modelling is mixed into."""
        if self.mlm is None:
            return ()
        return self.intermediates if self.mlm.tasks is None else self.mlm.tasks

    @property
    def used(self) -> list[str]:
        """Every task that the study trains on or scores, sorted: parts and stages, and what they make up."""
        named = {*self.intermediates, *self.targets}
        return sorted(
            {*named, *(part for task in named for part in (*self.catalog[task].parts, *self.catalog[task].stages))}
        )

    @field_validator("intermediates", "seeds", "targets", "languages", "controls")
    @classmethod
    def _no_repeats(cls, values: Any) -> Any:
        if not isinstance(values, str):
            for index, value in enumerate(values):
                if value in values[:index]:
                    raise ValueError(f"{value!r} is listed twice; list it once")
        return values

    @field_validator("intermediates")
    @classmethod
    def _known_intermediates(cls, values: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        return _known_tasks(values, "intermediate", info)

    @field_validator("targets")
    @classmethod
    def _known_targets(cls, values: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        return _known_tasks(values, "target", info)

    @field_validator("budgets")
    @classmethod
    def _positive_budgets(cls, entries: tuple[BudgetEntry, ...]) -> tuple[BudgetEntry, ...]:
        for index, entry in enumerate(entries):
            if entry.amount <= 0:
                raise ValueError(f"{entry.text} is not a budget; a budget is above 0 (the baseline `none` is implied)")
            if entry.times is not None and entry.times > LARGEST_TIMES:
                raise ValueError(
                    f"{entry.text} is not a budget; a budget is at most {LARGEST_TIMES:g} times the reference"
                )
            if entry in entries[:index]:
                raise ValueError(f"{entry.text} is listed twice; list it once")
        return entries

    @model_validator(mode="after")
    def _consistent_budgets(self) -> Study:
        sizes = [*self.cross.batch_size, *(entry.batch_size for entry in self.budgets if entry.batch_size is not None)]
        if self.cross.lr_scaling != Cross().lr_scaling and not sizes:
            raise ValueError(
                "cross.lr_scaling: is for other batch sizes than the recipe's, and none is given; add cross.batch_size"
            )
        for index, entry in enumerate(self.budgets):
            if entry.lr_scaling is not None and entry.batch_size is None and not self.cross.batch_size:
                raise ValueError(
                    f"budgets.{index}: lr_scaling is for another batch size than the recipe's, and none is given; "
                    "add batch_size or remove lr_scaling"
                )
        if self.schedule == "trunk" and self.training.select == "best_dev":
            raise ValueError(
                "training.select: best_dev does not go with schedule: trunk, whose branches leave it at fixed steps; "
                "use last, or schedule: independent"
            )
        return self

    # Before whatever looks into the catalog, which is made of these.
    @model_validator(mode="after")
    def _consistent_mixture(self) -> Study:
        if MIXTURE in self.intermediates:
            _known(
                self.mixture.tasks or (), names("intermediate", self.named), "an intermediate task", "mixture.tasks: "
            )
            if len(self.mixed) < 2:
                found = ", ".join(self.mixed) or "no task"
                raise ValueError(
                    f"mixture.tasks: a mixture is of two tasks or more, and this is {found}; list them, or add them to "
                    "intermediates"
                )
        elif self.mixture != Mixture():
            raise ValueError("mixture: `intermediates` does not name it; add mixture there, or remove this block")
        override = self.recipes.get(MIXTURE)
        if override is not None and override.train_examples is not None:
            raise ValueError("recipes.mixture.train_examples: is the sum over its tasks; set recipes.<task> of these")
        return self

    @model_validator(mode="after")
    def _consistent_revisions(self) -> Study:
        read = {part.repository for task in self.named.values() for part in task.slices if not part.in_folder}
        _known(sorted(self.data.revisions), sorted(read), "a repository that a task reads", "data.revisions: ")
        return self

    @model_validator(mode="after")
    def _consistent_arms(self) -> Study:
        plain = [name for name in self.intermediates if name != MIXTURE]
        _known(sorted(self.translated), plain, "an intermediate task of this study", "translated: ")
        _known(self.cotrained, self.intermediates, "an intermediate task of this study", "mlm.tasks: ")
        return self

    @model_validator(mode="after")
    def _consistent_controls(self) -> Study:
        if EXTRA_TARGET in self.controls and not any(self.catalog[target].trained for target in self.targets):
            raise ValueError("controls: extra_target needs a target that is trained, and none is; remove it")
        for task in self.intermediates:
            for part in self.catalog[task].parts or (task,):
                if SHUFFLED_LABELS in self.controls and self.catalog[part].family not in LABELLED_FAMILIES:
                    raise ValueError(
                        f"controls: shuffled_labels: {part} has no labels to permute; remove one of the two"
                    )
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        for task, change in sorted(self.recipes.items()):
            if task not in self.used:
                raise ValueError(f"recipes.{task}: {task!r} is not in this study; its tasks are {', '.join(self.used)}")
            stages = self.catalog[task].stages
            direct = self.catalog[task].direct
            if stages and (direct or change.model_dump(exclude_none=True).keys() - {"max_length"}):
                own = "" if direct else " (only its max_length is its own)"
                raise ValueError(
                    f"recipes.{task}: is trained in stages, {', then '.join(stages)}; set recipes of these{own}"
                )
            if direct:
                raise ValueError(
                    f"recipes.{task}: {task!r} is evaluated without training, so it has no recipe; remove it"
                )
        if self.languages != "all":
            covered = sorted({language for target in self.targets for language in self.catalog[target].languages})
            _known(self.languages, covered, "a language of these targets", "languages: ")
            if set(self.languages) == {SOURCE_LANGUAGE}:
                raise ValueError("languages: only English, the source, is listed; add a language to transfer to")
        return self

    def target_languages(self, target: str) -> list[str]:
        """Languages a target is scored in: what the study asks for and the task covers, English included."""
        covered = self.catalog[target].languages
        wanted = covered if self.languages == "all" else (*self.languages, SOURCE_LANGUAGE)
        return sorted(set(covered) & set(wanted))


def with_own(tasks: Mapping[str, OwnTask]) -> Mapping[str, Task]:
    """The catalog and tasks of a study's own; the catalog itself where there are none."""
    return {**CATALOG, **{name: block.task(name) for name, block in tasks.items()}} if tasks else CATALOG


def _known_tasks(values: tuple[str, ...], role: str, info: ValidationInfo) -> Any:
    if "tasks" not in info.data:  # they are wrong themselves, which is said instead
        return values
    what = f"{'an' if role == 'intermediate' else 'a'} {role} task"
    known = names(role, with_own(info.data["tasks"]))
    return _known(values, [*known, MIXTURE] if role == "intermediate" else known, what)


def _known(values: Sequence[str], known: Sequence[str], what: str, where: str = "") -> Any:
    for value in values:
        if value not in known:
            close = difflib.get_close_matches(value, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(known)}"
            raise ValueError(f"{where}{value!r} is not {what}; {hint}")
    return values


def parse_study(settings: Mapping[str, Any], file: str) -> Study:
    """Check a study's settings. `file` names their origin in the one-sentence `UserError`."""
    try:
        return Study.model_validate(dict(settings))
    except ValidationError as error:
        raise UserError(f"{file}: {first_problem(error, Study)}") from None


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
    _check_folders(study, file)
    for task, folder in sorted(study.translated.items()):
        if not any(Path(folder).glob("*.parquet")):
            raise UserError(
                f"{file}: translated.{task}: there are no .parquet files in {folder}; give a folder of prepared "
                "examples with a language column (docs/budgets.md)"
            )
    if study.mlm is not None:
        text_files(text_folder(study.mlm, study.data), study.text_languages, f"{file}: mlm.texts")
    if study.contrasts.resource not in MEASURES:
        sizes = read_sizes(Path(study.contrasts.resource))
        scored = {language for target in study.targets for language in study.target_languages(target)}
        missing = sorted(scored - {SOURCE_LANGUAGE} - set(sizes))
        if missing:
            raise UserError(
                f"{file}: contrasts.resource: {study.contrasts.resource} lacks {', '.join(missing)}; "
                "add a line for each"
            )


def _check_folders(study: Study, file: str) -> None:
    """Refuse a study whose tasks come from folders that it does not give, or that are not there."""
    root = study.data.root
    needed = {name: task for task in study.used for name in study.catalog[task].folders}
    for name, given in sorted(study.data.folders.items()):
        if name in needed and not Path(given).is_dir():
            raise UserError(f"{file}: data.folders.{name}: there is no folder {given}; correct it")
    for name, task in sorted(needed.items()):
        if name not in study.data.folders and not (root is not None and Path(root, "local", name).is_dir()):
            raise UserError(
                f"{file}: data.folders: {task} comes from a folder, and none is given as {name!r}; add "
                f"data.folders.{name} (docs/data.md says what is to be in it) or leave {task} out"
            )
