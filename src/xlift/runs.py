"""What a study runs: intermediate runs, trunks and cells, and which there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from xlift.budgets import (
    NO_BUDGET,
    Budget,
    Reference,
    branching_point,
    check_batch,
    resolved,
    share_of_steps,
    unique_examples,
)
from xlift.catalog.made import translated_name
from xlift.catalog.task import EXTRA_TARGET, MAIN, MIXTURE, MLM, NONE, SHUFFLED_LABELS, TRANSLATED, Task
from xlift.cotraining import steps_beside
from xlift.errors import UserError
from xlift.languages import SOURCE_LANGUAGE
from xlift.recipes import study_recipes, train_examples
from xlift.settings import HubEncoder
from xlift.study import Study


@dataclass(frozen=True)
class Intermediate:
    """What is done before the target: a run of an intermediate task at a budget, or what stands in for one.

    `control` is None, `shuffled_labels` (the run's training labels are permuted), `translated` (its examples are
    translations of the task's), `mlm` (steps of masked-language modelling come on top of the budget's) or
    `extra_target` (no run of the task: its steps are spent on the target). The task `none` is the baseline.
    """

    task: str
    budget: Budget
    seed: int
    control: str | None = None

    @property
    def is_none(self) -> bool:
        return self.task == NONE

    @property
    def is_run(self) -> bool:
        """Whether there is an intermediate training run."""
        return not self.is_none and self.control != EXTRA_TARGET

    @property
    def arm(self) -> str:
        """All but task, amount and seed: `main` is the primary analysis."""
        return self.control or self.budget.arm

    @cached_property
    def name(self) -> str:
        """The task and, of a control, which one: the wildcard `inter`."""
        return f"{self.task}.{self.control}" if self.control else self.task

    @cached_property
    def key(self) -> tuple[str, str, int]:
        """What tells runs of a study apart: the wildcards `inter`, `budget` and `seed`."""
        return self.name, self.budget.label, self.seed

    @property
    def wildcards(self) -> dict[str, str]:
        """Wildcards of the run's paths."""
        return {"inter": self.name, "budget": self.budget.label, "seed": str(self.seed)}

    @property
    def order(self) -> tuple[str, bool, str, float, str, int]:
        """Sorts runs by task, arm (the primary first), amount and seed."""
        return self.task, self.arm != MAIN, self.arm, self.budget.times, self.budget.label, self.seed


@dataclass(frozen=True)
class Cell:
    """One cell: a target task after one intermediate run, scored in every language."""

    target: str
    intermediate: Intermediate

    @cached_property
    def key(self) -> tuple[str, str, str, int]:
        """What tells cells of a study apart: target, and the key of the intermediate run."""
        return self.target, *self.intermediate.key

    @property
    def wildcards(self) -> dict[str, str]:
        """Wildcards of the cell's paths."""
        return {"target": self.target, **self.intermediate.wildcards}


def baseline(seed: int) -> Intermediate:
    """The baseline of a seed: straight from the encoder to the target."""
    return Intermediate(NONE, NO_BUDGET, seed)


def intermediate_runs(study: Study, budgets: Mapping[str, Sequence[Budget]]) -> list[Intermediate]:
    """Every intermediate run that is trained, sorted; `budgets` by task."""
    found = []
    for task in study.intermediates:
        for budget in budgets[task]:
            controls: list[str | None] = [None]
            if budget.arm == MAIN:
                controls += [SHUFFLED_LABELS] if SHUFFLED_LABELS in study.controls else []
                controls += [TRANSLATED] if task in study.translated else []
                controls += [MLM] if task in study.cotrained else []
            found += [Intermediate(task, budget, seed, control) for control in controls for seed in study.seeds]
    return sorted(found, key=lambda run: run.order)


def extra_target_runs(study: Study, budgets: Mapping[str, Sequence[Budget]]) -> list[Intermediate]:
    """What stands in for the primary arm's runs where their steps are spent on the target, sorted."""
    if EXTRA_TARGET not in study.controls:
        return []
    found = [
        Intermediate(task, budget, seed, EXTRA_TARGET)
        for task in study.intermediates
        for budget in budgets[task]
        if budget.arm == MAIN
        for seed in study.seeds
    ]
    return sorted(found, key=lambda run: run.order)


def cells(
    study: Study, runs: Sequence[Intermediate], baselines: Sequence[Intermediate], extra: Sequence[Intermediate]
) -> list[Cell]:
    """Every cell, sorted by target, baselines first; `extra` only where the target is trained."""
    found = []
    for target in sorted(study.targets):
        before = sorted([*runs, *(extra if study.catalog[target].trained else [])], key=lambda run: run.order)
        found += [Cell(target, run) for run in [*baselines, *before]]
    return found


def shares_data(catalog: Mapping[str, Task], intermediate: str, target: str) -> bool:
    """Whether two tasks are trained on examples of the same set; never true of the baseline."""
    first = catalog.get(intermediate)
    return first is not None and bool(first.trained_on & catalog[target].trained_on)


class Layout:
    """The runs and cells of a study, without what they depend on. Raises `UserError` where budgets make no sense."""

    def __init__(self, study: Study, file: str) -> None:
        self.study = study
        self.recipes = study_recipes(study, file)
        self._check_stages(file)
        self._check_batches(file)
        self.budgets: dict[str, list[Budget]] = {
            task: resolved(study.budgets, study.cross, self.reference(task), file) for task in study.intermediates
        }
        for budget in self.budgets.get(MIXTURE, []):
            for part in study.mixed:
                examples = train_examples(study, study.catalog[part])
                if examples is not None:
                    drawn_from = unique_examples(budget.unique_fraction, examples)
                    check_batch(budget.batch_size, drawn_from, f"{file}: budgets: {budget.text} of {MIXTURE}", part)
        if study.schedule == "trunk":
            self._check_trunks(file)

    def reference(self, task: str) -> Reference:
        """What a trained task's budgets refer to."""
        recipe, examples = self.recipes[task], train_examples(self.study, self.study.catalog[task])
        return Reference(task, recipe.steps, recipe.batch_size, recipe.max_length, examples)

    def learning_rate(self, task: str) -> float:
        """Peak learning rate of a trained task's recipe under the study's method, for an encoder of its size; of a
        mixture, the lowest of its parts' unless the study gives one."""
        if task == MIXTURE and not self.recipes[task].learning_rate:
            return min(self.learning_rate(part) for part in self.study.mixed)
        encoder = self.study.encoder
        size = encoder.size if isinstance(encoder, HubEncoder) else "base"
        return self.recipes[task].rate(self.study.trainable.method, size)

    def warmup(self, task: str) -> float:
        """Share of a run's steps over which the learning rate rises: the recipe's own, else the study's."""
        own = self.recipes[task].warmup
        return self.study.training.warmup if own is None else own

    def _check_batches(self, file: str) -> None:
        used = set(self.study.intermediates)
        for target in self.study.targets:
            used |= set(self.study.catalog[target].stages or (target,))
        for task in sorted(used & self.recipes.keys()):
            for part in self.study.catalog[task].parts or (task,):
                examples = train_examples(self.study, self.study.catalog[part])
                if examples is not None:
                    check_batch(self.recipes[task].batch_size, examples, f"{file}: recipes.{task}", part)

    def _check_stages(self, file: str) -> None:
        """Stages share a head, with each other and with a target that has a recipe: of one family and labels."""
        catalog = self.study.catalog
        for target in sorted(self.study.targets):
            stages = catalog[target].stages
            shared = catalog[stages[-1] if stages and catalog[target].direct else target]
            for stage in stages:
                for field in ("family", "labels"):
                    if getattr(catalog[stage], field) != getattr(shared, field):
                        raise UserError(
                            f"{file}: targets: {target} is trained on {stage} first, which has another {field}; one "
                            "head cannot learn both: correct the stages"
                        )

    def _check_trunks(self, file: str) -> None:
        for task, arm, budgets in self._trunks():
            points = [self.branching_point(budget) for budget in budgets]
            warmup = self.trunk_warmup(task, budgets[0])
            where = f"{file}: budgets: the trunk of {task}{'' if arm == MAIN else f' ({arm})'}"
            for before, after, first, second in zip(points, points[1:], budgets, budgets[1:], strict=False):
                if after <= before:
                    raise UserError(
                        f"{where} has decreasing points: {second.text} branches off at step {after} and "
                        f"{first.text}, listed before it, at step {before}; list budgets from small to large, "
                        "further apart than that"
                    )
            if points[0] <= warmup:
                raise UserError(
                    f"{where} warms up for {warmup} steps and {budgets[0].text} branches off at step {points[0]}; "
                    "raise that budget, or lower training.warmup or training.cooldown"
                )

    def _trunks(self) -> Iterator[tuple[str, str, list[Budget]]]:
        """Task, arm and budgets, in the study file's order, of every trunk (whatever its seed)."""
        for task, budgets in self.budgets.items():
            arms: dict[str, list[Budget]] = {}
            for budget in budgets:
                arms.setdefault(budget.arm, []).append(budget)
            yield from ((task, arm, found) for arm, found in arms.items())

    def branching_point(self, budget: Budget) -> int:
        """Steps of the trunk before a budget's own branch."""
        return branching_point(budget.steps, self.study.training.cooldown)

    def all_steps(self, run: Intermediate, steps: int) -> int:
        """Steps of a run by the time its task had `steps`: those that are mixed in come on top."""
        mlm = self.study.mlm
        return steps + steps_beside(steps, mlm.share) if run.control == MLM and mlm is not None else steps

    def trunk_warmup(self, task: str, budget: Budget) -> int:
        """A share of the reference steps (in the budget's batches), so that adding budgets changes no trunk."""
        return share_of_steps(self.warmup(task), self.reference(task).examples / budget.batch_size)

    @cached_property
    def intermediates(self) -> list[Intermediate]:
        """Every intermediate run that is trained, sorted."""
        return intermediate_runs(self.study, self.budgets)

    @property
    def segments(self) -> list[Intermediate]:
        """The runs whose branching point a trunk's segment ends at: all of them, or none."""
        return self.intermediates if self.study.schedule == "trunk" else []

    @cached_property
    def baselines(self) -> list[Intermediate]:
        """The baseline of each seed, sorted."""
        return [baseline(seed) for seed in sorted(self.study.seeds)]

    @cached_property
    def cells(self) -> list[Cell]:
        """Every cell, baselines included, sorted."""
        extra = extra_target_runs(self.study, self.budgets)
        return cells(self.study, self.intermediates, self.baselines, extra)

    @cached_property
    def _runs(self) -> dict[tuple[str, str, int], Intermediate]:
        return {cell.intermediate.key: cell.intermediate for cell in self.cells}

    @cached_property
    def _cells(self) -> dict[tuple[str, str, str, int], Cell]:
        return {cell.key: cell for cell in self.cells}

    def run(self, inter: str, budget: str, seed: str) -> Intermediate:
        """The run with these wildcards."""
        found = self._runs.get((inter, budget, int(seed)))
        if found is None:
            raise UserError(f"{inter}/{budget}/seed{seed}: this study has no such run; `xlift plan` lists its budgets")
        return found

    def cell(self, target: str, inter: str, budget: str, seed: str) -> Cell:
        """The cell with these wildcards."""
        found = self._cells.get((target, inter, budget, int(seed)))
        if found is None:
            raise UserError(f"{target}/{inter}/{budget}/seed{seed}: this study has no such cell")
        return found

    def target_runs(self) -> Iterator[Cell]:
        """The cells whose target is trained."""
        return (cell for cell in self.cells if self.study.catalog[cell.target].trained)

    @cached_property
    def labels(self) -> list[str]:
        """Budgets as paths name them, the baseline's included, sorted."""
        return sorted({run.budget.label for run in self._runs.values()})

    @cached_property
    def names(self) -> list[str]:
        """Intermediate tasks and controls as paths name them, the baseline included, sorted."""
        return sorted({run.name for run in self._runs.values()})

    @cached_property
    def _smaller(self) -> dict[tuple[str, str], Budget | None]:
        """The budget whose trunk segment a task's budget continues, by task and label."""
        found: dict[tuple[str, str], Budget | None] = {}
        for task, _, budgets in self._trunks():
            for before, after in zip([None, *budgets], budgets, strict=False):
                found[task, after.label] = before
        return found

    def trunk_before(self, run: Intermediate) -> Intermediate | None:
        """The run whose trunk segment this one's continues; None for the first of a trunk."""
        budget = self._smaller[run.task, run.budget.label]
        return None if budget is None else Intermediate(run.task, budget, run.seed, run.control)

    @cached_property
    def tasks(self) -> list[str]:
        """Every set of examples that the study needs, by the name of its task, sorted."""
        return sorted(self.lengths)

    @cached_property
    def lengths(self) -> dict[str, list[int]]:
        """Longest sequences in which each set of examples is turned into token ids, sorted."""
        found: dict[str, set[int]] = {target: {self.target_length(target)} for target in self.study.targets}
        used = [self.run_sets(run) for run in self.intermediates]
        used += [self.target_sets(target) for target in self.study.targets if self.study.catalog[target].trained]
        for sets in used:
            for task, length in sets:
                found.setdefault(task, set()).add(length)
        return {task: sorted(lengths) for task, lengths in sorted(found.items())}

    def run_sets(self, run: Intermediate) -> list[tuple[str, int]]:
        """The sets of examples that an intermediate run is trained on, each with its longest sequence.

        Those of a mixture's parts are as long as the part's own recipe has them, but no longer than the budget's. Texts
        that are mixed in come last.
        """
        length = run.budget.max_length
        if run.control == TRANSLATED:
            return [(translated_name(run.task), length)]
        parts = self.study.catalog[run.task].parts
        sets = [(part, min(self.recipes[part].max_length, length)) for part in parts] or [(run.task, length)]
        return [*sets, (MLM, self.recipes[MLM].max_length)] if run.control == MLM else sets

    def target_sets(self, target: str) -> list[tuple[str, int]]:
        """The sets of examples that a target is trained on, one after the other, each with its longest sequence."""
        stages = self.study.catalog[target].stages
        return [(stage, self.recipes[stage].max_length) for stage in stages] or [(target, self.target_length(target))]

    def target_steps(self, target: str, extra: int) -> list[int]:
        """Steps on each of a target's sets of examples; `extra` ones go to the last."""
        steps = [self.recipes[task].steps for task, _ in self.target_sets(target)]
        return [*steps[:-1], steps[-1] + extra]

    def target_length(self, target: str) -> int:
        """Longest sequence of a target task, in tokens."""
        task = self.study.catalog[target]
        return task.max_length if task.direct else self.recipes[target].max_length

    def scored_languages(self, target: str) -> list[str]:
        """Languages a target's scores have; English cannot be searched in English names of the same things."""
        languages, only_others = self.study.target_languages(target), self.study.catalog[target].cross_lingual_only
        return [code for code in languages if not (only_others and code == SOURCE_LANGUAGE)]
