"""A plan as lines for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from xlift.planning.plan import BudgetRow, Plan
from xlift.training.progress import duration

COLUMNS = ("task", "budget", "arm", "steps", "batch", "examples", "tokens", "FLOPs", "LR", "time a run")
LEFT = 3
"""Columns of text, which stand to the left."""


def plan_lines(plan: Plan) -> str:
    """The plan in words and two tables."""
    lines = [
        f"{plan.study}: {plan.intermediate_runs} intermediate runs, {plan.target_runs} target runs, "
        f"{plan.cells} cells; {plan.total.jobs} jobs, {plan.total.jobs - plan.remaining.jobs} of them done",
        "",
        *table([COLUMNS, *map(_budget_cells, plan.budgets)]),
        "",
    ]
    if plan.trunk_ratio is not None:
        lines += [f"Trunks take {plan.trunk_ratio:.3f} of the intermediate steps that independent runs would.", ""]
    rules = [(rule, str(count), str(plan.outstanding.get(rule, 0))) for rule, count in plan.jobs.items()]
    lines += [*table([("jobs by rule", "all", "to do"), *rules], left=1), ""]
    facts: list[tuple[str, ...]] = [("", "all", "to do")]
    facts += [
        (name, *(text(totals) for totals in (plan.total, plan.remaining)))
        for name, text in (
            ("training steps", lambda t: f"{t.steps:,}"),
            ("training tokens", lambda t: scaled(t.tokens)),
            ("training FLOPs", lambda t: f"{t.flops:.2e}"),
            ("disk", lambda t: f"{scaled(t.disk_bytes)}B"),
            (_device_hours(plan), lambda t: duration(3600 * t.device_hours)),
            (_wall(plan.workers), lambda t: duration(3600 * t.wall_hours)),
            ("longest chain of jobs", lambda t: duration(3600 * t.chain_hours)),
        )
    ]
    lines += [*table(facts, left=1), "", *plan.basis]
    return "\n".join(lines)


def _device_hours(plan: Plan) -> str:
    return f"on a device ({plan.device})"


def _wall(workers: int) -> str:
    return f"wall time on {workers} worker{'s' if workers > 1 else ''}"


def _budget_cells(row: BudgetRow) -> tuple[str, ...]:
    return (
        row.task,
        row.budget,
        row.arm,
        f"{row.steps:,}",
        str(row.batch_size),
        f"{row.examples:,}",
        scaled(row.tokens),
        f"{row.flops:.1e}",
        f"{row.learning_rate:.2g}",
        duration(3600 * row.hours),
    )


def table(rows: Sequence[Sequence[str]], left: int = LEFT) -> list[str]:
    """Rows in columns of like width, the first `left` columns to the left and the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def scaled(value: float) -> str:
    """A large number with three figures and a letter: 12.3k, 4.56M, 7.89G."""
    for letter, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"
