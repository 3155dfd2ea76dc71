"""All tables of the report by name, and the files of them beside the page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from xlift.artifacts import publishing
from xlift.contrasts.rows import LOW_HIGH, LOW_HIGH_LEVEL
from xlift.report.contrast_tables import contrast_table, forest_table, method_table, sensitivity_table
from xlift.report.cost import compute_table
from xlift.report.forest import forest_rows, method_rows
from xlift.report.inputs import ReportInputs
from xlift.report.run_tables import collapsed_table, completeness_table, run_groups_table, run_table
from xlift.report.tables import Table, estimand_title, heat_table, language_table, slope_table, strata_table


def build_tables(inputs: ReportInputs) -> dict[str, Table]:
    """Every table of the report; behind each figure is the one of its key."""
    contrasts, runs = inputs.contrasts, inputs.runs
    return {
        "strata": strata_table(inputs),
        "forest-budget": forest_table(
            f"{estimand_title(LOW_HIGH_LEVEL)}, in points".capitalize(), forest_rows(inputs, LOW_HIGH_LEVEL)
        ),
        "forest-doubling": forest_table(
            f"{estimand_title(LOW_HIGH)}, in points".capitalize(), forest_rows(inputs, LOW_HIGH)
        ),
        "forest-methods": forest_table("β in points, by target and method", method_rows(inputs), by_method=True),
        "heat": heat_table(inputs),
        "slope": slope_table(inputs),
        "languages": language_table(inputs),
        "contrasts": contrast_table(contrasts),
        "methods": method_table(contrasts),
        "sensitivity": sensitivity_table(contrasts),
        "completeness": completeness_table(inputs),
        "collapsed": collapsed_table(runs),
        "compute": compute_table(runs),
        "run-groups": run_groups_table(runs),
        "runs": run_table(runs),
    }


def write_tables(tables: Mapping[str, Table], folder: Path) -> None:
    """Write each table as <name>.csv and <name>.parquet into `folder`, with exact numbers."""
    for name, table in tables.items():
        with publishing(folder / f"{name}.csv") as temporary:
            table.data.write_csv(temporary)
        with publishing(folder / f"{name}.parquet") as temporary:
            table.data.write_parquet(temporary)
