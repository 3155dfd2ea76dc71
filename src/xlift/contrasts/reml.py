"""Restricted likelihood of crossed random slopes, in time that does not depend on the number of rows.

The model, for target t, intermediate task i, language l, seed s and intermediate checkpoint r = (i, budget, s):

    gain = cell[t, r] + start[t, i, l, s] + (beta * m[l] + h[l] + h[t, l] + h[i, l] + h[t, i, l]) * x[r]
           + (v[r] + w[t, r] + k[i, s] * x[r]) * m[l] + noise

x is log2 of the realised steps, m the moderator (standardised log2 size, or an indicator). `cell` and `start`
are fixed effects: whatever a run does to all languages of a target alike, and whatever a language scores before
the first doubling (the baseline run's noise too), cancels instead of being assumed normal and unrelated to m.
All h, v, w, k and the noise are independent and normal. k, the slope of a long run, is there only where budgets
are checkpoints of one trunk. Languages and runs are crossed: no effect is nested in a language.

The data are reduced to three parts that know a parameter other than the noise (`rotation.py`): a pair's slope along
m (one number), its slopes across m (a vector over languages), and its tilts along m in the checkpoint directions
other than x. In complete pairs that is an orthogonal transformation: the restricted likelihood is that of all rows.

Levels at a budget have seeds s in the place of checkpoints and are means over the intermediate tasks of a target:

    difference:  gain = cell[t, s] + d * m[l] + h[l] + h[t, l] + (v[s] + w[t, s]) * m[l] + noise
    mean:        gain = level[t]              + h[l] + h[t, l] +  v[s] + w[t, s]         + noise

The first is the model above at x = 1 without starts; the second has a fixed effect for each target in the place of d,
and its estimate is their mean, each weighing as many (target, intermediate) pairs as it has. Averaging over tasks
first leaves out only contrasts between tasks, which say nothing of a mean over them: h[i, l] and h[t, i, l] become
parts of h[l] and h[t, l]; checkpoints' tilts and the baseline's, which all tasks of a seed share, v, w and noise.
Where all targets have the same tasks nothing is approximated; elsewhere noise is taken as alike in all targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import linalg

from xlift.contrasts.clustered import FloatArray, IntArray
from xlift.contrasts.rotation import MixedData, Pair, rotated_pairs

BoolArray = npt.NDArray[np.bool_]

LANGUAGE, TARGET, TASK, PAIR = "language", "target x language", "intermediate x language", "pair x language"
CHECKPOINT, TRUNK, TARGET_RUN, NOISE = "checkpoint tilt", "trunk slope tilt", "target-run tilt", "noise"


@dataclass(frozen=True)
class Evaluation:
    """Parts of the restricted likelihood at given relative variances; the noise variance is still free."""

    log_determinant: float  # of the relative covariance, and of the information on the fixed effects left
    residual: float  # weighted sum of squares
    beta: float  # the estimate, of a mean too
    beta_variance: float  # in units of the noise variance


@dataclass(frozen=True)
class _Solution:
    """An evaluation with what its gradient is made of."""

    evaluation: Evaluation
    ratio: dict[str, float]
    tilt: FloatArray  # weights of the three kinds of data, one over their relative noise variances [pairs]
    along: FloatArray
    across: FloatArray
    scale: FloatArray  # of the columns: language effects, then fixed ones [columns + fixed]
    factor: FloatArray  # Cholesky factor of their information, scaled
    effects: FloatArray  # their estimates, scaled [columns + fixed]
    runs: list[tuple[_TaskRuns, FloatArray, FloatArray, FloatArray]]  # run effects: scale, factor, solved


@dataclass(frozen=True)
class _TaskRuns:
    """The run effects of one intermediate task, and how its pairs load on them."""

    pairs: IntArray
    is_trunk: BoolArray  # columns that are slopes of trunks, not checkpoints [effects]
    across: FloatArray  # loadings across x, as cross-products [pairs, effects, effects]
    along: FloatArray  # loadings along x [pairs, effects]
    tilts: FloatArray  # loadings times the tilts [pairs, effects]


class Reduced:
    """The rotated data, and the restricted likelihood at any variances.

    Attributes:
        identified: whether any pair has both a moderator and log2 steps that vary.
        components: names of the relative standard deviations that `evaluate` takes, in order. What the grid
            cannot tell apart (one target: its runs are the checkpoints) has one name only.
        dimensions: what is left of the rows after the fixed effects that are removed.
        n_fixed: fixed effects that are left: the estimate's own, or of a mean one a target.
        languages: those of the pairs that have a part in the estimate, by code.
        left_out: rows of languages that lack a run of their pair.
    """

    def __init__(self, rows: MixedData) -> None:
        pairs, self.left_out = rotated_pairs(rows)
        moderated = [pair.languages for pair in pairs if pair.moderator_norm > 0]
        self.identified = bool(moderated)
        self.languages = np.unique(np.concatenate(moderated)) if moderated else np.zeros(0, dtype=np.int64)
        self.dimensions = sum(pair.language_dimensions * pair.run_dimensions for pair in pairs)
        self.n_fixed = len(pairs) if rows.kind == "mean" else 1
        self.components: tuple[str, ...] = ()
        if self.identified:
            self._prepare(pairs, rows.shared_trunk)

    def _prepare(self, pairs: list[Pair], shared_trunk: bool) -> None:
        targets, self._target = np.unique([pair.target for pair in pairs], return_inverse=True)
        tasks, self._task = np.unique([pair.intermediate for pair in pairs], return_inverse=True)
        self._n_targets, self._n_tasks = targets.size, tasks.size
        several, many = targets.size > 1, tasks.size > 1
        # With one task, or one target, a pair's own language effects are those of its target, or task: they need no
        # columns, as they act as noise of the pair's slopes.
        self._blocks = [LANGUAGE, TARGET, TASK] if several and many else [LANGUAGE]
        self._pair = PAIR if several and many else TARGET if several else TASK if many else ""
        runs = [CHECKPOINT, *([TRUNK] if shared_trunk else []), *([TARGET_RUN] if several else [])]
        self.components = (*self._blocks, *([self._pair] if self._pair else []), *runs)

        self._m = np.array([pair.moderator_norm for pair in pairs])
        self._x = np.array([pair.x_norm for pair in pairs])
        self._slope = np.array([pair.slope for pair in pairs])
        self._rest = sum(pair.rest for pair in pairs)
        self._run_dimensions = np.array([pair.run_dimensions for pair in pairs])
        self._has_moderator = (self._m > 0).astype(np.float64)
        self._across_dimensions = np.array([pair.language_dimensions for pair in pairs]) - self._has_moderator
        self._tilt_squares = np.array([pair.tilts @ pair.tilts for pair in pairs])
        self._slope_squares = np.array([pair.slopes @ pair.slopes for pair in pairs])
        self._prepare_languages(pairs)
        self._runs = [_task_runs(pairs, np.flatnonzero(self._task == k)) for k in range(tasks.size)]

    def _prepare_languages(self, pairs: list[Pair]) -> None:
        languages = np.unique(np.concatenate([pair.languages for pair in pairs]))
        shape = (len(pairs), languages.size)
        self._projectors = np.zeros((*shape, languages.size))
        present, slopes, directions = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        for k, pair in enumerate(pairs):
            place = np.searchsorted(languages, pair.languages)
            present[k, place], slopes[k, place], directions[k, place] = 1.0, pair.slopes, pair.direction
            self._projectors[k][np.ix_(place, place)] = pair.projector
        self._columns = np.flatnonzero(self._widen(present).any(axis=0))
        sizes = {LANGUAGE: 1, TARGET: self._n_targets, TASK: self._n_tasks}
        counts = [sizes[name] * languages.size for name in self._blocks]
        self._column_component = np.repeat(np.arange(len(counts)), counts)[self._columns]
        self._slopes = self._widen(slopes)[:, self._columns]
        # Of each pair: its languages, and its columns, all of one language effect after all of another.
        self._pair_slopes = [pair.slopes for pair in pairs]
        self._members = []
        for k, pair in enumerate(pairs):
            own = np.zeros(shape)
            own[k] = present[k]
            self._members.append(
                (np.searchsorted(languages, pair.languages), np.flatnonzero(self._widen(own)[k, self._columns]))
            )
        # The last columns are of the fixed effects: the estimate's own, or one a target of which it is the mean.
        averaged = np.array([pair.averaged for pair in pairs])
        is_mean = self.n_fixed > 1
        self._weights = averaged / averaged.sum() if is_mean else np.ones(1)
        fixed = np.diag(self._m) if is_mean else self._m
        self._along = np.column_stack([self._widen(directions)[:, self._columns], fixed])

    def _widen(self, values: FloatArray) -> FloatArray:
        """Values by language put in the columns of every language effect they load on. [pairs, columns]"""
        n_pairs, n_languages = values.shape
        parts = [values]
        for name, codes, count in ((TARGET, self._target, self._n_targets), (TASK, self._task, self._n_tasks)):
            if name in self._blocks:
                wide = np.zeros((n_pairs, count, n_languages))
                wide[np.arange(n_pairs), codes] = values
                parts.append(wide.reshape(n_pairs, -1))
        return np.hstack(parts)

    def evaluate(self, relative: Sequence[float] | FloatArray) -> Evaluation:
        """The likelihood's parts where component k has `relative[k]` times the noise's standard deviation.

        For the components of slopes and tilts the ratio is per unit of x and of the moderator.
        """
        return self._solve(relative).evaluation

    def _solve(self, relative: Sequence[float] | FloatArray) -> _Solution:
        ratio = dict(zip(self.components, relative, strict=True))
        tilt_noise = 1 + (ratio.get(TARGET_RUN, 0.0) * self._m) ** 2
        pair_slope = (ratio.get(self._pair, 0.0) * self._x) ** 2
        tilt, along, across = 1 / tilt_noise, 1 / (tilt_noise + pair_slope), 1 / (1 + pair_slope)  # weights
        tilt_dimensions = self._has_moderator * (self._run_dimensions - 1)
        log_determinant = -float(
            np.sum(tilt_dimensions * np.log(tilt) + self._has_moderator * np.log(along))
            + np.sum(self._across_dimensions * np.log(across))
        )
        squares = self._rest + float(self._slope_squares @ across + self._slope**2 @ along + self._tilt_squares @ tilt)
        # Run effects are eliminated task by task; along m they act on a pair's one slope.
        weights, sums = np.diag(self._x**2 * along), self._x * self._slope * along
        eliminated = []
        for runs in self._runs:
            k, m = runs.pairs, self._m[runs.pairs]
            scale = np.where(runs.is_trunk, ratio.get(TRUNK, 0.0), ratio[CHECKPOINT])
            information = np.tensordot(m**2 * tilt[k], runs.across, axes=1)
            information += (runs.along * (m**2 * along[k])[:, None]).T @ runs.along
            information = np.eye(scale.size) + scale[:, None] * information * scale
            right = scale * ((m * tilt[k]) @ runs.tilts + (m * self._slope[k] * along[k]) @ runs.along)
            coupling = (runs.along * (m * self._x[k] * along[k])[:, None] * scale).T
            factor = linalg.cholesky(information, lower=True, check_finite=False)
            solved = linalg.cho_solve((factor, True), np.column_stack([right, coupling]), check_finite=False)
            log_determinant += 2 * float(np.sum(np.log(np.diag(factor))))
            squares -= float(solved[:, 0] @ right)
            weights[np.ix_(k, k)] -= coupling.T @ solved[:, 1:]
            sums[k] -= coupling.T @ solved[:, 0]
            eliminated.append((runs, scale, factor, solved))

        own = self._columns.size  # columns of language effects; the fixed ones follow
        ratios = np.array([ratio[name] for name in self._blocks])[self._column_component]
        scale = np.append(ratios, np.ones(self.n_fixed))
        information = self._along.T @ (weights @ self._along)
        information[:own, :own] += self._across_information(self._x**2 * across)
        right = self._along.T @ sums
        right[:own] += (self._x * across) @ self._slopes
        information *= scale[:, None] * scale
        information[np.arange(own), np.arange(own)] += 1
        factor = linalg.cholesky(information, lower=True, check_finite=False)
        forward = linalg.solve_triangular(factor, scale * right, lower=True, check_finite=False)
        spread = linalg.solve_triangular(factor[own:, own:], self._weights, lower=True, check_finite=False)
        log_determinant += 2 * float(np.sum(np.log(np.diag(factor))))
        evaluation = Evaluation(
            log_determinant=log_determinant,
            residual=squares - float(forward @ forward),
            beta=float(spread @ forward[own:]),
            beta_variance=float(spread @ spread),
        )
        effects = linalg.solve_triangular(factor, forward, lower=True, trans="T", check_finite=False)
        return _Solution(evaluation, ratio, tilt, along, across, scale, factor, effects, eliminated)

    def gradient(self, relative: Sequence[float] | FloatArray) -> tuple[Evaluation, FloatArray, FloatArray]:
        """The likelihood's parts, and the derivatives of `log_determinant` and `residual`. [components] each

        Variances enter twice: as scales of effects, where the derivative of the residual is that of the
        penalty (envelope theorem) and the one of the determinant a trace of posterior variances; and as noise
        of a pair's data, where they are squared residuals and their posterior variances. It divides by the
        ratios: each has to be above zero (1e-4 is enough).
        """
        state = self._solve(relative)
        ratio, effects, scale = state.ratio, state.effects, state.scale
        inverse = _inverse(state.factor)
        determinant, residual = dict.fromkeys(self.components, 0.0), dict.fromkeys(self.components, 0.0)
        for k, name in enumerate(self._blocks):
            columns = np.flatnonzero(self._column_component == k)
            determinant[name] = 2 / ratio[name] * float(np.sum(1 - np.diag(inverse)[columns]))
            residual[name] = -2 / ratio[name] * float(np.sum(effects[columns] ** 2))

        plain = self._along * scale
        language_covariance = plain @ inverse @ plain.T  # of the pairs' slopes along m, over x_norm
        slope_error = self._slope - self._x * (plain @ effects)
        slope_variance = self._x**2 * np.diag(language_covariance)
        tilt_error, tilt_variance = self._tilt_squares.copy(), np.zeros_like(slope_error)
        for runs, run_scale, factor, solved in state.runs:
            own_pairs, m = runs.pairs, self._m[runs.pairs]
            coupled = solved[:, 1:]
            estimates = solved[:, 0] - coupled @ (plain[own_pairs] @ effects)
            covariance = _inverse(factor)
            covariance += coupled @ language_covariance[np.ix_(own_pairs, own_pairs)] @ coupled.T
            for name, own in ((CHECKPOINT, ~runs.is_trunk), (TRUNK, runs.is_trunk)):
                if name in ratio:
                    determinant[name] += 2 / ratio[name] * float(np.sum(1 - np.diag(covariance)[own]))
                    residual[name] -= 2 / ratio[name] * float(np.sum(estimates[own] ** 2))
            loads = runs.along * run_scale * m[:, None]
            slope_error[own_pairs] -= loads @ estimates
            cross = -(loads @ coupled) * language_covariance[np.ix_(own_pairs, own_pairs)]
            slope_variance[own_pairs] += np.sum((loads @ covariance) * loads, axis=1) + 2 * self._x[
                own_pairs
            ] * cross.sum(axis=1)
            values = run_scale * estimates
            tilt_error[own_pairs] += m**2 * ((runs.across @ values) @ values) - 2 * m * (runs.tilts @ values)
            tilt_variance[own_pairs] = m**2 * np.tensordot(
                runs.across, run_scale[:, None] * covariance * run_scale, axes=2
            )

        # Derivatives by the weights, then by the ratios that the weights are made of.
        along_part = np.array([slope_variance - self._has_moderator / state.along, slope_error**2])
        if self._pair:
            across_part = self._across_derivatives(inverse, state)
            change = -2 * ratio[self._pair] * self._x**2
            both = across_part @ (state.across**2 * change) + along_part @ (state.along**2 * change)
            determinant[self._pair], residual[self._pair] = (float(value) for value in both)
        if TARGET_RUN in ratio:
            dimensions = self._has_moderator * (self._run_dimensions - 1)
            tilt_part = np.array([tilt_variance - dimensions / state.tilt, tilt_error])
            change = -2 * ratio[TARGET_RUN] * self._m**2
            both = tilt_part @ (state.tilt**2 * change) + along_part @ (state.along**2 * change)
            determinant[TARGET_RUN], residual[TARGET_RUN] = (float(value) for value in both)
        return (
            state.evaluation,
            np.array([determinant[name] for name in self.components]),
            np.array([residual[name] for name in self.components]),
        )

    def _across_derivatives(self, inverse: FloatArray, state: _Solution) -> FloatArray:
        """Derivatives of the determinant and the residual by the weight of the slopes across m. [2, pairs]"""
        own = self._columns.size
        scale = state.scale[:own]
        covariance = scale[:, None] * inverse[:own, :own] * scale
        effects = scale * state.effects[:own]
        parts = np.zeros((2, len(self._members)))
        for k, (place, columns) in enumerate(self._members):
            size = place.size
            projector = self._projectors[k][np.ix_(place, place)]
            total = covariance[np.ix_(columns, columns)].reshape(-1, size, columns.size // size, size).sum(axis=(0, 2))
            error = self._pair_slopes[k] - self._x[k] * (projector @ effects[columns].reshape(-1, size).sum(axis=0))
            parts[:, k] = self._x[k] ** 2 * float(np.sum(projector * total)), float(error @ error)
        parts[0] -= self._across_dimensions / state.across
        return parts

    def _across_information(self, weights: FloatArray) -> FloatArray:
        """Information on the language effects from the slopes across the moderator. [columns, columns]"""
        if self._blocks == [LANGUAGE]:
            only: FloatArray = np.tensordot(weights, self._projectors, axes=1)[np.ix_(self._columns, self._columns)]
            return only
        n = self._projectors.shape[1]
        table = np.zeros((self._n_targets, self._n_tasks, n, n))
        table[self._target, self._task] = weights[:, None, None] * self._projectors
        by_target, by_task = table.sum(axis=1), table.sum(axis=0)
        blocks = {
            (LANGUAGE, LANGUAGE): by_target.sum(axis=0),
            (LANGUAGE, TARGET): by_target.transpose(1, 0, 2).reshape(n, -1),
            (LANGUAGE, TASK): by_task.transpose(1, 0, 2).reshape(n, -1),
            (TARGET, TASK): table.transpose(0, 2, 1, 3).reshape(self._n_targets * n, -1),
            (TARGET, TARGET): linalg.block_diag(*by_target),
            (TASK, TASK): linalg.block_diag(*by_task),
        }
        full = np.block(
            [[blocks[a, b] if (a, b) in blocks else blocks[b, a].T for b in self._blocks] for a in self._blocks]
        )
        result: FloatArray = full[np.ix_(self._columns, self._columns)]
        return result


def _task_runs(pairs: list[Pair], members: IntArray) -> _TaskRuns:
    chosen = [pairs[k] for k in members]
    along = np.array([pair.loadings.T @ pair.along_x for pair in chosen])
    across = np.array([pair.loadings.T @ pair.loadings for pair in chosen]) - along[:, :, None] * along[:, None, :]
    is_trunk = np.arange(along.shape[1]) >= chosen[0].n_checkpoints
    tilts = np.array([pair.loadings.T @ pair.tilts for pair in chosen])
    return _TaskRuns(members, is_trunk, across, along, tilts)


def _inverse(factor: FloatArray) -> FloatArray:
    """Inverse of the matrix that a lower Cholesky factor is of."""
    lower, failed = linalg.lapack.dpotri(factor, lower=1)
    if failed:
        raise np.linalg.LinAlgError("a Cholesky factor with a zero on its diagonal has no inverse")
    result: FloatArray = lower + lower.T  # above its diagonal the factor is zero, and so stays this
    np.fill_diagonal(result, np.diag(lower))
    return result
