"""Python and the installed packages against what xlift's own metadata ask for."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterator, Sequence

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from xlift.doctor.finding import Finding, ok, problem


def check_python(version: str | None = None, needed: str | None = None) -> Finding:
    """Python's version."""
    version = version or platform.python_version()
    needed = needed or importlib.metadata.metadata("xlift")["Requires-Python"]
    if SpecifierSet(needed).contains(version, prereleases=True):
        return ok("python", version)
    return problem("python", f"{version}, and xlift needs {needed}", "install xlift with a newer Python")


def check_packages(requirements: Sequence[str] | None = None) -> Iterator[Finding]:
    """Each required package that is absent or of another version; one finding where all are as they should be."""
    asked = importlib.metadata.requires("xlift") if requirements is None else requirements
    wanted = [requirement for requirement in map(Requirement, asked or ()) if _applies(requirement)]
    faulty = 0
    for requirement in wanted:
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            found = "is not installed"
        else:
            if requirement.specifier.contains(version, prereleases=True):
                continue
            found = f"{version}, and xlift needs {requirement.specifier}"
        faulty += 1
        yield problem(requirement.name, found, f'pip install "{requirement.name}{requirement.specifier}"')
    if not faulty:
        yield ok("packages", f"{len(wanted)} required packages are of the versions that xlift asks for")


def _applies(requirement: Requirement) -> bool:
    """Whether a requirement is of xlift itself, here, and not of an extra."""
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})
