"""docs/reliability.md is what the fault tests counted, and nothing was lost."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from faults import HEADER, Fault, page

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "reliability.md"


def kinds() -> list[str]:
    """Every kind of fault that a test is marked with, sorted."""
    marked = re.compile(r'pytest\.mark\.fault\(\s*"([^"]+)"')
    return sorted({kind for path in TESTS.rglob("test_*.py") for kind in marked.findall(path.read_text("utf-8"))})


def test_counts():
    fault, other = Fault("b"), Fault("a", injected=3, survived=1)
    fault.survives(2)
    fault.refuses()
    assert (fault.injected, fault.survived, fault.refused, fault.lost) == (3, 2, 1, 0)
    rows = page([fault, other, Fault("b", injected=1)]).splitlines()[-2:]
    assert rows == ["| a | 3 | 1 | 0 | 2 |", "| b | 4 | 2 | 1 | 1 |"]


def test_the_page_has_every_fault_and_none_was_lost():
    assert kinds()
    assert PAGE.read_text("utf-8").startswith(HEADER)
    rows = [line.strip("| ").split(" | ") for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| ")]
    header, *counted = rows
    assert header == ["fault", "injected", "survived", "refused", "lost"]
    assert sorted(row[0] for row in counted) == kinds()
    for kind, injected, survived, refused, lost in counted:
        assert int(injected) == int(survived) + int(refused) > 0, kind
        assert lost == "0"


@pytest.mark.parametrize("kind", kinds())
def test_kinds_are_words_a_reader_understands(kind):
    assert "|" not in kind
    assert len(kind) > 5
