"""Imports run one way, and what the Snakefile reads stays light."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src"
PACKAGE = SRC / "xlift"
# A module imports from earlier lines only, or from its own package.
ORDER = (
    ("errors",),
    ("artifacts", "gpu_slots", "machine_faults"),
    ("tables",),
    ("download", "hooks"),
    ("catalog", "languages"),
    ("blocks", "columns"),
    ("budgets",),
    ("resource", "strict_yaml"),
    ("settings",),
    ("cotraining",),
    ("own_tasks",),
    ("problems",),
    ("study",),
    ("mixtures",),
    ("recipes",),
    ("analysis",),
    ("runs",),
    ("example_sets",),
    ("grid",),
    ("sources", "metrics"),
    ("tasks",),
    ("compute", "encoder"),
    ("predict",),
    ("training",),
    ("planning",),
    ("status", "doctor"),
    ("live",),
    ("contrasts",),
    ("report",),
    ("task_list",),
    ("reference",),
    ("jobs",),
    ("compare", "export"),
    ("results_json", "artifact_reference"),
    ("cli",),
)
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}
HEAVY = ("torch", "transformers", "datasets", "pandas", "polars", "numpy", "peft", "scipy", "altair", "tokenizers")


def module_name(path: Path) -> str:
    parts = path.relative_to(SRC).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported(tree: ast.AST, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """Line and full name of everything imported anywhere in a module, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                base = ".".join([*parts[: len(parts) - node.level + is_package], *filter(None, [node.module])])
            yield node.lineno, base
            # `from xlift import grid` names a module, too.
            yield from (
                (node.lineno, f"{base}.{alias.name}") for alias in node.names if f"{base}.{alias.name}" in MODULES
            )


def group(name: str) -> str | None:
    parts = name.split(".")
    return parts[1] if parts[0] == "xlift" and len(parts) > 1 else None


def violations(module: str, source: str, is_package: bool = False) -> list[str]:
    own = group(module)
    if own is None:
        return [f"line {line}: {name}" for line, name in imported(ast.parse(source), module, is_package)]
    found = []
    for line, name in imported(ast.parse(source), module, is_package):
        other = group(name)
        if other is not None and other != own and not RANK[other] < RANK[own]:
            found.append(f"line {line}: {module} imports {name}")
    return found


def test_every_module_has_its_place():
    assert {group(module) for module in MODULES} - {None} == set(RANK)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_run_one_way(module):
    path = MODULES[module]
    found = violations(module, path.read_text(encoding="utf-8"), path.name == "__init__.py")
    assert [entry for entry in found if "__future__" not in entry] == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("xlift.study", "def f():\n    from xlift.grid import Grid"),
        ("xlift.metrics", "import xlift.sources.cldr"),
        ("xlift.contrasts.gains", "from xlift import report"),
        ("xlift.tasks.span", "from ..training import loop"),
    ],
)
def test_the_test_sees_an_import_the_wrong_way(module, source):
    assert len(violations(module, source)) >= 1


@pytest.mark.parametrize("part", ["contrasts", "report"])
def test_statistics_and_page_name_no_torch(part):
    for module, path in MODULES.items():
        if group(module) == part:
            names = {name.partition(".")[0] for _, name in imported(ast.parse(path.read_text()), module, False)}
            assert not names & {"torch", "transformers", "peft", "tokenizers", "safetensors"}, module


def loaded_by(modules: list[str]) -> set[str]:
    """Heavy packages in a fresh process after the imports."""
    code = f"import sys, {', '.join(modules)}\nprint(*(n for n in {HEAVY!r} if n in sys.modules))"
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(SRC)},
        check=True,
        capture_output=True,
        text=True,
    )
    return set(found.stdout.split())


def test_what_the_snakefile_imports_is_light():
    assert loaded_by(["xlift.study", "xlift.grid", "xlift.languages", "xlift.cli"]) == set()


def test_statistics_and_page_load_no_torch():
    modules = [module for module in sorted(MODULES) if group(module) in ("contrasts", "report")]
    loaded = loaded_by(modules)
    assert not loaded & {"torch", "transformers", "peft", "tokenizers"}
    assert "numpy" in loaded  # so that the probe is known to see something
