"""A small hub: folders of repositories over the HTTP API that `huggingface_hub` calls, with faults on demand.

As on the hub, large files are redirected to another host's storage, here `localhost` for `127.0.0.1`.
Repositories lie as `<folder>/<org>/<name>`; a folder `<folder>/<org>/<name>@<revision>` (with `/` as `--`) is what a
repository has at another branch. Every request is kept in `log`.
"""

from __future__ import annotations

import hashlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

MAIN = "main"
STORAGE = "/storage"
SECRET = "not-to-be-printed"


@dataclass(frozen=True)
class Request:
    """One request as the server saw it: `path` is unquoted; `start` is the first byte asked for, None for all."""

    method: str
    path: str
    start: int | None
    status: int


@dataclass
class Fault:
    """What goes wrong for the next `times` requests whose method and path match."""

    kind: str  # "status", "cut", "stall", "reset" or "garbage"
    match: str
    method: str = "GET"
    times: int = 1
    value: float = 0.0  # status: the code; cut, reset: bytes that are sent before; stall: seconds


@dataclass
class Hub:
    """The server's state: tests write faults and access, and read the log."""

    folder: Path
    url: str = ""
    log: list[Request] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    gated: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def repository(self, name: str, revision: str) -> Path | None:
        """Folder of a repository at a branch or commit; None where there is no such revision."""
        whole = self.folder / name
        for folder in (whole, *sorted(whole.parent.glob(f"{whole.name}@*"))):
            branch = MAIN if folder == whole else folder.name.partition("@")[2].replace("--", "/")
            if folder.is_dir() and revision in (branch, commit_of(folder)):
                return folder
        return None

    def fault(self, method: str, path: str) -> Fault | None:
        """The fault that befalls a request, counted down."""
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and fault.match in path and fault.method == method:
                    fault.times -= 1
                    return fault
        return None

    def files(self, method: str = "GET") -> list[Request]:
        """Requests for files that are no cards."""
        return [
            r for r in self.log if r.method == method and "/resolve/" in r.path and not r.path.endswith("README.md")
        ]


def git_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def is_large(path: Path) -> bool:
    """Whether a file would be kept by git-lfs."""
    return path.suffix in (".parquet", ".safetensors", ".gz")


def commit_of(folder: Path) -> str:
    """A commit's id: of all its files' paths, sizes and times."""
    state = [(path, path.stat().st_size, path.stat().st_mtime_ns) for path in files_of(folder)]
    return hashlib.sha1(repr((str(folder), state)).encode()).hexdigest()


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def entry(folder: Path, path: Path) -> dict[str, object]:
    """A file in a listing, as the hub writes it."""
    content, name = path.read_bytes(), path.relative_to(folder).as_posix()
    if not is_large(path):
        return {"type": "file", "path": name, "size": len(content), "oid": git_id(content)}
    sha256 = hashlib.sha256(content).hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {len(content)}\n".encode()
    lfs = {"oid": sha256, "size": len(content), "pointerSize": len(pointer)}
    return {"type": "file", "path": name, "size": len(content), "oid": git_id(pointer), "lfs": lfs}


class Handler(BaseHTTPRequestHandler):
    """Answers for /api/<kind>s/<id>[/revision/<r>], /api/<kind>s/<id>/tree/<r> and files.

    Those are at [/storage]/[datasets/]<id>/resolve/<r>/<path>.
    """

    protocol_version = "HTTP/1.1"

    def __init__(self, hub: Hub, *arguments: object) -> None:
        self.hub = hub
        super().__init__(*arguments)  # type: ignore[arg-type]

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing on standard error: `Hub.log` has it all."""

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = urlsplit(self.path).path
        fault = self.hub.fault(self.command, unquote(path))
        if fault is not None and fault.kind == "status":
            self.fail(int(fault.value), "")
        elif path.startswith("/api/"):
            self.describe([unquote(part) for part in path.split("/")[3:]], fault)
        else:
            parts = [unquote(part) for part in path.removeprefix(STORAGE).removeprefix("/datasets").split("/")[1:]]
            self.resolve(f"{parts[0]}/{parts[1]}", parts[3], "/".join(parts[4:]), fault)

    def describe(self, parts: list[str], fault: Fault | None) -> None:
        name, what, revision = "/".join(parts[:2]), *([*parts[2:4], "revision", MAIN] if not parts[2:] else parts[2:4])
        folder = self.folder(name, revision)
        if folder is None:
            return
        if what == "tree":
            content: object = [entry(folder, path) for path in files_of(folder)]
        else:
            names = [{"rfilename": path.relative_to(folder).as_posix()} for path in files_of(folder)]
            content = {"id": name, "sha": commit_of(folder), "siblings": names, "private": False, "tags": []}
        self.send(json.dumps(content).encode(), {"Content-Type": "application/json"}, fault)

    def resolve(self, name: str, revision: str, path: str, fault: Fault | None) -> None:
        folder = self.folder(name, revision)
        if folder is None:
            return
        if name in self.hub.gated:
            self.fail(403, "GatedRepo")
        elif not (folder / path).is_file():
            self.fail(404, "EntryNotFound")
        elif is_large(folder / path) and not self.path.startswith(STORAGE):
            self.send_to_storage(folder, folder / path)
        else:
            content = (folder / path).read_bytes()
            etag = hashlib.sha256(content).hexdigest() if is_large(folder / path) else git_id(content)
            headers = {"ETag": f'"{etag}"', "X-Repo-Commit": commit_of(folder), "Accept-Ranges": "bytes"}
            self.send(content, headers, fault)

    def send_to_storage(self, folder: Path, path: Path) -> None:
        """Large files lie elsewhere: the answer says what they are and, in an address with a secret, where."""
        self.note(302)
        self.send_response(302)
        port = self.server.server_address[1]
        self.send_header("Location", f"http://localhost:{port}{STORAGE}{self.path}?signature={SECRET}")
        self.send_header("X-Linked-ETag", f'"{hashlib.sha256(path.read_bytes()).hexdigest()}"')
        self.send_header("X-Linked-Size", str(path.stat().st_size))
        self.send_header("X-Repo-Commit", commit_of(folder))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def folder(self, name: str, revision: str) -> Path | None:
        """The repository's folder, or None after its refusal was sent."""
        if not (self.hub.folder / name).is_dir():
            self.fail(401, "RepoNotFound")  # as the hub does, which does not say whether it is private
        elif (folder := self.hub.repository(name, revision)) is not None:
            return folder
        else:
            self.fail(404, "RevisionNotFound")
        return None

    def start(self) -> int | None:
        given = self.headers.get("Range")
        return int(given.removeprefix("bytes=").partition("-")[0]) if given else None

    def note(self, status: int) -> None:
        with self.hub.lock:
            self.hub.log.append(Request(self.command, unquote(urlsplit(self.path).path), self.start(), status))

    def fail(self, status: int, code: str) -> None:
        self.note(status)
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send(self, content: bytes, headers: dict[str, str], fault: Fault | None) -> None:
        first = self.start() or 0
        status = 200 if self.start() is None else 206
        self.note(status)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status == 206:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - first))
        self.end_headers()
        if self.command == "HEAD":
            return
        body = content[first:]
        if fault is None:
            self.wfile.write(body)
        elif fault.kind == "garbage":
            self.wfile.write(bytes(byte ^ 1 for byte in body))
        else:
            self.wfile.write(body[: 0 if fault.kind == "stall" else int(fault.value)])
            self.wfile.flush()
            self.break_off(fault)

    def break_off(self, fault: Fault) -> None:
        """Stop in the middle: silent for a while, closed, or reset."""
        self.close_connection = True
        if fault.kind == "stall":
            time.sleep(fault.value)
        elif fault.kind == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()


@contextmanager
def serving(folder: Path) -> Iterator[Hub]:
    """A hub on loopback that serves the repositories of a folder."""
    hub = Hub(folder)
    handler: Callable[..., Handler] = partial(Handler, hub)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.02), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
