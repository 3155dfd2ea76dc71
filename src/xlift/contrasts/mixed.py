"""The crossed mixed model of slopes and levels: restricted maximum likelihood, gated before anything is reported.

The model and its exact reduction are in `reml.py`. It stands beside the clustered estimate, which stays primary: it
weighs tasks and languages by how precise they are, and so rests on normal effects with the same variances throughout.

Nothing doubtful comes out as a number. Variances are found by two optimisers from two starting points, and by
two more where those disagree; the best likelihood is polished by Newton's method and has to pass a test of
gradient and Hessian. A component at zero (the boundary) is named in the note; an estimate or standard error that
is exactly zero, not finite, or without a curvature behind it is withheld, and the note says why.
The reference distribution is t with Satterthwaite's degrees of freedom, from the curvature of the restricted
likelihood in the variances (Kuznetsova, Brockhoff & Christensen 2017, "lmerTest Package"); a component at
zero is taken as known there.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from scipy import linalg, optimize, special

from xlift.contrasts.clustered import FloatArray
from xlift.contrasts.reml import NOISE, Evaluation, Reduced
from xlift.contrasts.rotation import MixedData

__all__ = ["MixedData", "MixedEstimate", "fit_mixed"]

_STARTS = (("L-BFGS-B", 0.5), ("SLSQP", 0.15))
_SECOND_CHOICE = (("Powell", 0.3), ("Nelder-Mead", 0.3))
_LBFGSB = {"ftol": 1e-12, "gtol": 1e-8, "maxiter": 300}
_FLOOR, _LARGEST = 1e-4, 1e3  # of a relative standard deviation; gradients divide by them
_NEAR_ZERO = 0.03  # smaller ratios are tried at zero
_SAME = 2e-5  # of deviances
_LIKELIHOODS_DIFFER = 1e-2
_LARGEST_DECREMENT = 1e-5  # of the deviance that a Newton step promises
_FLATTEST = 1e-6  # eigenvalue of the Hessian with a unit diagonal
_NO_NOISE = 1e-12  # residual share that is rounding


@dataclass(frozen=True)
class MixedEstimate:
    """A restricted maximum likelihood estimate, in points: of a slope's moderation, per doubling and unit of it.

    `value`, `se` and `degrees_of_freedom` are None where they cannot be trusted; `note` says why. `components` are
    variances by name: of slopes per doubling squared, of tilts per unit of the moderator squared, of noise in points
    squared. `log_likelihood` is that of the contrasts free of all fixed effects but those that are left in `reml.py`,
    with the determinant of the information on these. `n_languages` had a part in the estimate.
    """

    value: float | None = None
    se: float | None = None
    degrees_of_freedom: float | None = None
    log_likelihood: float | None = None
    components: dict[str, float] = field(default_factory=dict)
    optimiser: str = ""
    note: str = ""
    n_languages: int = 0

    def interval(self, confidence: float) -> tuple[float, float] | None:
        """Two-sided t interval, or None without a standard error."""
        if self.value is None or self.se is None or self.degrees_of_freedom is None:
            return None
        margin = float(special.stdtrit(self.degrees_of_freedom, 0.5 + confidence / 2)) * self.se
        return self.value - margin, self.value + margin

    def p_value(self) -> float | None:
        """Two-sided p of "the value is zero", or None without a standard error."""
        if self.value is None or self.se is None or self.degrees_of_freedom is None:
            return None
        return float(2 * special.stdtr(self.degrees_of_freedom, -abs(self.value) / self.se))


@dataclass(frozen=True)
class _Curvature:
    """Second derivatives of the deviance at a solution, over the components above zero and the log noise variance."""

    decrement: float  # Newton's; infinite where the Hessian is not positive definite
    step: FloatArray  # Newton's, of the components above zero
    hessian: FloatArray
    variance_slopes: FloatArray  # of log(beta's variance)


def fit_mixed(data: MixedData) -> MixedEstimate:
    """Fit the model of `reml.py` to the rows and gate the result."""
    reduced = Reduced(data)
    left_out = f"{reduced.left_out} rows of languages that lack a run are left out" if reduced.left_out else ""
    if not reduced.identified:
        return MixedEstimate(note=_joined("not identified: no moderator or no log2 steps that vary", left_out))
    degrees = reduced.dimensions - reduced.n_fixed
    if degrees <= len(reduced.components) + 1:
        return MixedEstimate(note=_joined("fewer observations than variances: no mixed model", left_out))
    start = reduced.evaluate(np.zeros(len(reduced.components)))
    if start.residual <= _NO_NOISE * float(np.sum(data.outcome**2)):
        return MixedEstimate(note=_joined("no variation at all: no mixed model", left_out))
    deviance = _Deviance(reduced, degrees)
    ratios, optimiser, disagreement = _best(deviance)
    ratios = _escape_false_zeros(deviance, ratios)
    ratios, curvature = _polish(deviance, _with_zeros(deviance, ratios))
    evaluation = reduced.evaluate(ratios)
    noise = evaluation.residual / degrees
    names = [name.replace("tilt", "level") if data.kind == "mean" else name for name in reduced.components]
    zeros = [name for name, ratio in zip(names, ratios, strict=True) if ratio == 0]
    boundary = f"variance zero (boundary): {', '.join(zeros)}" if zeros else ""
    estimate = MixedEstimate(
        log_likelihood=-0.5 * deviance.of(evaluation),
        components={
            **{name: float(noise * ratio**2) for name, ratio in zip(names, ratios, strict=True)},
            NOISE: float(noise),
        },
        optimiser=optimiser,
        note=_joined(disagreement, boundary, left_out),
        n_languages=reduced.languages.size,
    )
    return _gated(estimate, evaluation, noise, curvature)


class _Deviance:
    """-2 log restricted likelihood with the noise variance profiled out, and its gradient by the ratios."""

    def __init__(self, reduced: Reduced, degrees: int) -> None:
        self.reduced, self.degrees = reduced, degrees

    def of(self, evaluation: Evaluation) -> float:
        noise = max(evaluation.residual, np.finfo(float).tiny) / self.degrees
        return self.degrees * (float(np.log(2 * np.pi * noise)) + 1) + evaluation.log_determinant

    def value(self, ratios: FloatArray) -> float:
        return self.of(self.reduced.evaluate(ratios))

    def gradient(self, ratios: FloatArray) -> tuple[float, FloatArray]:
        evaluation, determinant, residual = self.reduced.gradient(np.maximum(ratios, _FLOOR))
        return self.of(evaluation), determinant + self.degrees * residual / evaluation.residual

    def by_ratio(self, ratios: FloatArray) -> tuple[float, FloatArray]:
        """A degree of freedom's share of the deviance, which is of order one, and its gradient."""
        value, gradient = self.gradient(ratios)
        return value / self.degrees, gradient / self.degrees

    def by_logarithm(self, logs: FloatArray) -> tuple[float, FloatArray]:
        """The same by the logarithms of the ratios."""
        ratios = np.exp(logs)
        value, gradient = self.by_ratio(ratios)
        return value, gradient * ratios


def _best(deviance: _Deviance) -> tuple[FloatArray, str, str]:
    """The best of several optimisers, its name, and a note where the likelihoods they reach differ."""
    found = [_run(deviance, method, start) for method, start in _STARTS]
    if max(f for f, _, _ in found) - min(f for f, _, _ in found) > _LIKELIHOODS_DIFFER:
        found += [_run(deviance, method, start) for method, start in _SECOND_CHOICE]
    best = min(found, key=lambda result: result[0])
    agreeing = sum(value - best[0] <= _LIKELIHOODS_DIFFER for value, _, _ in found)
    note = "" if agreeing > 1 else "optimisers do not agree on the likelihood: the best is taken"
    return best[1], best[2], note


def _run(deviance: _Deviance, method: str, start: float) -> tuple[float, FloatArray, str]:
    """One optimiser from one starting point: deviance, ratios, name."""
    size = len(deviance.reduced.components)
    if method == "L-BFGS-B":
        result = optimize.minimize(
            deviance.by_logarithm,
            np.full(size, np.log(start)),
            jac=True,
            method=method,
            bounds=[(float(np.log(_FLOOR)), float(np.log(_LARGEST)))] * size,
            options=_LBFGSB,
        )
        ratios = np.exp(result.x)
    else:
        options: dict[str, dict[str, float]] = {
            "SLSQP": {"ftol": 1e-9, "maxiter": 300},
            "Powell": {"ftol": 1e-12, "xtol": 1e-7, "maxiter": 40},
            "Nelder-Mead": {"fatol": 1e-11, "xatol": 1e-6, "maxiter": 200.0 * size},
        }
        result = optimize.minimize(
            deviance.by_ratio if method == "SLSQP" else lambda ratios: deviance.value(ratios) / deviance.degrees,
            np.full(size, start),
            jac=method == "SLSQP",
            method=method,
            bounds=[(_FLOOR, _LARGEST)] * size,
            options=options[method],
        )
        ratios = result.x
    ratios = np.clip(np.asarray(ratios, dtype=np.float64), _FLOOR, _LARGEST)
    return deviance.value(ratios), ratios, method


def _escape_false_zeros(deviance: _Deviance, ratios: FloatArray) -> FloatArray:
    """Start again where an optimiser stopped at zero although the likelihood rises from there.

    Derivatives by a standard deviation vanish at zero, whatever those by the variance are.
    """
    small = ratios < _NEAR_ZERO
    if not small.any():
        return ratios
    probe = np.where(small, _NEAR_ZERO, ratios)
    gradient = deviance.gradient(probe)[1]
    if not np.any(small & (gradient < -1.0)):
        return ratios
    again = optimize.minimize(
        deviance.by_ratio,
        np.where(small & (gradient < -1.0), 0.2, ratios),
        jac=True,
        method="L-BFGS-B",
        bounds=[(_FLOOR, _LARGEST)] * ratios.size,
        options=_LBFGSB,
    )
    return again.x if deviance.value(again.x) < deviance.value(ratios) else ratios


def _with_zeros(deviance: _Deviance, ratios: FloatArray) -> FloatArray:
    """Exactly zero where that is as likely, the smallest ratio first."""
    for k in np.argsort(ratios, kind="stable"):
        if ratios[k] < _NEAR_ZERO:
            without = ratios.copy()
            without[k] = 0.0
            if deviance.value(without) <= deviance.value(ratios) + _SAME:
                ratios = without
    return ratios


def _polish(deviance: _Deviance, ratios: FloatArray) -> tuple[FloatArray, _Curvature]:
    """Newton steps until they promise nothing more, and the curvature there."""
    curvature = _curvature(deviance, ratios)
    for _ in range(4):
        if not _LARGEST_DECREMENT / 10 < curvature.decrement < np.inf:
            break
        proposal = ratios.copy()
        proposal[ratios > 0] = np.maximum(proposal[ratios > 0] + curvature.step, _FLOOR)
        if deviance.value(proposal) > deviance.value(ratios):
            break
        ratios = proposal
        curvature = _curvature(deviance, ratios)
    return ratios, curvature


def _curvature(deviance: _Deviance, ratios: FloatArray) -> _Curvature:
    """Newton's decrement, and the Hessian over (ratios above zero, log noise variance), from exact gradients."""
    inside = np.flatnonzero(ratios > 0)
    n, degrees, reduced = inside.size, deviance.degrees, deviance.reduced
    floored = np.maximum(ratios, _FLOOR)
    evaluation, determinant, residual = reduced.gradient(floored)
    noise = evaluation.residual / degrees
    hessian, slopes = np.zeros((n + 1, n + 1)), np.zeros(n + 1)
    for row, k in enumerate(inside):
        step = 1e-4 * max(floored[k], 0.01)
        moved = np.zeros_like(floored)
        moved[k] = step
        after, up_determinant, up_residual = reduced.gradient(floored + moved)
        before, down_determinant, down_residual = reduced.gradient(floored - moved)
        difference = (up_determinant - down_determinant) + (up_residual - down_residual) / noise
        hessian[row, :n] = difference[inside] / (2 * step)
        slopes[row] = np.log(after.beta_variance / before.beta_variance) / (2 * step)
    hessian[:n, :n] = (hessian[:n, :n] + hessian[:n, :n].T) / 2
    hessian[:n, n] = hessian[n, :n] = -residual[inside] / noise
    hessian[n, n] = degrees
    slopes[n] = 1.0
    gradient = np.append((determinant + residual / noise)[inside], 0.0)
    size = np.sqrt(np.abs(np.diag(hessian)))
    if (
        not np.all(np.isfinite(hessian))
        or np.any(size == 0)
        or linalg.eigvalsh(hessian / np.outer(size, size))[0] < _FLATTEST
    ):
        return _Curvature(np.inf, np.zeros(n), hessian, slopes)
    step_all = -linalg.solve(hessian, gradient, assume_a="pos")
    return _Curvature(float(-gradient @ step_all) / 2, step_all[:n], hessian, slopes)


def _gated(estimate: MixedEstimate, evaluation: Evaluation, noise: float, curvature: _Curvature) -> MixedEstimate:
    """The estimate with its value, standard error and degrees of freedom, or with the reason why not."""
    variance = noise * evaluation.beta_variance
    value, se = evaluation.beta, float(np.sqrt(variance))
    problem = ""
    if not (np.isfinite(value) and np.isfinite(se)) or value == 0 or se == 0:
        problem = "the estimate or its standard error is exactly zero or not finite: withheld"
    elif curvature.decrement == np.inf:
        problem = "singular: the likelihood does not tell the variances apart: withheld"
    elif curvature.decrement > _LARGEST_DECREMENT:
        problem = "not converged: the likelihood still rises: withheld"
    if problem:
        return replace(estimate, note=_joined(problem, estimate.note))
    # Var(log variance of beta) by the delta method; the covariance of the parameters is 2 / Hessian of the deviance.
    spread = float(2 * curvature.variance_slopes @ linalg.solve(curvature.hessian, curvature.variance_slopes))
    return replace(estimate, value=value, se=se, degrees_of_freedom=2 / spread)


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)
