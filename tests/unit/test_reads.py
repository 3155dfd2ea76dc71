"""What is never done, anywhere in the code: unpickling, unpacking, running what a repository holds, unsafe YAML."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "workflow").rglob("*.py"), *(ROOT / "bench").rglob("*.py")])
# Babel's own data files, as they were installed with it.
UNPICKLES = {"src/xlift/sources/cldr_items.py"}


def names(tree: ast.AST) -> set[str]:
    """Dotted names that are used, modules that are imported, and keyword arguments that are given."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name):
            found.add(ast.unparse(node))
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.keyword) and node.arg:
            found.add(f"{node.arg}={ast.unparse(node.value)}")
    return found


NEVER = {
    *("pickle", "cPickle", "dill", "joblib", "shelve", "marshal"),
    *("torch.load", "torch.jit.load", "np.load", "numpy.load", "allow_pickle=True", "trust_remote_code=True"),
    *("yaml.Loader", "yaml.UnsafeLoader", "yaml.FullLoader", "yaml.unsafe_load", "yaml.full_load", "eval", "exec"),
    *("tarfile", "zipfile", "shutil.unpack_archive"),
}


@pytest.mark.parametrize("path", CODE, ids=[str(path.relative_to(ROOT)) for path in CODE])
def test_nothing_of_the_kind(path: Path) -> None:
    found = names(ast.parse(path.read_text(encoding="utf-8"))) & NEVER
    allowed = {"pickle"} if str(path.relative_to(ROOT)) in UNPICKLES else set()
    assert found <= allowed


RULES = [ROOT / "Snakefile", ROOT / "workflow" / "Snakefile", *sorted((ROOT / "workflow" / "rules").glob("*.smk"))]


@pytest.mark.parametrize("path", RULES, ids=[str(path.relative_to(ROOT)) for path in RULES])
def test_nothing_of_the_kind_in_the_rules(path: Path) -> None:
    words = re.findall(r"[\w.]+(?:=True)?", path.read_text(encoding="utf-8"))
    assert not set(words) & NEVER


def test_the_one_place_reads_what_babel_installed() -> None:
    (place,) = UNPICKLES
    text = (ROOT / place).read_text(encoding="utf-8")
    assert text.count("pickle.load") == 1
    assert "open(localedata.resolve_locale_filename(locale)" in text
