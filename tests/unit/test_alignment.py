"""Whether pairs align, told from their lengths: by hand, and on real pairs put out of order in every way."""

from __future__ import annotations

import random
from collections.abc import Callable

import polars as pl
import pytest

from mirror import ABSENT, HERE, ROOT
from xlift.catalog import CATALOG
from xlift.errors import UserError
from xlift.sources.alignment import STRETCH, check_aligned


def test_unrelated_lengths_are_refused_and_few_pairs_pass():
    lengths = list(range(10, 10 + STRETCH))
    random.Random(1).shuffle(lengths)
    first, second = (["x" * (factor * length) for length in lengths] for factor in (1, 2))
    check_aligned("here", first, second)
    with pytest.raises(UserError) as caught:
        check_aligned("data set a/b, c, d", first, [second[0]] * STRETCH)
    assert str(caught.value) == (
        "data set a/b, c, d: the lengths of rows 0 to 99 on both sides (rank correlation nan) go together as those of "
        "unrelated sentences do, so that its pairs do not align; use another revision"
    )
    with pytest.raises(UserError, match="do not align"):
        check_aligned("here", first, second[1:] + second[:1])
    check_aligned("here", first[1:], second[:-1])  # 99 pairs say too little


def test_a_file_that_is_sorted_by_length_and_moved_by_a_row_is_refused():
    first = ["x" * (10 + row // 4) for row in range(STRETCH)]
    with pytest.raises(UserError, match=r"rank correlation 0\.\d\d\) .* do not align"):
        check_aligned("here", first, first[1:] + first[:1])


def swapped(texts: list[str], draw: random.Random) -> list[str]:
    """The second half in another order."""
    half = len(texts) // 2
    return texts[:half] + draw.sample(texts[half:], len(texts) - half)


CHANGES: dict[str, Callable[[list[str], random.Random], list[str]]] = {
    "permuted": lambda texts, draw: draw.sample(texts, len(texts)),
    "moved by one": lambda texts, draw: texts[1:] + texts[:1],
    "moved by five": lambda texts, draw: texts[5:] + texts[:5],
    "a line lost halfway": lambda texts, draw: [t for n, t in enumerate(texts) if n != len(texts) // 2] + [texts[0]],
    "half permuted": swapped,
    "sorted": lambda texts, draw: sorted(texts),
    "sorted by length": lambda texts, draw: sorted(texts, key=len),
}


@pytest.mark.skipif(not HERE, reason=ABSENT)
@pytest.mark.parametrize("language", sorted(CATALOG["tatoeba_direct"].languages))
def test_pairs_of_tatoeba_pass_in_every_language_and_pass_in_no_other_order(language):
    (part,) = CATALOG["tatoeba_direct"].slices
    pairs = pl.read_parquet(ROOT / part.repository / part.configs[language] / "test.parquet")
    first, second = ([text.strip() for text in pairs[name]] for name in ("sentence1", "sentence2"))
    check_aligned(language, first, second)
    for name, change in CHANGES.items():
        draw = random.Random(f"{language} {name}")
        with pytest.raises(UserError, match="do not align"):
            check_aligned(name, first, change(second, draw))
