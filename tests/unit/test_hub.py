"""Rows of repositories: from a folder, over HTTP, and the same both ways."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import polars as pl
import pytest

from hub_repositories import write_repository
from hub_server import commit_of, serving
from mirror import ABSENT, HERE
from mirror import ROOT as MIRROR
from xlift.errors import UserError
from xlift.sources.hub import read_split

ROOT = Path(__file__).parents[2]
NAME = "org/tags"
LABELS = {"class_label": {"names": {"0": "low", "1": "high"}}}
FEATURES = {"words": {"list": "string"}, "tags": {"list": LABELS}, "label": {"dtype": LABELS}, "n": {"dtype": "int32"}}


def made_up(rows: range) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "words": [[f"w{row}", "x"] for row in rows],
            "tags": [[row % 2, 1] for row in rows],
            "label": [row % 2 for row in rows],
            "n": list(rows),
        },
        schema_overrides={"n": pl.Int32},
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with one repository of two configs."""
    configs = {"de": {"train": made_up(range(5)), "test": made_up(range(5, 8))}, "sw": {"test": made_up(range(3))}}
    write_repository(tmp_path / "root" / NAME, configs, FEATURES)
    return tmp_path / "root"


def refused(root: Path, match: str, name: str = NAME, config: str = "de", rows: str = "test") -> None:
    with pytest.raises(UserError, match=match) as caught:
        read_split(name, config, rows, None, root)
    assert "\n" not in str(caught.value)


def test_rows_names_and_source(root):
    found = read_split(NAME, "de", "test", None, root)
    assert found.frame.equals(made_up(range(5, 8)))
    assert found.frame.schema == made_up(range(1)).schema
    assert found.class_names == {"tags": ("low", "high"), "label": ("low", "high")}
    digest = hashlib.sha256((root / NAME / "de" / "test.parquet").read_bytes()).hexdigest()
    assert found.source == {
        "repository": NAME,
        "config": "de",
        "rows": "test",
        "revision": "local",
        "sha256": digest,
    }
    assert read_split(NAME, "sw", "test", None, root).frame.height == 3
    assert read_split(NAME, "de", "train", None, root).frame.height == 5


def test_several_files_in_order_without_a_card(tmp_path):
    """The layout of the hub's own parquet copies: folders are configs, and shards follow each other."""
    folder = tmp_path / NAME / "de" / "train"
    folder.mkdir(parents=True)
    for shard in range(3):
        made_up(range(shard * 4, shard * 4 + 4)).write_parquet(folder / f"000{shard}.parquet")
    found = read_split(NAME, "de", "train", None, tmp_path)
    assert found.frame["n"].to_list() == list(range(12))
    paths = sorted(folder.iterdir())
    lines = "".join(f"{hashlib.sha256(p.read_bytes()).hexdigest()}  de/train/{p.name}\n" for p in paths)
    assert found.source["sha256"] == hashlib.sha256(lines.encode()).hexdigest()


def test_other_formats(tmp_path):
    folder = tmp_path / NAME
    folder.mkdir(parents=True)
    (folder / "test.jsonl").write_text('{"a": "x", "n": 1}\n{"a": "y", "n": 2}\n')
    assert read_split(NAME, "default", "test", None, tmp_path).frame.rows() == [("x", 1), ("y", 2)]


def test_unknown_names_are_answered_with_those_there_are(root):
    refused(root, r"there is no folder .*org/tag \(is 'org/tags' meant\?\)", name="org/tag")
    refused(root, r"data set org/tags: has no config 'swa' \(is 'sw' meant\?\); its configs are de, sw", config="swa")
    refused(
        root,
        r"data set org/tags, de: has no split 'tests' \(is 'test' meant\?\); its splits are test, train",
        rows="tests",
    )


def test_a_broken_file(root):
    path = root / NAME / "de" / "test.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    refused(root, r"data set org/tags: test.parquet of split 'test' cannot be read \(.*\); put a whole copy there")
    assert read_split(NAME, "de", "train", None, root).frame.height == 5


def test_a_file_that_its_card_names_is_missing(root):
    (root / NAME / "de" / "test.parquet").unlink()
    refused(root, r"data set org/tags: no data files can be made out in it \(.*test.parquet")


def test_a_split_without_rows(root):
    made_up(range(0)).write_parquet(root / NAME / "de" / "test.parquet")
    refused(root, r"data set org/tags, de: its split 'test' has no rows")


def test_a_repository_without_data_and_one_with_a_script(tmp_path):
    (tmp_path / NAME).mkdir(parents=True)
    (tmp_path / NAME / "README.md").write_text("Nothing yet.\n")
    refused(tmp_path, r"data set org/tags: no data files can be made out in it")
    (tmp_path / NAME / "tags.py").write_text("raise SystemExit('this must never run')\n")
    refused(
        tmp_path, r"has a loading script at this revision, which is never run; use the revision refs/convert/parquet"
    )


def with_card(root: Path, path: str) -> Path:
    """A repository whose card says that its data is at this path."""
    folder = root / NAME
    folder.mkdir(parents=True)
    text = f"configs:\n- config_name: de\n  data_files:\n  - split: test\n    path: '{path}'\n"
    (folder / "README.md").write_text(f"---\n{text}---\n", encoding="utf-8")
    return folder


def test_data_outside_the_repository_is_never_read(tmp_path):
    (tmp_path / "secret.csv").write_text("a\n1\n")
    with_card(tmp_path / "hub", "../../../secret.csv")
    refused(tmp_path / "hub", r"data set org/tags: its card names data outside the repository \('.*secret.csv'\)")
    with_card(tmp_path / "other", str(tmp_path / "secret.csv"))
    refused(tmp_path / "other", r"data set org/tags: its card names data outside the repository")


@pytest.mark.parametrize("name", ["rows.zip", "rows.tar", "rows.tar.gz", "rows.pkl", "rows.pt"])
def test_archives_and_pickles_are_never_read(tmp_path, name):
    folder = with_card(tmp_path, name)
    (folder / "rows.csv").write_text("a\n1\n")
    if name.endswith(".zip"):
        with zipfile.ZipFile(folder / name, "w") as archive:
            archive.write(folder / "rows.csv", "rows.csv")
    elif ".tar" in name:
        with tarfile.open(folder / name, "w:gz" if name.endswith("gz") else "w") as archive:
            archive.add(folder / "rows.csv", "rows.csv")
    else:
        (folder / name).write_bytes(b"\x80\x04N.")
    refused(tmp_path, rf"data set org/tags: ({name} is none of the kinds of file that are read|no data files can be)")


def test_a_folder_that_changed_is_read_anew(root):
    before = read_split(NAME, "sw", "test", None, root)
    write_repository(root / NAME, {"sw": {"test": made_up(range(4)), "extra": made_up(range(1))}}, FEATURES)
    assert read_split(NAME, "sw", "test", None, root).frame.height == before.frame.height + 1
    assert read_split(NAME, "sw", "extra", None, root).frame.height == 1


READ = (
    ("unimelb-nlp/wikiann", "sw", "validation"),
    ("google-research-datasets/tydiqa", "secondary_task", "validation"),
    ("facebook/xnli", "th", "validation"),
    ("mteb/tatoeba-bitext-mining", "tel-eng", "test"),
)
OVER_HTTP = """
import json, sys
from xlift.sources.hub import read_split
for place, (name, config, rows) in enumerate(json.loads(sys.argv[1])):
    found = read_split(name, config, rows, None, None)
    found.frame.write_parquet(f"{sys.argv[2]}/{place}.parquet")
    print(json.dumps([found.class_names, found.source]))
"""


@pytest.mark.skipif(not HERE, reason=ABSENT)
def test_real_repositories_read_the_same_over_http(tmp_path):
    """In a process of its own, which knows the hub as users name it: by HF_ENDPOINT; then again without it."""
    import json

    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT / "src"), "NO_PROXY": "*"}
    environment["USE_TORCH"] = "0"  # `datasets` would import it, which takes longer than all the rest
    command = [sys.executable, "-c", OVER_HTTP, json.dumps(READ), str(tmp_path)]
    printed = []
    with serving(MIRROR) as hub:
        for offline in ("0", "1"):
            asked = len(hub.log)
            extra = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": offline}
            done = subprocess.run(command, env=environment | extra, capture_output=True, text=True, cwd=ROOT)
            assert done.returncode == 0, done.stderr
            printed.append(done.stdout)
        assert len(hub.files("GET")) == len(READ)
        assert len(hub.log) == asked
    assert printed[0] == printed[1]
    for place, (arguments, line) in enumerate(zip(READ, printed[0].splitlines(), strict=True)):
        names, source = json.loads(line)
        expected = read_split(*arguments, None, MIRROR)
        assert pl.read_parquet(tmp_path / f"{place}.parquet").equals(expected.frame)
        assert {column: tuple(values) for column, values in names.items()} == expected.class_names
        assert source == expected.source | {"revision": commit_of(MIRROR / arguments[0])}


@pytest.mark.skipif(not HERE, reason=ABSENT)
def test_class_labels_of_real_repositories():
    wikiann = read_split("unimelb-nlp/wikiann", "de", "validation", None, MIRROR)
    assert wikiann.class_names == {"ner_tags": ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC")}
    assert wikiann.frame.height == 1000
    xnli = read_split("facebook/xnli", "de", "validation", None, MIRROR)
    assert xnli.class_names == {"label": ("entailment", "neutral", "contradiction")}
    assert read_split("google-research-datasets/tydiqa", "secondary_task", "validation", None, MIRROR).class_names == {}
