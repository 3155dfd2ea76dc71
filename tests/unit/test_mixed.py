"""The crossed mixed model: its reduction against dense algebra, its fit against statsmodels, and its gates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pytest

from xlift.contrasts import clustered, mixed
from xlift.contrasts.clustered import FloatArray, IntArray
from xlift.contrasts.layout import XTREME_R
from xlift.contrasts.mixed import MixedData, fit_mixed
from xlift.contrasts.reml import CHECKPOINT, LANGUAGE, NOISE, PAIR, TARGET, TARGET_RUN, TASK, TRUNK, Reduced
from xlift.contrasts.structure import Spreads, build_grid, draw_scores
from xlift.languages import load_languages
from xlift.resource import resource_levels

LEVELS = resource_levels(load_languages(Path(__file__).parents[2] / "config" / "languages.csv").values())


def data(
    targets: int = 3,
    tasks: int = 2,
    budgets: int = 3,
    seeds: int = 3,
    languages: int = 7,
    missing: float = 0.0,
    trunk: bool = False,
    seed: int = 0,
) -> MixedData:
    """Gains of a small grid: each target has its own languages, some cells may lack, x differs a little by seed."""
    generator = np.random.default_rng(seed)
    own = [np.sort(generator.choice(languages, generator.integers(4, languages + 1), False)) for _ in range(targets)]
    keys = [
        (target, task, budget, k, language)
        for target in range(targets)
        for task in range(tasks)
        for budget in range(budgets)
        for k in range(seeds)
        if generator.random() >= missing
        for language in own[target]
    ]
    target, task, budget, k, language = np.array(keys, dtype=np.int64).T
    x = budget + 0.3 * task + 0.1 * np.sin(k + budget)
    checkpoint = (task * budgets + budget) * seeds + k
    moderator = generator.normal(size=languages)
    outcome = (
        generator.normal(size=target.size)
        + generator.normal(size=languages)[language] * x
        + 0.5 * generator.normal(size=(targets, languages))[target, language] * x
        + generator.normal(size=checkpoint.max() + 1)[checkpoint] * moderator[language]
        + 3 * generator.normal(size=(targets, languages, seeds))[target, language, k]
        + 3 * generator.normal(size=checkpoint.max() + 1)[checkpoint]
    )
    return MixedData(outcome, x.astype(np.float64), target, task, k, language, checkpoint, moderator, trunk)


def indicator(*codes: IntArray) -> FloatArray:
    found = np.unique(np.stack(codes), axis=1, return_inverse=True)[1].ravel()
    return np.eye(found.max() + 1)[found]


def effects(rows: MixedData) -> dict[str, FloatArray]:
    """The design matrix of every random effect of the formula in `reml.py`. [rows, effects]"""
    x, m = rows.x[:, None], rows.moderator[rows.language][:, None]
    return {
        LANGUAGE: indicator(rows.language) * x,
        TARGET: indicator(rows.target, rows.language) * x,
        TASK: indicator(rows.intermediate, rows.language) * x,
        PAIR: indicator(rows.target, rows.intermediate, rows.language) * x,
        CHECKPOINT: indicator(rows.checkpoint) * m,
        TRUNK: indicator(rows.intermediate, rows.seed) * m * x,
        TARGET_RUN: indicator(rows.target, rows.checkpoint) * m,
    }


def fixed(rows: MixedData) -> FloatArray:
    """All dummies of the fixed effects. [rows, dummies]"""
    return np.hstack(
        [
            indicator(rows.target, rows.checkpoint),
            indicator(rows.target, rows.intermediate, rows.language, rows.seed),
        ]
    )


def freed(rows: MixedData) -> FloatArray:
    """Orthonormal contrasts that no fixed effect reaches. [contrasts, rows]"""
    left, singular, _ = np.linalg.svd(fixed(rows), full_matrices=True)
    contrasts: FloatArray = left[:, np.count_nonzero(singular > 1e-8) :].T
    return contrasts


GRIDS = {
    "complete": {},
    "cells lack": {"missing": 0.3, "seed": 3},
    "one target": {"targets": 1},
    "one task": {"tasks": 1},
    "one of both": {"targets": 1, "tasks": 1, "budgets": 4},
    "trunk": {"budgets": 4, "trunk": True},
    "trunk with cells lacking": {"budgets": 4, "trunk": True, "missing": 0.2, "seed": 5},
}


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())
def test_the_reduced_likelihood_is_that_of_all_rows(grid: dict[str, int]) -> None:
    rows = data(**grid)  # type: ignore[arg-type]
    reduced = Reduced(rows)
    assert (PAIR in reduced.components) == (grid.get("targets") != 1 and grid.get("tasks") != 1)
    assert (TARGET_RUN in reduced.components) == (grid.get("targets") != 1)
    ratios = np.random.default_rng(1).uniform(0.1, 2, len(reduced.components))
    contrasts, designs = freed(rows), effects(rows)
    covariance = np.eye(rows.outcome.size)
    for name, ratio in zip(reduced.components, ratios, strict=True):
        covariance += ratio**2 * designs[name] @ designs[name].T
    covariance = contrasts @ covariance @ contrasts.T
    outcome, focal = contrasts @ rows.outcome, contrasts @ (rows.moderator[rows.language] * rows.x)
    information = focal @ np.linalg.solve(covariance, focal)
    beta = focal @ np.linalg.solve(covariance, outcome) / information
    found = reduced.evaluate(ratios)
    assert reduced.dimensions == outcome.size
    assert found.beta == pytest.approx(beta, rel=1e-9)
    assert found.beta_variance == pytest.approx(1 / information, rel=1e-9)
    assert found.log_determinant == pytest.approx(np.linalg.slogdet(covariance)[1] + np.log(information), rel=1e-9)
    assert found.residual == pytest.approx(outcome @ np.linalg.solve(covariance, outcome) - information * beta**2)
    assert reduced.evaluate(0 * ratios).residual > 0  # zero variances are allowed


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())
def test_gradients_are_those_of_finite_differences(grid: dict[str, int]) -> None:
    reduced = Reduced(data(**grid))  # type: ignore[arg-type]
    ratios = np.random.default_rng(2).uniform(0.05, 2, len(reduced.components))
    _, determinant, residual = reduced.gradient(ratios)
    for k in range(ratios.size):
        step = np.zeros_like(ratios)
        step[k] = 1e-5
        after, before = reduced.evaluate(ratios + step), reduced.evaluate(ratios - step)
        assert determinant[k] == pytest.approx((after.log_determinant - before.log_determinant) / 2e-5, rel=1e-5)
        assert residual[k] == pytest.approx((after.residual - before.residual) / 2e-5, rel=1e-5, abs=1e-6)


def test_languages_that_lack_a_run_are_left_out_and_counted() -> None:
    rows = data()
    gone = (rows.target == 1) & (rows.language == rows.language[rows.target == 1][0]) & (rows.checkpoint == 4)
    cut = replace(rows, **{name: getattr(rows, name)[~gone] for name in vars(rows) if _is_rows(rows, name)})
    lost = (rows.target == 1) & (rows.intermediate == 0) & (rows.language == rows.language[gone][0])
    kept = replace(rows, **{name: getattr(rows, name)[~lost] for name in vars(rows) if _is_rows(rows, name)})
    found, expected = fit_mixed(cut), fit_mixed(kept)
    assert Reduced(cut).left_out == np.count_nonzero(lost) - 1 == 8
    assert found.value == expected.value
    assert "8 rows of languages that lack a run are left out" in found.note


def _is_rows(rows: MixedData, name: str) -> bool:
    return name not in ("moderator", "shared_trunk", "kind", "averaged")


# The fit


def statsmodels_fit(rows: MixedData, components: tuple[str, ...]):  # type: ignore[no-untyped-def]
    """The same model as one group with a variance component each, fixed effects as dummies."""
    import statsmodels.api as sm  # type: ignore[import-untyped]

    design = fixed(rows)
    kept: list[FloatArray] = []
    for column in design.T:  # a basis of the dummies: statsmodels does not drop aliased ones
        if np.linalg.matrix_rank(np.column_stack([*kept, column])) > len(kept):
            kept.append(column)
    focal = rows.moderator[rows.language] * rows.x
    everything = np.column_stack([*kept, focal])
    structure = sm.regression.mixed_linear_model.VCSpec(
        list(components),
        [[[f"{name}{k}" for k in range(effects(rows)[name].shape[1])]] for name in components],
        [[effects(rows)[name]] for name in components],
    )
    groups = np.zeros(rows.outcome.size)
    model = sm.MixedLM(pd.Series(rows.outcome), pd.DataFrame(everything), groups, exog_vc=structure)
    fit = model.fit(reml=True, method=["bfgs", "lbfgs", "powell"], full_output=True)
    return fit, everything


def test_the_fit_agrees_with_statsmodels() -> None:
    """Estimate, standard error, variances and log-likelihood, all effects crossed in one group."""
    rows = data(targets=2, tasks=1, budgets=4, seeds=3, languages=6, seed=4)
    found = fit_mixed(rows)
    components = tuple(found.components)[:-1]
    assert min(found.components[name] for name in components) > 0.01  # no boundary, where optimisers stop anywhere
    fit, design = statsmodels_fit(rows, components)
    assert found.value == pytest.approx(float(fit.fe_params.iloc[-1]), rel=1e-3)
    assert found.se == pytest.approx(float(fit.bse_fe.iloc[-1]), rel=5e-3)
    variances = dict(zip(fit.model.exog_vc.names, fit.vcomp, strict=True))
    assert {name: found.components[name] for name in components} == pytest.approx(variances, rel=2e-2)
    assert found.components[NOISE] == pytest.approx(fit.scale, rel=5e-3)
    # statsmodels' determinant is that of all fixed effects; ours is of contrasts free of all but one.
    dummies = design[:, :-1]
    theirs = fit.llf + 0.5 * np.linalg.slogdet(dummies.T @ dummies)[1]
    assert found.log_likelihood is not None
    assert theirs - 1e-6 < found.log_likelihood < theirs + 2e-3


def test_variances_of_a_large_grid_are_recovered() -> None:
    grid = build_grid(XTREME_R, LEVELS, 3, range(6), 3)
    seen = grid.within(np.isfinite(grid.z))
    spreads = Spreads(language_slope=0.6, task_language_slope=0.4, pair_language_slope=0.3)
    score, baseline = draw_scores(seen, spreads, -0.5, np.random.default_rng(0))
    found = fit_mixed(
        MixedData(
            score - baseline, seen.x, seen.target, seen.intermediate, seen.seed, seen.language, seen.checkpoint, grid.z
        )
    )
    assert found.value is not None
    assert found.se is not None
    assert abs(found.value + 0.5) < 4 * found.se
    expected = {
        LANGUAGE: 0.6, TARGET: 0.2, TASK: 0.4, PAIR: 0.3, CHECKPOINT: 0.5, TARGET_RUN: 0.5, NOISE: 1.0,
    }  # fmt: skip
    assert {name: value**0.5 for name, value in found.components.items()} == pytest.approx(expected, rel=0.25)
    assert found.note == ""


def test_balanced_data_give_the_least_squares_slope_and_a_t_test() -> None:
    """One target, one task: the estimate is the regression of each language's slope on the moderator."""
    rows = data(targets=1, tasks=1, budgets=5, seeds=4, languages=6, seed=8)
    rows = replace(rows, x=np.round(rows.x))
    design = clustered.slope_design(rows.target, rows.language, rows.x, rows.moderator[rows.language])
    found = fit_mixed(rows)
    assert found.value == pytest.approx(float(design.weights @ rows.outcome))
    assert found.degrees_of_freedom is not None
    assert 1 < found.degrees_of_freedom < 20


# Gates


def test_nothing_to_estimate_says_so() -> None:
    rows = data()
    flat = replace(rows, moderator=np.ones_like(rows.moderator))
    once = replace(rows, x=np.zeros_like(rows.x))
    for case in (flat, once):
        found = fit_mixed(case)
        assert found.value is None
        assert found.note.startswith("not identified")
        assert (found.interval(0.95), found.p_value()) == (None, None)
    still = replace(rows, outcome=rows.moderator[rows.language] * rows.x + rows.target)
    assert fit_mixed(still).note == "no variation at all: no mixed model"
    keep = (rows.seed == 0) & (rows.target == 0) & (rows.intermediate == 0) & (rows.checkpoint < 6)
    tiny = replace(rows, **{name: getattr(rows, name)[keep] for name in vars(rows) if _is_rows(rows, name)})
    assert fit_mixed(tiny).value is None


def test_a_component_at_zero_is_named_and_the_rest_is_fitted_without_it() -> None:
    rows = data(targets=3, tasks=1, budgets=4, seed=6)
    generator = np.random.default_rng(0)
    plain = replace(rows, outcome=generator.normal(size=rows.outcome.size))
    found = fit_mixed(plain)
    zeros = [name for name, value in found.components.items() if value == 0]
    assert zeros
    assert f"variance zero (boundary): {', '.join(zeros)}" in found.note
    assert found.value is not None
    # With all components at zero it is least squares with the usual t test.
    if len(zeros) == len(found.components) - 1:
        contrasts = freed(plain)
        focal = contrasts @ (plain.moderator[plain.language] * plain.x)
        outcome = contrasts @ plain.outcome
        assert found.value == pytest.approx(focal @ outcome / (focal @ focal))


def test_an_estimate_of_exactly_zero_is_refused() -> None:
    rows = data(targets=1, tasks=1, budgets=4)
    focal = freed(rows) @ (rows.moderator[rows.language] * rows.x)
    evaluation = Reduced(rows).evaluate([0.5, 0.5])
    curvature = mixed._curvature(mixed._Deviance(Reduced(rows), focal.size - 1), np.array([0.5, 0.5]))
    good = mixed._gated(mixed.MixedEstimate(), evaluation, 1.0, replace(curvature, decrement=0.0))
    assert good.value == evaluation.beta
    for broken, noise, reason in (
        (replace(evaluation, beta=0.0), 1.0, "exactly zero"),
        (replace(evaluation, beta=float("nan")), 1.0, "not finite"),
        (evaluation, 0.0, "exactly zero"),
    ):
        found = mixed._gated(mixed.MixedEstimate(), broken, noise, replace(curvature, decrement=0.0))
        assert found.value is None
        assert reason in found.note
    for decrement, reason in ((np.inf, "singular"), (1.0, "not converged")):
        found = mixed._gated(mixed.MixedEstimate(), evaluation, 1.0, replace(curvature, decrement=decrement))
        assert found.value is None
        assert found.se is None
        assert found.note.startswith(reason)


def test_aliased_variances_are_called_singular() -> None:
    """Two budgets of one seed: the checkpoints' tilt is the slope along the moderator itself."""
    rows = data(targets=1, tasks=1, budgets=2, seeds=1, languages=7)
    found = fit_mixed(rows)
    assert found.value is None
    assert found.se is None
    assert found.note


def test_an_optimiser_stuck_at_zero_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = data(targets=2, tasks=1, budgets=4, seed=4)
    expected = fit_mixed(rows)
    floor = np.full(len(Reduced(rows).components), 1e-4)
    monkeypatch.setattr(mixed, "_best", lambda deviance: (floor, "none", ""))
    found = fit_mixed(rows)
    assert found.log_likelihood == pytest.approx(expected.log_likelihood, abs=1e-5)
    assert found.value == pytest.approx(expected.value, rel=1e-4)


def test_optimisers_that_disagree_are_mentioned(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = data(targets=2, tasks=1, budgets=4, seed=4)
    expected = fit_mixed(rows)
    honest = mixed._run

    def crippled(deviance: mixed._Deviance, method: str, start: float) -> tuple[float, FloatArray, str]:
        value, ratios, name = honest(deviance, method, start)
        worse = {"Powell": 0.0, "L-BFGS-B": 5.0, "SLSQP": 9.0, "Nelder-Mead": 7.0}[method]
        return (value + worse, ratios if worse == 0 else ratios * 2, name)

    monkeypatch.setattr(mixed, "_run", crippled)
    found = fit_mixed(rows)
    assert "optimisers do not agree" in found.note
    assert found.optimiser == "Powell"
    assert found.value == pytest.approx(expected.value, rel=1e-3)


def test_permuted_rows_and_renamed_codes_give_the_same() -> None:
    rows = data(missing=0.2, seed=9)
    order = np.random.default_rng(0).permutation(rows.outcome.size)
    shuffled = replace(rows, **{name: getattr(rows, name)[order] for name in vars(rows) if _is_rows(rows, name)})
    renamed = replace(shuffled, target=5 - shuffled.target, checkpoint=3 * shuffled.checkpoint + 7)
    first, second = fit_mixed(rows), fit_mixed(renamed)
    assert first.value == pytest.approx(second.value, rel=1e-6)
    assert first.se == pytest.approx(second.se, rel=1e-5)


def test_other_units_give_the_same_in_other_units() -> None:
    """Points or shares, steps or thousands of them: x enters by its differences, the outcome by its scale."""
    rows = data(missing=0.2, seed=9)
    scaled = replace(rows, outcome=rows.outcome / 5000, x=rows.x + 7)
    first, second = fit_mixed(rows), fit_mixed(scaled)
    assert first.value is not None
    assert second.value == pytest.approx(first.value / 5000, rel=1e-5)
    assert second.se is not None
    assert second.se == pytest.approx((first.se or 0.0) / 5000, rel=1e-5)
    assert second.p_value() == pytest.approx(first.p_value(), rel=1e-4)
