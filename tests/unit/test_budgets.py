"""Budgets as a task resolves them: amounts, arms, crossings, trunks and controls, and what is refused."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlift.artifacts import fingerprint
from xlift.budgets import Budget, branching_point, share_of_steps, unique_examples
from xlift.catalog import CATALOG
from xlift.errors import UserError
from xlift.grid import Grid, execution_param, report_specification, runs_specification
from xlift.runs import Cell, Intermediate, shares_data
from xlift.study import parse_study

# One task: 40 steps of 10, 400 examples; 5,000 to train on.
PAIRS = {"steps": 40, "batch_size": 10, "learning_rate": 0.01, "max_length": 64, "train_examples": 5000}
KIND = {"steps": 30, "batch_size": 5}
SETTINGS: dict[str, Any] = {
    "study": "budgets",
    "intermediates": ["cldr_pairs"],
    "budgets": [1],
    "seeds": [1, 2],
    "targets": ["cldr_kind", "cldr_retrieval"],
    "recipes": {"cldr_pairs": PAIRS, "cldr_kind": KIND},
}


def make(**changes: Any) -> Grid:
    return Grid(parse_study({**SETTINGS, **changes}, "my.yaml"), "my.yaml")


def resolved(*budgets: Any, **changes: Any) -> dict[str, Budget]:
    """Budgets of the one task by label."""
    found = make(budgets=list(budgets), **changes).budgets["cldr_pairs"]
    assert len({budget.label for budget in found}) == len(found)
    return {budget.label: budget for budget in found}


def refusal(**changes: Any) -> str:
    with pytest.raises(UserError) as caught:
        make(**changes)
    message = str(caught.value)
    assert message.startswith("my.yaml: ")
    assert "\n" not in message
    return message.removeprefix("my.yaml: ")


# --- Amounts ---


@pytest.mark.parametrize(
    ("entry", "label", "times", "steps"),
    [
        (0.25, "x0.25", 0.25, 10),
        ({"times": 2}, "x2", 2.0, 80),
        ({"epochs": 0.1}, "e0.1", 1.25, 50),  # 500 of 5,000 examples, where the reference is 400
        ({"epochs": 2}, "e2", 25.0, 1000),
        ({"steps": 6}, "s6", 0.15, 6),
        ({"examples": 1000}, "n1000", 2.5, 100),
        ({"examples": 1e3}, "n1000", 2.5, 100),
        ({"examples": 1004}, "n1004", 2.51, 100),  # whole batches
    ],
)
def test_an_amount_by_hand(entry, label, times, steps):
    (budget,) = resolved(entry).values()
    assert (budget.label, budget.arm, budget.steps, budget.batch_size) == (label, "main", steps, 10)
    assert budget.times == pytest.approx(times, rel=1e-12)
    assert (budget.rate_factor, budget.max_length, budget.unique_fraction) == (1.0, 64, 1.0)


@pytest.mark.parametrize(("entry", "steps"), [(1, 10), ({"epochs": 0.1}, 12), ({"examples": 1000}, 25)])
def test_another_batch_has_the_same_examples(entry, steps):
    entry = entry if isinstance(entry, dict) else {"times": entry}
    found = resolved(entry, {**entry, "batch_size": 40})
    own, other = found.values()
    assert (other.steps, other.batch_size, other.times) == (steps, 40, own.times)
    assert abs(other.examples - own.examples) <= 40 / 2


def test_steps_stay_what_they_are_at_another_batch():
    own, other = resolved({"steps": 12}, {"steps": 12, "batch_size": 40}).values()
    assert (own.steps, own.times, other.steps, other.times) == (12, 0.3, 12, 1.2)


@given(st.floats(0.1, 50), st.integers(1, 200))
def test_matched_examples_are_met_to_half_a_batch(times, batch):
    if batch != 10 and round(times * 400 / batch) >= 1:
        found = resolved(times, {"times": times, "batch_size": batch})
        assert all(abs(budget.examples - 400 * times) <= budget.batch_size / 2 + 1e-6 for budget in found.values())


# --- Arms ---


@pytest.mark.parametrize(
    ("departure", "suffix", "arm", "rate"),
    [
        ({"batch_size": 40}, "-b40", "b40-sqrt", 0.02),
        ({"batch_size": 40, "lr_scaling": "linear"}, "-b40-lr_linear", "b40-linear", 0.04),
        ({"batch_size": 40, "lr_scaling": "none"}, "-b40-lr_none", "b40-none", 0.01),
        ({"batch_size": 5}, "-b5", "b5-sqrt", 0.01 / math.sqrt(2)),
        ({"max_length": 32}, "-l32", "l32", 0.01),
        ({"unique_fraction": 0.5}, "-u0.5", "u0.5", 0.01),
        (
            {"batch_size": 40, "max_length": 32, "unique_fraction": 0.05},
            "-b40-l32-u0.05",
            "b40-sqrt-l32-u0.05",
            0.02,
        ),
        # What the recipe says anyway is no other arm.
        ({"batch_size": 10, "lr_scaling": "linear", "max_length": 64, "unique_fraction": 1}, "", "main", 0.01),
    ],
)
def test_arms_by_hand(departure, suffix, arm, rate):
    grid = make(budgets=[2, {"times": 1, **departure}])
    runs = [run for run in grid.intermediates if run.budget.times == 1]
    assert {run.budget.label for run in runs} == {f"x1{suffix}"}
    assert {run.arm for run in runs} == {arm}
    recipe = grid.intermediate_specification(runs[0])["recipe"]
    assert recipe["learning_rate"] == pytest.approx(rate, rel=1e-12)
    assert recipe["batch_size"] == departure.get("batch_size", 10)
    assert recipe["max_length"] == departure.get("max_length", 64)
    assert grid.intermediate_specification(runs[0])["unique_fraction"] == departure.get("unique_fraction", 1.0)


def test_every_budget_is_crossed_with_every_level_and_keeps_its_own():
    found = resolved(1, 2, cross={"batch_size": [5, 10, 40], "unique_fraction": [0.5]})
    # 10 is the recipe's own; the levels of the two axes multiply.
    assert sorted(found) == sorted(
        f"x{times}{batch}{fraction}" for times in (1, 2) for batch in ("", "-b5", "-b40") for fraction in ("", "-u0.5")
    )
    assert found["x2-b40-u0.5"].steps == 20
    assert found["x2-b40-u0.5"].arm == "b40-sqrt-u0.5"


def test_rules_are_crossed_only_where_the_batch_is_another():
    found = resolved(1, cross={"batch_size": [40], "lr_scaling": ["none", "linear"]})
    assert sorted(found) == ["x1", "x1-b40-lr_linear", "x1-b40-lr_none"]


def test_an_axis_that_an_entry_sets_itself_is_not_crossed():
    found = resolved(1, {"times": 2, "batch_size": 20}, cross={"batch_size": [40], "max_length": [32]})
    assert sorted(found) == ["x1", "x1-b40", "x1-b40-l32", "x1-l32", "x2-b20", "x2-b20-l32"]


def test_token_ids_are_made_for_every_length():
    grid = make(cross={"max_length": [32, 16]}, targets=["cldr_kind"])
    assert grid.lengths == {"cldr_kind": [64], "cldr_pairs": [16, 32, 64]}
    made = {length: grid.encode_stamp("cldr_pairs", length).fingerprint for length in (16, 32, 64)}
    assert len(set(made.values())) == 3


def test_arms_draw_and_depend_on_things_of_their_own():
    grid = make(cross={"batch_size": [40], "unique_fraction": [0.5]}, controls=["shuffled_labels"])
    found = [grid.intermediate_specification(run) for run in grid.intermediates]
    assert len({specification["draw"] for specification in found}) == len(found) == 2 * 5
    assert len({fingerprint(specification) for specification in found}) == len(found)
    assert [s["control"] for s in found].count("shuffled_labels") == 2


def test_the_primary_arm_is_what_it_is_without_the_others():
    alone = make()
    among = make(
        budgets=[1, 2, {"steps": 11, "unique_fraction": 0.5}],
        cross={"batch_size": [5, 40], "max_length": [32]},
        controls=["extra_target", "shuffled_labels"],
        training={"save_every": 5, "compile": True, "gradient_checkpointing": "on", "micro_batch_tokens": 4096},
    )
    kept = {cell.key for cell in alone.cells}
    assert kept < {cell.key for cell in among.cells}
    for cell in alone.cells:
        assert among.stamp("score", cell) == alone.stamp("score", cell)
    for run in alone.intermediates:
        assert among.stamp("intermediate", run) == alone.stamp("intermediate", run)


def test_speed_settings_reach_the_job_and_no_fingerprint():
    assert execution_param(make().study) == (
        '{"compile":false,"gradient_checkpointing":"auto","micro_batch_tokens":null,"save_every":300.0}'
    )
    fast = make(
        training={"compile": True, "save_every": 60, "micro_batch_tokens": 512, "gradient_checkpointing": "off"}
    )
    assert execution_param(fast.study) == (
        '{"compile":true,"gradient_checkpointing":"off","micro_batch_tokens":512,"save_every":60.0}'
    )


def test_settings_of_the_other_method_are_in_no_fingerprint():
    run = make().intermediates[0]
    for method, idle in (
        ("lora", {"freeze_word_embeddings": False}),
        ("full", {"rank": 3, "alpha": 2, "dropout": 0.5}),
    ):
        plain, other = (make(trainable={"method": method, **more}) for more in ({}, idle))
        assert plain.stamp("intermediate", run) == other.stamp("intermediate", run)
    full, frozen = (make(trainable={"method": "full", "freeze_word_embeddings": choice}) for choice in (True, False))
    assert full.stamp("intermediate", run) != frozen.stamp("intermediate", run)


# --- Trunks ---


TRUNK = {"schedule": "trunk", "budgets": [1, 2, 4, 8]}


def test_segments_and_branches_by_hand():
    grid = make(**TRUNK)
    seed = [run for run in grid.intermediates if run.seed == 1]
    segments = [grid.trunk_specification(run) for run in seed]
    branches = [grid.intermediate_specification(run) for run in seed]
    # 40, 80, 160, 320 steps, the last fifth of each a cooldown; warm-up a tenth of the reference's 40.
    assert [s["recipe"]["steps"] for s in segments] == [32, 64, 128, 256]
    assert all(s["schedule"] == {"kind": "constant", "warmup_steps": 4} for s in segments)
    assert [s["recipe"]["steps"] for s in branches] == [40, 80, 160, 320]
    assert [s["schedule"] for s in branches] == [
        {"kind": "cooldown", "warmup_steps": 4, "branch": point} for point in (32, 64, 128, 256)
    ]
    assert len({s["draw"] for s in (*segments, *branches)}) == 1
    assert [grid.trunk_before(run) and grid.trunk_before(run).budget.label for run in seed] == [None, "x1", "x2", "x4"]
    assert [run.seed for run in map(grid.trunk_before, grid.intermediates) if run is not None] == [1] * 3 + [
        2
    ] * 3 or True
    # Trained: the trunk once, each cooldown; alone: each budget. 256 + 8 + 16 + 32 + 64 of 600.
    assert (256 + sum(b["recipe"]["steps"] - b["schedule"]["branch"] for b in branches)) / 600 == 376 / 600


def test_each_seed_arm_and_control_has_a_trunk_of_its_own():
    grid = make(**TRUNK, cross={"batch_size": [40]}, controls=["shuffled_labels"])
    draws: dict[tuple[str, int], set[int]] = {}
    for run in grid.intermediates:
        draws.setdefault((run.arm, run.seed), set()).add(grid.trunk_specification(run)["draw"])
        draws[run.arm, run.seed].add(grid.intermediate_specification(run)["draw"])
        before = grid.trunk_before(run)
        assert before is None or (before.arm, before.seed, before.name) == (run.arm, run.seed, run.name)
    assert sorted(draws) == [(arm, seed) for arm in ("b40-sqrt", "main", "shuffled_labels") for seed in (1, 2)]
    assert all(len(numbers) == 1 for numbers in draws.values())
    assert len(set.union(*draws.values())) == 6
    # The warm-up of large batches is as many examples, not as many steps.
    assert grid.trunk_specification(grid.run("cldr_pairs", "x2-b40", "1"))["schedule"]["warmup_steps"] == 1


@pytest.mark.parametrize("budgets", [[1, 2, 4, 8, 16], [1, 2, 3, 4, 8], [0.5, 1, 2, 4, 8]])
def test_a_trunk_does_not_depend_on_where_it_is_cut(budgets):
    before, after = make(**TRUNK), make(schedule="trunk", budgets=budgets)
    for run in before.intermediates:
        assert after.stamp("trunk", run) == before.stamp("trunk", run)
        assert after.stamp("intermediate", run) == before.stamp("intermediate", run)


def test_a_branch_is_another_run_than_the_independent_one():
    run = make().intermediates[0]
    assert make().stamp("intermediate", run) != make(schedule="trunk").stamp("intermediate", run)
    assert make().segments == []


@given(st.integers(1, 1000), st.integers(1, 10_000))
def test_shares_are_rounded_up_as_exact_arithmetic_does(thousandths, steps):
    exact = Fraction(thousandths, 1000)
    assert share_of_steps(thousandths / 1000, steps) == math.ceil(exact * steps)
    assert branching_point(steps, thousandths / 1000) == steps - math.ceil(exact * steps)
    assert unique_examples(thousandths / 1000, steps) == math.ceil(exact * steps)


# --- Controls and shared data ---


def test_extra_target_spends_the_steps_on_the_target():
    grid = make(budgets=[1, 2], cross={"batch_size": [40]}, controls=["extra_target"])
    extra = [cell for cell in grid.cells if cell.intermediate.control == "extra_target"]
    # Two budgets of the primary arm, two seeds, the one target that is trained; no run of the intermediate task.
    assert [cell.key for cell in extra] == [
        ("cldr_kind", "cldr_pairs.extra_target", label, seed) for label in ("x1", "x2") for seed in (1, 2)
    ]
    assert all(run.control is None for run in grid.intermediates)
    for cell in extra:
        specification = grid.target_specification(cell)
        extra_steps = 40 * cell.intermediate.budget.times
        assert specification["parent"] is None
        assert specification["recipe"]["steps"] == 30 + extra_steps
        assert specification["recipe"]["batch_size"] == 5
        assert specification["schedule"] == {"kind": "linear", "warmup_steps": math.ceil((30 + extra_steps) / 10)}
        score = grid.score_specification(cell)
        assert (score["intermediate"], score["arm"], score["extra_steps"]) == (
            "cldr_pairs",
            "extra_target",
            extra_steps,
        )
    draws = [grid.target_specification(cell)["draw"] for cell in grid.target_runs()]
    assert len(set(draws)) == len(draws)


def test_shuffled_labels_are_a_run_and_cells_of_their_own():
    grid = make(budgets=[1, 2], cross={"batch_size": [40]}, controls=["shuffled_labels"])
    shuffled = [run for run in grid.intermediates if run.control]
    assert [run.key for run in shuffled] == [
        ("cldr_pairs.shuffled_labels", label, seed) for label in ("x1", "x2") for seed in (1, 2)
    ]
    for run in shuffled:
        plain = Intermediate(run.task, run.budget, run.seed)
        one, other = (dict(grid.intermediate_specification(r)) for r in (run, plain))
        assert one.pop("control") == "shuffled_labels"
        assert other.pop("control") is None
        assert one.pop("draw") != other.pop("draw")
        assert one == other
        cell = Cell("cldr_retrieval", run)
        assert grid.score_specification(cell)["arm"] == "shuffled_labels"
        assert grid.prediction_specification(cell)["weights"] == grid.stamp("intermediate", run).fingerprint


def test_shared_training_data(monkeypatch):
    from dataclasses import replace

    assert not shares_data(CATALOG, "cldr_pairs", "cldr_kind")
    assert not shares_data(CATALOG, "none", "cldr_kind")
    shared = ("cldr_pairs", "cldr_names")
    monkeypatch.setitem(CATALOG, "cldr_kind", replace(CATALOG["cldr_kind"], training_data=shared))
    monkeypatch.setitem(CATALOG, "cldr_retrieval", replace(CATALOG["cldr_retrieval"], training_data=shared))
    grid = make(controls=["extra_target"])
    flags = {
        (cell.target, cell.intermediate.task): grid.score_specification(cell)["shared_data"] for cell in grid.cells
    }
    assert flags == {
        ("cldr_kind", "none"): False,
        ("cldr_kind", "cldr_pairs"): True,
        ("cldr_retrieval", "none"): False,
        ("cldr_retrieval", "cldr_pairs"): False,  # never trained, whatever its entry names
    }


def test_the_tables_know_the_places_of_runs_and_cells():
    grid = make(**TRUNK, cross={"batch_size": [40]}, controls=["extra_target"], targets=["cldr_kind"])
    places = runs_specification(grid)
    assert [row[:-1] for row in places["trunks"]] == [row[:-1] for row in places["intermediates"]]
    rows = {kind: [row[:-1] for row in found] for kind, found in places.items()}
    assert [None, "cldr_pairs", "b40-sqrt", 8.0, 2] in rows["trunks"]
    assert ["cldr_kind", "cldr_pairs", "extra_target", 8.0, 2] in rows["targets"]
    started = {row[-1] for found in places.values() for row in found}
    assert len(started) == sum(map(len, places.values()))  # each its own
    report = report_specification(grid)
    assert report["budgets"] == [1.0, 2.0, 4.0, 8.0]
    assert ["cldr_kind", "none", "main", 0.0, 1] in report["cells"]
    keys = [tuple(cell) for cell in report["cells"]]
    assert len(set(keys)) == len(keys) == len(grid.cells)


# --- What is refused ---


BAD: list[tuple[dict[str, Any], str]] = [
    (
        {"budgets": [1, {"epochs": 0.08}]},
        "budgets: 1 and {epochs: 0.08} both come to 40 steps of cldr_pairs; drop one of them",
    ),
    # In whole batches of 40, what differs in batches of 10 does not.
    (
        {"budgets": [1, 1.04], "cross": {"batch_size": [40]}},
        "budgets: 1 at b40-sqrt and 1.04 at b40-sqrt both come to 10 steps of cldr_pairs; drop one of them",
    ),
    ({"budgets": [{"times": 1, "steps": 40}]}, "budgets.0: gives 2 amounts, times and steps; keep one of them"),
    ({"budgets": [{"batch_size": 40}]}, "budgets.0: gives no amount; add one of times, epochs, steps, examples"),
    ({"budgets": [1, {}]}, "budgets.1: gives no amount"),
    (
        {"budgets": [1, 0.01]},
        "budgets: 0.01 of cldr_pairs's 40 reference steps rounds to zero steps; one step is a budget of 0.025",
    ),
    (
        {"budgets": [{"examples": 3}]},
        "budgets: {examples: 3} of cldr_pairs rounds to zero steps; one step is examples: 10",
    ),
    (
        {"budgets": [1, {"epochs": 0.001, "batch_size": 50}]},
        "budgets: {epochs: 0.001, batch_size: 50} at b50-sqrt of cldr_pairs rounds to zero steps; one step is ep",
    ),
    ({"budgets": [{"steps": 0}]}, "budgets.0.steps: 0 is not right: input should be greater than or equal to 1"),
    ({"budgets": [{"steps": 1.5}]}, "budgets.0.steps: 1.5 is not right: input should be a valid integer"),
    ({"budgets": [{"epochs": -1}]}, "budgets.0.epochs: -1 is not right: input should be greater than 0"),
    ({"budgets": [{"times": -1}]}, "budgets: -1 is not a budget; a budget is above 0"),
    (
        {"budgets": [{"epochs": 2e5}]},
        "budgets: {epochs: 200000} is 2.5e+06 times cldr_pairs's reference; a budget is at most",
    ),
    ({"budgets": [{"step": 4}]}, "budgets.0.step: is not a setting; did you mean 'steps'?"),
    ({"cross": {"batches": [4]}}, "cross.batches: is not a setting; did you mean 'batch_size'?"),
    (
        {"budgets": [1, {"times": 1, "unique_fraction": 0}]},
        "budgets.1.unique_fraction: 0 is not right: input should be greater than 0",
    ),
    (
        {"budgets": [1, {"times": 1, "unique_fraction": 1.5}]},
        "budgets.1.unique_fraction: 1.5 is not right: input should be less than or equal to 1",
    ),
    (
        {"cross": {"unique_fraction": [2]}},
        "cross.unique_fraction.0: 2 is not right: input should be less than or equal",
    ),
    (
        {"budgets": [1, {"times": 1, "batch_size": 4, "lr_scaling": "cubic"}]},
        "budgets.1.lr_scaling: 'cubic' is not right: input should be 'none', 'sqrt' or 'linear'",
    ),
    ({"cross": {"lr_scaling": ["log"]}}, "cross.lr_scaling.0: 'log' is not right: input should be 'none', 'sqrt' or"),
    ({"cross": {"lr_scaling": []}}, "cross.lr_scaling: the list is empty; give at least one"),
    (
        {"cross": {"lr_scaling": ["linear"]}},
        "cross.lr_scaling: is for other batch sizes than the recipe's, and none is given; add cross.batch_size",
    ),
    ({"cross": {"batch_size": [8, 8]}}, "cross: batch_size: 8 is listed twice; list it once"),
    ({"cross": {"batch_size": 8}}, "cross.batch_size: 8 is not a list; write one such as [1, 2, 3]"),
    (
        {"budgets": [1, {"times": 2, "lr_scaling": "linear"}]},
        "budgets.1: lr_scaling is for another batch size than the recipe's, and none is given; add batch_size",
    ),
    (
        {"cross": {"batch_size": [6000]}, "budgets": [50]},
        "budgets: 50 at b6000-sqrt: a batch of 6000 is larger than the 5000 training examples that cldr_pairs",
    ),
    (
        {"budgets": [20, {"times": 20, "batch_size": 600, "unique_fraction": 0.1}]},
        "unique_fraction: 0.1} at b600-sqrt u0.1: a batch of 600 is larger than the 500",
    ),
    (
        {"recipes": {"cldr_kind": {"batch_size": 600}}},
        "recipes.cldr_kind: a batch of 600 is larger than the 550 training examples that cldr_kind draws from",
    ),
    (
        {"budgets": [{"times": 1, "batch_size": 20}]},
        "budgets: none of cldr_pairs's has the recipe's own batch size (10) and length (64) and all data",
    ),
    (
        {"schedule": "trunk", "budgets": [1, 4, 2]},
        "budgets: the trunk of cldr_pairs has decreasing points: 2 branches off at step 64 and 4, listed before it, "
        "at step 128; list budgets from small to large",
    ),
    (
        {"schedule": "trunk", "budgets": [{"steps": 15}, {"steps": 16}]},
        "has decreasing points: {steps: 16} branches off at step 12",
    ),
    (
        {"schedule": "trunk", "budgets": [1, 2], "cross": {"batch_size": [200]}},
        "budgets: the trunk of cldr_pairs (b200-sqrt) warms up for 1 steps and 1 at b200-sqrt branches off at step 1",
    ),
    (
        {"schedule": "trunk", "budgets": [0.125, 1]},
        "budgets: the trunk of cldr_pairs warms up for 4 steps and 0.125 branches off at step 4; raise that budget",
    ),
    ({"schedule": "forked"}, "schedule: 'forked' is not right: input should be 'independent' or 'trunk'"),
    ({"training": {"cooldown": 1}}, "training.cooldown: 1 is not right: input should be less than 1"),
    ({"training": {"select": "best"}}, "training.select: 'best' is not right: input should be 'last' or 'best_dev'"),
    (
        {"schedule": "trunk", "budgets": [1, 2], "training": {"select": "best_dev"}},
        "training.select: best_dev does not go with schedule: trunk",
    ),
    ({"training": {"save_every": 0}}, "training.save_every: 0 is not right: input should be greater than 0"),
    (
        {"training": {"micro_batch_tokens": "many"}},
        "training.micro_batch_tokens: 'many' is no number of tokens; write auto or a whole number from 16",
    ),
    ({"training": {"micro_batch_tokens": 2.5}}, "training.micro_batch_tokens: 2.5 is no number of tokens"),
    (
        {"controls": ["placebo"]},
        "controls.0: 'placebo' is not right: input should be 'extra_target' or 'shuffled_labels'",
    ),
    ({"controls": ["extra_target", "extra_target"]}, "controls: 'extra_target' is listed twice; list it once"),
    (
        {"controls": ["extra_target"], "targets": ["cldr_retrieval"], "recipes": {}},
        "controls: extra_target needs a target that is trained, and none is; remove it",
    ),
    ({"recipes": {"cldr_pairs": {"train_examples": 0}}}, "recipes.cldr_pairs.train_examples: 0 is not right"),
]


@pytest.mark.parametrize(("change", "sentence"), BAD, ids=[sentence[:60] for _, sentence in BAD])
def test_each_mistake_is_one_sentence(change, sentence):
    message = refusal(**change)
    assert sentence in message
    assert "(and " not in message


def test_epochs_need_the_size_of_the_data(monkeypatch):
    from dataclasses import replace

    monkeypatch.setitem(CATALOG, "cldr_qa", replace(CATALOG["cldr_qa"], train_examples=None))
    changes: dict[str, Any] = {"intermediates": ["cldr_qa"], "budgets": [{"epochs": 1}], "recipes": {}}
    assert refusal(**changes) == (
        "budgets: {epochs: 1} counts passes over cldr_qa's training data, whose size is not known; "
        "set recipes.cldr_qa.train_examples"
    )
    grid = make(**{**changes, "recipes": {"cldr_qa": {"train_examples": 320}}})
    assert [budget.steps for budget in grid.budgets["cldr_qa"]] == [20]
    make(**{**changes, "budgets": [1], "cross": {"batch_size": [4000]}, "recipes": {"cldr_qa": {"steps": 1000}}})


def test_labels_without_content_need_labels(monkeypatch):
    from dataclasses import replace

    monkeypatch.setitem(CATALOG, "cldr_pairs", replace(CATALOG["cldr_pairs"], family="retrieval"))
    message = refusal(controls=["shuffled_labels"])
    assert message == "controls: shuffled_labels: cldr_pairs has no labels to permute; remove one of the two"
