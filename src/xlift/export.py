"""Predictions and labels as the files that XTREME's public evaluation reads, so that anyone can score them again.

The layout is that of google-research/xtreme, `evaluate.py` and `mock_test_data` at commit da430dd0, which evaluates
XTREME and XTREME-R: `predictions/<task>/test-<language>.tsv`, `.json` or `.jsonl`, and `labels/` likewise.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import polars as pl

from xlift.artifacts import VOUCHING, holds, publish_folder, sha256_of
from xlift.errors import UserError
from xlift.grid import Grid
from xlift.jobs.prepare import checked_examples
from xlift.metrics import score_predictions
from xlift.runs import Cell
from xlift.tables import read_table

Files = tuple[str, str]
"""One language's predictions and labels, as text."""
Pools = Mapping[str, Mapping[str, int]]
"""By pool, each document's place in it."""
_SIDES = ("prediction", "gold")


def _labels(rows: pl.DataFrame, pools: Pools) -> Files:
    """One label a line."""
    return _lines(row[0] for row in rows["prediction"]), _lines(row[0] for row in rows["gold"])


def _choices(rows: pl.DataFrame, pools: Pools) -> Files:
    """A JSON object a line, with the number of the choice from 0."""
    predictions, golds = (_lines(json.dumps({"label": int(row[0])}) for row in rows[side]) for side in _SIDES)
    return predictions, golds


def _tags(rows: pl.DataFrame, pools: Pools) -> Files:
    """One tag a line, an empty line between sentences."""
    sides = ("\n\n".join("\n".join(tags) for tags in rows[side]) + "\n" for side in ("prediction", "gold"))
    predictions, golds = sides
    return predictions, golds


def _answers(rows: pl.DataFrame, pools: Pools) -> Files:
    """A JSON object from id to answer; and the questions with all right answers as SQuAD 1.1 has them."""
    predictions = {row["id"]: row["prediction"][0] for row in rows.iter_rows(named=True)}
    paragraphs = [
        {"context": context, "qas": [_question(row) for row in group]}
        for context, group in groupby(rows.iter_rows(named=True), key=lambda row: row["context"])
    ]
    labels = {"version": "1.1", "data": [{"title": "", "paragraphs": paragraphs}]}
    return _json(predictions), _json(labels)


def _question(row: Mapping[str, Any]) -> dict[str, Any]:
    answers = [
        {"text": text, "answer_start": start} for text, start in zip(row["gold"], row["answer_starts"], strict=True)
    ]
    return {"id": row["id"], "question": row["question"], "answers": answers}


def _places(rows: pl.DataFrame, pools: Pools) -> Files:
    """For each query the best document's place in its pool, from 0, one a line."""
    _check_single(rows)
    found = ([pools[pool][row[0]] for pool, row in rows.select("pool", side).iter_rows()] for side in _SIDES)
    predictions, golds = (_lines(map(str, places)) for places in found)
    return predictions, golds


def _rankings(rows: pl.DataFrame, pools: Pools) -> Files:
    """JSON objects from id to the best documents, and to a list of the right one."""
    _check_single(rows)
    predictions, golds = (_json(dict(rows.select("id", side).iter_rows())) for side in _SIDES)
    return predictions, golds


def _check_single(rows: pl.DataFrame) -> None:
    if rows["gold"].list.len().ne(1).any():
        raise UserError("a query has several right documents, and XTREME's layout has one of each: score it with xlift")


def _pairs(rows: pl.DataFrame, pools: Pools) -> Files:
    """The ids of each pair, with a tab between, one pair a line."""
    predictions, golds = (
        _lines(
            f"{query}\t{document}" for query, documents in rows.select("id", side).iter_rows() for document in documents
        )
        for side in _SIDES
    )
    return predictions, golds


@dataclass(frozen=True)
class Layout:
    """How a target is laid out: XTREME's name of the task, the ending of its files, what makes a language's two files,
    and xlift's metrics that its evaluator prints; `apart`: a folder of its own, where it cannot lie beside others."""

    task: str
    ending: str
    files: Callable[[pl.DataFrame, Pools], Files]
    metrics: tuple[str, ...]
    apart: str = ""


LAYOUTS: Mapping[str, Layout] = {
    "bucc2018": Layout("bucc2018", "tsv", _pairs, ("bitext_f1",)),
    # The evaluator has no overall number for mewslix, and stops where it wants one for it and tatoeba.
    "mewslix": Layout("mewslix", "json", _rankings, ("map_at_20",), apart="mewslix"),
    "mlqa": Layout("mlqa", "json", _answers, ("mlqa_f1", "mlqa_em")),
    "panx": Layout("panx", "tsv", _tags, ("span_f1",)),
    "pawsx": Layout("pawsx", "tsv", _labels, ("accuracy",)),
    "tatoeba_direct": Layout("tatoeba", "tsv", _places, ("accuracy_at_1",)),
    "tatoeba_squad": Layout("tatoeba", "tsv", _places, ("accuracy_at_1",), apart="tatoeba_squad"),
    "tydiqa": Layout("tydiqa", "json", _answers, ("squad_f1", "squad_em")),
    "udpos": Layout("udpos", "tsv", _tags, ("xtreme_f1",)),
    "xcopa": Layout("xcopa", "jsonl", _choices, ("accuracy",)),
    "xnli": Layout("xnli", "tsv", _labels, ("accuracy",)),
    "xquad": Layout("xquad", "json", _answers, ("squad_f1", "squad_em")),
}


EXPORT_ENTRIES = {
    "cell": "The cell, as under predictions/.",
    "study": "Name of the study.",
    "predictions_sha256": "sha256 of the predictions file that it was made from.",
    "side": "`predictions` or `labels`.",
    "scores": "xlift's own scores in points by metric and language.",
    **VOUCHING,
}
"""manifest.json of an exported task."""


def layout_of(target: str) -> Layout:
    """A target's layout; UserError where XTREME's evaluation has none."""
    if target not in LAYOUTS:
        raise UserError(
            f"{target}: XTREME's public evaluation has no layout for it; it can be exported for {', '.join(LAYOUTS)}"
        )
    return LAYOUTS[target]


def export_cells(grid: Grid, wanted: str, results: Path) -> list[Path]:
    """Export the cell `<target>/<inter>/<budget>/seed<k>`, or all cells of `<target>`; returns their folders.

    `results`: the study's. Predictions and labels go to `export/<inter>/<budget>/seed<k>/`, where all targets of one
    intermediate run lie together as one submission. UserError for a cell that is not in the grid, a target without a
    layout, and predictions that are missing or were made with other settings; nothing is exported then.
    """
    cells = cells_of(grid, wanted)
    target = cells[0].target
    layout = layout_of(target)
    tables = [(cell, _predictions(grid, cell, results)) for cell in cells]
    examples = pl.read_parquet(checked_examples(results / "data" / f"{target}.parquet"))
    folders = []
    for cell, (path, predictions) in tables:
        run = cell.wildcards
        folder = results / "export" / run["inter"] / run["budget"] / f"seed{run['seed']}" / layout.apart
        facts = {"cell": path_of(cell), "study": grid.study.study, "predictions_sha256": sha256_of(path)}
        export_predictions(layout, predictions, examples, folder, facts)
        folders.append(folder)
    return folders


def cells_of(grid: Grid, wanted: str | None) -> list[Cell]:
    """The cell `<target>/<inter>/<budget>/seed<k>`, all cells of `<target>`, or all (None); UserError for any other."""
    if wanted is None:
        return grid.cells
    target = wanted.partition("/")[0]
    cells = [cell for cell in grid.cells if cell.target == target]
    if not cells:
        raise UserError(
            f"{target}: is no target of this study; its targets are {', '.join(sorted(grid.study.targets))}"
        )
    if "/" in wanted:
        cells = [cell for cell in cells if path_of(cell) == wanted.strip("/")]
    if not cells:
        raise UserError(
            f"{wanted}: is no cell of this study; give <target>/<inter>/<budget>/seed<k> as under results/"
            f"{grid.study.study}/predictions, or {target} alone for all its cells"
        )
    return cells


def path_of(cell: Cell) -> str:
    """A cell as its paths name it."""
    return "{target}/{inter}/{budget}/seed{seed}".format(**cell.wildcards)


def _predictions(grid: Grid, cell: Cell, results: Path) -> tuple[Path, pl.DataFrame]:
    path = results / "predictions" / f"{path_of(cell)}.parquet"
    if not path.exists():
        raise UserError(f"{path}: is not there yet; run the workflow first")
    if not holds(path, grid.stamp("predict", cell).fingerprint):
        raise UserError(
            f"{path}: was made with other settings than this study's, or is damaged; run the workflow again"
        )
    return path, read_table(path)


def export_predictions(
    layout: Layout, predictions: pl.DataFrame, examples: pl.DataFrame, folder: Path, facts: Mapping[str, Any]
) -> None:
    """Write `predictions/<task>/` and `labels/<task>/` in `folder`, one file a language, with manifests.

    `predictions` (language, id, prediction, gold) and `examples` are a cell's artifacts. Rows follow the data's order.
    The manifests have `facts` and xlift's own scores by metric and language, for comparison. UserError where
    predictions and examples are not of the same rows.
    """
    rows = _in_order(predictions, examples)
    pools = _pools(examples) if "pool" in rows.columns else {}
    files = {
        str(language): layout.files(group, pools)
        for (language,), group in rows.group_by("language", maintain_order=True)
    }
    tables = {metric: score_predictions(predictions, metric) for metric in layout.metrics}
    scores = {metric: dict(table.select("language", "score").iter_rows()) for metric, table in tables.items()}
    for place, side in enumerate(("predictions", "labels")):
        texts = {f"test-{language}.{layout.ending}": both[place] for language, both in sorted(files.items())}
        _publish(folder / side / layout.task, texts, {**facts, "side": side, "scores": scores})


def _in_order(predictions: pl.DataFrame, examples: pl.DataFrame) -> pl.DataFrame:
    """Predictions beside their examples, in the order of the data set's rows."""
    scored = examples.filter(pl.col("split") == "test")
    if "role" in scored.columns:
        scored = scored.filter(pl.col("role") == "query")
    keys = ["language", "id"]
    rows = scored.drop("gold", strict=False).join(
        predictions.select(*keys, *_SIDES), on=keys, how="inner", maintain_order="left", validate="1:1"
    )
    if not rows.height == scored.height == predictions.height:
        raise UserError(
            f"{predictions.height} predictions and {scored.height} examples of which {rows.height} are the same: the"
            " data was prepared anew; run the workflow again"
        )
    return rows


def _pools(examples: pl.DataFrame) -> Pools:
    """By pool of the test split, each document's place in it, in the order of the data set's rows."""
    documents = examples.filter((pl.col("split") == "test") & (pl.col("role") == "document"))
    found: dict[str, dict[str, int]] = {}
    for pool, identifier in documents.select("pool", "id").iter_rows():
        places = found.setdefault(pool, {})
        places[identifier] = len(places)
    return found


def _publish(folder: Path, texts: Mapping[str, str], facts: Mapping[str, Any]) -> None:
    """Publish files in a folder and remove those of an earlier export that are not among them."""

    def write(staging: Path) -> None:
        for name, text in texts.items():
            (staging / name).write_text(text, encoding="utf-8")

    if folder.is_dir():
        for old in sorted(folder.glob("test-*")):
            if old.name not in texts:
                old.unlink()
    publish_folder(folder, write, facts)


def _lines(values: Iterator[str] | Sequence[str]) -> str:
    return "".join(f"{value}\n" for value in values)


def _json(value: Any) -> str:
    return json.dumps(value, indent=1) + "\n"  # ASCII: the evaluator reads files in the locale's encoding
