"""Files of hub repositories over a network that fails now and then: waits, tries again, resumes, checks, explains.

`huggingface_hub` finds, names and caches the files. What it leaves open is done here: every request is tried again
after growing waits, a file that stops in its middle goes on from there, nothing waits for ever, and what arrived is
compared with what the hub says it is.
"""

from __future__ import annotations

import hashlib
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import httpx2
from huggingface_hub import (
    constants,
    get_cached_repo_tree,
    get_session,
    hf_hub_download,
    set_client_factory,
    snapshot_download,
)
from huggingface_hub.errors import (
    CachedRepoTreeNotFoundError,
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils.tqdm import disable_progress_bars

from xlift.artifacts import sha256_of
from xlift.errors import UserError
from xlift.machine_faults import FORBIDDEN, FULL

Kind = Literal["model", "dataset"]

WAIT, TRIES = "XLIFT_DOWNLOAD_WAIT", "XLIFT_DOWNLOAD_TRIES"
LONGEST_WAIT = 60.0
_PASSING = (httpx2.TimeoutException, httpx2.NetworkError, httpx2.RemoteProtocolError)
_PASSING_STATUS = (408, 429, 500, 502, 503, 504)


class UnreachableError(Exception):
    """The hub did not answer, or not to the end, however often it was asked. The message is the last try's reason.

    No `OSError`, and none of the client's errors: `huggingface_hub` would begin its own round of tries on those.
    """


@dataclass(frozen=True)
class Patience:
    """How often something is tried without any byte arriving, and the first wait in seconds, doubled each time."""

    tries: int
    wait: float

    @classmethod
    def of_environment(cls) -> Patience:
        """From XLIFT_DOWNLOAD_TRIES (6) and XLIFT_DOWNLOAD_WAIT (1 second): waits of 1, 2, 4, 8 and 16 seconds."""
        try:
            tries, wait = int(os.environ.get(TRIES, "6")), float(os.environ.get(WAIT, "1"))
        except ValueError:
            tries, wait = 0, 0.0
        if tries < 1 or not 0 <= wait <= LONGEST_WAIT:
            raise UserError(f"{TRIES} and {WAIT}: give a number of tries and 0 to {LONGEST_WAIT:.0f} seconds")
        return cls(tries, wait)

    def pause(self, failures: int, reason: str, url: httpx2.URL, least: float = 0.0) -> None:
        """Wait after a failure, the `failures`-th in a row; `UnreachableError` where it was the last one allowed."""
        if failures >= self.tries:
            raise UnreachableError(reason)
        seconds = max(least, min(LONGEST_WAIT, self.wait * 2 ** (failures - 1)))
        where = url.copy_with(query=None)  # signed addresses carry secrets there
        print(f"download: {reason} from {where}; again in {seconds:g} s", file=sys.stderr, flush=True)
        time.sleep(seconds)


class PatientClient(httpx2.Client):
    """An HTTP client that tries again, and whose streams go on where they broke off."""

    def send(self, request: httpx2.Request, *, stream: bool = False, **options: Any) -> httpx2.Response:
        """As `httpx2.Client.send`; `UnreachableError` where every try failed."""
        _limit(request)
        patience, failures = Patience.of_environment(), 0
        while True:
            try:
                response = super().send(request, stream=stream, **options)
            except _PASSING as error:
                failures += 1
                if _no_such_host(error) and failures >= 2:
                    raise UnreachableError(_reason(error)) from error  # no network: waiting will not bring it
                patience.pause(failures, _reason(error), request.url)
                continue
            if response.status_code not in _PASSING_STATUS:
                break
            response.close()
            failures += 1
            patience.pause(failures, f"HTTP {response.status_code}", request.url, _asked_to_wait(response))
        if stream and request.method == "GET" and response.status_code in (200, 206):
            response.stream = _Resumed(super().send, response, patience)
        return response


class _Resumed(httpx2.SyncByteStream):
    """The bytes of a response; after a break the rest is asked for by its range."""

    def __init__(self, send: Callable[..., httpx2.Response], response: httpx2.Response, patience: Patience) -> None:
        assert isinstance(response.stream, httpx2.SyncByteStream)
        self._send, self._patience = send, patience
        self._request, self._headers, self._status = response.request, response.headers, response.status_code
        self._stream, self._received = response.stream, 0

    def __iter__(self) -> Iterator[bytes]:
        failures = 0
        while True:
            try:
                for chunk in self._stream:
                    self._received += len(chunk)
                    failures = 0
                    yield chunk
                return
            except _PASSING as error:
                self._stream.close()
                failures = self._reopen(failures + 1, _reason(error))

    def _reopen(self, failures: int, reason: str) -> int:
        """Ask for the rest; returns how many failures there were in a row."""
        if "content-encoding" in self._headers:
            raise UnreachableError(reason)  # a range of bytes that were compressed on the way means nothing
        request = httpx2.Request(
            "GET", self._request.url, headers=self._request.headers, extensions=self._request.extensions
        )
        request.headers["Range"] = self._range()
        while True:
            self._patience.pause(failures, reason, request.url)
            try:
                response = self._send(request, stream=True)
            except _PASSING as error:
                failures, reason = failures + 1, _reason(error)
                continue
            if response.status_code not in _PASSING_STATUS:
                break
            response.close()
            failures, reason = failures + 1, f"HTTP {response.status_code}"
        if response.status_code != 206 or response.headers.get("etag") != self._headers.get("etag"):
            response.close()
            raise UnreachableError(f"{reason}, and the rest of the file was refused (HTTP {response.status_code})")
        assert isinstance(response.stream, httpx2.SyncByteStream)
        self._stream = response.stream
        return failures

    def _range(self) -> str:
        """The range of what is still to come, where the first answer may have been to a range itself."""
        start, end = 0, ""
        if self._status == 206:
            given = self._request.headers["Range"].removeprefix("bytes=")
            first, _, end = given.partition("-")
            start = int(first)
        return f"bytes={start + self._received}-{end}"

    def close(self) -> None:
        self._stream.close()


def _limit(request: httpx2.Request) -> None:
    """Give a request that would wait for ever the timeout of downloads (HF_HUB_DOWNLOAD_TIMEOUT, in seconds)."""
    limits = request.extensions.get("timeout") or {}
    if all(seconds is None for seconds in limits.values()):
        seconds = constants.HF_HUB_DOWNLOAD_TIMEOUT
        request.extensions["timeout"] = dict.fromkeys(("connect", "read", "write", "pool"), seconds)


def _no_such_host(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, socket.gaierror):
            return True
        error = error.__cause__ or error.__context__
    return False


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}{f' ({error})' if str(error) else ''}"


def _asked_to_wait(response: httpx2.Response) -> float:
    """Seconds that a `Retry-After` asks for, at most five minutes."""
    value = response.headers.get("retry-after", "")
    return min(300.0, float(value)) if value.isdigit() else 0.0


@cache
def _patient() -> None:
    """Make `huggingface_hub` use the patient client in this process."""
    hooks = get_session().event_hooks  # among them the one that refuses requests under HF_HUB_OFFLINE
    disable_progress_bars()  # jobs write to log files
    constants.HF_HUB_DISABLE_XET = True  # its downloader is another program, without this client's waits and refusals
    set_client_factory(lambda: PatientClient(event_hooks=hooks, follow_redirects=True, timeout=None))


@contextmanager
def explained(what: str, repository: str, revision: str | None, at: Mapping[str, str]) -> Iterator[None]:
    """Turn every error of a download into one sentence. `what`: "encoder", "data set"; `at`: names of the settings
    that give `id`, `revision` and `root`."""
    name = f"{what} {repository}"
    try:
        yield
    except HFValidationError as error:
        example = "FacebookAI/xlm-roberta-base" if what == "encoder" else "facebook/xnli"
        raise UserError(f"{what} {repository!r} is not a hub id such as {example}") from error
    except GatedRepoError as error:
        raise UserError(f"{name} is gated: accept its terms on the hub and log in with `hf auth login`") from error
    except RepositoryNotFoundError as error:
        raise UserError(f"{name} is not on the hub (or is private): check {at['id']}") from error
    except RevisionNotFoundError as error:
        raise UserError(f"{name} has no revision {revision!r}: check {at['revision']}") from error
    except (UnreachableError, httpx2.HTTPError, LocalEntryNotFoundError, OSError, ValueError, KeyError) as error:
        if getattr(error, "errno", None) in (*FULL, *FORBIDDEN):
            raise  # the disk's fault, not the network's
        raise UserError(
            f"{name} cannot be downloaded and is not in the cache ({_why(error)}): prepare it where there is a network,"
            f" or give {at['root']} that holds it"
        ) from error


def _why(error: BaseException) -> str:
    """What kept a file from coming, in a few words."""
    if isinstance(error, UnreachableError):
        return str(error)
    if isinstance(error, HfHubHTTPError):
        return f"HTTP {error.response.status_code}"
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set"
    if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        return _why(error.__cause__)
    if isinstance(error, (FileMetadataError, ValueError, KeyError)):
        return f"what answers at {constants.ENDPOINT} is not a hub"
    return getattr(error, "strerror", None) or type(error).__name__


def fetch(
    kind: Kind, repository: str, revision: str | None, patterns: Sequence[str]
) -> tuple[Path, Mapping[str, str | None]]:
    """Download the files that match `patterns`: the cached snapshot's folder, and the repository's listing.

    The folder's name is the commit. The listing has every file's git id by its path, or None where the cache is all
    there is and does not know it. Without a network the cache of an earlier download is read (HF_HUB_OFFLINE=1 asks for
    it at once). Raises the errors of `huggingface_hub` and `UnreachableError`.
    """
    _patient()
    options: dict[str, Any] = {"repo_type": kind, "revision": revision, "allow_patterns": list(patterns)}
    try:
        folder = Path(snapshot_download(repository, **options))
    except UnreachableError as error:
        try:
            folder = Path(snapshot_download(repository, **options, local_files_only=True))
        except LocalEntryNotFoundError:
            raise error from None
        print(f"{repository}: the hub cannot be reached; commit {folder.name} is read from the cache", flush=True)
    try:
        tree = get_cached_repo_tree(repository, repo_type=kind, revision=folder.name)
    except CachedRepoTreeNotFoundError:
        found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        return folder, dict.fromkeys(sorted(found))
    return folder, {file.path: file.blob_id for file in sorted(tree, key=lambda file: file.path)}


def checked(kind: Kind, repository: str, folder: Path, name: str, git_id: str | None) -> Path:
    """Path of a downloaded file that is what the hub lists; downloaded once more where it is not.

    `folder` and `git_id` are `fetch`'s. `UserError` where it differs again.
    """
    path = folder / name
    if not path.is_file():
        path = Path(hf_hub_download(repository, name, repo_type=kind, revision=folder.name))
    if git_id is None or is_git_blob(path, git_id):
        return path
    with suppress(ValueError):  # what it raises without a network
        path = Path(hf_hub_download(repository, name, repo_type=kind, revision=folder.name, force_download=True))
    if is_git_blob(path, git_id):
        return path
    path.resolve().unlink()
    path.unlink(missing_ok=True)  # the snapshot's link, so that the next try begins afresh
    raise UserError(
        f"{repository}: {name} arrived with other content than the hub lists for commit {folder.name}:"
        " try again later, or download it by hand and give the folder it lies in"
    )


def is_git_blob(path: Path, git_id: str) -> bool:
    """Whether git's id of a file (sha1) is that of its content, or of the pointer that git-lfs keeps in its place."""
    size = path.stat().st_size
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256_of(path)}\nsize {size}\n".encode()
    if _git_id(len(pointer), [pointer]) == git_id:
        return True
    with path.open("rb") as stream:
        return _git_id(size, iter(lambda: stream.read(1 << 20), b"")) == git_id


def _git_id(size: int, parts: Iterator[bytes] | Sequence[bytes]) -> str:
    digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
