"""docs/artifacts.md: every file of a study's results, and what its columns or entries mean."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from xlift.analysis import PLAN_ENTRIES
from xlift.catalog import CATALOG
from xlift.columns import Column
from xlift.contrasts.gains import FERTILITY, GAINS, SCORES
from xlift.contrasts.power import POWERS
from xlift.contrasts.rows import CONTRASTS
from xlift.export import EXPORT_ENTRIES
from xlift.jobs.prepare import DATA_ENTRIES, ENCODED_ENTRIES, ENCODER_ENTRIES
from xlift.jobs.score import RUNS
from xlift.tasks.families import FAMILIES
from xlift.tasks.family import COMMON, PREDICTIONS, Family
from xlift.training.loop import LOG_ENTRIES
from xlift.training.run import MANIFEST_ENTRIES

RUN = "<inter>/<budget>/seed<k>"


@dataclass(frozen=True)
class File:
    """A kind of file under `results/<study>/`; `section`: the heading that describes it, if one does."""

    path: str
    what: str
    section: str = ""


FILES = (
    File("report/index.html", "The page: one file, no network."),
    File("report/figures/<figure>.svg", "The page's figures, in print's colours; each as .png too."),
    File("report/figures/<figure>.png", "The same."),
    File("report/figures/<figure>.vl.json", "The same as a Vega-Lite spec."),
    File("report/tables/<table>.csv", "The page's tables, all digits."),
    File("report/tables/<table>.parquet", "The same."),
    File("scores.parquet", "Scores of all cells.", "scores.parquet"),
    File("gains.parquet", "Gains over the baseline.", "gains.parquet"),
    File("contrasts.parquet", "Estimates with intervals and tests.", "contrasts.parquet"),
    File("runs.parquet", "What each training run did.", "runs.parquet"),
    File("analysis_plan.json", "The analysis, fixed before the first score.", "analysis_plan.json"),
    File(f"predictions/<target>/{RUN}.parquet", "Predictions of a cell in all languages.", "Predictions"),
    File(f"scores/<target>/{RUN}.parquet", "Scores of a cell, in the columns of scores.parquet.", "scores.parquet"),
    File("data/<task>.parquet", "Prepared examples of a task.", "Prepared examples"),
    File("data/<task>.json", "Their manifest.", "data/<task>.json"),
    File("encoder/manifest.json", "Manifest of the prepared encoder.", "encoder/manifest.json"),
    File("encoder/<file>", "The encoder in the Hugging Face layout: config.json, model.safetensors, tokenizer.json."),
    File("encoder/mlm_head.safetensors", "A hub encoder's own head for masked-language modelling, where it has one."),
    File("encoded/<task>/length<n>/manifest.json", "Manifest of token ids.", "encoded/…/manifest.json"),
    File("encoded/<task>/length<n>/tokens.safetensors", "Token ids of a task's examples, as flat arrays."),
    File(f"intermediate/{RUN}/manifest.json", "What the run did, and what vouches for its files.", "manifest.json"),
    File(f"intermediate/{RUN}/weights.safetensors", "Trained weights only: the adapters, or all that was trained."),
    File(f"intermediate/{RUN}/log.jsonl", "Loss, now and then.", "log.jsonl"),
    File(f"target/<target>/{RUN}/manifest.json", "The same of a target run.", "manifest.json"),
    File(f"target/<target>/{RUN}/weights.safetensors", "The same; it holds the intermediate run's changes too."),
    File(f"target/<target>/{RUN}/log.jsonl", "The same.", "log.jsonl"),
    File(f"trunk/{RUN}/manifest.json", "The same of a trunk's segment, under `schedule: trunk`.", "manifest.json"),
    File(f"trunk/{RUN}/state.safetensors", "State at its end: weights, optimiser, random numbers."),
    File(f"trunk/{RUN}/log.jsonl", "The same.", "log.jsonl"),
    File("state/<run>/<sha256>.safetensors", "A training run in progress; removed when it is published."),
    File("available/index.html", "The page of the cells that are there (`report_available`), with its figures."),
    File("available/<file>", "The four tables that it was made of."),
    File("export/<run>/<file>", "What `xlift export` writes (docs/export.md).", "Exported manifest.json"),
    File(f"json/{RUN}/<target>.json", "What `xlift export --format json` writes of a cell (docs/results-json.md)."),
    File("power.parquet", "What `xlift power` computed; its figure is power.svg and power.png.", "power.parquet"),
    File("power.<picture>", "The figure."),
    File("logs/<job>.log", "What a job said; the last sentence says why it failed."),
    File("benchmarks/<job>.tsv", "Snakemake's measurements of a job: seconds, memory."),
)

INTRODUCTION = """# Artifacts

Every file under `results/<study>/`, and every column and entry in it. Tables are parquet, the rest is JSON and
safetensors; nothing is pickled. A file is published whole or not at all: written under another name, then renamed. A
folder with a manifest counts only with it, and each file that the manifest lists is checked by its sha256 whenever it
is read.

A cell is `<target>/<inter>/<budget>/seed<k>`. `<inter>` is the intermediate task, with `.<control>`, `.translated` or
`.mlm` behind it for such a run, and `none` for the baseline, whose `<budget>` is `x0`; other budgets are written as
`xlift plan` prints them: `x0.25` (times the reference), `e2` (epochs), `s500` (steps), `n32000` (examples), `x4-b64`
(in batches of 64). Tables carry the sha256 of their own bytes in their metadata, which is checked before they are read;
scores and predictions also the fingerprint of the settings they were made with.

*Generated by `xlift reference` from what the code writes the files by; do not edit.*
"""

READING = """## Reading a table

```python
import polars as pl

gains = pl.read_parquet("results/mini/gains.parquet")
primary = gains.filter(
    "is_primary", ~pl.col("shared_data"), pl.col("arm") == "main", pl.col("language") != "en"
)
print(primary.group_by("language", "budget").agg(pl.col("gain").mean()).sort("language", "budget"))
```

These are the rows that the primary analysis is made of. A mean like this one weighs tasks as they happen to be there:
use the rows of contrasts.parquet for what you report ([statistics.md](statistics.md)).
"""


def artifacts_text() -> str:
    """docs/artifacts.md."""
    parts = [
        *_files(),
        READING,
        *_table("scores.parquet", "A row a cell, language and metric. English is here, and in no average.", SCORES),
        *_table(
            "gains.parquet",
            "A row a row of scores.parquet with an intermediate task and a baseline at the same target, language and "
            "seed. `collapsed` is true where the run or its baseline collapsed. The columns of scores.parquet, and:",
            (*GAINS[len(SCORES) :], FERTILITY),
        ),
        *_table(
            "contrasts.parquet",
            "A row an estimand, scope, scale and method; docs/statistics.md says what each is.",
            CONTRASTS,
        ),
        *_table("runs.parquet", "A row a training run, a trunk's segments too.", RUNS),
        *_table(
            "Predictions",
            "A row a scored example, sorted by language and id. docs/predictions.md says what `prediction` and `gold` "
            "are in each family, and how they are scored. Of some tasks there is more:",
            PREDICTIONS,
            *_further(),
        ),
        *_table(
            "Prepared examples",
            "A row an example of a split and language. Every family has the first three, and its own.",
            COMMON,
            *((name, _own(family)) for name, family in FAMILIES.items()),
        ),
        *_table("power.parquet", "A row a grid that differs from the study's in one thing.", POWERS),
        *_entries("manifest.json", "Of an intermediate or target run, or a trunk's segment.", MANIFEST_ENTRIES),
        *_entries("log.jsonl", "A line each ten steps, and one for the last.", LOG_ENTRIES),
        *_entries("analysis_plan.json", "Written before the first score (docs/statistics.md).", PLAN_ENTRIES),
        *_entries("data/<task>.json", "docs/data.md says what is checked and left out.", DATA_ENTRIES),
        *_entries("encoder/manifest.json", "", ENCODER_ENTRIES),
        *_entries("encoded/…/manifest.json", "", ENCODED_ENTRIES),
        *_entries("Exported manifest.json", "One beside the files of each exported task.", EXPORT_ENTRIES),
    ]
    # Code names other pages as seen from the repository's root.
    return INTRODUCTION + "\n" + re.sub(r"docs/([\w-]+\.md)", r"[\1](\1)", "\n".join(parts))


def further_columns(family: Family) -> dict[str, pl.DataType]:
    """Columns of a family's predictions beside `PREDICTIONS`, of whichever of the catalog's tasks have them."""
    tasks = [task for task in CATALOG.values() if task.family == family.name]
    return {name: dtype for task in tasks for name, dtype in family.further_columns(task).items()}


def _further() -> Iterator[tuple[str, list[Column]]]:
    for name, family in FAMILIES.items():
        if found := further_columns(family):
            yield name, [Column(column, dtype, family.meanings[column]) for column, dtype in found.items()]


def _own(family: Family) -> list[Column]:
    columns = {**family.columns, **family.optional_columns}
    return [Column(name, dtype, family.meanings[name]) for name, dtype in columns.items()]


def _files() -> Iterator[str]:
    yield from ("## Files", "", "| file | what it is |", "| --- | --- |")
    for file in FILES:
        link = f"; [its content](#{_anchor(file.section)})" if file.section else ""
        yield f"| `{file.path}` | {file.what.removesuffix('.')}{link}. |"
    yield ""


def _anchor(heading: str) -> str:
    """The anchor that repository pages give a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _table(
    title: str, about: str, columns: Sequence[Column], *by_family: tuple[str, Sequence[Column]]
) -> Iterator[str]:
    yield from (f"## {title}", "", about, "")
    of = "| family " if by_family else ""
    yield from (f"{of}| column | type | meaning |", f"{'| --- ' if by_family else ''}| --- | --- | --- |")
    for name, own in (("every", columns), *by_family):
        for column in own:
            yield f"{f'| {name} ' if by_family else ''}| `{column.name}` | {column.dtype} | {column.meaning} |"
    yield ""


def _entries(title: str, about: str, entries: Mapping[str, str]) -> Iterator[str]:
    yield from (f"## {title}", "", *([about, ""] if about else []), "| entry | meaning |", "| --- | --- |")
    yield from (f"| `{name}` | {meaning} |" for name, meaning in entries.items())
    yield ""
