"""Jobs refuse what was made from something else than they are given."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl
import pytest
from safetensors.torch import load_file

from xlift.artifacts import fingerprint, publish_folder
from xlift.errors import UserError
from xlift.grid import Grid
from xlift.jobs.prepare import checked_tokens, encode_task, encoder_sha256, prepare_data
from xlift.jobs.score import score_cell
from xlift.runs import Cell, baseline
from xlift.study import load_study, parse_study
from xlift.tables import publish_table
from xlift.training.checkpoint import check_encoder

SETTINGS = {
    "study": "small",
    "intermediates": ["cldr_pairs"],
    "budgets": [1],
    "seeds": [1],
    "targets": ["cldr_kind"],
    "languages": ["de"],
}
GRID = Grid(parse_study(SETTINGS, "x"), "x")


@pytest.fixture(scope="module")
def examples(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "cldr_kind.parquet"
    prepare_data(GRID.data_specification("cldr_kind"), path, path.with_suffix(".json"))
    return path


def encoded(examples: Path, encoder: Path, out: Path) -> Path:
    encode_task(GRID.encode_specification("cldr_kind", 64), examples, encoder, out / "manifest.json")
    return out / "manifest.json"


def with_padding(encoder: Path, out: Path) -> Path:
    """The same encoder whose tokenizer.json pads to 40 tokens, as exports for sentence vectors do."""
    from tokenizers import Tokenizer

    def write(folder: Path) -> None:
        for name in ("config.json", "model.safetensors"):
            shutil.copy(encoder / name, folder / name)
        tokenizer = Tokenizer.from_file(str(encoder / "tokenizer.json"))
        tokenizer.enable_padding(length=40, pad_token="<pad>", pad_id=1)
        tokenizer.save(str(folder / "tokenizer.json"))

    publish_folder(out, write, {})
    return out


def test_padding_in_a_tokenizer_file_is_no_text(examples, tiny_encoder, tmp_path):
    padded = with_padding(tiny_encoder, tmp_path / "padded")
    plain = load_file(encoded(examples, tiny_encoder, tmp_path / "a").parent / "tokens.safetensors")
    found = load_file(encoded(examples, padded, tmp_path / "b").parent / "tokens.safetensors")
    assert found["tokens"].tolist() == plain["tokens"].tolist()
    assert found["offsets"].tolist() == plain["offsets"].tolist()


def test_data_of_another_size_than_budgets_were_resolved_with_is_refused(examples, tiny_encoder, tmp_path):
    slice_of = {**SETTINGS, "recipes": {"cldr_kind": {"train_examples": 544}}}
    specification = Grid(parse_study(slice_of, "x"), "x").encode_specification("cldr_kind", 64)
    with pytest.raises(UserError) as caught:
        encode_task(specification, examples, tiny_encoder, tmp_path / "manifest.json")
    assert str(caught.value) == (
        f"{examples}: has 550 training examples of cldr_kind where 544 are expected, so that its budgets "
        "would be wrong; set recipes.cldr_kind.train_examples to 550 if this data is meant"
    )
    assert not (tmp_path / "manifest.json").exists()


def test_data_of_nearly_that_size_is_taken(examples, tiny_encoder, tmp_path, capsys):
    """Half a percent of the rows may have been left out for what they share with evaluation."""
    slice_of = {**SETTINGS, "recipes": {"cldr_kind": {"train_examples": 553}}}
    specification = Grid(parse_study(slice_of, "x"), "x").encode_specification("cldr_kind", 64)
    encode_task(specification, examples, tiny_encoder, tmp_path / "manifest.json")
    assert "cldr_kind: 550 training examples where 553 were expected" in capsys.readouterr().out


def test_tokens_of_another_tokenizer_are_refused(examples, tiny_encoder, tmp_path):
    manifest = encoded(examples, tiny_encoder, tmp_path / "a")
    assert checked_tokens(manifest, tiny_encoder / "manifest.json") == tmp_path / "a"
    other = with_padding(tiny_encoder, tmp_path / "padded")
    with pytest.raises(UserError, match=r"was encoded by a tokenizer with sha256 [0-9a-f]{64}, and .* delete"):
        checked_tokens(manifest, other / "manifest.json")


def test_a_checkpoint_over_other_encoder_weights_is_refused(tiny_encoder, tmp_path):
    sha256 = encoder_sha256(tiny_encoder / "manifest.json")
    publish_folder(tmp_path / "run", lambda folder: None, {"encoder_sha256": sha256})
    check_encoder(tmp_path / "run", sha256)
    with pytest.raises(UserError, match=f"trained over encoder weights with sha256 {sha256}, .* is {'0' * 64}"):
        check_encoder(tmp_path / "run", "0" * 64)


def test_predictions_of_other_settings_are_not_scored(tmp_path):
    cell = Cell("cldr_kind", baseline(1))
    path, scores = tmp_path / "predictions.parquet", tmp_path / "scores.parquet"
    frame = pl.DataFrame({"language": ["de"], "id": ["1"], "prediction": [["unit"]], "gold": [["unit"]]})
    publish_table(path, frame, fingerprint="of something else")
    with pytest.raises(UserError, match="holds predictions made with other settings"):
        score_cell(GRID.score_specification(cell), str(path), None, None, str(scores))
    assert not scores.exists()
    publish_table(path, frame, fingerprint=fingerprint(GRID.prediction_specification(cell)))
    score_cell(GRID.score_specification(cell), str(path), None, None, str(scores))
    assert pl.read_parquet(scores).select("language", "score", "n", "steps").rows() == [("de", 100.0, 1, 0)]


def test_a_data_root_that_is_not_there_is_refused(tmp_path):
    import yaml

    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({**SETTINGS, "data": {"root": str(tmp_path / "none")}}), encoding="utf-8")
    with pytest.raises(UserError, match=r"study\.yaml: data\.root: there is no folder .*none; correct it"):
        load_study(path)
