"""Where tests find real data: a folder of hub repositories, real in schema and small in size."""

from __future__ import annotations

import os
from pathlib import Path

_BESIDE = Path(__file__).parents[2] / "shared" / "hub"
ROOT = Path(os.environ.get("XLIFT_DATA_ROOT", _BESIDE))
ABSENT = f"no real data: XLIFT_DATA_ROOT is unset and there is no {_BESIDE.relative_to(_BESIDE.parents[2])} beside"
HERE = (ROOT / "README.md").is_file()
