"""Readers that any repository of a family's kind can be read with: what `xlift.catalog.fields` lists, by column.

Each makes examples of one language out of a repository's rows: the columns of the family, and `id`. Every row is read,
and one without a text or label is a `UserError`. Rows whose value the task's `labels` leave out say so in a column
`_dropped`, which is null elsewhere, and `_context` is the text that training and evaluation must not share: who
prepares the data leaves such rows out and counts them, and tells apart the ids of slices that make up one split.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import polars as pl

from xlift.catalog.task import Slice, Task
from xlift.errors import UserError
from xlift.sources.hub import Rows
from xlift.sources.reading import BY_TEXT, CONTEXT, DROPPED, LEFT_OUT, NOTE, NOWHERE, locate

ROW_DIGITS = 8
"""Digits of an id that is a row's number, so that ids sort as the rows do."""


class _Reading:
    """Columns of one slice and language, as the reader's fields."""

    def __init__(self, rows: Rows, part: Slice, language: str, task: Task) -> None:
        self.part, self.task, self.class_names = part, task, rows.class_names
        self.where = f"data of {task.name}: {part.repository}, {part.configs[language]}, {part.rows}"
        self.frame = rows.frame.with_row_index("row number")
        if "language" in part.columns:
            wanted = part.codes.get(language, language)
            names = rows.class_names.get(part.columns["language"], ())
            codes = pl.Series([_named(value, names) for value in self.column("language")], dtype=pl.String)
            if wanted not in codes:
                found = ", ".join(sorted(str(code) for code in codes.unique())[:8])
                raise UserError(
                    f"{self.where}: column {part.columns['language']!r} names no row {wanted!r}, only {found}; "
                    "correct `codes` or leave the language out"
                )
            self.frame = self.frame.filter(codes == wanted)
        if self.frame.is_empty():
            raise UserError(f"{self.where}: has no rows; give other rows")

    @property
    def ids(self) -> pl.Series:
        """The id column as text, or the row's number: of one slice's rows, each its own."""
        if "id" in self.part.columns:
            own = self.column("id").cast(pl.String)
            if own.null_count() or own.is_duplicated().any():
                problem = (
                    "has empty values" if own.null_count() else f"has {own.filter(own.is_duplicated())[0]!r} twice"
                )
                raise UserError(f"{self.where}: column {self.part.columns['id']!r} {problem}; leave columns.id out")
            return own
        return self.frame["row number"].cast(pl.String).str.zfill(ROW_DIGITS)

    def has(self, field: str) -> bool:
        """Whether a field that may be absent is there."""
        named = field in self.part.columns or f"{field}.0" in self.part.columns
        return named or field in self.frame.columns

    def columns(self, field: str) -> list[str]:
        """Columns of a field, in order."""
        if field in self.part.columns:
            return [self.part.columns[field]]
        several = [name for name in self.part.columns if name.rpartition(".")[0] == field]
        ordered = sorted(several, key=lambda name: int(name.rpartition(".")[2]))
        return [self.part.columns[name] for name in ordered] or [field]

    def series(self, name: str) -> pl.Series:
        """A column, or a field of one: `a.b`; `UserError` where there is none."""
        frame, path = self.frame, name.split(".")
        if name in frame.columns:
            return frame[name]
        found = frame[path[0]] if path[0] in frame.columns else None
        for step in path[1:]:
            inner = dict(found.dtype) if found is not None and isinstance(found.dtype, pl.Struct) else {}
            found = found.struct.field(step) if found is not None and step in inner else None
        if found is None:
            known = [column for column in frame.columns if column != "row number"]
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(known)}"
            raise UserError(f"{self.where}: there is no column {name!r}; {hint}")
        return found

    def column(self, field: str) -> pl.Series:
        """The one column of a field."""
        return self.series(self.columns(field)[0])

    def text(self, field: str) -> pl.Series:
        """A field of text, stripped; of several columns, joined by a space."""
        parts = []
        for name in self.columns(field):
            column = self.series(name)
            if column.dtype != pl.String:
                raise UserError(f"{self.where}: column {name!r} is {column.dtype} and should be text; name another")
            parts.append(column.str.strip_chars())
        joined = pl.select(pl.concat_str(parts, separator=" ")).to_series()
        self.refuse(joined.is_null() | (joined == ""), field, "is empty")
        return joined

    def label(self, column: pl.Series, names: Sequence[str]) -> pl.Series:
        """Labels of values: a class's name or the value as text, then as the slice's `labels` map it."""
        texts = ["" if value is None else _named(value, names) for value in column]
        # An empty text is no label, whereas what a label maps to is empty where such rows are left out.
        mapped = [self.part.labels.get(text, text or None) for text in texts]
        return pl.Series(mapped, dtype=pl.String)

    def refuse(self, bad: pl.Series, field: str, problem: str) -> None:
        """`UserError` for the first row that is bad."""
        if bad.any():
            row = self.frame.filter(bad)["row number"][0]
            raise UserError(
                f"{self.where}: {field} of row {row} {problem} (and {bad.sum() - 1} more such rows); correct them"
            )


def _named(value: Any, names: Sequence[str]) -> str:
    if names and isinstance(value, int) and 0 <= value < len(names):
        return names[value]
    return str(value)


def classification(rows: Rows, part: Slice, language: str, task: Task) -> pl.DataFrame:
    """`id`, `text_a`, `text_b` (null without the field), `label`."""
    reading = _Reading(rows, part, language, task)
    name = reading.columns("label")[0]
    labels = reading.label(reading.series(name), rows.class_names.get(name, ()))
    reading.refuse(~labels.is_in([*task.labels, ""]).fill_null(False), "label", _not_of(labels, task.labels))
    texts = {"text_a": reading.text("text_a")}
    texts["text_b"] = (
        reading.text("text_b") if reading.has("text_b") else pl.Series([None] * len(labels), dtype=pl.String)
    )
    return _labelled(reading, {**texts, "label": labels, CONTEXT: texts["text_a"]})


def multiple_choice(rows: Rows, part: Slice, language: str, task: Task) -> pl.DataFrame:
    """`id`, `prompt`, `choices`, `label`: the right one's place as text. A class counts by its number."""
    reading = _Reading(rows, part, language, task)
    names = reading.columns("choices")
    if len(names) > 1:
        choices = pl.DataFrame([reading.series(name).alias(str(place)) for place, name in enumerate(names)])
        found = choices.select(pl.concat_list(pl.all()))
        lists = found.to_series()
    else:
        lists = reading.series(names[0])
    _check_lists(reading, lists, "choices")
    places = reading.label(reading.column("label"), ())
    counts = lists.list.len()
    right = [
        place == "" or (place is not None and place in map(str, range(count)))
        for place, count in zip(places, counts, strict=True)
    ]
    reading.refuse(~pl.Series(right, dtype=pl.Boolean), "label", "is no choice's place, counted from 0 (see `labels`)")
    prompt = reading.text("prompt")
    return _labelled(reading, {"prompt": prompt, "choices": lists, "label": places, CONTEXT: prompt})


def tagging(rows: Rows, part: Slice, language: str, task: Task) -> pl.DataFrame:
    """`id`, `tokens`, `tags`."""
    reading = _Reading(rows, part, language, task)
    tokens, name = reading.column("tokens"), reading.columns("tags")[0]
    values = reading.series(name)
    _check_lists(reading, tokens, "tokens")
    if not isinstance(values.dtype, pl.List):
        raise UserError(f"{reading.where}: column {name!r} is {values.dtype} and should be lists of tags; name another")
    reading.refuse((values.list.len() != tokens.list.len()).fill_null(True), "tags", "are not one a word")
    names = rows.class_names.get(name, ())
    tags = pl.Series([reading.label(row, names).to_list() for row in values], dtype=pl.List(pl.String))
    strange = [tag for row in tags for tag in row if tag not in task.labels]
    known = pl.Series([all(tag in task.labels for tag in row) for row in tags], dtype=pl.Boolean)
    reading.refuse(~known, "tags", f"hold {strange[0] if strange else None!r}, which is no tag of the task")
    return pl.DataFrame({"id": reading.ids, "tokens": tokens, "tags": tags, CONTEXT: tokens.list.join(" ")})


def span(rows: Rows, part: Slice, language: str, task: Task) -> pl.DataFrame:
    """`id`, `context`, `question`, `answers`, `answer_starts`: each answer where its text is, nearest its offset.

    A training row needs an answer in its context; elsewhere answers are scored by their texts (see `readers_span`).
    """
    reading = _Reading(rows, part, language, task)
    context = reading.column("context")
    if context.dtype != pl.String:
        raise UserError(f"{reading.where}: the column of context is {context.dtype} and should be text; name another")
    found = reading.column("answers")
    stated = reading.column("answer_starts") if "answer_starts" in part.columns else None
    if isinstance(found.dtype, pl.Struct):
        name = reading.columns("answers")[0]
        texts, stated = reading.series(f"{name}.text"), reading.series(f"{name}.answer_start")
    else:
        texts = found
    if texts.dtype not in (pl.String, pl.List(pl.String)):
        raise UserError(f"{reading.where}: answers are {texts.dtype} and should be text or lists of text; name others")
    if stated is not None and not _whole(stated.dtype):
        raise UserError(f"{reading.where}: answer_starts are {stated.dtype} and should be whole numbers; name others")
    answers = [_several(value) for value in texts]
    offsets = [_several(value) for value in stated] if stated is not None else [[None] * len(row) for row in answers]
    uneven = [len(row) != len(places) for row, places in zip(answers, offsets, strict=True)]
    reading.refuse(pl.Series(uneven, dtype=pl.Boolean), "answer_starts", "are not one an answer")
    empty = [not row or not all(row) for row in answers]
    if task.unanswerable:
        empty = [not all(row) for row in answers]
    reading.refuse(pl.Series(empty, dtype=pl.Boolean), "answers", "has no answer")
    starts = [
        [locate(text, answer, place) for answer, place in zip(row, places, strict=True)]
        for text, row, places in zip(context, answers, offsets, strict=True)
    ]
    astray = pl.Series([bool(row) and max(row) == NOWHERE for row in starts], dtype=pl.Boolean)
    if part.split == "train":
        reading.refuse(astray, "answers", "is not in its context")
    return pl.DataFrame(
        {
            "id": reading.ids,
            "context": context,
            "question": reading.text("question"),
            "answers": pl.Series(answers, dtype=pl.List(pl.String)),
            "answer_starts": pl.Series(starts, dtype=pl.List(pl.Int64)),
            CONTEXT: context,
            NOTE: pl.Series([BY_TEXT if elsewhere else None for elsewhere in astray], dtype=pl.String),
        }
    )


def retrieval(rows: Rows, part: Slice, language: str, task: Task) -> pl.DataFrame:
    """`id`, `role`, `text`, `pool`, `gold`: of each row a query and its one document; a language is one pool."""
    reading = _Reading(rows, part, language, task)
    ids = reading.ids
    sides = []
    for role, field in (("query", "source"), ("document", "target")):
        gold = [[name] if role == "query" else [] for name in ids]
        sides.append(
            pl.DataFrame(
                {
                    "id": ids,
                    "role": pl.Series([role] * len(ids), dtype=pl.String),
                    "text": reading.text(field),
                    "pool": pl.Series([language] * len(ids), dtype=pl.String),
                    "gold": pl.Series(gold, dtype=pl.List(pl.String)),
                }
            )
        )
    return pl.concat(sides)


def _whole(dtype: pl.DataType) -> bool:
    """Whether a column holds whole numbers or lists of them."""
    return bool(dtype.inner.is_integer()) if isinstance(dtype, pl.List) else dtype.is_integer()


def _labelled(reading: _Reading, columns: Mapping[str, pl.Series]) -> pl.DataFrame:
    """The rows, with those marked whose label is left out."""
    reason = pl.when(pl.col("label") == "").then(pl.lit(LEFT_OUT)).alias(DROPPED)
    frame = pl.DataFrame({"id": reading.ids, **columns})
    if (frame["label"] == "").all():
        raise UserError(f"{reading.where}: `labels` leave every row out; map one value to a label at least")
    return frame.with_columns(reason)


def _check_lists(reading: _Reading, lists: pl.Series, field: str) -> None:
    if lists.dtype != pl.List(pl.String):
        raise UserError(f"{reading.where}: {field} is {lists.dtype} and should be lists of text; name another column")
    empty = lists.list.len().fill_null(0) == 0
    reading.refuse(empty | lists.list.contains(None).fill_null(False), field, "is empty")


def _not_of(labels: pl.Series, known: Sequence[str]) -> str:
    strange = [label for label in labels if label is None or label not in (*known, "")]
    if not strange:
        return ""
    said = "is empty" if strange[0] is None else f"is {strange[0]!r}"
    return f"{said}, and not one of {', '.join(known)} (see `labels`)"


def _several(value: Any) -> list[Any]:
    """One answer stands for a list of one; null for none."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, pl.Series)) else [value]


Reader = Callable[[Rows, Slice, str, Task], pl.DataFrame]
GENERIC_READERS: Mapping[str, Reader] = {
    "classification": classification,
    "multiple_choice": multiple_choice,
    "tagging": tagging,
    "span": span,
    "retrieval": retrieval,
}
"""By name, which is the family's."""
