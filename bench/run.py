"""Measures xlift on this machine and writes bench/results.json: `make bench`.

The comparison with Trainer needs WikiANN in a folder of hub repositories (`XLIFT_DATA_ROOT`); the overhead of a study
needs the finished default study (`make demo`). What cannot be measured is null, with the reason on the terminal.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from contrasts import measure_contrasts
from overhead import REPOSITORY, start_up, study_overhead, temporary_folder
from panx import data_root
from planning import measure_planning, trunk_cost

from xlift.compute import cpu_has_bf16, processor_name

OUT = Path(__file__).with_name("results.json")
LIBRARIES = ("torch", "transformers", "peft", "accelerate", "snakemake", "polars")


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": processor_name(),
        "processors": os.cpu_count(),
        "memory_gib": round(memory, 1),
        "bf16": cpu_has_bf16(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in LIBRARIES},
    }


def main() -> int:
    started = time.perf_counter()
    found: dict[str, Any] = {"machine": machine(), "load_before": os.getloadavg()[0]}
    work = temporary_folder()
    try:
        found |= start_up(work)
        found["study_overhead"] = study_overhead(REPOSITORY / "results" / "mini")
        if found["study_overhead"] is None:
            print("study_overhead: there is no finished default study under results/mini; run `make demo` first")
        found |= measure_planning(work)
        found["trunk_cost_ratio"] = trunk_cost()
        found["contrasts"] = measure_contrasts()
        root = data_root()
        if root is None:
            print("train_vs_trainer, predict_vs_trainer: set XLIFT_DATA_ROOT to a folder with unimelb-nlp/wikiann")
        else:
            from speed import measure

            found |= measure(work / "results" / "mini" / "encoder", root, os.cpu_count() or 1)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    found["seconds"] = round(time.perf_counter() - started, 1)
    OUT.write_text(json.dumps(found, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    print(f"{OUT}: written after {found['seconds']} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
