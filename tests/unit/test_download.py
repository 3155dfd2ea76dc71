"""The network path over real HTTP: a hub on loopback that fails in every way a hub does."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import httpx2
import polars as pl
import pytest
from huggingface_hub import close_session, constants

from hub_repositories import write_repository
from hub_server import SECRET, Fault, Hub, Request, commit_of, git_id, serving
from xlift import download
from xlift.download import Patience, UnreachableError, _asked_to_wait, is_git_blob
from xlift.encoder.hub import write_hub
from xlift.errors import UserError
from xlift.jobs.prepare import prepare_encoder
from xlift.machine_faults import machine_fault
from xlift.sources.hub import CONVERTED, read_split

ROOT = Path(__file__).parents[2]
NAME = "org/pairs"
BIG = 200_000


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub that this process uses, with an empty cache and short waits."""
    with serving(tmp_path / "served") as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.5)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        for name, value in {
            "NO_PROXY": "127.0.0.1,localhost",
            "XLIFT_DOWNLOAD_WAIT": "0.01",
            "XLIFT_DOWNLOAD_TRIES": "4",
        }.items():
            monkeypatch.setenv(name, value)
        close_session()
        yield server
    close_session()


def noise(count: int) -> bytes:
    """Bytes that no compression makes smaller, the same every time."""
    return b"".join(hashlib.sha256(b"%d" % place).digest() for place in range(count // 32))


@pytest.fixture
def big(hub: Hub) -> Path:
    """A repository whose one file is larger than a network's buffers' first gulp."""
    text = noise(BIG).hex()
    return write_repository(hub.folder / NAME, {"default": {"train": pl.DataFrame({"text": [text]})}})


def train(revision: str | None = None) -> pl.DataFrame:
    return read_split(NAME, "default", "train", revision, None).frame


def refused(match: str, *arguments) -> str:
    with pytest.raises(UserError, match=match) as caught:
        read_split(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.fault("a hub that answers 503 for a while")
def test_503_twice_then_fine(hub, big, capsys, fault):
    hub.faults += [Fault("status", "/api/", times=2, value=503), Fault("status", "/resolve/", times=2, value=500)]
    assert train().height == 1
    said = capsys.readouterr().err
    assert said.count("download: HTTP 503 from http://127.0.0.1") == 2
    assert "again in 0.01 s" in said
    assert "again in 0.02 s" in said
    assert [fault.times for fault in hub.faults] == [0, 0]
    fault.survives()


def parquet(requests: list[Request]) -> list[int | None]:
    """First bytes asked for of the data file."""
    return [request.start for request in requests if request.path.endswith(".parquet") and request.method == "GET"]


@pytest.mark.parametrize("kind", ["cut", "reset"])
@pytest.mark.fault("a download that breaks off")
def test_a_broken_file_goes_on_where_it_broke(hub, big, kind, fault):
    hub.faults.append(Fault(kind, ".parquet", value=70_000))
    expected = pl.read_parquet(next(big.rglob("*.parquet")))
    assert train().equals(expected)
    first, rest = parquet(hub.log)
    assert first is None
    assert rest == 70_000 if kind == "cut" else 0 <= rest <= 70_000  # a reset may lose what was on its way
    fault.survives()


def test_a_file_that_breaks_often_arrives_as_long_as_bytes_do(hub, big):
    """Nine breaks are more than the four tries, which are counted anew whenever something arrived."""
    hub.faults.append(Fault("cut", ".parquet", times=9, value=10_000))
    assert train().height == 1
    assert parquet(hub.log) == [None, *range(10_000, 100_000, 10_000)]


def test_errors_on_the_way_back_to_a_broken_file(hub, big):
    hub.faults += [Fault("cut", ".parquet", value=70_000), Fault("status", ".parquet", times=2, value=502)]
    assert train().height == 1
    assert parquet(hub.log) == [None, 70_000, 70_000, 70_000]


@pytest.mark.fault("a download that hangs")
def test_a_stall_ends_in_a_timeout_and_the_rest_is_fetched(hub, big, capsys, fault):
    hub.faults += [Fault("stall", ".parquet", value=1.5), Fault("stall", "/api/", value=1.5)]
    assert train().height == 1
    assert capsys.readouterr().err.count("download: ReadTimeout") == 2
    fault.survives()


def test_where_large_files_lie_is_no_ones_business(hub, big, capsys):
    """What is printed has no signature of the storage's."""
    hub.faults.append(Fault("cut", "/storage/", value=70_000))
    assert train().height == 1
    assert {request.path.startswith("/storage/") for request in hub.files()} == {True}
    said = capsys.readouterr().err
    assert "from http://localhost" in said
    assert SECRET not in said


def test_content_that_is_not_what_the_hub_lists(hub, big):
    hub.faults.append(Fault("garbage", ".parquet"))
    assert train().height == 1
    assert parquet(hub.log) == [None, None]


@pytest.mark.fault("a download with other contents than the hub lists")
def test_content_that_stays_wrong_is_refused_and_not_kept(hub, big, fault):
    hub.faults.append(Fault("garbage", ".parquet", times=2))
    refused(
        r"org/pairs: .*train.parquet arrived with other content than the hub lists",
        NAME,
        "default",
        "train",
        None,
        None,
    )
    assert train().height == 1  # the next try begins afresh
    fault.refuses()


def test_a_file_that_is_listed_and_not_there(hub, big):
    hub.faults.append(Fault("status", ".parquet", method="HEAD", times=99, value=404))
    refused(r"data set org/pairs cannot be downloaded and is not in the cache", NAME, "default", "train", None, None)


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_hub_that_is_down(hub, big, status):
    hub.faults.append(Fault("status", "/", times=999, value=status))
    said = refused(f"HTTP {status}", NAME, "default", "train", None, None)
    assert "prepare it where there is a network, or give a `data.root` that holds it" in said
    assert hub.faults[0].times == 999 - 4


@pytest.mark.fault("no network")
def test_nobody_listens(hub, big, monkeypatch, fault):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    refused("cannot be downloaded and is not in the cache .ConnectError", NAME, "default", "train", None, None)
    fault.refuses()


def test_a_host_that_is_not_there_is_not_waited_for(hub, monkeypatch, capsys):
    def nowhere(*arguments, **options):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(constants, "ENDPOINT", "http://hub.invalid")
    monkeypatch.setenv("NO_PROXY", "*")
    close_session()
    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    refused("cannot be downloaded and is not in the cache .ConnectError.*not known", NAME, "x", "train", None, None)
    assert capsys.readouterr().err.count("again in") == 1


def test_something_else_answers(hub, big):
    """As the page of a hotel's network does, with HTTP 200."""
    hub.faults.append(Fault("garbage", "/api/", times=99))
    refused(f"what answers at {hub.url} is not a hub", NAME, "default", "train", None, None)


def test_a_token_that_may_not(hub, big):
    hub.faults.append(Fault("status", "/api/", times=99, value=403))
    refused(r"cannot be downloaded and is not in the cache \(HTTP 403\)", NAME, "default", "train", None, None)


@pytest.mark.parametrize(("given", "seconds"), [("7", 7.0), ("900", 300.0), ("Wed, 21 Oct 2026 07:28:00 GMT", 0.0)])
def test_a_hub_that_asks_to_wait(given, seconds):
    assert _asked_to_wait(httpx2.Response(429, headers={"Retry-After": given})) == seconds
    assert _asked_to_wait(httpx2.Response(503)) == 0.0


def test_waits_grow(monkeypatch, capsys):
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    patience = Patience(9, 1.0)
    for failures in range(1, 9):
        patience.pause(failures, "HTTP 503", httpx2.URL("http://hub/file?signature=x"))
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    patience.pause(1, "HTTP 429", httpx2.URL("http://hub/file"), least=90.0)
    assert waits[-1] == 90
    with pytest.raises(UnreachableError, match="HTTP 503"):
        patience.pause(9, "HTTP 503", httpx2.URL("http://hub/file"))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_disk_is_not_the_network(hub, big, monkeypatch, number):
    def write(*arguments, **options):
        raise OSError(number, os.strerror(number), "blobs/x")

    monkeypatch.setattr(download, "snapshot_download", write)
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        train()
    assert machine_fault(caught.value).startswith("blobs/x: ")


@pytest.mark.fault("no network, after a first preparation")
def test_what_was_read_once_needs_no_network(hub, big, monkeypatch, fault):
    expected = read_split(NAME, "default", "train", None, None)
    asked = len(hub.log)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    again = read_split(NAME, "default", "train", None, None)
    assert again.frame.equals(expected.frame)
    assert again.source == expected.source
    assert len(hub.log) == asked
    refused("org/other cannot be downloaded .*HF_HUB_OFFLINE is set", "org/other", "x", "train", None, None)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub.faults.append(Fault("status", "/", times=999, value=503))
    assert read_split(NAME, "default", "train", None, None).source == expected.source
    fault.survives()


def test_no_more_is_asked_for_than_needed(hub):
    x, y = pl.DataFrame({"text": ["a"]}), pl.DataFrame({"text": ["b"]})
    write_repository(hub.folder / NAME, {"x": {"train": x, "test": x}, "y": {"test": y}})
    read_split(NAME, "x", "test", None, None)
    paths = [(request.method, request.path.split("/")[-1]) for request in hub.log]
    files = ["README.md", "test.parquet"]
    assert sorted(paths[2:]) == sorted((method, name) for method in ("GET", "HEAD") for name in files)
    hub.log.clear()
    read_split(NAME, "x", "test", None, None)
    assert [request.path for request in hub.log] == ["/api/datasets/org/pairs/revision/main"]
    hub.log.clear()
    read_split(NAME, "y", "test", None, None)
    commit = commit_of(hub.folder / NAME)
    assert [request.path for request in hub.files()] == [f"/storage/datasets/{NAME}/resolve/{commit}/y/test.parquet"]


def test_revisions(hub, big):
    other = hub.folder / f"{NAME}@second"
    write_repository(other, {"default": {"train": pl.DataFrame({"text": ["other"]})}})
    for revision in ("second", commit_of(other)):
        rows = read_split(NAME, "default", "train", revision, None)
        assert rows.frame["text"].to_list() == ["other"]
        assert rows.source["revision"] == commit_of(other)
    assert read_split(NAME, "default", "train", None, None).source["revision"] == commit_of(big)
    refused("data set org/pairs has no revision 'third': check the task's revision", NAME, "x", "train", "third", None)


def test_a_repository_with_only_a_script_is_read_from_the_hubs_own_copy(hub):
    script = hub.folder / NAME
    script.mkdir(parents=True)
    (script / "pairs.py").write_text("raise SystemExit('this must never run')\n")
    copy = hub.folder / f"{NAME}@refs--convert--parquet"
    frame = pl.DataFrame({"text": ["a", "b"]})
    for config, rows in {"de": frame, "sw": frame.reverse()}.items():
        (copy / config / "validation").mkdir(parents=True)
        rows.write_parquet(copy / config / "validation" / "0000.parquet")
    for revision in (None, CONVERTED):
        rows = read_split(NAME, "sw", "validation", revision, None)
        assert rows.frame.equals(frame.reverse())
        assert rows.source["revision"] == commit_of(copy)
    refused("has no config 'fr'.*its configs are de, sw", NAME, "fr", "validation", None, None)
    refused("has no split 'test'; its splits are validation", NAME, "sw", "test", None, None)
    refused("has a loading script at this revision, which is never run", NAME, "de", "validation", "main", None)


def test_what_is_not_there_or_not_open(hub, big):
    refused("data set org/none is not on the hub .or is private.: check", "org/none", "x", "train", None, None)
    refused("'a/b/c' is not a hub id such as facebook/xnli", "a/b/c", "x", "train", None, None)
    hub.gated.add(NAME)
    refused("data set org/pairs is gated: accept its terms", NAME, "default", "train", None, None)


@pytest.mark.parametrize(("name", "value"), [("XLIFT_DOWNLOAD_TRIES", "0"), ("XLIFT_DOWNLOAD_WAIT", "soon")])
def test_odd_patience(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="give a number of tries and 0 to 60 seconds"):
        Patience.of_environment()


def test_git_ids(tmp_path):
    """Against git's documented id of an empty blob, and git-lfs's of a pointer made by hand."""
    path = tmp_path / "file"
    path.write_bytes(b"")
    assert is_git_blob(path, "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391")
    path.write_bytes(b"hello\n")
    assert is_git_blob(path, "ce013625030ba8dba906f756967f9e9ca394464a")
    digest = hashlib.sha256(b"hello\n").hexdigest()
    assert is_git_blob(
        path, git_id(f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize 6\n".encode())
    )
    assert not is_git_blob(path, "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391")


@pytest.fixture
def served_encoder(hub: Hub, tiny_encoder: Path) -> Path:
    """The tiny encoder as a hub repository."""
    folder = hub.folder / "org" / "tiny"
    folder.mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        shutil.copy(tiny_encoder / name, folder / name)
    return folder


SPECIFICATION = {"source": "hub", "id": "org/tiny", "revision": None}


def test_an_encoder_over_a_bad_network_is_the_encoder_of_the_folder(hub, served_encoder, tmp_path):
    hub.faults += [
        Fault("status", "/api/models", times=2, value=503),
        Fault("cut", "model.safetensors", value=30_000),
        Fault("garbage", "tokenizer.json"),
    ]
    prepare_encoder(SPECIFICATION, None, tmp_path / "hub" / "manifest.json")
    prepare_encoder(SPECIFICATION, str(hub.folder), tmp_path / "folder" / "manifest.json")
    found, expected = (json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("hub", "folder"))
    assert found["files"] == expected["files"]
    assert [request.start for request in hub.files() if request.path.endswith("model.safetensors")] == [None, 30_000]


def test_an_encoder_that_is_not_there(hub, tmp_path):
    with pytest.raises(UserError, match=r"encoder org/tiny is not on the hub .or is private.: check `encoder\.id`"):
        write_hub("org/tiny", None, None, tmp_path)


def test_a_download_that_fails_for_good_leaves_no_artifact(hub, served_encoder, tmp_path):
    """The job's own script, in a process of its own that knows the hub from HF_ENDPOINT."""
    hub.faults.append(Fault("cut", "model.safetensors", times=99, value=0))
    manifest, log = tmp_path / "out" / "manifest.json", tmp_path / "log.txt"
    code = (
        "import runpy, sys, types\n"
        "from pathlib import Path\n"
        "given = types.SimpleNamespace\n"
        f"snakemake = given(log=[{str(log)!r}], input=[], output=given(manifest={str(manifest)!r}),"
        f" params=given(specification={json.dumps(SPECIFICATION)!r}, hub_root=None))\n"
        "runpy.run_path('workflow/scripts/prepare_encoder.py', init_globals={'snakemake': snakemake})\n"
    )
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HUB_CACHE": str(tmp_path / "other cache"),
        "PYTHONPATH": str(ROOT / "src"),
    }
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    said = log.read_text() + done.stderr
    assert done.returncode == 1
    assert "Traceback" not in said
    assert "encoder org/tiny cannot be downloaded and is not in the cache (RemoteProtocolError" in said
    assert not manifest.exists()
    assert not list(manifest.parent.glob("*"))
    assert len([request for request in hub.files() if request.path.endswith("model.safetensors")]) == 4
