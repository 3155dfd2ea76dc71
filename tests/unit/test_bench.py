"""The measuring scripts run, on a small grid."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_contrasts_are_measured_part_by_part() -> None:
    ended = subprocess.run(
        [sys.executable, str(ROOT / "bench" / "contrasts.py"), "100", "1", "2", "3"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    found = json.loads(ended.stdout)
    assert found["gains"] == 2 * 3 * 203
    assert {"clustered", "mixed", "bootstrap", "permutation", "sensitivity", "everything"} <= set(found["seconds"])
    assert 0 < found["peak_memory_mib"] < 2048
