"""Families on real data: the untrained packaged encoder on Tatoeba, and each family's rows of the real kind."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import polars as pl
import pytest
import torch
from tokenizers import Tokenizer

from toy import toy_task
from xlift.compute import Compute
from xlift.encoder.adapt import Trainable
from xlift.encoder.model import load_encoder
from xlift.metrics import accuracy_at_1_common, score_predictions
from xlift.predict import predict_cell, predict_split
from xlift.tasks.families import FAMILIES
from xlift.tasks.family import COMMON_COLUMNS
from xlift.tasks.retrieval import prefixed

ROOT = Path(os.environ.get("XLIFT_DATA_ROOT") or Path(__file__).parents[3] / "shared" / "hub")
pytestmark = pytest.mark.skipif(
    not ROOT.is_dir(), reason=f"real data is not there: set XLIFT_DATA_ROOT to a folder of hub repositories ({ROOT})"
)

# Accuracy@1 of English queries, mean pooling of the last layer, "query: " before both sides.
TATOEBA = {"de": ("deu", 0.980), "te": ("tel", 0.893), "jv": ("jav", 0.600), "eu": ("eus", 0.584)}
RETRIEVAL_SCHEMA = {**COMMON_COLUMNS, **FAMILIES["retrieval"].columns}
DIRECT = dataclasses.replace(
    toy_task("retrieval"), recipe=None, metrics=("accuracy_at_1", "accuracy_at_1_common"), languages=tuple(TATOEBA)
)


def tatoeba(language: str) -> pl.DataFrame:
    """English queries against the other language's sentences."""
    code = TATOEBA[language][0]
    pairs = pl.read_parquet(ROOT / "mteb" / "tatoeba-bitext-mining" / f"{code}-eng" / "test.parquet")
    rows = []
    for place, (other, english) in enumerate(pairs.select("sentence1", "sentence2").iter_rows()):
        common = {"split": "test", "language": language, "pool": language}
        document, query = f"d{place:04d}", f"q{place:04d}"
        rows.append(common | {"id": document, "role": "document", "text": other.strip(), "gold": []})
        rows.append(common | {"id": query, "role": "query", "text": english.strip(), "gold": [document]})
    return pl.DataFrame(rows, schema=RETRIEVAL_SCHEMA)


@pytest.fixture(scope="module")
def tatoeba_predictions(packaged_encoder, tmp_path_factory) -> pl.DataFrame:
    torch.set_num_threads(1)
    frame = pl.concat([tatoeba(language) for language in sorted(TATOEBA)])
    FAMILIES["retrieval"].check(frame, DIRECT)
    tokenizer = Tokenizer.from_file(str(packaged_encoder / "tokenizer.json"))
    tokenizer.no_padding()
    encoded = FAMILIES["retrieval"].encode(prefixed(frame, "query: ", "query: "), tokenizer, DIRECT, 128, 0)
    path = tmp_path_factory.mktemp("tatoeba") / "tatoeba.parquet"
    frame.write_parquet(path)
    facts = {"precision": "fp32", "threads": 1, "sentence": True}
    return predict_cell(DIRECT, facts, packaged_encoder, encoded, path, None, Trainable())


def test_the_untrained_encoder_on_tatoeba(tatoeba_predictions):
    scores = dict(score_predictions(tatoeba_predictions, "accuracy_at_1").select("language", "score").iter_rows())
    expected = {language: 100 * share for language, (_, share) in TATOEBA.items()}
    assert scores == {language: pytest.approx(share, abs=1.0) for language, share in expected.items()}
    sizes = tatoeba_predictions.group_by("language").agg(pl.col("pool_size").unique()).sort("language")
    assert sizes.rows() == [("de", [1000]), ("eu", [1000]), ("jv", [205]), ("te", [234])]


def test_the_common_pool_on_tatoeba_is_what_drawing_pools_gives(tatoeba_predictions):
    rows = tatoeba_predictions.filter(language="eu")
    exact = float(score_predictions(rows, "accuracy_at_1_common")["score"][0])
    assert exact > float(score_predictions(rows, "accuracy_at_1")["score"][0]) + 5  # 200 of 1,000 are easier
    generator = torch.Generator().manual_seed(1)
    drawn = []
    for rank in rows["rank"].to_list():
        # Of 999 other documents the first rank - 1 beat the right one; 199 are drawn, forty times.
        others = torch.rand(40, 999, generator=generator).argsort(1)[:, :199]
        drawn.append(float((others.min(1).values >= rank - 1).float().mean()))
    assert exact == pytest.approx(100 * sum(drawn) / len(drawn), abs=0.7)
    ranks = tatoeba_predictions.filter(language="jv")["rank"].to_list()
    whole = accuracy_at_1_common(ranks, [205] * 205, 205)
    assert whole == pytest.approx(100 * ranks.count(1) / 205)


def test_squad_v2_rows_pass_and_every_answer_is_in_some_window(packaged_encoder):
    path = ROOT / "rajpurkar" / "squad_v2" / "squad_v2" / "validation.parquet"
    raw = pl.read_parquet(path).gather_every(20)
    frame = raw.select(
        "context",
        "question",
        split=pl.lit("dev"),
        language=pl.lit("en"),
        id="id",
        answers=pl.col("answers").struct.field("text"),
        answer_starts=pl.col("answers").struct.field("answer_start").cast(pl.List(pl.Int64)),
    )
    task = dataclasses.replace(toy_task("span"), unanswerable=True, metrics=("squad_v2_f1", "squad_v2_em"))
    family = FAMILIES["span"]
    family.check(frame, task)
    tokenizer = Tokenizer.from_file(str(packaged_encoder / "tokenizer.json"))
    encoded = family.encode(frame, tokenizer, task, 128, 48)
    answered = {int(owner) for owner in encoded.owner[encoded.by_sequence["start"] > 0]}
    assert answered == {row for row, answers in enumerate(frame["answers"].to_list()) if answers}
    assert 0 < len(answered) < frame.height
    # An oracle of the windows' targets is right about all but the spelling of token borders; its silence is exact.
    outputs = []
    for sequence, length in enumerate(encoded.lengths.tolist()):
        scores = torch.zeros(length, 2)
        for side, name in enumerate(("start", "end")):
            scores[int(encoded.by_sequence[name][sequence]), side] = 5.0
        outputs.append(scores)
    found = family.decode(frame, task, encoded, encoded.examples("dev"), outputs)
    chosen = family.calibrate(task, found)
    found = family.calibrated(task, found, chosen)
    silent = (found["gold"].list.first() == "").to_list()
    assert (found["prediction"].list.first() == "").to_list() == silent
    assert float(score_predictions(found, "squad_v2_f1")["score"][0]) > 97


def test_lareqa_ranks_one_pool_of_all_languages(packaged_encoder):
    languages = ("de", "en", "th")
    rows = []
    for language in languages:
        raw = pl.read_parquet(ROOT / "local" / "lareqa" / language / "validation.parquet").head(12)
        for context, sentences in dict(raw.select("context", "sentences").iter_rows()).items():
            rows += [
                {"id": f"{language}{context[:40]!r}{n}", "role": "document", "text": text, "text_b": context}
                | {"language": language, "gold": []}
                for n, text in enumerate(sentences)
            ]
        for identifier, question, place, context in raw.select(
            "id", "question", "answer_sentence", "context"
        ).iter_rows():
            rows.append(
                {"id": identifier, "role": "query", "text": question, "text_b": None, "language": language}
                | {"gold": [f"{language}{context[:40]!r}{place}"]}
            )
    frame = pl.DataFrame(rows, schema_overrides={"gold": pl.List(pl.String)}).with_columns(
        split=pl.lit("test"), pool=pl.lit("all")
    )
    # The right sentences of all languages answer a question of any.
    golds = frame.filter(role="query").group_by("id").agg(pl.col("gold").flatten().sort())
    frame = (
        frame.join(golds.rename({"gold": "every"}), on="id", how="left", maintain_order="left")
        .with_columns(gold=pl.coalesce("every", "gold"))
        .drop("every")
    )
    task = dataclasses.replace(
        toy_task("retrieval"), recipe=None, metrics=("map_at_20",), document_length=96, languages=languages
    )
    family = FAMILIES["retrieval"]
    family.check(frame, task)
    tokenizer = Tokenizer.from_file(str(packaged_encoder / "tokenizer.json"))
    encoded = family.encode(prefixed(frame, "query: ", "passage: "), tokenizer, task, 48, 0)
    encoder = load_encoder(packaged_encoder, dtype=torch.float32, device=torch.device("cpu"), dropout=0.0)
    compute = Compute(torch.device("cpu"), torch.float32)
    found = predict_split(task, encoder, family.head(1, task, 0.0), frame, encoded, "test", compute)
    documents = frame.filter(role="document").height
    assert found["pool_size"].unique().to_list() == [documents]
    assert found["gold"].list.len().unique().to_list() == [3]
    scores = dict(score_predictions(found, "map_at_20").select("language", "score").iter_rows())
    assert sorted(scores) == list(languages)
    floor = family.floor(frame.filter(role="document").vstack(frame.filter(role="query", language="en")), task, found)
    assert min(scores.values()) > 2 * floor
