"""The measuring scripts run, on a small grid."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_contrasts_are_measured_part_by_part_in_a_process_of_their_own() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", "import contrasts, json; print(json.dumps(contrasts.measure_contrasts(100, 1, 2, 3)))"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "bench"), str(ROOT / "src")])},
    )
    found = json.loads(ended.stdout)
    assert (found["gains"], found["bootstrap_draws"]) == (2 * 3 * 203, 100)
    parts = found["seconds_by_part"]
    assert set(parts) == {"designs", "clustered", "mixed", "bootstrap", "permutation", "sensitivity"}
    assert min(parts.values()) > 0
    assert 0.5 * found["seconds"] < sum(parts.values()) <= found["seconds"] + 0.05
    assert 0 < found["peak_mb"] < 2048
