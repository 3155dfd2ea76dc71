"""Files that are whole or absent, and fingerprints that every process agrees on."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlift import artifacts
from xlift.artifacts import (
    MANIFEST,
    canonical_json,
    fingerprint,
    publish_folder,
    publish_json,
    publish_text,
    publishing,
    read_manifest,
    sha256_of,
    verified,
)
from xlift.errors import UserError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def reversed_keys(value):
    """The same value with every mapping's keys put in the opposite order."""
    if isinstance(value, dict):
        return {key: reversed_keys(value[key]) for key in reversed(value)}
    return [reversed_keys(entry) for entry in value] if isinstance(value, list) else value


@given(VALUES)
def test_canonical_json_does_not_depend_on_key_order_and_keeps_the_value(value):
    text = canonical_json(value)
    assert canonical_json(reversed_keys(value)) == text
    assert json.loads(text) == value
    assert fingerprint(value) == hashlib.sha256(text.encode()).hexdigest()


def test_canonical_json_by_hand():
    assert canonical_json({"b": [1, 2.5, None], "a": {"ž": True}}) == '{"a":{"ž":true},"b":[1,2.5,null]}'
    with pytest.raises(ValueError, match="Out of range float"):
        canonical_json({"a": float("nan")})


def test_fingerprints_are_equal_under_every_hash_seed():
    code = (
        "from pathlib import Path\n"
        "from xlift.artifacts import canonical_json, fingerprint\n"
        "from xlift.grid import Grid, analysis_specification, report_specification\n"
        "from xlift.study import load_study\n"
        "g = Grid(load_study(Path('config/config.yaml')), 'f')\n"
        "print(fingerprint([[g.score_specification(c) for c in g.cells], analysis_specification(g),"
        " report_specification(g), g.encoder_specification(),"
        " [g.encode_specification(t, n) for t in g.tasks for n in g.lengths[t]]]))\n"
    )
    root = Path(__file__).parents[2]
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root / "src")},
            cwd=root,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2", "77")
    }
    assert len(found) == 1
    assert len(found.pop().strip()) == 64


# --- One file ---


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "scores.json"
    publish_text(path, "old")

    def interrupted() -> None:
        with publishing(path) as temporary:
            assert temporary.parent == path.parent  # or the rename would not be atomic
            assert temporary != path
            temporary.write_text("half")
            assert path.read_text() == "old"
            raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        interrupted()
    assert path.read_text() == "old"
    assert [entry.name for entry in path.parent.iterdir()] == ["scores.json"]
    with publishing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [entry.name for entry in path.parent.iterdir()] == ["scores.json"]


def test_a_file_that_was_never_written_is_not_published(tmp_path):
    with pytest.raises(FileNotFoundError), publishing(tmp_path / "x"):
        pass
    assert not list(tmp_path.iterdir())


def test_published_bytes_reach_the_disk_before_the_name_does(tmp_path, monkeypatch):
    events = []
    monkeypatch.setattr(artifacts.os, "fsync", lambda descriptor: events.append("fsync"))
    rename = os.replace
    monkeypatch.setattr(artifacts.os, "replace", lambda a, b: (events.append("rename"), rename(a, b)))
    publish_text(tmp_path / "x", "text")
    assert events == ["fsync", "rename", "fsync"]  # file, name, folder


def test_json_is_written_with_sorted_keys(tmp_path):
    publish_json(tmp_path / "x.json", {"b": 1, "a": "ü"})
    assert (tmp_path / "x.json").read_text(encoding="utf-8") == '{\n  "a": "ü",\n  "b": 1\n}\n'


# --- A folder and its manifest ---


def write_two(folder: Path) -> None:
    (folder / "weights").write_bytes(b"abc")
    (folder / "log").write_text("one line\n")


def test_a_manifest_vouches_for_every_file(tmp_path):
    manifest = publish_folder(tmp_path / "run", write_two, {"steps": 3})
    # sha256 of "abc" is the example of FIPS 180.
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert manifest["files"]["weights"] == {"sha256": abc, "bytes": 3}
    assert manifest["files"]["log"]["bytes"] == 9
    assert manifest["steps"] == 3
    assert read_manifest(tmp_path / "run") == manifest
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["log", MANIFEST, "weights"]
    assert verified(tmp_path / "run", "weights") == tmp_path / "run" / "weights"


def test_the_old_manifest_goes_first_and_the_new_one_comes_last(tmp_path, monkeypatch):
    run = tmp_path / "run"
    publish_folder(run, write_two, {"version": 1})
    seen = []

    def write(folder: Path) -> None:
        seen.append(("writing", (run / MANIFEST).exists()))
        (folder / "weights").write_bytes(b"new")

    rename = os.replace

    def watched(source, target):
        seen.append((Path(target).name, (run / MANIFEST).exists()))
        rename(source, target)

    monkeypatch.setattr(artifacts.os, "replace", watched)
    publish_folder(run, write, {"version": 2})
    assert seen == [("writing", False), ("weights", False), (MANIFEST, False)]
    assert read_manifest(run)["version"] == 2


def test_a_failing_write_leaves_no_checkpoint_and_no_litter(tmp_path):
    run = tmp_path / "run"

    def write(folder: Path) -> None:
        (folder / "weights").write_bytes(b"half")
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        publish_folder(run, write, {})
    assert not list(run.iterdir())
    with pytest.raises(UserError, match=r"run: no manifest.json, so nothing was published here; run the workflow"):
        read_manifest(run)


def test_the_litter_of_a_killed_job_is_no_obstacle(tmp_path):
    # Containers give every job the same process id.
    for name in (f".staging.{os.getpid()}", ".staging.999999"):
        (tmp_path / "run" / name / "folder").mkdir(parents=True)
        (tmp_path / "run" / name / "weights").write_bytes(b"half")
    publish_folder(tmp_path / "run", write_two, {})
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["log", MANIFEST, "weights"]
    assert verified(tmp_path / "run", "weights").read_bytes() == b"abc"


@pytest.mark.parametrize("damage", ["altered", "truncated", "longer"])
def test_a_damaged_file_is_refused_with_both_checksums(tmp_path, damage):
    run = tmp_path / "run"
    expected = publish_folder(run, write_two, {})["files"]["weights"]["sha256"]
    content = {"altered": b"abd", "truncated": b"ab", "longer": b"abc\n"}[damage]
    (run / "weights").write_bytes(content)
    with pytest.raises(UserError) as caught:
        verified(run, "weights")
    assert expected in str(caught.value)
    assert hashlib.sha256(content).hexdigest() in str(caught.value)
    assert str(run / "weights") in str(caught.value)
    assert "run the workflow again" in str(caught.value)


def test_missing_and_unlisted_files_are_refused(tmp_path):
    run = tmp_path / "run"
    publish_folder(run, write_two, {})
    (run / "extra").write_text("not listed")
    with pytest.raises(UserError, match="lists no file extra; delete the folder"):
        verified(run, "extra")
    (run / "log").unlink()
    with pytest.raises(UserError, match="log: is missing; delete the folder"):
        verified(run, "log")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"files": []}', "\udcff"])
def test_a_damaged_manifest_is_refused(tmp_path, text):
    (tmp_path / MANIFEST).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=r"manifest.json: (is not valid JSON|lists no files); delete the folder"):
        read_manifest(tmp_path)


def test_sha256_of_a_file_larger_than_a_buffer(tmp_path):
    data = bytes(range(256)) * 5000
    (tmp_path / "x").write_bytes(data)
    assert sha256_of(tmp_path / "x") == hashlib.sha256(data).hexdigest()
