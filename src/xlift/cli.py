"""The `xlift` command."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import NoReturn

from xlift.errors import UserError

ROLES = ("intermediate", "target")


def main(arguments: list[str] | None = None) -> int:
    """Run a command; 0 on success, 1 with one sentence on standard error where the user has to act."""
    parser = argparse.ArgumentParser(prog="xlift", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    answer = commands.add_parser("answer", help="print a finished study's answer and where its page is")
    answer.add_argument("config", type=Path, nargs="?", default=Path("config/config.yaml"))
    check = commands.add_parser("check", help="check study files without running anything")
    check.add_argument("configs", type=Path, nargs="+")
    exporting = commands.add_parser(
        "export", help="write predictions and labels as XTREME's public evaluation reads them"
    )
    exporting.add_argument("config", type=Path)
    exporting.add_argument("cell", help="<target>/<inter>/<budget>/seed<k>, or <target> for all its cells")
    plan = commands.add_parser("plan", help="print a study's budgets, jobs, and what they would cost, before they run")
    plan.add_argument("config", type=Path, nargs="?", default=Path("config/config.yaml"))
    plan.add_argument("--workers", type=int, default=1, help="jobs at a time, such as GPUs or cores (default 1)")
    plan.add_argument("--device", help="part of the name of a device that runs were on, or cpu, t4, v100, a100, h100")
    plan.add_argument("--json", action="store_true", help="print all numbers as JSON")
    run = commands.add_parser("run", help="check a study file, then run it with Snakemake; other options are handed on")
    run.add_argument("config", type=Path)
    power = commands.add_parser("power", help="print the smallest effects that a study's grid and larger ones detect")
    power.add_argument("config", type=Path, nargs="?", default=Path("config/config.yaml"))
    tasks = commands.add_parser("tasks", help="list the tasks of the catalog, and a study's own where one is given")
    tasks.add_argument("config", type=Path, nargs="?", help="a study file with `tasks`")
    tasks.add_argument("--role", choices=ROLES, help="only intermediate or only target tasks")
    tasks.add_argument("--json", action="store_true", help="print all that is declared as JSON")
    reference = commands.add_parser("reference", help="write config/README.md, config/schema.json and docs/tasks.md")
    reference.add_argument("folder", type=Path, nargs="?", default=Path("config"))
    reference.add_argument("--docs", type=Path, default=Path("docs"), help="folder of tasks.md (default docs)")
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command != "run":
        parser.error(f"unknown arguments: {' '.join(rest)}")
    try:
        if options.command == "answer":
            print_answer(options.config)
        elif options.command == "check":
            check_studies(options.configs)
        elif options.command == "export":
            export(options.config, options.cell)
        elif options.command == "plan":
            print_plan(options.config, options.workers, options.device, options.json)
        elif options.command == "run":
            run_study(options.config, rest)
        elif options.command == "power":
            print_power(options.config)
        elif options.command == "tasks":
            print_tasks(options.config, options.role, options.json)
        else:
            write_reference(options.folder, options.docs)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def print_answer(config: Path) -> None:
    """Print the answer, a table of at most ten lines, and the page's path."""
    from xlift.analysis import analysis_settings
    from xlift.grid import Grid, plan_specification
    from xlift.jobs.report import answer_lines
    from xlift.study import load_study

    study = load_study(config)
    results = Path("results") / study.study
    page = results / "report" / "index.html"
    if not page.exists():
        raise UserError(f"{page}: is not there yet; run `snakemake --cores all --configfile {config}` first")
    print(answer_lines(analysis_settings(study), plan_specification(Grid(study, str(config))), results))
    print(f"\nThe page: {page.resolve().as_uri()}")


def check_studies(configs: list[Path]) -> None:
    """Check each file as the workflow would, and say how large its grid is and what it cannot say."""
    from xlift.analysis import doubts
    from xlift.grid import Grid
    from xlift.languages import load_languages
    from xlift.study import load_study

    languages = load_languages(Path("config/languages.csv"))
    for config in configs:
        study = load_study(config)
        grid = Grid(study, str(config))
        targets = len(list(grid.target_runs()))
        print(f"{config}: {len(grid.intermediates)} intermediate runs, {targets} target runs, {len(grid.cells)} cells")
        for doubt in doubts(study, languages):
            print(f"{config}: {doubt}")


def export(config: Path, wanted: str) -> None:
    """Export a cell, or all cells of a target, and print the folders to give to XTREME's evaluate.py."""
    from xlift.export import export_cells
    from xlift.grid import Grid
    from xlift.study import load_study

    study = load_study(config)
    for folder in export_cells(Grid(study, str(config)), wanted, Path("results") / study.study):
        print(f"--prediction_folder {folder / 'predictions'} --label_folder {folder / 'labels'}")


def print_plan(config: Path, workers: int, device: str | None, as_json: bool) -> None:
    """Print what a study would do and cost, from the results at hand."""
    from xlift.grid import Grid
    from xlift.planning.plan import make_plan
    from xlift.planning.text import plan_lines
    from xlift.study import load_study

    if workers < 1:
        raise UserError(f"--workers {workers}: is no number of workers; give 1 or more")
    plan = make_plan(Grid(load_study(config), str(config)), Path("results"), workers, device)
    print(plan.as_json() if as_json else plan_lines(plan))


def run_study(config: Path, options: list[str]) -> NoReturn:
    """Run Snakemake on a study file that was checked first; its own message for a missing file is a traceback."""
    check_studies([config])
    cores = (
        [] if any(option.startswith(("-c", "--cores", "-j", "--jobs")) for option in options) else ["--cores", "all"]
    )
    # In this process's place: an interrupt has to reach Snakemake alone, and its `--configfile` takes all that follows.
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "snakemake", *options, *cores, "--configfile", str(config)])


def print_power(config: Path) -> None:
    """Print the smallest detectable effects, and write them with a figure to the study's results."""
    from xlift.jobs.power import write_power
    from xlift.study import load_study

    study = load_study(config)
    print(write_power(study, str(config), Path("results") / study.study))


def print_tasks(config: Path | None, role: str | None, as_json: bool) -> None:
    """Print the tasks of the catalog, and those that a study file declares."""
    from xlift.catalog import CATALOG
    from xlift.study import load_study
    from xlift.task_list import tasks_json, tasks_text

    catalog = CATALOG if config is None else load_study(config).catalog
    print(tasks_json(catalog, role) if as_json else tasks_text(catalog, role))


def write_reference(folder: Path, docs: Path) -> None:
    """Write what is generated: the reference of study files and the list of tasks."""
    from xlift.artifacts import publish_text
    from xlift.reference import readme_text, schema_text
    from xlift.task_list import tasks_markdown

    publish_text(folder / "README.md", readme_text())
    publish_text(folder / "schema.json", schema_text())
    publish_text(docs / "tasks.md", tasks_markdown())


if __name__ == "__main__":
    sys.exit(main())
