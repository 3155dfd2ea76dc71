"""The crossed mixed model of levels at a budget: dense algebra over all gains, lme4, and its rows of contrasts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from r_scripts import ask, lacking
from toy_gains import EVERY, HIGH, compute_gains, estimated, noisy, row, scores, table_of, two_targets
from xlift.contrasts.clustered import FloatArray, IntArray, pair_codes
from xlift.contrasts.contrast import Scope, all_contrasts, prepare
from xlift.contrasts.inference import mixed_data
from xlift.contrasts.mixed import fit_mixed
from xlift.contrasts.reml import CHECKPOINT, LANGUAGE, NOISE, TARGET, TARGET_RUN, Reduced
from xlift.contrasts.rotation import MixedData

OWN = ((0, 1, 2, 3, 4, 5), (0, 2, 3, 6))
"""Languages of each target."""
Kind = Any


def all_gains(tasks: int = 3, seeds: int = 4, seed: int = 0) -> dict[str, IntArray]:
    """Codes of the gains at one budget of two targets with other languages each."""
    keys = [
        (target, task, k, language)
        for target, own in enumerate(OWN)
        for task in range(tasks)
        for k in range(seeds)
        for language in own
    ]
    return dict(zip(("target", "task", "seed", "language"), np.array(keys, dtype=np.int64).T, strict=True))


def averaged(keys: dict[str, IntArray], gain: FloatArray, moderator: FloatArray, kind: Kind) -> MixedData:
    """Means over tasks, the plain way."""
    frame = pl.DataFrame({**keys, "gain": gain}).group_by("target", "seed", "language").agg(pl.col("gain").mean())
    frame = frame.sort("target", "seed", "language")
    codes = {name: frame[name].to_numpy() for name in ("target", "seed", "language")}
    count = np.full(frame.height, np.unique(keys["task"]).size, dtype=np.float64)
    return MixedData(
        outcome=frame["gain"].to_numpy(),
        x=np.ones(frame.height),
        intermediate=np.zeros(frame.height, dtype=np.int64),
        checkpoint=codes["seed"],
        moderator=moderator if kind == "difference" else np.ones_like(moderator),
        kind=kind,
        averaged=count,
        **codes,
    )


def units(*codes: IntArray) -> FloatArray:
    found = np.unique(np.stack(codes), axis=1, return_inverse=True)[1].ravel()
    return np.eye(found.max() + 1)[found]


def generalised(outcome: FloatArray, design: FloatArray, covariance: FloatArray, c: FloatArray) -> tuple[float, float]:
    """c'b by generalised least squares, and its variance."""
    information = design.T @ np.linalg.solve(covariance, design)
    inverse = np.linalg.pinv(information, rcond=1e-11)
    return float(c @ inverse @ design.T @ np.linalg.solve(covariance, outcome)), float(c @ inverse @ c)


@pytest.mark.parametrize("kind", ["difference", "mean"])
def test_a_fit_of_means_over_tasks_is_that_of_all_gains(kind: Kind) -> None:
    """Any variances: checkpoints, targets' runs, languages by task, and baselines that all tasks of a seed share."""
    keys, generator = all_gains(), np.random.default_rng(1)
    target, task, seed, language = (keys[name] for name in ("target", "task", "seed", "language"))
    moderator = generator.normal(size=7)
    m = moderator[language][:, None] if kind == "difference" else np.ones((language.size, 1))
    n_tasks = 3
    spreads = generator.uniform(0.3, 2, size=9)
    effects = (
        units(language), units(target, language), units(task, language), units(target, task, language),
        m * units(task, seed), m * units(target, task, seed),
        m * units(seed), m * units(target, seed), units(target, language, seed),
    )  # fmt: skip
    covariance = np.eye(language.size)
    for spread, effect in zip(spreads, effects, strict=True):
        covariance += spread**2 * effect @ effect.T
    outcome = np.linalg.cholesky(covariance) @ generator.normal(size=language.size)
    if kind == "difference":
        design = np.hstack([m, units(target, task, seed)])
        wanted = np.eye(design.shape[1])[0]
    else:
        design = units(target, task)
        wanted = np.full(design.shape[1], 1 / design.shape[1])
    value, variance = generalised(outcome, design, covariance, wanted)
    # What each component of the means is made of, over the variance of their noise.
    v = spreads**2
    noise = 1 / n_tasks + v[8]
    mapped = {
        LANGUAGE: v[0] + v[2] / n_tasks,
        TARGET: v[1] + v[3] / n_tasks,
        CHECKPOINT: v[4] / n_tasks + v[6],
        TARGET_RUN: v[5] / n_tasks + v[7],
    }
    reduced = Reduced(averaged(keys, outcome, moderator, kind))
    found = reduced.evaluate([(mapped[name] / noise) ** 0.5 for name in reduced.components])
    assert reduced.components == (LANGUAGE, TARGET, CHECKPOINT, TARGET_RUN)
    assert found.beta == pytest.approx(value, rel=1e-8)
    assert noise * found.beta_variance == pytest.approx(variance, rel=1e-8)


@pytest.mark.parametrize("targets", [1, 2])
@pytest.mark.parametrize("kind", ["difference", "mean"])
def test_the_reduced_likelihood_is_that_of_all_rows(kind: Kind, targets: int) -> None:
    keys, generator = all_gains(tasks=1), np.random.default_rng(2)
    keys = {name: codes[keys["target"] < targets] for name, codes in keys.items()}
    outcome, moderator = generator.normal(size=keys["seed"].size), generator.normal(size=7)
    rows = averaged(keys, outcome, moderator, kind)
    reduced = Reduced(rows)
    ratios = generator.uniform(0.2, 2, size=len(reduced.components))
    m = rows.moderator[rows.language][:, None]
    effects = {
        LANGUAGE: units(rows.language),
        TARGET: units(rows.target, rows.language),
        CHECKPOINT: m * units(rows.seed),
        TARGET_RUN: m * units(rows.target, rows.seed),
    }
    covariance = np.eye(rows.outcome.size)
    for name, ratio in zip(reduced.components, ratios, strict=True):
        covariance += ratio**2 * effects[name] @ effects[name].T
    removed = units(rows.target, rows.seed) if kind == "difference" else np.zeros((rows.outcome.size, 1))
    left, singular, _ = np.linalg.svd(removed, full_matrices=True)
    contrasts = left[:, np.count_nonzero(singular > 1e-8) :].T
    fixed = contrasts @ (m if kind == "difference" else units(rows.target))
    y, covariance = contrasts @ rows.outcome, contrasts @ covariance @ contrasts.T
    information = fixed.T @ np.linalg.solve(covariance, fixed)
    effect = np.linalg.solve(information, fixed.T @ np.linalg.solve(covariance, y))
    error = y - fixed @ effect
    found = reduced.evaluate(ratios)
    assert (reduced.dimensions, reduced.n_fixed) == (y.size, fixed.shape[1])
    assert found.beta == pytest.approx(effect.mean())
    assert found.beta_variance == pytest.approx(np.linalg.inv(information).sum() / effect.size**2)
    assert found.residual == pytest.approx(error @ np.linalg.solve(covariance, error))
    expected = np.linalg.slogdet(covariance)[1] + np.linalg.slogdet(information)[1]
    assert found.log_determinant == pytest.approx(expected)
    _, determinant, residual = reduced.gradient(ratios)
    for k in range(ratios.size):
        step = 1e-5 * np.eye(ratios.size)[k]
        after, before = reduced.evaluate(ratios + step), reduced.evaluate(ratios - step)
        assert determinant[k] == pytest.approx((after.log_determinant - before.log_determinant) / 2e-5, rel=1e-5)
        assert residual[k] == pytest.approx((after.residual - before.residual) / 2e-5, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("kind", ["difference", "mean"])
def test_levels_agree_with_lme4(kind: Kind, tmp_path: Path) -> None:
    """Estimate, standard error, variances and Satterthwaite's degrees of freedom."""
    if reason := lacking("lme4", "lmerTest"):
        pytest.skip(reason)
    keys, generator = all_gains(tasks=1, seeds=6), np.random.default_rng(3)
    target, seed, language = (keys[name] for name in ("target", "seed", "language"))
    moderator = np.array([1.0, 0, 1, 0, 0, 1, 0])
    m = moderator[language] if kind == "difference" else np.ones(language.size)
    outcome = generator.normal(0, 0.5, size=language.size) + (generator.normal(size=6)[seed] + 0.7) * m
    outcome += generator.normal(size=7)[language] + generator.normal(0, 0.8, size=(2, 7))[target, language]
    outcome += generator.normal(0, 0.8, size=(2, 6))[target, seed] * m
    rows = averaged(keys, outcome, moderator, kind)
    found = fit_mixed(rows)
    assert found.note == ""
    frame = pl.DataFrame(
        {
            "gain": rows.outcome,
            "moderator": rows.moderator[rows.language],
            "target": rows.target,
            "language": rows.language,
            "target_language": pair_codes(rows.target, rows.language),
            "seed": rows.seed,
            "cell": pair_codes(rows.target, rows.seed),
        }
    )
    answer = ask("levels.R", frame, tmp_path, kind)
    assert found.value == pytest.approx(answer["estimate"], rel=1e-5)
    assert found.se == pytest.approx(answer["se"], rel=1e-4)
    assert found.degrees_of_freedom == pytest.approx(answer["df"], rel=1e-3)
    groups = ("language", "target_language", "seed", "cell", "Residual")
    assert list(found.components.values()) == pytest.approx([answer[name] for name in groups], rel=1e-3)
    names = ["checkpoint tilt", "target-run tilt"]
    names = names if kind == "difference" else [name.replace("tilt", "level") for name in names]
    assert list(found.components) == [LANGUAGE, TARGET, *names, NOISE]


# Rows of contrasts


def test_rows_are_of_means_over_the_tasks_of_each_target() -> None:
    table = table_of(two_targets())
    contrast = next(c for c in all_contrasts(table) if (c.estimand, c.scope.name) == ("low_minus_high", "budget=1"))
    data = mixed_data(table, prepare(table, contrast))
    plain = two_targets().filter(pl.col("language").is_in(["gu", "jv", "sw", *HIGH]), pl.col("budget") == 1)
    means = plain.group_by("target", "language", "seed").agg(pl.col("gain").mean()).sort("target", "language", "seed")
    assert data.outcome == pytest.approx(means["gain"].to_numpy())
    assert data.averaged == pytest.approx(np.full(means.height, 2.0))
    assert np.array_equal(data.checkpoint, data.seed)


def test_a_mean_weighs_targets_by_their_pairs_as_the_clustered_one_does() -> None:
    """One language, so that no other tells anything of it: the mixed mean is the plain one."""
    table = scores(noisy, {"xnli": ["en", "sw"], "xquad": ["en", "sw"]}, noise=1.0)
    gone = (pl.col("target") == "xnli") & (pl.col("intermediate") == "squad")
    table = table_of(compute_gains(table.filter(~gone)))
    contrast = next(
        c for c in all_contrasts(table) if (c.estimand, c.scope) == ("gain_low", Scope("budget=1", budget=1))
    )
    prepared = prepare(table, contrast)
    reduced = Reduced(mixed_data(table, prepared))
    assert prepared.design is not None
    gain = (table.treated - table.baseline)[prepared.rows]
    found = reduced.evaluate(np.full(len(reduced.components), 0.5))
    assert found.beta == pytest.approx(prepared.design.weights @ gain)


def test_every_contrast_has_a_row_by_every_method_with_a_number_or_a_reason() -> None:
    """Estimand x scope x scale x method is a full table."""
    methods = ("clustered", "mixed", "bootstrap", "permutation")
    scales = ("points", "logit", "error_reduction")
    gains = compute_gains(scores(noisy, {"xnli": EVERY, "xquad": ["en", *HIGH, "te"]}, noise=1.0))
    found = estimated(gains, methods=methods, scales=scales, bootstrap_draws=50, permutations=50)
    found = found.filter(pl.col("method") != "tost")
    keys = found.select("estimand", "scope").unique()
    assert found.height == keys.height * len(methods) * len(scales)
    assert not found.select("estimand", "scope", "scale", "method").is_duplicated().any()
    parts = {"target=xnli", "target=xquad", "intermediate=mnli", "intermediate=squad"}
    for estimand in ("beta_per_doubling", "low_minus_high_per_doubling", "unseen_minus_rest_per_doubling"):
        scopes = set(keys.filter(pl.col("estimand") == estimand)["scope"])
        assert scopes == {
            "all",
            *parts,
            *(f"target={t};intermediate={i}" for t in ("xnli", "xquad") for i in ("mnli", "squad")),
        }
    for estimand in ("low_minus_high", "gain_all"):
        scopes = set(keys.filter(pl.col("estimand") == estimand)["scope"])
        budgets = [f"budget={budget}" for budget in ("0.5", "1", "2")]
        assert scopes == {*budgets, *(f"{budget};{part}" for budget in budgets for part in parts)}
    silent = found.filter(pl.col("estimate").is_null() | pl.col("p").is_null())
    assert silent.height > 100
    assert silent["note"].str.len_chars().min() > 0
    with_p = found.filter(pl.col("p").is_not_null()).group_by("method").agg(pl.col("scope").n_unique())
    assert set(with_p["method"]) == set(methods)
    assert with_p["scope"].min() > 5
    means = found.filter(pl.col("method") == "permutation", pl.col("estimand") == "gain_all")
    assert means["estimate"].null_count() == 0
    assert means["note"].str.contains("a mean compares no languages").all()


def test_a_mixed_row_beside_a_clustered_one_without_interval_says_why() -> None:
    gains = compute_gains(scores(noisy, {"xnli": ["en", "sw", *HIGH]}, noise=1.0))
    found = estimated(gains, methods=("clustered", "mixed"))
    values = row(found, "low_minus_high_per_doubling", "all", method="mixed")
    assert values["estimate"] is not None
    assert values["se"] is None
    assert "rests on a single language: no interval or p-value" in values["note"]
