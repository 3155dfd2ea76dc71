"""Write requirements.lock and xlift.yaml from what is installed: `make lock`, after a change to pyproject.toml.

The lock pins every package that xlift with its `dev` and `slurm` extras needs, whatever else is installed.
"""

from __future__ import annotations

import importlib.metadata
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HERE = Path(__file__).parent
LOCK, CONDA = HERE / "requirements.lock", HERE / "xlift.yaml"


def direct_requirements() -> list[Requirement]:
    """What pyproject.toml asks for, extras included."""
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    return [Requirement(text) for group in (project["dependencies"], *extras) for text in group]


def pins() -> dict[str, str]:
    """Installed version of every package that is needed, by canonical name, without local labels such as +cpu."""
    found: dict[str, str] = {}
    waiting = [(requirement, frozenset(requirement.extras)) for requirement in direct_requirements()]
    seen = set()
    while waiting:
        requirement, extras = waiting.pop()
        name = canonicalize_name(requirement.name)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        distribution = importlib.metadata.distribution(name)
        found[name] = distribution.version.partition("+")[0]
        for text in distribution.requires or []:
            need = Requirement(text)
            wanted = need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in ("", *extras))
            if wanted:
                waiting.append((need, frozenset(need.extras)))
    return dict(sorted(found.items()))


def conda_environment(lines: list[str]) -> str:
    """The conda environment with the same pins."""
    head = [
        "name: xlift",
        "channels:",
        "  - conda-forge",
        "dependencies:",
        "  - python=3.11",
        "  - pip",
        "  - pip:",
    ]
    return "\n".join([*head, *(f"      - {line}" for line in lines)]) + "\n"


def main() -> None:
    """Write both files."""
    lines = [f"{name}=={version}" for name, version in pins().items()]
    LOCK.write_text("\n".join(lines) + "\n", encoding="utf-8")
    CONDA.write_text(conda_environment(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
