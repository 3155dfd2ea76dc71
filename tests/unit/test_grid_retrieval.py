"""What an encoder says of itself reaches the jobs of retrieval tasks, and no others."""

from __future__ import annotations

import dataclasses

import polars as pl
import pytest
from safetensors.torch import load_file
from test_grid import everything, kinds, make
from tokenizers import Tokenizer

from xlift import study as study_module
from xlift.catalog import CATALOG
from xlift.errors import UserError
from xlift.grid import Grid
from xlift.jobs.prepare import encode_task, prepare_data
from xlift.runs import Cell, baseline
from xlift.study import parse_study

HUB = {"source": "hub", "id": "intfloat/multilingual-e5-small", "revision": "abc"}


def repeated(**facts) -> set[str]:
    """Names of the jobs that a fact about a hub encoder repeats."""
    before, after = everything(make(encoder=HUB)), everything(make(encoder={**HUB, **facts}))
    assert before.keys() == after.keys()
    return {name for name in before if before[name] != after[name]}


def test_an_encoder_of_sentences_predicts_direct_retrieval_again_only():
    found = repeated(sentence=True)
    assert kinds(found) == {"predict", "score"}
    assert all("cldr_retrieval" in name for name in found)
    assert len(found) == 2 * sum(cell.target == "cldr_retrieval" for cell in make().cells)


@pytest.mark.parametrize("side", ["query_prefix", "document_prefix"])
def test_a_prefix_encodes_retrieval_again_and_trains_nothing_else(side):
    found = repeated(**{side: "query: "})
    assert kinds(found) == {"encode", "predict", "score"}
    assert all("cldr_retrieval" in name for name in found)


def test_the_packaged_encoder_states_its_own_facts():
    grid = make()
    encode = grid.encode_specification("cldr_retrieval", 64)
    assert encode["prefixes"] == {"query": "query: ", "document": "query: "}
    assert encode["document_length"] is None
    assert grid.prediction_specification(Cell("cldr_retrieval", baseline(1)))["sentence"] is True
    assert "prefixes" not in grid.encode_specification("cldr_kind", 64)
    assert "sentence" not in grid.prediction_specification(Cell("cldr_kind", baseline(1)))
    with pytest.raises(UserError, match=r"encoder\.sentence: is not a setting"):
        parse_study({**make().study.model_dump(mode="json"), "encoder": {"source": "packaged", "sentence": True}}, "x")


def test_a_trained_retrieval_task_is_trained_again_for_its_texts(monkeypatch):
    # A prefix and a document's length change what is trained on; the layer is the last whatever the encoder is.
    trained = dataclasses.replace(CATALOG["cldr_retrieval"], recipe=CATALOG["cldr_kind"].recipe, train_examples=550)

    def grid(length: int | None, **facts) -> Grid:
        entry = dataclasses.replace(trained, document_length=length)
        catalog = {**CATALOG, "cldr_retrieval": entry}
        monkeypatch.setattr(study_module.Study, "catalog", property(lambda self: catalog))
        return make(encoder={**HUB, **facts})

    cell = Cell("cldr_retrieval", baseline(1))
    plain = grid(None).target_specification(cell)
    assert plain["prefixes"] == {"query": "", "document": ""}
    assert grid(None, document_prefix="passage: ").target_specification(cell) != plain
    assert grid(256).target_specification(cell) != plain
    assert grid(256).encode_specification("cldr_retrieval", 64)["document_length"] == 256
    assert grid(None, sentence=True).target_specification(cell) == plain
    assert "sentence" not in grid(None).prediction_specification(cell)


def test_the_encode_job_puts_the_prefixes_before_the_texts(tiny_encoder, tmp_path):
    settings = {**make().study.model_dump(mode="json"), "languages": ["de"]}
    grid = Grid(parse_study(settings, "x"), "x")
    data = tmp_path / "cldr_retrieval.parquet"
    prepare_data(grid.data_specification("cldr_retrieval"), data, data.with_suffix(".json"))
    specification = grid.encode_specification("cldr_retrieval", 64)
    encode_task({**specification, "prefixes": {"query": "a: ", "document": "b: "}}, data, tiny_encoder, tmp_path / "m")
    tokens = load_file(tmp_path / "tokens.safetensors")
    tokenizer = Tokenizer.from_file(str(tiny_encoder / "tokenizer.json"))
    offsets = tokens["offsets"].tolist()
    frame = pl.read_parquet(data)
    for row in (0, frame.height - 1, int(frame["role"].to_list().index("query"))):
        role, text = frame["role"][row], frame["text"][row]
        expected = tokenizer.encode(("a: " if role == "query" else "b: ") + text).ids
        assert tokens["tokens"][offsets[row] : offsets[row + 1]].tolist() == expected
