"""Dry-run of a grid of many made-up tasks, in a process of its own: `dry_run.py <tasks> <budgets> <seeds> <targets>`.

The tasks are copies of the catalog's own under new names; planning reads no data, so none is made for them. Prints one
line of JSON: jobs, seconds, and the process's largest resident memory in MB.
"""

from __future__ import annotations

import dataclasses
import io
import json
import resource
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import yaml

from xlift import catalog


def made_up_tasks(like: str, count: int) -> list[str]:
    """Adds `count` copies of a task to the catalog; their names."""
    names = [f"{like}_{index}" for index in range(count)]
    copies = tuple(dataclasses.replace(catalog.CATALOG[like], name=name) for name in names)
    catalog.CATALOG.update({task.name: task for task in copies})
    return names


def main(tasks: int, budgets: int, seeds: int, targets: int) -> None:
    study = {
        "study": "large",
        "intermediates": made_up_tasks("cldr_pairs", tasks),
        "budgets": [2.0**power for power in range(budgets)],
        "seeds": list(range(seeds)),
        "targets": made_up_tasks("cldr_kind", targets),
    }
    path = Path("large.yaml")
    path.write_text(yaml.safe_dump(study), encoding="utf-8")
    from snakemake.cli import main as snakemake

    out = io.StringIO()
    started = time.perf_counter()
    with redirect_stdout(out), redirect_stderr(out):
        try:
            snakemake(["--dry-run", "--quiet", "rules", "--nocolor", "--configfile", str(path)])
        except SystemExit as error:
            if error.code:
                sys.__stderr__.write(out.getvalue()[-2000:])
                raise
    seconds = time.perf_counter() - started
    totals = [line.split() for line in out.getvalue().splitlines() if line.startswith("total")]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"jobs": int(totals[0][1]), "seconds": seconds, "peak_mb": peak}))


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:5]))
