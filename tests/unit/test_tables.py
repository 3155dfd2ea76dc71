"""Tables that vouch for themselves."""

from __future__ import annotations

import random
from pathlib import Path

import polars as pl
import pytest

from xlift.artifacts import holds
from xlift.errors import UserError
from xlift.tables import publish_table, read_table

TABLE = pl.DataFrame({"language": ["de", "sw"] * 200, "score": [k / 7 for k in range(400)], "note": ["ß", None] * 200})


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "deep" / "table.parquet"
    publish_table(path, TABLE, fingerprint="f" * 64)
    assert read_table(path).equals(TABLE)
    assert pl.read_parquet(path).equals(TABLE)  # a plain parquet file to anyone else
    assert holds(path, "f" * 64)
    assert not holds(path, "e" * 64)
    first = path.read_bytes()
    publish_table(path, TABLE, fingerprint="f" * 64)
    assert path.read_bytes() == first


def test_a_table_may_hold_the_very_words_of_a_checksum(tmp_path):
    text = "sha256-of-this-file:" + "0" * 64
    table = pl.DataFrame({"text": [text, "b"]})
    publish_table(tmp_path / "t.parquet", table)
    assert read_table(tmp_path / "t.parquet").equals(table)


@pytest.mark.fault("one flipped bit in a table")
def test_a_flipped_bit_anywhere_is_found(tmp_path, fault):
    path = tmp_path / "t.parquet"
    publish_table(path, TABLE, fingerprint="f" * 64)
    content, bits = path.read_bytes(), random.Random(1)
    for place in range(0, len(content), max(1, len(content) // 400)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << bits.randrange(8)
        refused(path, bytes(damaged))
        fault.refuses()


def refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"its sha256 is not the one it carries; .* delete it and run the workflow"):
        read_table(path)


def test_what_is_cut_short_empty_or_another_s(tmp_path):
    path = tmp_path / "t.parquet"
    publish_table(path, TABLE)
    content = path.read_bytes()
    for end in (0, 8, len(content) // 2, len(content) - 1):
        refused(path, content[:end])
    TABLE.write_parquet(path)
    refused(path, path.read_bytes())
    path.unlink()
    with pytest.raises(UserError, match=r"t.parquet: cannot be read \(No such file or directory\); run the workflow"):
        read_table(path)
