"""Questions that may have no answer: rows, training windows, the threshold from dev, the run's manifest, prediction."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from encoding import encode, first_row
from runs import specification
from toy import toy_frame, toy_task
from xlift.artifacts import fingerprint, publish_folder, publish_json, read_manifest, sealed, sha256_of
from xlift.errors import UserError
from xlift.jobs import predict as predict_module
from xlift.metrics import ALWAYS, score_predictions
from xlift.tasks.encoded import IGNORED, TOKENS
from xlift.tasks.families import FAMILIES
from xlift.training.build import Inputs
from xlift.training.run import train_run

FAMILY = FAMILIES["span"]
TASK = dataclasses.replace(toy_task("span"), unanswerable=True, metrics=("squad_v2_f1", "squad_v2_em"))


def toy_rows() -> pl.DataFrame:
    """The toy task, every third question without an answer."""
    none = pl.int_range(pl.len()) % 3 == 0
    frame = toy_frame("span")
    empty = {"answers": pl.List(pl.String()), "answer_starts": pl.List(pl.Int64())}
    return frame.with_columns(
        pl.when(none).then(pl.lit([], dtype=dtype)).otherwise(name).alias(name) for name, dtype in empty.items()
    )


# --- Rows and training windows ---


def test_only_a_task_that_says_so_has_questions_without_an_answer():
    FAMILY.check(toy_rows(), TASK)
    with pytest.raises(UserError, match="has no answer or no offset"):
        FAMILY.check(toy_rows(), toy_task("span"))
    with pytest.raises(UserError, match="'000' has no answer or no offset"):
        FAMILY.check(toy_rows().with_columns(first_row(answers=[], answer_starts=[3])), TASK)


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_a_split_without_any_answer_has_no_real_labels(split):
    stripped = toy_rows().with_columns(
        pl.when(split=split).then(pl.lit([], dtype=dtype)).otherwise(name).alias(name)
        for name, dtype in (("answers", pl.List(pl.String())), ("answer_starts", pl.List(pl.Int64())))
    )
    with pytest.raises(UserError, match=f"no question of {split} has an answer; the source has no real labels"):
        FAMILY.check(stripped, TASK)


def test_every_window_of_a_question_without_an_answer_points_at_the_first_token(tokenizer):
    frame = toy_rows().with_columns(context=pl.col("context") + " old new with" * 8)
    encoded = encode("span", tokenizer, frame, TASK, max_length=20, stride=6)
    start, end = encoded.by_sequence["start"], encoded.by_sequence["end"]
    for example, answers in enumerate(frame["answers"].to_list()):
        own = (encoded.owner == example).nonzero().flatten()
        assert len(own) > 1
        assert bool((start[own] > 0).any()) == bool(answers)
        assert bool((end[own] > 0).any()) == bool(answers)


def test_a_task_whose_questions_all_have_answers_is_encoded_and_decoded_as_before(tokenizer):
    frame = toy_frame("span")
    plain, v2 = (encode("span", tokenizer, frame, task) for task in (toy_task("span"), TASK))
    assert torch.equal(plain.tokens, v2.tokens)
    assert all(torch.equal(plain.by_sequence[name], v2.by_sequence[name]) for name in ("start", "end"))
    outputs = [torch.zeros(length, 2) for length in plain.lengths[FAMILY.sequences(plain, plain.examples("test"))]]
    found = FAMILY.decode(frame, toy_task("span"), plain, plain.examples("test"), outputs)
    assert found.columns == ["language", "id", "prediction", "gold", "n_best"]
    assert not FAMILY.calibrates(toy_task("span"))
    assert FAMILY.calibrate(toy_task("span"), found) == {}
    assert FAMILY.calibrated(toy_task("span"), found, {}).equals(found)


# --- The score of no answer ---


def test_no_answer_is_the_first_token_at_its_least_over_the_windows(tokenizer):
    context = "goat near some whale " * 6
    rows = {"split": "test", "language": "en", "context": context, "question": "which one"}
    frame = pl.DataFrame(
        [
            {**rows, "id": "0", "answers": ["goat"], "answer_starts": [0]},
            {**rows, "id": "1", "answers": [], "answer_starts": []},
        ]
    )
    encoded = encode("span", tokenizer, frame, TASK, max_length=20, stride=6)
    windows = [int((encoded.owner == example).sum()) for example in (0, 1)]
    assert windows[0] == windows[1] >= 3
    outputs = []
    for example in (0, 1):
        for window in range(windows[example]):
            sequence = len(outputs)
            here = slice(int(encoded.offsets[sequence]), int(encoded.offsets[sequence + 1]))
            scores = torch.full((here.stop - here.start, 2), torch.finfo(torch.float32).min)
            place = int((encoded.by_token["char_start"][here] != IGNORED).nonzero()[0])
            scores[place] = torch.tensor([1.0, 0.5]) + window  # best span: the last window's first token
            scores[0] = torch.tensor([2.0 + window, 1.0 + (window != 1) * 4])  # least in the second window: 3 + 1
            outputs.append(scores)
    found = FAMILY.decode(frame, TASK, encoded, encoded.examples("test"), outputs)
    best = 1.5 + 2 * (windows[0] - 1)
    assert found["no_answer"].to_list() == [4.0 - best] * 2
    assert found["gold"].to_list() == [["goat"], [""]]
    assert found["prediction"][0][0] in context


def predictions(*rows) -> pl.DataFrame:
    """Predictions (best span, gold, score of no answer) in English; every best span scores 2."""
    columns = {"prediction": pl.List(pl.String), "gold": pl.List(pl.String), "no_answer": pl.Float64}
    frame = pl.DataFrame(list(rows), schema=columns, orient="row")
    best = pl.struct(text=pl.col("prediction").list.first(), score=pl.lit(2.0))
    return frame.select(
        language=pl.lit("en"),
        id=pl.int_range(pl.len()).cast(pl.String),
        **{c: c for c in columns},
        n_best=pl.concat_list(best),
    )


def test_the_threshold_is_chosen_on_dev_and_silences_what_is_above_it():
    dev = predictions((["kite"], ["kite"], -2.0), (["sea"], [""], 1.0), (["red"], ["red"], 0.5))
    chosen = FAMILY.calibrate(TASK, dev)
    assert chosen == {"no_answer_threshold": 0.5}
    found = FAMILY.calibrated(TASK, dev, chosen)
    assert found["prediction"].to_list() == [["kite"], [""], ["red"]]
    assert score_predictions(found, "squad_v2_f1")["score"].to_list() == [100.0]
    # At the threshold itself the best span is the answer; the scores stay.
    assert found["no_answer"].to_list() == dev["no_answer"].to_list()
    assert json.loads(json.dumps(chosen)) == chosen


BEST = [("red kite", 7.0), ("kite", 6.0), ("red", 4.0), ("a", 2.0), ("b", 1.0)]
# Of no answer's score less the best span's, with the threshold 1: the answers then, by hand.
PLACES = {
    # 7 + (1.5 - 1): before the best span.
    1.5: [("", 7.5), ("red kite", 7.0), ("kite", 6.0), ("red", 4.0), ("a", 2.0)],
    # At the threshold itself it is as good as the best span, and second.
    1.0: [("red kite", 7.0), ("", 7.0), ("kite", 6.0), ("red", 4.0), ("a", 2.0)],
    # 7 + (-2 - 1): as good as "red", and behind it.
    -2.0: [("red kite", 7.0), ("kite", 6.0), ("red", 4.0), ("", 4.0), ("a", 2.0)],
    # 7 + (-8 - 1): not among the five best.
    -8.0: BEST,
}


@pytest.mark.parametrize("difference", PLACES)
def test_no_answer_is_one_of_the_best_answers(difference):
    def rows(answers):
        return [{"text": text, "score": score} for text, score in answers]

    before = predictions((["red kite"], ["kite"], difference)).with_columns(
        pl.Series("n_best", [rows(BEST)], pl.List(pl.Struct({"text": pl.String, "score": pl.Float64})))
    )
    found = FAMILY.calibrated(TASK, before, {"no_answer_threshold": 1.0})
    assert found["n_best"].to_list() == [rows(PLACES[difference])]
    assert found["prediction"].to_list() == [[PLACES[difference][0][0]]]
    assert found.schema == before.schema


def test_a_span_without_a_character_is_no_answer_too():
    """Its tokens are marks that are not written; nothing is listed twice."""
    before = predictions(([""], ["kite"], -3.0))
    found = FAMILY.calibrated(TASK, before, {"no_answer_threshold": 0.0})
    assert found["n_best"].to_list() == [[{"text": "", "score": 2.0}]]
    assert found["prediction"].to_list() == [[""]]


def test_the_threshold_makes_the_primary_metric_best():
    # Half right by F1, wrong by exact match.
    dev = predictions((["red kite"], ["kite"], -1.0), (["sea"], ["sea"], -2.0), (["sea"], [""], 3.0))
    assert FAMILY.calibrate(TASK, dev) == {"no_answer_threshold": -1.0}
    exact = dataclasses.replace(TASK, metrics=("squad_v2_em", "squad_v2_f1"))
    assert FAMILY.calibrate(exact, dev) == {"no_answer_threshold": -2.0}


# --- Runs and cells ---


def inputs_of(frame: pl.DataFrame, encoder: Path, folder: Path) -> Inputs:
    tokenizer = Tokenizer.from_file(str(encoder / "tokenizer.json"))
    encoded = FAMILY.encode(frame, tokenizer, TASK, 32, 8)
    tokenizer_sha256 = sha256_of(encoder / "tokenizer.json")
    publish_folder(folder / "tokens", lambda out: encoded.save(out / TOKENS), {"tokenizer_sha256": tokenizer_sha256})
    frame.write_parquet(folder / "data.parquet")
    return Inputs(encoder=encoder, encoded=[folder / "tokens"], data=[folder / "data.parquet"], parent=None)


def train(inputs: Inputs, out: Path, **changes) -> dict:
    return train_run([TASK], specification("span", **changes), inputs, out, time.time())


def test_a_runs_manifest_keeps_the_threshold_and_its_dev_score(tiny_encoder, tmp_path):
    facts = train(inputs_of(toy_rows(), tiny_encoder, tmp_path), tmp_path / "run")
    dev = facts["dev"]
    assert dev["metric"] == "squad_v2_f1"
    assert set(dev["chosen"]) == {"no_answer_threshold"}
    # Silence alone scores the share of questions without an answer, and the search starts there.
    silent = toy_rows().filter(split="dev")["answers"].list.len().eq(0).mean()
    assert dev["score"] >= dev["floor"] >= 100 * silent
    assert read_manifest(tmp_path / "run")["dev"] == dev
    assert facts["dev"]["collapsed"] == (dev["score"] <= dev["floor"])


def test_what_was_learnt_is_answered_and_not_answered_as_it_should(tiny_encoder, tmp_path):
    # Dev is what is trained on: the point is that loss, decoding and threshold belong together.
    frame = toy_rows().filter(split="train")
    frame = pl.concat([frame, frame.with_columns(split=pl.lit("dev"))])
    steps = {"recipe__steps": 120, "recipe__learning_rate": 1e-2, "recipe__batch_size": 16}
    dev = train(inputs_of(frame, tiny_encoder, tmp_path), tmp_path / "run", **steps)["dev"]
    assert dev["score"] > dev["floor"] + 15
    assert dev["chosen"]["no_answer_threshold"] > ALWAYS
    assert not dev["collapsed"]


def test_a_cell_uses_the_threshold_of_its_run(tiny_encoder, tmp_path, monkeypatch):
    frame = toy_rows()
    inputs = inputs_of(frame, tiny_encoder, tmp_path)
    run = tmp_path / "run"
    facts = train(inputs, run)
    publish_json(inputs.data[0].with_suffix(".json"), sealed({"sha256": sha256_of(inputs.data[0])}))
    manifest = read_manifest(run)
    monkeypatch.setattr(predict_module, "task_of", lambda specification: TASK)
    monkeypatch.setattr(predict_module, "check_encoder", lambda folder, sha256: None)
    settings = {"weights": manifest["fingerprint"], "precision": "fp32", "threads": 1, "task": "toy_span"}
    found = {}
    for threshold in (-1e9, facts["dev"]["chosen"]["no_answer_threshold"], 1e9):
        manifest["dev"]["chosen"]["no_answer_threshold"] = threshold
        manifest["sha256"] = fingerprint({key: value for key, value in manifest.items() if key != "sha256"})
        (run / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
        out = tmp_path / "predictions.parquet"
        predict_module.predict_job(
            settings,
            str(tiny_encoder / "manifest.json"),
            str(inputs.encoded[0] / "manifest.json"),
            str(inputs.data[0]),
            str(run / "manifest.json"),
            str(out),
        )
        found[threshold] = pl.read_parquet(out)
    for threshold, rows in found.items():
        for (prediction,), score in rows.select("prediction", "no_answer").iter_rows():
            assert prediction == "" or score <= threshold
        assert (rows["prediction"].list.first() == "").sum() >= (rows["no_answer"] > threshold).sum()
        assert [best[0]["text"] for best in rows["n_best"]] == rows["prediction"].list.first().to_list()
    assert found[-1e9]["prediction"].to_list() == [[""]] * len(found[-1e9])
    assert found[1e9]["prediction"].to_list() != found[-1e9]["prediction"].to_list()
    assert load_file(run / "weights.safetensors")
