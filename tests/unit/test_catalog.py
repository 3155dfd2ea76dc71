"""The catalog against the protocol's tables, and its parts against one another."""

from __future__ import annotations

import csv
import importlib.metadata
import math
import re
from pathlib import Path

import pytest

from xlift.catalog import CATALOG, names, task_of
from xlift.catalog.pins import PINS, at_revisions
from xlift.catalog.recipes import recipe
from xlift.catalog.task import READER_VERSIONS, SOURCE_PACKAGES, Slice, Task
from xlift.metrics import METRICS
from xlift.runs import shares_data
from xlift.sources.readers import FOLDER_READERS, READERS

REAL = {name: task for name, task in CATALOG.items() if task.slices}

# Family, hub ids or folders, epochs, examples, batch, length, stride: the protocol's tables.
INTERMEDIATE = {
    "mnli": ("classification", {"nyu-mll/glue"}, 2, 392_702, 256),
    "anli_plus": ("classification", {"facebook/anli", "nyu-mll/glue", "stanfordnlp/snli"}, 2, 1_104_934, 256),
    "qqp": ("classification", {"nyu-mll/glue"}, 3, 363_846, 256),
    "squad_v1": ("span", {"rajpurkar/squad"}, 3, 87_599, 384),
    "squad_v2": ("span", {"rajpurkar/squad_v2"}, 3, 130_319, 384),
    "hellaswag": ("multiple_choice", {"Rowan/hellaswag"}, 7, 39_905, 256),
    "ccg": ("tagging", {"ccg"}, 15, 38_015, 256),
    "cosmos_qa": ("multiple_choice", {"allenai/cosmos_qa"}, 15, 25_262, 256),
    "commonsense_qa": ("multiple_choice", {"tau/commonsense_qa"}, 10, 9_741, 256),
}
TARGETS = {
    "xnli": ("accuracy", "ar bg de el en es fr hi ru sw th tr ur vi zh"),
    "xcopa": ("accuracy", "et ht id it qu sw ta th tr vi zh"),
    "udpos": (
        "token_accuracy xtreme_f1",
        "af ar bg de el en es et eu fa fi fr he hi hu id it ja kk ko lt mr nl pl pt ro ru ta te th tl tr uk ur vi wo "
        "yo zh",
    ),
    "panx": (
        "span_f1 token_accuracy",
        "af ar az bg bn de el en es et eu fa fi fr gu he hi hu id it ja jv ka kk ko lt ml mr ms my nl pa pl pt qu ro "
        "ru sw ta te th tl tr uk ur vi yo zh",
    ),
    "xquad": ("squad_f1 squad_em", "ar de el en es hi ro ru th tr vi zh"),
    "mlqa": ("mlqa_f1 mlqa_em", "ar de en es hi vi zh"),
    "tydiqa": ("squad_f1 squad_em", "ar bn en fi id ko ru sw te"),
    "tatoeba_direct": (
        "accuracy_at_1 accuracy_at_1_common",
        "af ar az bg bn de el es et eu fa fi fr he hi hu id it ja jv ka kk ko lt ml mr nl pl pt ro ru sw ta te th tl "
        "tr uk ur vi zh",
    ),
    "lareqa": ("map_at_20", "ar de el en es hi ru th tr vi zh"),
    "mewslix": ("map_at_20", "ar de en es fa ja pl ro ta tr uk"),
    "pawsx": ("accuracy", "de en es fr ja ko zh"),
    "bucc2018": ("bitext_f1", "de fr ru zh"),
}
TARGETS["tatoeba_squad"] = TARGETS["tatoeba_direct"]
# Epochs, examples, batch, base and large rate, length, stride, warm-up: the reference scripts.
RECIPES = {
    "xnli": (5, 392_702, 32, 2e-5, 3e-5, 128, 0, 0.0),
    "xcopa": (5, 400, 32, 2e-5, 3e-5, 128, 0, 0.0),
    "social_iqa": (5, 33_410, 32, 2e-5, 3e-5, 128, 0, 0.0),
    "udpos": (10, 21_253, 32, 2e-5, 2e-5, 128, 32, 0.0),
    "panx": (10, 20_000, 32, 2e-5, 2e-5, 128, 32, 0.0),
    "xquad": (3, 87_599, 32, 3e-5, 3e-5, 384, 128, 0.0609),
    "squad": (3, 87_599, 32, 3e-5, 3e-5, 384, 128, 0.0609),
    "mlqa": (3, 87_599, 32, 3e-5, 3e-5, 384, 128, 0.0609),
    "tydiqa": (3, 3_696, 32, 3e-5, 3e-5, 384, 128, None),
    "lareqa": (3, 87_599, 16, 2e-5, 2e-5, 96, 0, 0.0),
    "mewslix": (2, 167_719, 64, 2e-5, 1e-5, 64, 0, 0.0),
    "pawsx": (5, 49_401, 32, 2e-5, 2e-5, 128, 0, 0.0),
}


def test_every_task_of_the_protocol_is_there():
    assert set(REAL) == {*INTERMEDIATE, *TARGETS, "social_iqa", "copa", "squad"}
    assert set(names("intermediate")) & set(REAL) == set(INTERMEDIATE)
    assert set(names("target")) & set(REAL) == set(TARGETS)
    assert names("stage") == ["copa", "social_iqa", "squad"]


@pytest.mark.parametrize("name", sorted(INTERMEDIATE))
def test_intermediate_tasks(name):
    family, sources, epochs, examples, length = INTERMEDIATE[name]
    task = CATALOG[name]
    assert task.recipe is not None
    assert (task.family, {part.repository for part in task.slices}) == (family, sources)
    assert (task.recipe.steps, task.recipe.batch_size) == (math.ceil(epochs * examples / 32), 32)
    assert (task.recipe.max_length, task.languages) == (length, ("en",))
    assert task.train_examples == (None if name == "ccg" else examples)
    assert (task.recipe.rate("full", "large"), task.recipe.rate("full", "base")) == (1e-5, 2e-5)
    assert {part.split for part in task.slices} == {"train", "dev"}


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_target_tasks(name):
    metrics, languages = TARGETS[name]
    assert CATALOG[name].metrics == tuple(metrics.split())
    assert CATALOG[name].languages == tuple(sorted(languages.split()))


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_target_recipes(name):
    epochs, examples, batch, base, large, length, stride, warmup = RECIPES[name]
    task = CATALOG[name]
    assert task.recipe is not None
    assert (task.train_examples, task.recipe.steps) == (examples, math.ceil(epochs * examples / batch))
    found = (task.recipe.batch_size, task.recipe.rate("full", "base"), task.recipe.rate("full", "large"))
    assert found == (batch, base, large)
    assert (task.recipe.max_length, task.recipe.stride, task.recipe.warmup) == (length, stride, warmup)


@pytest.mark.parametrize("task", REAL.values(), ids=lambda task: task.name)
def test_a_task_holds_together(task: Task):
    splits = {part.split for part in task.slices}
    assert {part.reader for part in task.slices} <= {*READERS, *FOLDER_READERS}
    assert all((part.reader in FOLDER_READERS) == part.in_folder for part in task.slices)
    assert task.direct == ("train" not in splits)
    assert task.trained == ("train" in splits or bool(task.stages))
    # Every other family's predictions come out of a head, which has to be trained.
    assert task.family == "retrieval" or not task.direct
    scored = {code for part in task.slices if part.split == "test" for code in part.configs}
    assert scored == (set(task.languages) if "target" in task.roles else set())
    for part in task.slices:
        assert set(part.configs) == {"en"} or part.split != "train"
        assert set(part.configs) <= {*task.languages, "en"}
    assert task.source in READER_VERSIONS
    assert task.licence
    assert task.provenance
    assert task.summary
    assert bool(task.labels) == (task.family in ("classification", "tagging"))
    assert bool(task.choices) == (task.family == "multiple_choice")
    assert len(set(task.labels)) == len(task.labels)
    assert all(stage in CATALOG and "stage" in CATALOG[stage].roles for stage in task.stages)


def test_tatoeba_after_squad_is_the_direct_search_after_xquads_training():
    """XTREME-R's protocol: no dual encoder, no recipe of its own."""
    direct, after, squad, xquad = (CATALOG[name] for name in ("tatoeba_direct", "tatoeba_squad", "squad", "xquad"))
    for field in ("family", "languages", "metrics", "slices", "max_length", "cross_lingual_only", "test_examples"):
        assert getattr(after, field) == getattr(direct, field)
    assert (direct.stages, after.stages, after.recipe) == ((), ("squad",), None)
    assert (direct.trained, after.trained, direct.direct, after.direct) == (False, True, True, True)
    assert (squad.family, squad.metrics, squad.recipe) == ("span", xquad.metrics, xquad.recipe)
    assert squad.slices == tuple(part for part in xquad.slices if part.split in ("train", "dev"))
    assert squad.trained_on == after.trained_on == {"squad_v1"}


@pytest.mark.parametrize("task", CATALOG.values(), ids=lambda task: task.name)
def test_every_metric_can_be_computed(task: Task):
    assert set(task.metrics) <= set(METRICS)


def test_every_language_has_a_resource_level():
    with Path(__file__).parents[2].joinpath("config/languages.csv").open(encoding="utf-8") as table:
        known = {row["iso2"] for row in csv.DictReader(table)}
    assert {code for task in CATALOG.values() for code in task.languages} <= known


def test_revisions_are_commits_or_the_converted_branch():
    found: dict[str, set[str | None]] = {}
    for task in REAL.values():
        for part in task.slices:
            found.setdefault(part.repository, set()).add(part.revision)
    folders = {name: {None} for name in ("bucc2018", "ccg", "lareqa", "mewslix")}
    converted = ("allenai/cosmos_qa", "allenai/social_i_qa", "aps/super_glue", "facebook/mlqa", "izhx/xtreme-r-udpos")
    assert {name: revisions for name, revisions in found.items() if name not in PINS} == {
        **folders,
        **{name: {"refs/convert/parquet"} for name in converted},
    }
    assert {name: found[name] for name in PINS} == {name: {pin.revision} for name, pin in PINS.items()}
    for pin in PINS.values():
        assert re.fullmatch("[0-9a-f]{40}", pin.revision)
        assert re.fullmatch(r"[\w.-]+/[\w.-]+: [\w./-]+", pin.read_in)
    assert PINS["mteb/tatoeba-bitext-mining"].revision.startswith("69e8f12")  # as in every result of MTEB


def test_provenance_says_where_commits_are_from_and_what_has_none():
    assert CATALOG["udpos"].provenance.endswith(
        " Pinned to a commit that public code reads: google/xtreme (webmasterscity/leobot2026: "
        "experiments/f18_pawsx_inventory.py). Not pinned: izhx/xtreme-r-udpos (refs/convert/parquet); the manifest "
        "of prepared data has the commit that was read."
    )
    assert CATALOG["copa"].provenance.endswith(
        "Not pinned: aps/super_glue (refs/convert/parquet); the manifest of prepared data has the commit that was read."
    )
    for task in REAL.values():
        read = {part.repository for part in task.slices if not part.in_folder}
        assert all(f" {repository} (" in task.provenance for repository in read)
    assert all(" pinned" not in CATALOG[name].provenance.lower() for name in ("ccg", "mewslix", "bucc2018"))


def test_other_revisions_of_some_repositories():
    xnli = CATALOG["xnli"]
    changed = at_revisions(xnli, {"facebook/xnli": "other", "google/xquad": "main"})
    found = {part.repository: part.revision for part in changed.slices}
    assert found == {"facebook/xnli": "other", "nyu-mll/glue": PINS["nyu-mll/glue"].revision}
    assert at_revisions(xnli, {"google/xquad": "main"}) is xnli
    specification = {"task": "xnli", "revisions": {"facebook/xnli": "other"}}
    assert task_of(specification) == changed


def test_sources_are_pinned_by_a_package_that_is_there():
    assert set(SOURCE_PACKAGES) <= set(READER_VERSIONS)
    assert all(importlib.metadata.version(package) for package in SOURCE_PACKAGES.values())


SHARING = {
    "xnli": {"mnli", "anli_plus"},
    "xquad": {"squad_v1", "squad_v2"},
    "mlqa": {"squad_v1", "squad_v2"},
    "lareqa": {"squad_v1", "squad_v2"},
    "tatoeba_squad": {"squad_v1", "squad_v2"},
    "xcopa": {"social_iqa", "copa"},
}


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_shared_training_data(target):
    found = {name for name in (*INTERMEDIATE, "social_iqa", "copa") if shares_data(CATALOG, name, target)}
    assert found == SHARING.get(target, set())


def test_rates_of_large_encoders_are_given_where_they_differ():
    different = recipe(2, 100, 2e-5, 1e-5, 64)
    assert different.steps == 7  # 200 examples in batches of 32
    assert different.learning_rate == {"full": 2e-5, "lora": 2e-4, "full.large": 1e-5, "lora.large": 1e-4}
    alike = recipe(2, 100, 2e-5, 2e-5, 64, batch_size=50)
    assert (alike.steps, dict(alike.learning_rate)) == (4, {"full": 2e-5, "lora": 2e-4})
    assert alike.rate("lora", "large") == 2e-4


def parts(*split_codes: tuple[str, str]) -> Task:
    slices = tuple(
        Slice(split, f"some/{n}", {code: code for code in codes.split()}, "x", "nli")  # type: ignore[arg-type]
        for n, (split, codes) in enumerate(split_codes)
    )
    return Task("made", "classification", "hub", ("target",), ("de", "en", "fr"), ("accuracy",), slices=slices)


def test_which_slices_a_study_reads():
    task = parts(("train", "en"), ("dev", "en"), ("test", "de en fr"), ("validation", "de en"))
    read = [(split, codes, part.repository) for part, split, codes in task.read(["de", "en"])]
    assert read == [("train", ("en",), "some/0"), ("dev", ("en",), "some/1"), ("test", ("de", "en"), "some/2")]
    # A language without validation rows keeps its test rows.
    on_validation = [(s, codes, part.repository) for part, s, codes in task.read(["de", "en", "fr"], "validation")]
    assert on_validation[2:] == [("test", ("fr",), "some/2"), ("test", ("de", "en"), "some/3")]
    assert [split for _, split, _ in task.read(["de"])] == ["train", "dev", "test"]
    every = parts(("dev", "de fr"), ("test", "de fr"))
    assert [codes for _, _, codes in every.read(["de"])] == [("de",), ("de",)]


def test_folders_a_study_has_to_give():
    assert {name: task.folders for name, task in CATALOG.items() if task.folders} == {
        name: (name,) for name in ("bucc2018", "ccg", "lareqa", "mewslix")
    }
