"""A cell's results as one JSON file that tools for MTEB's result files read.

The layout is that of `mteb.TaskResult` (read in embeddings-benchmark/mteb, mteb/results/task_result.py, at commit
02c088ee): `scores.<split>[]` with `hf_subset`, `languages`, `main_score` and every metric, as shares and not in points.
What MTEB has no place for stands under `xlift`. docs/results-json.md is the reference; `schema_text` the JSON Schema.
"""

from __future__ import annotations

import csv
import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from xlift.artifacts import publish_json, read_manifest, read_sealed
from xlift.errors import UserError
from xlift.export import cells_of, path_of
from xlift.grid import Grid
from xlift.jobs.cells import CellFiles
from xlift.languages import Language, load_languages
from xlift.runs import Cell

SCHEMA_VERSION = 1
"""Raise it when a field goes or means something else."""
POINTS = 100.0


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LanguageScores(BaseModel):
    """Scores in one language, as shares from 0 to 1: `main_score`, and every metric under its name."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, float] = Field(init=False)

    hf_subset: str = Field(description="The language's code in xlift (ISO 639-1).")
    languages: list[str] = Field(
        min_length=1, max_length=1, description="ISO 639-3, and the script (ISO 15924) that CLDR takes as likely."
    )
    main_score: float = Field(ge=0, le=1, description="The target's primary metric.")
    n: int = Field(ge=1, description="Number of scored examples.")


class Encoder(_Part):
    """What every run of the study starts from."""

    source: Literal["hub", "packaged"] = Field(description="Where it comes from.")
    id: str = Field(description="Repository, or the package that holds it.")
    revision: str | None = Field(description="What the study asks for (null: the main branch); the package's version.")
    sha256: str = Field(description="Of the prepared weights.")


class IntermediateFacts(_Part):
    """The intermediate training before the target: what was asked for and what was done."""

    task: str = Field(description="`none`: the baseline.")
    arm: str = Field(description="`main`, or which control or sensitivity arm.")
    budget: float = Field(description="Amount as a multiple of the task's reference; 0 of the baseline.")
    steps: int = Field(description="Realised optimiser steps.")
    examples: int = Field(description="Realised training examples, repetitions counted.")
    tokens: int = Field(description="Realised tokens without padding.")
    padded_tokens: int = Field(description="Realised tokens with padding.")
    flops: float = Field(description="Realised floating-point operations.")
    batch_size: int = Field(description="Examples a step.")


class Data(_Part):
    """The rows that were scored."""

    sha256: str = Field(description="Of the prepared examples.")
    sources: list[dict[str, str]] = Field(description="Every file that was read; none of generated data.")


class XliftFacts(_Part):
    """What xlift knows beside the scores."""

    version: str = Field(description="Version of xlift that wrote this file.")
    schema_version: Literal[1] = Field(description="Version of this layout.")
    study: str = Field(description="Name of the study.")
    cell: str = Field(description="<target>/<intermediate>/<budget>/seed<k>, as under results/<study>/predictions.")
    fingerprint: str = Field(description="sha256 of everything the scores depend on.")
    seed: int = Field(description="The cell's seed.")
    encoder: Encoder
    intermediate: IntermediateFacts
    main_metric: str = Field(description="What `main_score` is.")
    collapsed: bool = Field(description="Whether a run behind the cell learnt nothing; it is kept.")
    shared_data: bool = Field(description="Whether intermediate and target task have English training data in common.")
    data: Data


class CellResult(_Part):
    """One cell's results."""

    task_name: str = Field(description="The target task, by xlift's name.")
    dataset_revision: str = Field(description="`<repository>@<revision>` of all that was read, or package and version.")
    mteb_version: None = Field(description="Null: MTEB made no score here.")
    scores: dict[Literal["test", "validation"], list[LanguageScores]] = Field(
        min_length=1, max_length=1, description="By split, one entry a language, English included."
    )
    evaluation_time: float | None = Field(
        description="Wall-clock seconds of the prediction job, from Snakemake's benchmark; null where there is none."
    )
    kg_co2_emissions: None = Field(description="Null: not measured.")
    xlift: XliftFacts


def schema_text() -> str:
    """docs/results.schema.json."""
    return json.dumps(CellResult.model_json_schema(), indent=2, sort_keys=True) + "\n"


def write_results(grid: Grid, wanted: str | None, results: Path, languages: Path) -> list[Path]:
    """Write `json/<inter>/<budget>/seed<k>/<target>.json` in a study's `results`; returns the paths.

    Of the cell `<target>/<inter>/<budget>/seed<k>`, of all cells of `<target>`, or of all (None). UserError for a cell
    that is not in the grid and scores that are missing or of other settings; nothing is written then.
    """
    cells = cells_of(grid, wanted)
    known = load_languages(languages)
    found = [(cell, cell_result(grid, cell, results, known)) for cell in cells]
    paths = []
    for cell, result in found:
        path = results / "json" / "{inter}/{budget}/seed{seed}/{target}.json".format(**cell.wildcards)
        publish_json(path, result.model_dump())
        paths.append(path)
    return paths


def cell_result(grid: Grid, cell: Cell, results: Path, languages: Mapping[str, Language]) -> CellResult:
    """A cell's results from its artifacts; see `write_results` for the errors."""
    stamp = grid.stamp("score", cell).fingerprint
    scored = CellFiles.of(grid, cell, results)
    table = scored.current_scores(stamp)
    if table is None:
        raise UserError(
            f"{scored.scores}: is not there yet, or was made with other settings than this study's; run the workflow "
            "again"
        )
    row = table.row(0, named=True)
    prepared = results / "data" / cell.target
    data = read_sealed(prepared.with_suffix(".json"), str(prepared.with_suffix(".parquet")))
    return CellResult(
        task_name=cell.target,
        dataset_revision=dataset_revision(data),
        mteb_version=None,
        scores={grid.study.data.score_on: language_scores(table, languages)},
        evaluation_time=_seconds(results / "benchmarks" / "predict_cell" / f"{path_of(cell)}.tsv"),
        kg_co2_emissions=None,
        xlift=XliftFacts(
            version=importlib.metadata.version("xlift"),
            schema_version=SCHEMA_VERSION,
            study=grid.study.study,
            cell=path_of(cell),
            fingerprint=stamp,
            seed=cell.intermediate.seed,
            encoder=_encoder(results / "encoder"),
            intermediate=IntermediateFacts(
                task=row["intermediate"],
                **{name: row[name] for name in IntermediateFacts.model_fields if name != "task"},
            ),
            main_metric=table.filter("is_primary")["metric"][0],
            collapsed=row["collapsed"],
            shared_data=row["shared_data"],
            data=Data(sha256=data["sha256"], sources=data.get("sources", [])),
        ),
    )


def language_scores(table: pl.DataFrame, languages: Mapping[str, Language]) -> list[LanguageScores]:
    """A cell's score rows, in points, as one entry a language, in shares; sorted by language."""
    entries = []
    for (code,), rows in table.sort("language", "metric").group_by("language", maintain_order=True):
        shares = {metric: score / POINTS for metric, score in rows.select("metric", "score").iter_rows()}
        main = rows.filter("is_primary")["metric"][0]
        entries.append(
            LanguageScores(
                hf_subset=str(code),
                languages=[language_script(languages, str(code))],
                main_score=shares[main],
                n=rows["n"][0],
                **shares,
            )
        )
    return entries


def language_script(languages: Mapping[str, Language], code: str) -> str:
    """ISO 639-3 of the table of languages and the script that CLDR takes as likely, where it knows one: swa-Latn."""
    from babel.core import get_global

    if code not in languages:
        raise UserError(f"language {code}: is not in the table of languages; add a line to config/languages.csv")
    likely = get_global("likely_subtags").get(code)
    script = None if likely is None else next((part for part in likely.split("_")[1:] if len(part) == 4), None)
    return languages[code].iso3 if script is None else f"{languages[code].iso3}-{script}"


def dataset_revision(data: Mapping[str, Any]) -> str:
    """Where a manifest of prepared data says that the rows come from, in one text."""
    found = {
        f"{source['repository']}@{source['revision']}" if "repository" in source else f"{source['folder']}@local"
        for source in data.get("sources", [])
    }
    if found:
        return "; ".join(sorted(found))
    source = data["specification"]["source"]
    return "; ".join(f"{name}@{value}" for name, value in sorted(source.items()) if name not in ("source", "reader"))


def _encoder(folder: Path) -> Encoder:
    facts = read_manifest(folder)
    specification, weights = facts["specification"], facts["files"]["model.safetensors"]["sha256"]
    if specification["source"] == "packaged":
        identity = specification["package"], specification["package_version"]
    else:
        identity = specification["id"], specification["revision"]
    return Encoder(source=specification["source"], id=identity[0], revision=identity[1], sha256=weights)


def _seconds(benchmark: Path) -> float | None:
    """Wall-clock seconds that Snakemake's benchmark file has; None where there is no such file."""
    try:
        with benchmark.open(encoding="utf-8", newline="") as lines:
            return float(next(csv.DictReader(lines, delimiter="\t"))["s"])
    except FileNotFoundError:
        return None
    except (StopIteration, KeyError, ValueError):
        raise UserError(f"{benchmark}: is no benchmark file of Snakemake; delete it") from None
