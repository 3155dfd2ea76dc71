"""The `xlift` command."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

from xlift.errors import UserError
from xlift.machine_faults import machine_fault

ROLES = ("intermediate", "target")
EXPORTS = ("xtreme", "json")
LANGUAGES = Path("config/languages.csv")
WATCH_EVERY = 5.0
"""Seconds between two looks of `xlift status --watch`."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command; 0 on success, 1 with one sentence on standard error where the user has to act."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command != "run":
        parser.error(f"unknown arguments: {' '.join(rest)}")
    do: Mapping[str, Callable[[], None]] = {
        "answer": lambda: print_answer(options.config),
        "check": lambda: check_studies(options.configs),
        "compare": lambda: print_comparison(options.first, options.second, options.json),
        "doctor": lambda: print_doctor(options.config, options.json),
        "export": lambda: export(options.config, options.cell, options.format),
        "plan": lambda: print_plan(options.config, options.workers, options.device, options.json),
        "power": lambda: print_power(options.config),
        "reference": lambda: write_reference(options.folder, options.docs),
        "run": lambda: run_study(options.config, rest, options.progress),
        "status": lambda: print_status(options.config, options.watch),
        "tasks": lambda: print_tasks(options.config, options.role, options.json),
    }
    try:
        do[options.command]()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        sentence = machine_fault(error)
        if sentence is None:
            raise
        print(f"error: {sentence}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="xlift", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, explained: str, *, config: bool = True) -> argparse.ArgumentParser:
        found = commands.add_parser(name, help=explained)
        if config:
            found.add_argument("config", type=Path, nargs="?", default=Path("config/config.yaml"))
        return found

    command("answer", "print a finished study's answer and where its page is")
    check = command("check", "check study files without running anything", config=False)
    check.add_argument("configs", type=Path, nargs="+")
    comparing = command("compare", "put two studies with finished results side by side", config=False)
    comparing.add_argument("first", type=Path)
    comparing.add_argument("second", type=Path)
    comparing.add_argument("--json", action="store_true", help="print all of it as JSON, language by language")
    doctor = command("doctor", "check this machine, and what a study needs of it, and say what to do")
    doctor.add_argument("--json", action="store_true", help="print what was found as JSON")
    exporting = command("export", "write results as other tools read them", config=False)
    exporting.add_argument("config", type=Path)
    exporting.add_argument(
        "cell",
        nargs="?",
        help="<target>/<inter>/<budget>/seed<k>, or <target> for all its cells; json: all if left out",
    )
    exporting.add_argument(
        "--format",
        choices=EXPORTS,
        default=EXPORTS[0],
        help="xtreme: predictions and labels for XTREME's public evaluation (default); json: scores, a file a cell",
    )
    plan = command("plan", "print a study's budgets, jobs, and what they would cost, before they run")
    plan.add_argument("--workers", type=int, default=1, help="jobs at a time, such as GPUs or cores (default 1)")
    plan.add_argument(
        "--device", help="part of the name of a device that runs were on, or cpu, t4, v100, a100, h100, h200"
    )
    plan.add_argument("--json", action="store_true", help="print all numbers as JSON")
    command("power", "print the smallest effects that a study's grid and larger ones detect")
    reference = command("reference", "write the generated pages of config and docs", config=False)
    reference.add_argument("folder", type=Path, nargs="?", default=Path("config"))
    reference.add_argument("--docs", type=Path, default=Path("docs"), help="folder of the pages (default docs)")
    run = command("run", "check a study file, then run it with Snakemake; other options are handed on", config=False)
    run.add_argument("config", type=Path)
    run.add_argument("--no-progress", dest="progress", action="store_false", help="no live line for each running job")
    status = command("status", "show which runs and cells are done, running, failed, or missing, and what to do")
    status.add_argument(
        "--watch",
        type=float,
        nargs="?",
        const=WATCH_EVERY,
        metavar="SECONDS",
        help=f"show it again and again, so many seconds apart (default {WATCH_EVERY:g}), until Control-C",
    )
    tasks = command("tasks", "list the tasks of the catalog, and a study's own where one is given", config=False)
    tasks.add_argument("config", type=Path, nargs="?", help="a study file with `tasks`")
    tasks.add_argument("--role", choices=ROLES, help="only intermediate or only target tasks")
    tasks.add_argument("--json", action="store_true", help="print all that is declared as JSON")
    return parser


def print_status(config: Path, every: float | None) -> None:
    """Print where a study stands, once or every so many seconds until the study is done or Control-C."""
    import shutil
    import time

    from xlift.grid import Grid
    from xlift.status import State, cell_state, status_lines, study_status
    from xlift.study import check_paths, parse_study, read_yaml

    if every is not None and not every > 0:
        raise UserError(f"--watch {every:g}: is no number of seconds; give one above 0")
    study = parse_study(read_yaml(config), str(config))
    if study.translated or study.mlm is not None:
        check_paths(study, str(config))  # what runs depend on is in these folders
    # Otherwise where a study stands shows without its data, which another machine may hold.
    grid = Grid(study, str(config))
    command = f"snakemake --configfile {shlex.quote(str(config))} --cores all"
    while True:
        status = study_status(grid, Path("results"))
        lines = status_lines(grid, status, command, shutil.get_terminal_size((120, 0)).columns)
        # Clear the terminal and go to its upper left corner.
        print(lines if every is None else f"\033[2J\033[H{lines}", flush=True)
        if every is None or all(cell_state(jobs) is State.DONE for jobs in status.cells.values()):
            return
        time.sleep(every)


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
    grid = Grid(study, str(config))
    print(answer_lines(analysis_settings(study), plan_specification(grid), results, grid.tasks))
    print(f"\nThe page: {page.resolve().as_uri()}")


def check_studies(configs: list[Path]) -> None:
    """Check each file as the workflow would, and say how large its grid is and what it cannot say."""
    from xlift.analysis import doubts
    from xlift.grid import Grid
    from xlift.languages import load_languages
    from xlift.study import load_study

    languages = load_languages(LANGUAGES)
    for config in configs:
        study = load_study(config)
        grid = Grid(study, str(config))
        targets = len(list(grid.target_runs()))
        print(f"{config}: {len(grid.intermediates)} intermediate runs, {targets} target runs, {len(grid.cells)} cells")
        for doubt in doubts(study, languages):
            print(f"{config}: {doubt}")


def print_comparison(first: Path, second: Path, as_json: bool) -> None:
    """Print how the second study differs from the first: settings, means of what both have, headline contrasts."""
    import json

    from xlift.compare import compare, text_of
    from xlift.grid import Grid
    from xlift.study import load_study

    grids = Grid(load_study(first), str(first)), Grid(load_study(second), str(second))
    found = compare(*grids, (str(first), str(second)), Path("results"))
    levels = grids[0].study.contrasts.confidence, grids[1].study.contrasts.confidence
    print(json.dumps(found.as_json(), indent=2, sort_keys=True) if as_json else text_of(found, levels))


def print_doctor(config: Path, as_json: bool) -> None:
    """Print what was found, each as it is; exit with 1 where something is a problem."""
    from xlift.doctor import Level, examine, findings_json, findings_text
    from xlift.study import parse_study, read_yaml

    findings = list(examine(parse_study(read_yaml(config), str(config)), str(config)))
    print(findings_json(findings) if as_json else findings_text(findings))
    if any(finding.level is Level.PROBLEM for finding in findings):
        raise SystemExit(1)


def export(config: Path, wanted: str | None, form: str) -> None:
    """Export a cell, all cells of a target, or (JSON) of the study, and print what XTREME's evaluate.py is to be given,
    or the files."""
    from xlift.export import export_cells
    from xlift.grid import Grid
    from xlift.study import load_study

    study = load_study(config)
    grid, results = Grid(study, str(config)), Path("results") / study.study
    if form == "json":
        from xlift.results_json import write_results

        for path in write_results(grid, wanted, results, LANGUAGES):
            print(path)
        return
    if wanted is None:
        raise UserError(f"export {config}: names no cell; add a target of the study, or --format json for all cells")
    for folder in export_cells(grid, wanted, results):
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


def run_study(config: Path, options: list[str], progress: bool) -> NoReturn:
    """Run Snakemake on a study file that was checked first; its own message for a missing file is a traceback.

    `progress`: a live line for each running job, in a terminal.
    """
    check_studies([config])
    if progress and sys.stderr.isatty() and "--logger" not in options:
        options = ["--logger", "xlift", *options]
    # A profile says how many jobs at a time by itself.
    said = any(re.match(r"(-[cj](\d|all|$)|--(cores|jobs|profile)(=|$))", option) for option in options)
    cores = [] if said else ["--cores", "all"]
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
    """Write what is generated: references of study files, tasks and artifacts, and the schema of exported results."""
    from xlift import results_json
    from xlift.artifact_reference import artifacts_text
    from xlift.artifacts import publish_text
    from xlift.reference import readme_text, schema_text
    from xlift.task_list import tasks_markdown

    publish_text(folder / "README.md", readme_text())
    publish_text(folder / "schema.json", schema_text())
    publish_text(docs / "tasks.md", tasks_markdown())
    publish_text(docs / "artifacts.md", artifacts_text())
    publish_text(docs / "results.schema.json", results_json.schema_text())


if __name__ == "__main__":
    sys.exit(main())
