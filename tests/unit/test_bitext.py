"""Bitext mining: margins and pairs against a plain computation, thresholds from dev, what is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
import pytest
import torch
from tokenizers import Tokenizer
from torch.nn.functional import normalize

from toy import toy_task
from xlift.encoder.adapt import Trainable
from xlift.encoder.model import load_encoder
from xlift.errors import UserError
from xlift.metrics import score_predictions
from xlift.predict import predict_cell, predict_split
from xlift.tasks.bitext import mine
from xlift.tasks.families import FAMILIES
from xlift.tasks.family import COMMON_COLUMNS

TASK = dataclasses.replace(toy_task("retrieval"), metrics=("bitext_f1",), recipe=None, languages=("de", "en", "fr"))
FAMILY = FAMILIES["retrieval"]


def plain_margins(x: np.ndarray, y: np.ndarray, k: int) -> np.ndarray:
    """Ratio margin of every pair [n, m], straight from its definition."""
    similarity = x @ y.T
    forward = np.sort(similarity, axis=1)[:, ::-1][:, :k].mean(1)
    backward = np.sort(similarity, axis=0)[::-1][:k].mean(0)
    return similarity / ((forward[:, None] + backward[None, :]) / 2)


def names(prefix: str, number: int) -> list[str]:
    return [f"{prefix}{place}" for place in range(number)]


def test_margins_by_hand():
    # Similarities of two sources (rows) and three targets:
    #   .8 .6 0
    #   .6 .8 0
    # With k = 2 means are (.8 + .6) / 2 = .7 for each source, and .7, .7, 0 for each target.
    # Pairs 0-0 and 1-1 have .8 / .7; the third target proposes source 0 (the first of equals) with 0 / .35, too late.
    x = torch.tensor([[0.8, 0.6], [0.6, 0.8]])
    y = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    found = mine(x, y, names("s", 2), names("t", 3), k=2)
    assert [(pair.source, pair.target) for pair in found] == [(0, 0), (1, 1)]
    assert [pair.margin for pair in found] == pytest.approx([8 / 7, 8 / 7])


def test_the_margin_prefers_a_pair_to_a_hub():
    # The first target is near to all sources; the second is the second-nearest of source 1, and near to it alone.
    x = normalize(torch.tensor([[1.0, 0.1, 0.0], [1.0, 0.0, 0.6], [1.0, -0.1, 0.0]]), dim=-1)
    y = normalize(torch.tensor([[1.0, 0.0, 0.15], [0.6, 0.0, 0.9]]), dim=-1)
    assert (x @ y.T)[1].argmax() == 0
    found = {pair.source: pair.target for pair in mine(x, y, names("s", 3), names("t", 2), k=2)}
    assert found[1] == 1


@pytest.mark.parametrize("seed", range(8))
def test_pairs_are_those_of_a_plain_computation(seed):
    draw = np.random.default_rng(seed)
    n, m, k = int(draw.integers(1, 30)), int(draw.integers(1, 30)), 4
    x, y = (draw.normal(size=(size, 6)) + 2.0 for size in (n, m))  # similarities above 0, as encoders' are
    x, y = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, y))
    x, y = x.astype(np.float32), y.astype(np.float32)
    margins = plain_margins(x.astype(np.float64), y.astype(np.float64), k)
    similarity = x.astype(np.float64) @ y.astype(np.float64).T
    proposals = set()
    for i in range(n):
        near = np.argsort(-similarity[i])[:k]
        proposals.add((i, int(near[margins[i, near].argmax()])))
    for j in range(m):
        near = np.argsort(-similarity[:, j])[:k]
        proposals.add((int(near[margins[near, j].argmax()]), j))
    expected, sources, targets = [], set(), set()
    for i, j in sorted(proposals, key=lambda pair: -margins[pair]):
        if i not in sources and j not in targets:
            sources.add(i)
            targets.add(j)
            expected.append((i, j))
    found = mine(torch.tensor(x), torch.tensor(y), names("s", n), names("t", m), k)
    assert [(pair.source, pair.target) for pair in found] == expected
    assert [pair.margin for pair in found] == pytest.approx([margins[pair] for pair in expected], rel=1e-5)


def test_a_sentence_that_is_there_twice_counts_once_and_is_in_no_pair():
    x = normalize(torch.eye(4) + 0.3, dim=-1)
    y = normalize(torch.eye(4) + 0.3, dim=-1)
    whole = mine(x, y, names("s", 4), names("t", 4), k=2)
    assert sorted((pair.source, pair.target) for pair in whole) == [(0, 0), (1, 1), (2, 2), (3, 3)]
    # Target 1 once more, at the end: no pair has it, and no neighbourhood is another for it.
    again = mine(x, torch.cat([y, y[1:2]]), names("s", 4), [*names("t", 4), "t1"], k=2)
    assert again == [pair for pair in whole if pair.target != 1]


def rows(split: str, language: str, pairs: dict[str, str | None], extra: int) -> list[dict]:
    """A collection: source sentences with their right target or none, all targets, and some more of those."""
    common = {"split": split, "pool": language}
    queries = [
        common
        | {"language": language, "id": source, "role": "query", "text": f"{language} {source}"}
        | {"gold": [] if target is None else [target]}
        for source, target in pairs.items()
    ]
    documents = [*filter(None, pairs.values()), *(f"x{i}" for i in range(extra))]
    return queries + [
        common | {"language": "en", "id": name, "role": "document", "text": f"en {language} {name}", "gold": []}
        for name in documents
    ]


def collections() -> pl.DataFrame:
    found = []
    for language in ("de", "fr"):
        for split, base in (("dev", 1), ("test", 5)):
            pairs = {f"{language}{base + i}": f"{language}en{base + i}" for i in range(3)} | {f"{language}0": None}
            found += rows(split, language, pairs, 2)
    # Unrelated documents of both languages stand in one pool each.
    return pl.DataFrame(found, schema={**COMMON_COLUMNS, **FAMILY.columns})


def test_dev_may_be_in_other_languages_for_mining_only():
    FAMILY.check(collections(), TASK)
    with pytest.raises(UserError, match="train and dev hold English only"):
        FAMILY.check(collections(), dataclasses.replace(TASK, metrics=("accuracy_at_1",)))
    with pytest.raises(UserError, match="train holds English only"):
        FAMILY.check(collections().with_columns(split=pl.col("split").replace("dev", "train")), TASK)


def test_mining_needs_gold_pairs_in_test_and_dev_of_each_language():
    for split in ("dev", "test"):
        lacking = collections().filter((pl.col("language") != "fr") | (pl.col("split") != split))
        with pytest.raises(UserError, match=f"fr has no gold pair in {split}"):
            FAMILY.check(lacking, TASK)
    with pytest.raises(UserError, match="without a recipe"):
        FAMILY.check(collections(), dataclasses.replace(TASK, recipe=toy_task("retrieval").recipe))


def vectors(frame: pl.DataFrame) -> list[torch.Tensor]:
    """Translations are alike; the more so the smaller their number. The rest is far from all."""
    found = []
    for role, name in frame.select("role", "id").iter_rows():
        place, number = place_of(name), int(name[-1])
        vector = torch.full((60,), 0.3)
        vector[place] += 3.0
        if role == "document":
            vector[59] += number * 0.5
        found.append(normalize(vector, dim=0))
    return found


def place_of(name: str) -> int:
    """A dimension of its own for each pair; for what is in none, one that it shares with nothing."""
    number = int(name[-1])
    if name.startswith("x"):
        return 50 + number
    language = 0 if name.startswith("de") else 20
    return language + (number if number else 19)


def test_decoding_mines_keeps_the_margin_and_thresholds_by_language(tokenizer):
    frame = collections()
    encoded = FAMILY.encode(frame, tokenizer, TASK, 32, 0)
    found = {}
    for split in ("dev", "test"):
        examples = encoded.examples(split)
        found[split] = FAMILY.decode(frame, TASK, encoded, examples, vectors(frame[examples.tolist()]))
        assert found[split].columns == ["language", "id", "prediction", "gold", "margin"]
        # One row a source sentence, in order.
        assert found[split]["id"].to_list() == sorted(found[split]["id"].to_list())
        assert found[split].height == 8
    for _, identifier, prediction, gold, margin in found["test"].iter_rows():
        if gold:
            assert prediction == gold
        assert (margin is None) == (not prediction), identifier
    chosen = FAMILY.calibrate(TASK, found["dev"])
    assert sorted(chosen["margin_threshold"]) == ["de", "fr"]
    # Every translation of dev has a larger margin than everything else: the threshold parts them.
    kept = FAMILY.calibrated(TASK, found["dev"], chosen)
    assert kept["prediction"].to_list() == kept["gold"].to_list()
    assert kept["margin"].to_list() == found["dev"]["margin"].to_list()
    assert score_predictions(kept, "bitext_f1")["score"].to_list() == [100.0, 100.0]
    # Applied to test, by language, and nothing else is looked at.
    least = {"de": 0.0, "fr": 1e6}
    applied = FAMILY.calibrated(TASK, found["test"], {"margin_threshold": least})
    expected = found["test"].with_columns(
        prediction=pl.when(language="fr").then(pl.lit([], dtype=pl.List(pl.String))).otherwise("prediction")
    )
    assert applied.equals(expected)
    with pytest.raises(UserError, match="fr has no dev rows"):
        FAMILY.calibrated(TASK, found["test"], {"margin_threshold": {"de": 1.0}})


def test_a_task_that_ranks_chooses_nothing():
    task = toy_task("retrieval")
    frame = pl.DataFrame({"language": ["en"], "id": ["0"], "prediction": [["a"]], "gold": [["a"]]})
    assert not FAMILY.calibrates(task)
    assert FAMILY.calibrate(task, frame) == {}
    assert FAMILY.calibrated(task, frame, {}).equals(frame)


def test_a_cell_chooses_on_its_own_dev_rows(tiny_encoder, compute, tmp_path):
    frame = collections()
    tokenizer = Tokenizer.from_file(str(tiny_encoder / "tokenizer.json"))
    encoded = FAMILY.encode(frame, tokenizer, TASK, 32, 0)
    frame.write_parquet(tmp_path / "data.parquet")
    facts = {"precision": "fp32", "threads": 1, "sentence": True}
    found = predict_cell(TASK, facts, tiny_encoder, encoded, tmp_path / "data.parquet", None, Trainable())
    encoder = load_encoder(tiny_encoder, dtype=torch.float32, device=torch.device("cpu"), dropout=0.0)
    head = FAMILY.head(1, TASK, 0.0)
    raw = {s: predict_split(TASK, encoder, head, frame, encoded, s, compute) for s in ("dev", "test")}
    assert found.equals(FAMILY.calibrated(TASK, raw["test"], FAMILY.calibrate(TASK, raw["dev"])))
    assert found.schema == raw["test"].schema
    assert set(score_predictions(found, "bitext_f1")["language"]) == {"de", "fr"}
