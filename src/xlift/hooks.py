"""What tests may change about a running job: the one place that reads it. Documented in docs/cluster.md.

Environment variables, all of them refused unless `XLIFT_TEST_HOOKS=1`:

    XLIFT_TEST_SLEEP=0.5        every training step takes this many seconds longer
    XLIFT_TEST_FAIL=text        training and prediction jobs with this text in an output's path fail
    XLIFT_TEST_INSTEAD=0.1      training and prediction jobs sleep this long instead, and write empty outputs

No result of theirs goes unnoticed: `recorded` is in the manifest of every run and, with the versions, on the page; what
`XLIFT_TEST_INSTEAD` writes has no fingerprint, so that every job refuses to go on from it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from xlift.artifacts import MANIFEST, publish_folder, publish_text
from xlift.errors import UserError

PERMISSION = "XLIFT_TEST_HOOKS"
SLEEP, FAIL, INSTEAD = "XLIFT_TEST_SLEEP", "XLIFT_TEST_FAIL", "XLIFT_TEST_INSTEAD"


def active(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """The hooks that are set; `UserError` where one is set without the permission, or to no number."""
    environment = os.environ if environment is None else environment
    found = {name: environment[name] for name in (SLEEP, FAIL, INSTEAD) if environment.get(name)}
    if found and environment.get(PERMISSION) != "1":
        raise UserError(f"{sorted(found)[0]} is set, which only tests of xlift do; unset it, or set {PERMISSION}=1 too")
    for name in (SLEEP, INSTEAD):
        try:
            float(found.get(name, 0))
        except ValueError:
            raise UserError(f"{name}={found[name]}: is not a number of seconds") from None
    return found


def recorded() -> dict[str, str]:
    """What a manifest says beside library versions: nothing without hooks."""
    found = active()
    return {"test_hooks": ", ".join(f"{name}={value}" for name, value in found.items())} if found else {}


def step_pause() -> float:
    """Seconds that a training step takes longer."""
    return float(active().get(SLEEP, 0))


def replaced(outputs: Sequence[str]) -> bool:
    """Whether a hook stood in for the job with these outputs; `UserError` where one makes it fail."""
    found = active()
    if FAIL in found and any(found[FAIL] in path for path in outputs):
        raise UserError(f"{outputs[0]}: fails because {FAIL} is set")
    if INSTEAD not in found:
        return False
    time.sleep(float(found[INSTEAD]))
    for path in map(Path, outputs):
        if path.name == MANIFEST:
            publish_folder(path.parent, lambda _: None, {"test_hooks": recorded()["test_hooks"]})
        else:
            publish_text(path, "")
    return True
