"""The primary method: least squares with two-way clustered errors, and adjusted p-values over its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from xlift.analysis import CONFIRMATORY
from xlift.contrasts import clustered
from xlift.contrasts.clustered import Design, Estimate, benjamini_hochberg, holm, pair_codes
from xlift.contrasts.contrast import FEW_SEEDS, Prepared
from xlift.contrasts.mixed import MixedData, fit_mixed
from xlift.contrasts.rotation import level_means
from xlift.contrasts.rows import CLUSTERED, POINTS, TOST, Row, joined
from xlift.contrasts.table import GainTable

MAP_PARTS = {"target", "intermediate", "budget"}
"""What the scopes of a map are made of; other scopes are sensitivity and in no family of tests."""


def clustered_estimate(table: GainTable, prepared: Prepared, design: Design) -> Estimate:
    """The two-way clustered estimate of a prepared contrast's design."""
    rows = prepared.rows
    return clustered.two_way(
        design, table.treated[rows], table.baseline[rows], table.language[rows], table.run[rows], table.seed[rows]
    )


def clustered_row(table: GainTable, prepared: Prepared) -> Row:
    """The row of a contrast by the clustered method; without numbers where it is not identified."""
    row = prepared.row(table)
    if prepared.design is None:
        return row
    result = clustered_estimate(table, prepared, prepared.design)
    row = replace(row, estimate=result.value)
    if prepared.few_seeds(table):
        return replace(row, note=joined(row.note, FEW_SEEDS))
    row = replace(row, note=joined(row.note, result.note))
    interval = result.interval(table.settings.confidence)
    if interval is None or result.variance is None:
        return row
    return replace(row, se=result.variance**0.5, ci_low=interval[0], ci_high=interval[1], p=result.p_value())


def mixed_row(table: GainTable, prepared: Prepared, beside: Row) -> Row:
    """The row of a contrast by the crossed mixed model; without numbers where the model is not trusted.

    Where the clustered row `beside` rests on too little for an interval, this one has none either.
    """
    row = prepared.row(table, "mixed")
    if prepared.design is None:
        return row
    fit = fit_mixed(mixed_data(table, prepared))
    row = replace(row, estimate=fit.value, n_languages=fit.n_languages or row.n_languages)
    if prepared.few_seeds(table):
        return replace(row, note=joined(row.note, fit.note, FEW_SEEDS))
    if beside.se is None:  # its note has those that any method's row has, and why there is no interval
        return replace(row, note=joined(fit.note, beside.note))
    row = replace(row, note=joined(row.note, fit.note))
    interval = fit.interval(table.settings.confidence)
    if interval is None:
        return row
    return replace(row, se=fit.se, ci_low=interval[0], ci_high=interval[1], p=fit.p_value())


def mixed_data(table: GainTable, prepared: Prepared) -> MixedData:
    """What the mixed model is fitted to: the gains of a slope, or their means over intermediate tasks for a level."""
    rows, kind = prepared.rows, prepared.contrast.kind
    gain = table.treated[rows] - table.baseline[rows]
    if kind == "slope":
        return MixedData(
            outcome=gain,
            x=table.x[rows],
            target=table.target[rows],
            intermediate=table.intermediate[rows],
            seed=table.seed[rows],
            language=table.language[rows],
            checkpoint=pair_codes(pair_codes(table.intermediate[rows], table.budget[rows]), table.seed[rows]),
            moderator=prepared.contrast.moderator,
            shared_trunk=table.settings.shared_trunk,
        )
    # Every target has the same languages and seeds after each of its tasks: with rows missing a level has no design.
    codes = (table.target[rows], table.language[rows], table.seed[rows])
    return level_means(gain, *codes, prepared.contrast.moderator, kind)


def adjusted(rows: Sequence[Row]) -> list[Row]:
    """Fill `p_adjusted` of clustered rows.

    Holm over the three confirmatory contrasts in points at scope "all"; Benjamini and Hochberg over each map: an
    estimand and scale over all targets, intermediate tasks or budgets. Equivalence tests are a family of their own,
    by Holm. Everything else (other methods and scales of the confirmatory contrasts, sensitivity) stays without.
    """
    families: dict[tuple[str, ...], list[int]] = {}
    for index, row in enumerate(rows):
        family = _family(row)
        if row.p is not None and family is not None:
            families.setdefault(family, []).append(index)
    result = list(rows)
    for family, members in families.items():
        adjust = holm if family[0] in ("confirmatory", TOST) else benjamini_hochberg
        values = adjust([p for index in members if (p := rows[index].p) is not None])
        for index, value in zip(members, values, strict=True):
            result[index] = replace(rows[index], p_adjusted=value)
    return result


def _family(row: Row) -> tuple[str, ...] | None:
    """The family of tests a row is in."""
    if row.method == TOST:
        return (TOST,)
    if row.method != CLUSTERED:
        return None
    if row.scope == "all":
        return ("confirmatory",) if row.scale == POINTS and row.estimand in CONFIRMATORY else None
    kinds = [part.split("=")[0] for part in row.scope.split(";")]
    return (row.estimand, row.scale, *kinds) if set(kinds) <= MAP_PARTS else None
