"""Rows of data set repositories in the Hugging Face layout: of the hub, or of a folder that holds copies of them.

`datasets` says which files a config's split is and what their columns are; loading scripts are never run. What is
downloaded lies in the hub's own cache, so that a second reading needs no network; nothing else is kept.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from copy import copy as shallow_copy
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from xlift.artifacts import fingerprint, sha256_of
from xlift.errors import UserError

if TYPE_CHECKING:
    from datasets import DatasetBuilder, Features
    from datasets.load import DatasetModule

CONVERTED = "refs/convert/parquet"
"""The branch where the hub keeps its own parquet copy of a repository, as `<config>/<split>/<number>.parquet`."""
LOCAL = "local"
"""Revision of what is read from a folder."""
_DESCRIBING = ("README.md", ".huggingface.yaml", "dataset_infos.json")
_SETTINGS = {
    "id": "the task's repository",
    "revision": "the task's revision, or give another in `data.revisions`",
    "root": "a `data.root`",
}
_BATCH_ROWS = 10_000
_TEXTS = (".json", ".jsonl", ".csv", ".tsv", ".txt")
_PLAIN = (".parquet", ".arrow", *_TEXTS, *(f"{text}.gz" for text in _TEXTS))
"""Ends of the names of files that are read: `datasets` would open archives too, and whatever lies in them."""


@dataclass(frozen=True)
class Rows:
    """One split of one config of a repository.

    `frame`: its rows in the files' order; `class_names`: by column, the names of its class labels (alone or in lists),
    whose numbers the frame has; `source`: repository, config, rows, revision (the commit; "local" of a folder) and
    sha256 (of the one file read; of lines as `sha256sum` prints them where there are several).
    """

    frame: pl.DataFrame
    class_names: dict[str, tuple[str, ...]]
    source: dict[str, str]


@dataclass(frozen=True)
class _Copy:
    """A repository as a folder for `datasets` to look at.

    `listing`: git's id (where it is known) of every file by its path. Of a hub repository the folder holds the
    description and empty stand-ins for all other files, which come to lie in `snapshot` when they are needed.
    """

    repository: str
    revision: str
    folder: Path
    listing: Mapping[str, str | None]
    snapshot: Path | None = None

    @property
    def name(self) -> str:
        return f"data set {self.repository}"

    @property
    def has_script(self) -> bool:
        """Whether it has a loading script, on which `datasets` refuses to read anything else of it."""
        return f"{self.folder.name}.py" in self.listing

    def path(self, name: str) -> Path:
        """Where a file itself is, downloaded and checked if it comes from the hub."""
        if self.snapshot is None:
            return self.folder / name
        from xlift.download import checked, explained

        with explained("data set", self.repository, self.revision, _SETTINGS):
            return checked("dataset", self.repository, self.snapshot, name, self.listing[name])


def read_split(repository: str, config: str, rows: str, revision: str | None, root: Path | None) -> Rows:
    """Read split `rows` of a repository's config from `root/<org>/<name>`, or from the hub where `root` is None.

    `revision`: commit, tag or branch on the hub (None: its main branch, or the hub's own parquet copy where that has
    only a loading script). UserError for an unknown repository, revision, config or split (naming those there are), one
    that is gated or private, no network and nothing cached, files that cannot be read, and a split without rows.
    """
    copy = _stand_in(repository, revision) if root is None else _local(repository, root)
    if copy.has_script and root is None and revision is None:
        copy = _stand_in(repository, CONVERTED)
    with tempfile.TemporaryDirectory(dir=_scratch().name) as cache:
        builder = _builder(copy, config, Path(cache))
        files = _files(copy, builder, config, rows)
        paths = [copy.path(name) for name in files]
        frame, features = _frame(copy, builder, rows, paths)
        sums = [sha256_of(path) for path in paths]
    if frame.is_empty():
        raise UserError(f"{copy.name}, {config}: its split {rows!r} has no rows; use another revision or split")
    lines = "".join(f"{digest}  {name}\n" for digest, name in zip(sums, files, strict=True))
    source = {
        "repository": repository,
        "config": config,
        "rows": rows,
        "revision": copy.revision,
        "sha256": sums[0] if len(sums) == 1 else hashlib.sha256(lines.encode()).hexdigest(),
    }
    return Rows(frame, _class_names(features), source)


def _local(repository: str, root: Path) -> _Copy:
    folder = (root / repository).resolve()
    if not folder.is_dir():
        near = _near(repository, [f"{path.parent.name}/{path.name}" for path in sorted(root.glob("*/*"))])
        raise UserError(
            f"data set {repository}: there is no folder {root / repository}{near}: put the repository there, or remove"
            " `data.root` to read the hub"
        )
    files = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file())
    listing = dict.fromkeys(path.as_posix() for path in files)
    return _Copy(repository, LOCAL, folder, listing)


@cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    """This process's temporary folder; it goes when the process ends."""
    return tempfile.TemporaryDirectory(prefix="xlift-hub-")


_STAND_INS: dict[tuple[str, str], Path] = {}


def _stand_in(repository: str, revision: str | None) -> _Copy:
    """A hub repository as a folder of its description and of empty files, made once for each commit."""
    from xlift.download import checked, explained, fetch

    with explained("data set", repository, revision, _SETTINGS):
        snapshot, listing = fetch("dataset", repository, revision, _DESCRIBING)
        if (repository, snapshot.name) not in _STAND_INS:
            folder = Path(tempfile.mkdtemp(dir=_scratch().name), repository)
            folder.mkdir(parents=True)
            for name, git_id in listing.items():
                stand_in = folder / name
                stand_in.parent.mkdir(parents=True, exist_ok=True)
                if name in _DESCRIBING:
                    stand_in.symlink_to(checked("dataset", repository, snapshot, name, git_id).resolve())
                else:
                    stand_in.touch()
            _STAND_INS[repository, snapshot.name] = folder
    return _Copy(repository, snapshot.name, _STAND_INS[repository, snapshot.name], listing, snapshot)


def _builder(copy: _Copy, config: str, cache: Path) -> DatasetBuilder:
    """What `datasets` reads a config with."""
    if copy.has_script:
        raise UserError(
            f"{copy.name}: has a loading script at this revision, which is never run; use the revision {CONVERTED}"
        )
    folders = sorted({name.split("/")[0] for name in copy.listing if "/" in name and name[0] != "."})
    try:
        names, module = _module(copy, None)
        if names == ["default"] and config in folders:  # as in the hub's parquet copies
            return _built(_module(copy, config)[1], None, cache)
        if config in names:
            return _built(module, config, cache)
    except Exception as error:  # of `datasets`, whose errors for this have no class in common
        raise UserError(
            f"{copy.name}: no data files can be made out in it ({_first_line(error)}); check the task's repository and"
            " revision"
        ) from error
    known = folders if names == ["default"] and folders else names
    raise UserError(f"{copy.name}: has no config {config!r}{_near(config, known)}; its configs are {_listed(known)}")


_MODULES: dict[tuple[str, str | None, str], DatasetModule] = {}


def _module(copy: _Copy, data_dir: str | None) -> tuple[list[str], DatasetModule]:
    """Configs of a repository, and what `datasets` knows of all of them; found once, since large cards take a second.

    `data_dir`: its only folder to look at; None: all of it, as its card says.
    """
    from datasets.load import dataset_module_factory, get_dataset_builder_class
    from datasets.utils.logging import ERROR, set_verbosity

    set_verbosity(ERROR)
    cards = [(copy.folder / name).read_text(encoding="utf-8") for name in _DESCRIBING if (copy.folder / name).is_file()]
    key = str(copy.folder), data_dir, fingerprint([sorted(copy.listing), cards])
    if key not in _MODULES:
        _MODULES[key] = dataset_module_factory(str(copy.folder), data_dir=data_dir)
    found = _MODULES[key]
    return list(get_dataset_builder_class(found).builder_configs) or ["default"], found


def _built(module: DatasetModule, config: str | None, cache: Path) -> DatasetBuilder:
    """The builder of one config (None: the only one), as `datasets.load_dataset_builder` makes it."""
    from datasets.load import get_dataset_builder_class

    options = dict(module.builder_kwargs)
    name = options.pop("dataset_name")
    parameters = module.builder_configs_parameters
    config = config or parameters.default_config_name
    info = None if options.get("data_files") else (module.dataset_infos or {}).get(config)
    kind = get_dataset_builder_class(module, dataset_name=name)
    return kind(
        cache_dir=str(cache), dataset_name=name, config_name=config, hash=module.hash, info=deepcopy(info), **options
    )


def _files(copy: _Copy, builder: DatasetBuilder, config: str, rows: str) -> list[str]:
    """Paths in the repository of the files that a split is made of, in order."""
    splits = builder.config.data_files or {}
    if rows not in splits:
        known = sorted(str(name) for name in splits)
        raise UserError(
            f"{copy.name}, {config}: has no split {rows!r}{_near(rows, known)}; its splits are {_listed(known)}"
        )
    return [_own_file(copy, str(path)) for path in splits[rows]]


def _own_file(copy: _Copy, path: str) -> str:
    """Path in the repository of a file that its card names; refused outside of it, and where it is no plain data."""
    try:
        name = Path(os.path.normpath(path)).relative_to(copy.folder.resolve()).as_posix()
    except ValueError:
        raise UserError(
            f"{copy.name}: its card names data outside the repository ({path!r}), which is never read; correct it"
        ) from None
    if not name.endswith(_PLAIN):
        raise UserError(
            f"{copy.name}: {name} is none of the kinds of file that are read ({', '.join(_PLAIN)}); use the revision "
            f"{CONVERTED}, or unpack it"
        )
    return name


def _frame(
    copy: _Copy, builder: DatasetBuilder, rows: str, paths: Sequence[Path]
) -> tuple[pl.DataFrame, Features | None]:
    """The rows of files, in order, and what their columns are."""
    import pyarrow as pa
    from datasets.data_files import DataFilesDict, DataFilesList

    files = [str(path) for path in paths]
    builder.config = shallow_copy(builder.config)  # the original belongs to what `_module` keeps
    builder.config.data_files = DataFilesDict({rows: DataFilesList(files, [(path,) for path in files])})
    try:
        stream = builder.as_streaming_dataset(split=rows)
        tables = [batch for batch in stream.with_format("arrow").iter(batch_size=_BATCH_ROWS) if batch.num_rows]
        found = pl.from_arrow(pa.concat_tables(tables)) if tables else pl.DataFrame()
    except Exception as error:  # of `datasets` or of the format's reader, with no class in common
        names = ", ".join(path.name for path in paths)
        raise UserError(
            f"{copy.name}: {names} of split {rows!r} cannot be read ({_first_line(error)}); put a whole copy there, or"
            " use another revision"
        ) from error
    assert isinstance(found, pl.DataFrame)
    return found, stream.features or builder.info.features


def _class_names(features: Mapping[str, Any] | None) -> dict[str, tuple[str, ...]]:
    """Names of class labels by column."""
    found = {}
    for column, feature in (features or {}).items():
        inner = getattr(feature, "feature", feature)  # of a list, what it is a list of
        if names := getattr(inner, "names", None):
            found[column] = tuple(names)
    return found


def _near(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f" (is {near[0]!r} meant?)" if near else ""


def _listed(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _first_line(error: Exception) -> str:
    """An error's class and the first line of its message, without a path of ours at its end."""
    text = str(error.__cause__ or error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0][:200]}" if text else type(error).__name__
