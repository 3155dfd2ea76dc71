"""Masked-language modelling: what is hidden, its loss, its head on the word embeddings, and runs it is mixed into."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import signal
import time
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import runs
from runs import CPU, FULL, LORA, settings
from stopping import StopAfter, out_of, published, server_train
from toy import FILLERS, VOCABULARY, toy_frame, toy_task
from xlift.artifacts import publish_folder, read_manifest
from xlift.catalog.made import mlm_task
from xlift.encoder.adapt import Trainable, make_trainable
from xlift.encoder.model import WORD_EMBEDDINGS, load_encoder, word_embeddings
from xlift.errors import UserError
from xlift.jobs.train import state_folder
from xlift.tasks import mlm
from xlift.tasks.encoded import IGNORED, TOKENS, Encoded, collate
from xlift.tasks.families import FAMILIES, OBJECTIVES
from xlift.tasks.mlm import MaskedHead, MaskedLanguageModelling
from xlift.training import loop
from xlift.training import run as training_run
from xlift.training.execution import Execution
from xlift.training.loop import TrainingLoop
from xlift.training.optimiser import AdamW
from xlift.training.parts import Course, Part, Stage, interleaved
from xlift.training.run import train_run

WITH_WORDS = Trainable(method="full", freeze_word_embeddings=False)
TRAINABLES = pytest.mark.parametrize("trainable", [LORA, FULL, WITH_WORDS], ids=["lora", "full", "full with words"])


@pytest.fixture(scope="session")
def masking_encoder(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny encoder with a mask: one piece and one row of the word embeddings more."""
    folder = tmp_path_factory.mktemp("masking_encoder")
    tokenizer = Tokenizer.from_file(str(tiny_encoder / "tokenizer.json"))
    tokenizer.add_special_tokens(["<mask>"])
    weights = load_file(tiny_encoder / "model.safetensors")
    row = torch.randn(1, 32, generator=torch.Generator().manual_seed(2)) * 0.3
    weights[WORD_EMBEDDINGS] = torch.cat([weights[WORD_EMBEDDINGS], row])
    config = json.loads((tiny_encoder / "config.json").read_text(encoding="utf-8"))
    config["vocab_size"] = tokenizer.get_vocab_size()

    def write(out: Path) -> None:
        (out / "config.json").write_text(json.dumps(config), encoding="utf-8")
        save_file(weights, out / "model.safetensors")
        tokenizer.save(str(out / "tokenizer.json"))

    shutil.rmtree(folder)
    publish_folder(folder, write, {"fingerprint": "masking"})
    return folder


def texts(passages: int = 30, words: int = 12) -> pl.DataFrame:
    """Prepared passages in two languages, of made-up sequences of a few words."""
    draw = np.random.default_rng(4)
    rows = [
        {"split": "train", "language": code, "id": f"{row:03d}", "text": " ".join(draw.choice(VOCABULARY, size=words))}
        for code in ("de", "sw")
        for row in range(passages // 2)
    ]
    return pl.DataFrame(rows)


def encoded_texts(folder: Path, frame: pl.DataFrame | None = None, max_length: int = 32) -> Encoded:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return OBJECTIVES["mlm"].encode(texts() if frame is None else frame, tokenizer, mlm_task(), max_length, 0)


def one_sequence(pieces: int, mask: int = 5) -> Encoded:
    """Sequences of `pieces` pieces between two special ones; pieces are 100 and above, so are the others to choose."""
    row = torch.tensor([0, *range(100, 100 + pieces), 2], dtype=torch.int32)
    label = row.clone()
    label[[0, -1]] = IGNORED
    return Encoded(
        row,
        torch.tensor([0, len(row)]),
        torch.tensor([0]),
        torch.zeros(1, dtype=torch.uint8),
        {"label": label},
        whole={"mask": torch.tensor([mask]), "others": torch.arange(1000, 3000, dtype=torch.int32)},
    )


def drawn(encoded: Encoded, share: float, *seed: int) -> Encoded:
    generator = np.random.Generator(np.random.PCG64(list(seed)))
    return MaskedLanguageModelling(share).drawn(encoded, torch.arange(len(encoded.split)), generator)[0]


# --- Sequences ---


def toy_tokenizer(mask: str = "<mask>") -> Tokenizer:
    """Words a to h as pieces 5 to 12, `[CLS]` 0 before and `[SEP]` 1 after a text."""
    vocabulary = ["[CLS]", "[SEP]", "[PAD]", "<unk>", mask, *"abcdefgh"]
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(vocabulary)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair=None, special_tokens=[("[CLS]", 0), ("[SEP]", 1)]
    )
    tokenizer.add_special_tokens(["[CLS]", "[SEP]", "[PAD]", "<unk>", mask])
    return tokenizer


def test_passages_are_cut_into_sequences_by_hand():
    frame = pl.DataFrame({"text": ["a b c d e f g", "h zzz", "zzz zzz", "a <mask> [SEP] b"]})
    encoded = MaskedLanguageModelling().encode(frame, toy_tokenizer(), mlm_task(), 5, 0)
    rows = [part.tolist() for part in encoded.tokens.split(encoded.lengths.tolist())]
    # Three pieces fit between the two special ones. Of what is unknown alone nothing can be predicted; text that spells
    # a special token has none.
    assert rows == [[0, 5, 6, 7, 1], [0, 8, 9, 10, 1], [0, 11, 1], [0, 12, 3, 1], [0, 5, 6, 1]]
    labels = [part.tolist() for part in encoded.by_token["label"].split(encoded.lengths.tolist())]
    assert labels[2:] == [[IGNORED, 11, IGNORED], [IGNORED, 12, IGNORED, IGNORED], [IGNORED, 5, 6, IGNORED]]
    assert encoded.owner.tolist() == [0, 1, 2, 3, 4]
    assert len(encoded.examples("train")) == 5
    assert encoded.whole["mask"].tolist() == [4]
    assert encoded.whole["others"].tolist() == list(range(5, 13))


def test_token_ids_come_back_from_disk(masking_encoder, tmp_path):
    encoded = encoded_texts(masking_encoder)
    encoded.save(tmp_path / TOKENS)
    again = Encoded.load(tmp_path / TOKENS)
    assert all(torch.equal(again.whole[name], tensor) for name, tensor in encoded.whole.items())
    assert torch.equal(again.by_token["label"], encoded.by_token["label"])


def test_a_tokenizer_without_a_mask_is_one_sentence(tokenizer):
    with pytest.raises(UserError, match=r"tokenizer has neither <mask> nor \[MASK\]; use another encoder, or remove"):
        MaskedLanguageModelling().encode(texts(), tokenizer, mlm_task(), 32, 0)
    encoded = MaskedLanguageModelling().encode(pl.DataFrame({"text": ["a"]}), toy_tokenizer("[MASK]"), mlm_task(), 9, 0)
    assert encoded.whole["mask"].tolist() == [4]


def test_the_packaged_encoder_has_a_mask():
    from xlift.encoder import packaged

    _, _, tokenizer = packaged.read_packaged(packaged.locate())
    encoded = MaskedLanguageModelling().encode(texts(), tokenizer, mlm_task(), 32, 0)
    assert encoded.whole["mask"].tolist() == [250_001]
    # All pieces but <s>, <pad>, </s>, <unk> and <mask>.
    assert encoded.whole["others"].tolist() == list(range(4, 250_001))


# --- What is hidden ---


def test_what_is_hidden_is_fifteen_per_cent_and_eighty_ten_ten():
    pieces = 40_000
    before, after = one_sequence(pieces), drawn(one_sequence(pieces), 0.15, 1)
    predicted = after.by_token["label"] != IGNORED
    count = int(predicted.sum())
    # Within five standard errors of a binomial share.
    assert abs(count / pieces - 0.15) < 5 * math.sqrt(0.15 * 0.85 / pieces)
    assert torch.equal(after.by_token["label"][predicted], before.tokens[predicted])
    assert torch.equal(after.tokens[~predicted], before.tokens[~predicted])
    now, was = after.tokens[predicted], before.tokens[predicted]
    shares = {"mask": now == 5, "same": now == was, "other": (now != 5) & (now != was)}
    for name, expected in {"mask": 0.8, "same": 0.1, "other": 0.1}.items():
        found = float(shares[name].float().mean())
        assert abs(found - expected) < 5 * math.sqrt(expected * (1 - expected) / count), name
    others = now[shares["other"]]
    assert int(others.min()) >= 1000
    assert int(others.max()) < 3000
    # Of 2,000 pieces to choose from about 590 draws hit at least 400 different ones.
    assert len(others.unique()) > 400


def test_every_sequence_has_something_to_predict():
    """However small the share is, each sequence has one; which one it is is drawn evenly."""
    first = Counter(int((drawn(one_sequence(4), 1e-9, n).by_token["label"] != IGNORED).nonzero()) for n in range(400))
    assert set(first) == {1, 2, 3, 4}
    assert all(abs(count - 100) < 5 * math.sqrt(400 * 0.25 * 0.75) for count in first.values())


def test_what_is_hidden_is_drawn_anew_for_each_use_and_again_from_the_same_number(masking_encoder):
    encoded = encoded_texts(masking_encoder)
    one, again, other = (drawn(encoded, 0.15, 1, step) for step in (7, 7, 8))
    assert torch.equal(one.tokens, again.tokens)
    assert not torch.equal(one.by_token["label"], other.by_token["label"])
    assert torch.equal(encoded.by_token["label"], encoded_texts(masking_encoder).by_token["label"])


def test_units_are_pieces_to_predict(masking_encoder):
    family, encoded = MaskedLanguageModelling(), encoded_texts(masking_encoder)
    some = torch.tensor([5, 3, 11])
    view, places = family.drawn(encoded, some, np.random.default_rng(0))
    batch = collate(view, family.sequences(view, places), 1)
    by_row = (batch.by_token["label"] != IGNORED).sum(1)
    assert torch.equal(family.units(view), by_row)
    assert family.head_rows(batch) == int(by_row.sum()) > 0
    assert batch.lengths.tolist() == encoded.lengths[some].tolist()


# --- Head and loss ---


def test_the_loss_by_hand():
    """Two pieces of size 2 over a vocabulary of three; a transform that hands through what comes in."""
    words = nn.Parameter(torch.tensor([[1.0, -1.0], [0.0, 0.0], [-1.0, 1.0]]), requires_grad=False)
    head = MaskedHead(2, words)
    head.dense.weight.data, head.bias.data = torch.eye(2), torch.tensor([0.0, 0.5, 0.0])
    hidden = torch.tensor([[[9.0, 9.0], [30.0, 10.0], [10.0, 30.0]]])
    batch = runs.Batch(
        torch.tensor([0]),
        torch.zeros(1, 3, dtype=torch.int64),
        None,
        None,
        torch.tensor([3]),
        {"label": torch.tensor([[IGNORED, 0, 1]])},
    )
    # GELU leaves 30 and 10 as they are; their norm is (1, -1) and (-1, 1); scores are 2, 0.5, -2 and -2, 0.5, 2.
    total = math.exp(2) + math.exp(0.5) + math.exp(-2)
    expected = (math.log(total) - 2) + (math.log(total) - 0.5)
    found = MaskedLanguageModelling().loss(head, hidden, batch, one_sequence(3))
    assert found.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("together", [1, 2**25], ids=["row by row", "at once"])
@pytest.mark.parametrize("trained", [False, True], ids=["frozen words", "trained words"])
def test_gradients_are_those_of_plain_cross_entropy(together, trained, monkeypatch):
    monkeypatch.setattr(mlm, "SCORES_TOGETHER", together)
    torch.manual_seed(0)
    words = nn.Parameter(torch.randn(23, 6), requires_grad=trained)
    head, states, pieces = MaskedHead(8, words), torch.randn(7, 8, requires_grad=True), torch.randint(0, 23, (7,))
    head.bias.data.normal_()
    wanted = {"states": states, **dict(head.named_parameters()), **({"words": words} if trained else {})}
    scores = torch.nn.functional.linear(head.norm(nn.functional.gelu(head.dense(states))), words, head.bias)
    plain = nn.functional.cross_entropy(scores, pieces, reduction="sum")
    expected = torch.autograd.grad(plain / 3, list(wanted.values()))
    loss = head(states, pieces)
    assert loss.item() == pytest.approx(plain.item(), rel=1e-5)
    for name, found, right in zip(wanted, torch.autograd.grad(loss / 3, list(wanted.values())), expected, strict=True):
        # Of the largest: a norm right after small initial weights makes gradients large, and their rounding too.
        torch.testing.assert_close(found, right, atol=1e-5 * float(right.abs().max()), rtol=1e-4, msg=name)


@pytest.mark.parametrize("stored", [torch.float16, torch.float32])
def test_scores_are_in_the_precision_of_the_run(stored):
    torch.manual_seed(0)
    words = nn.Parameter(torch.randn(40, 16).to(stored), requires_grad=False)
    head, states, pieces = MaskedHead(16, words), torch.randn(5, 16), torch.randint(0, 40, (5,))
    exact = head(states, pieces)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = head(states.bfloat16(), pieces)
    assert exact.dtype is rough.dtype is torch.float32
    assert rough.item() == pytest.approx(exact.item(), rel=0.02)


# --- In a run ---


def test_steps_are_mixed_in_at_even_distances():
    def places(share: float, steps: int) -> list[int]:
        return list(islice(interleaved(iter([0] * 100), 9, share), steps))

    assert places(0.5, 9) == [0, 0, 9, 0, 0, 9, 0, 0, 9]
    assert places(1, 6) == [0, 9, 0, 9, 0, 9]
    assert places(2, 6) == [0, 9, 9, 0, 9, 9]
    assert places(0.4, 14) == [0, 0, 0, 9, 0, 0, 9, 0, 0, 0, 9, 0, 0, 9]
    # 0.29 x 100 is a little under 29 in floats.
    assert list(interleaved(iter([0] * 100), 9, 0.29)).count(9) == 29


def model_of(folder: Path, trainable: Trainable = LORA, share: float = 0.5, **changes: Any):
    """Encoder, heads and the stage of a run on toy classification with masked-language modelling mixed in."""
    encoded, model = runs.prepared("classification", folder, trainable)
    family = MaskedLanguageModelling(0.3)
    heads = nn.ModuleDict(
        {"task": model.head, "mlm": family.fresh_head(32, word_embeddings(model.encoder), mlm_task(), 0.0)}
    )
    parts = [
        Part("task", model.family, heads["task"], encoded, lambda batch: 1.0),
        Part("mlm", family, heads["mlm"], encoded_texts(folder), lambda batch: 1.0),
    ]
    return model.encoder, heads, Stage(parts, settings(**{"steps": 12, "batch_size": 6, **changes}), share)


class Recorder(AdamW):
    """Keeps each step's gradients instead of making the step."""

    def step(self, rate: float) -> None:
        self.seen = [
            *getattr(self, "seen", []),
            {n: p.grad.clone() for n, p in self.parameters.items() if p.grad is not None},
        ]


@TRAINABLES
def test_micro_batches_add_up_to_the_gradient_of_the_mean(trainable, masking_encoder, compute, monkeypatch):
    """Of each step, by one pass without our loop: the mean over the pieces to predict, or over the task's examples."""
    monkeypatch.setattr(loop, "AdamW", Recorder)
    encoder, heads, stage = model_of(masking_encoder, trainable, clip=1e9)
    small = TrainingLoop(encoder, heads, [stage], compute, 40, "toy")
    small.run()
    course = Course(stage, 0, 0, encoder.pad_id, 10_000, "toy")
    places = []
    for number, (place, chosen) in enumerate(course.plan()):
        places.append(place)
        encoder.zero_grad()
        heads.zero_grad()
        part, step = stage.parts[place], course.step(number, place, chosen)
        (batch,) = step.batches
        loss = part.family.loss(part.head, encoder(batch.tokens, batch.mask, batch.types), batch, part.encoded)
        if part.name == "mlm":
            assert step.units == int((batch.by_token["label"] != IGNORED).sum()) > 6
        (loss / step.units).backward()
        made = small._optimiser.seen[number]
        names = {name.split(".")[1] for name in made if name.startswith("head.")}
        assert names == {part.name}
        assert ("encoder." + WORD_EMBEDDINGS in made) == (not trainable.freeze_word_embeddings)
        for where, module in (("encoder", encoder), ("head", heads)):
            for name, parameter in module.named_parameters():
                if parameter.grad is not None:
                    torch.testing.assert_close(made[f"{where}.{name}"], parameter.grad, atol=1e-5, rtol=1e-5)
    assert places == [0, 0, 1] * 4


def test_the_decoder_is_the_encoders_own_and_stays_if_frozen(masking_encoder):
    for trainable in (LORA, FULL, WITH_WORDS):
        encoder, heads, _ = model_of(masking_encoder, trainable)
        words = word_embeddings(encoder)
        assert heads["mlm"].words is words
        assert {name for name, _ in heads["mlm"].named_parameters()} == {
            "dense.weight",
            "dense.bias",
            "norm.weight",
            "norm.bias",
            "bias",
        }
        assert not any(tensor.shape == words.shape for tensor in heads["mlm"].state_dict().values())
        assert words.requires_grad == (trainable is WITH_WORDS)


@pytest.fixture
def inputs(masking_encoder, tmp_path):
    """Publishes a toy task's and the texts' rows and tokens as the jobs do."""
    folder = tmp_path / "inputs"
    folder.mkdir()

    def make(family: str = "classification", **places: Path):
        of_task = runs.publish_inputs(family, masking_encoder, folder)
        frame = texts()
        publish_folder(folder / "encoded" / "mlm", lambda out: encoded_texts(masking_encoder).save(out / TOKENS), {})
        frame.write_parquet(folder / "mlm.parquet")
        of_texts = dataclasses.replace(of_task, encoded=[folder / "encoded" / "mlm"], data=[folder / "mlm.parquet"])
        return runs.joined([of_task, of_texts], **places)

    return make


def start(given: Any, out: Path, family: str = "classification", execution: Any = None, **changes: Any):
    kept = dataclasses.replace(given, state=state_folder(out, changes.get("kind", "intermediate")))
    made = runs.cotrained_specification(family, **changes)
    return train_run([toy_task(family), mlm_task()], made, kept, out, time.time(), execution)


@pytest.mark.parametrize("trainable", [LORA, FULL], ids=["lora", "full"])
def test_a_run_tells_both_parts(trainable, inputs, tmp_path):
    changes = {"trainable": dataclasses.asdict(trainable), "recipe__steps": 12}
    found = start(inputs(), tmp_path / "a/intermediate/toy/x1/seed1", **changes)
    assert (found["steps"], found["examples"]) == (12, 48)
    task, texts_part = found["parts"]
    assert (task["task"], task["steps"], task["examples"]) == ("toy_classification", 8, 32)
    assert (texts_part["task"], texts_part["steps"], texts_part["examples"]) == ("mlm", 4, 16)
    for fact in ("tokens", "padded_tokens", "flops"):
        assert task[fact] + texts_part[fact] == pytest.approx(found[fact])
    assert found["mlm_head"] == "fresh"
    # English dev is the task's alone.
    assert (found["dev"]["metric"], found["dev"]["floor"]) == ("accuracy", 50.0)
    stored = load_file(tmp_path / "a/intermediate/toy/x1/seed1/weights.safetensors")
    assert {name.split(".")[1] for name in stored if name.startswith("head.")} == {"toy_classification", "mlm"}
    assert f"encoder.{WORD_EMBEDDINGS}" not in stored


def test_a_mixture_is_co_trained_too(inputs, masking_encoder, tmp_path):
    given = inputs()
    other = runs.publish_inputs("tagging", masking_encoder, tmp_path / "inputs")
    both = runs.joined([dataclasses.replace(given, encoded=given.encoded[:1], data=given.data[:1]), other])
    all_three = dataclasses.replace(both, encoded=[*both.encoded, given.encoded[1]], data=[*both.data, given.data[1]])
    made = runs.mixture_specification(("classification", "tagging"), recipe__steps=18)
    made |= {"mlm": {"task": "mlm", "share": 0.5, "mask": 0.15, "max_length": 32}}
    tasks = [toy_task("classification"), toy_task("tagging"), mlm_task()]
    found = train_run(tasks, made, all_three, tmp_path / "out", time.time())
    steps = {part["task"]: part["steps"] for part in found["parts"]}
    assert steps["mlm"] == 6
    assert steps["toy_classification"] + steps["toy_tagging"] == 12
    assert found["dev"]["parts"].keys() == {"toy_classification", "toy_tagging"}


@pytest.mark.parametrize("trainable", [LORA, WITH_WORDS], ids=["lora", "full with words"])
@pytest.mark.parametrize("step", [6, 7])
def test_a_stopped_run_goes_on_to_the_same_bytes(trainable, step, inputs, tmp_path, monkeypatch):
    given = inputs()
    changes = {"trainable": dataclasses.asdict(trainable), "training__dropout": 0.2}
    start(given, out_of(tmp_path / "whole"), **changes)
    out = out_of(tmp_path / "stopped")
    with monkeypatch.context() as patch:
        StopAfter(patch, step, signal.SIGTERM)
        with pytest.raises(UserError, match=f"stopped by SIGTERM after step {step} of 12"):
            start(given, out, **changes)
    found = start(given, out, **changes)
    assert published(out) == published(out_of(tmp_path / "whole"))
    assert found["parts"] == read_manifest(out_of(tmp_path / "whole"))["parts"]


def _train(given: runs.Inputs, out: Path) -> None:
    torch.set_num_threads(1)
    start(given, out, execution=Execution(save_every=0.0), recipe__steps=60)


def test_killed_at_random_points_it_goes_on_to_the_same_bytes(inputs, tmp_path):
    server_train(_train, (inputs(),), tmp_path, kills=3)


def test_a_branch_of_a_trunk_is_the_schedule_run_in_one_go(inputs, tmp_path):
    """The trunk's segments end between two steps of the task and after one that is mixed in."""
    given = inputs()
    constant = {"schedule": {"kind": "constant", "warmup_steps": 2}, "kind": "trunk"}

    def segment(steps: int, before: Path | None) -> Path:
        out = tmp_path / "a" / "trunk" / "toy" / f"s{steps}" / "seed1"
        start(dataclasses.replace(given, start=before), out, recipe__steps=steps, **constant)
        return out

    second = segment(12, segment(7, None))
    branch = {"schedule": {"kind": "cooldown", "warmup_steps": 2, "branch": 12}, "recipe__steps": 18}
    branched = start(dataclasses.replace(given, start=second), out_of(tmp_path / "a"), **branch)
    at_once = start(given, out_of(tmp_path / "b"), **branch)
    assert published(out_of(tmp_path / "a")) == published(out_of(tmp_path / "b"))
    assert branched["parts"] == at_once["parts"]
    assert (branched["job_steps"], read_manifest(second)["steps"]) == (6, 12)


def test_micro_batches_do_not_change_what_is_hidden(inputs, tmp_path):
    """Without dropout, which draws by batch, the runs are the same but for rounding."""
    given, logs = inputs(), {}
    for name, cap in (("a", 20), ("b", 4000)):
        out = out_of(tmp_path / name)
        found = start(given, out, execution=Execution(micro_batch_tokens=cap), training__dropout=0.0)
        assert found["micro_batch_tokens"] == cap
        logs[name] = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    for one, other in zip(logs["a"], logs["b"], strict=True):
        assert (one["tokens"], one["task"]) == (other["tokens"], other["task"])
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)


@pytest.mark.parametrize("trainable", [LORA, FULL, WITH_WORDS], ids=["lora", "full", "full with words"])
def test_counted_operations_are_those_that_run(trainable, inputs, tmp_path, monkeypatch):
    seen = []

    class Counted(training_run.TrainingLoop):
        def run(self, states=None):
            with sdpa_kernel(SDPBackend.MATH), runs.flop_counter() as counter:
                realised = super().run(states)
            seen.append(counter.get_total_flops())
            return realised

    monkeypatch.setattr(training_run, "TrainingLoop", Counted)
    changes = {"trainable": dataclasses.asdict(trainable), "training__dropout": 0.0}
    found = start(inputs(), out_of(tmp_path), share=2.0, mask=0.4, **changes)
    assert found["flops"] == pytest.approx(seen[0], rel=0.03)


def test_it_learns_what_words_stand_beside(masking_encoder, compute):
    """A text of one phrase over and over: its words are soon foreseen, from a vocabulary of a thousand."""
    frame = pl.DataFrame(
        {"split": "train", "language": "de", "id": [str(n) for n in range(16)], "text": [" ".join(FILLERS)] * 16}
    )
    encoder = load_encoder(masking_encoder, dtype=torch.float32, device=CPU, dropout=0.0)
    make_trainable(encoder, FULL, 1)
    head = MaskedHead(32, word_embeddings(encoder))
    part = Part("mlm", MaskedLanguageModelling(), head, encoded_texts(masking_encoder, frame), lambda batch: 1.0)
    realised = TrainingLoop(encoder, head, [Stage([part], settings(150, rate=1e-2))], compute, 4000, "toy").run()
    assert realised.losses[0] > 5
    assert np.mean(realised.losses[-10:]) < 1


def test_prepared_texts_are_checked_as_examples_are():
    assert set(OBJECTIVES) == {*FAMILIES, "mlm"}
    OBJECTIVES["mlm"].check(texts(), mlm_task())
    with pytest.raises(UserError, match=r"column 'text' should be String and is no such column"):
        OBJECTIVES["mlm"].check(toy_frame("classification"), mlm_task())
    with pytest.raises(UserError, match=r"data of mlm: a passage is empty; prepare it again"):
        OBJECTIVES["mlm"].check(texts().with_columns(text=pl.lit(" ")), mlm_task())


def test_text_without_a_known_piece_is_one_sentence():
    frame = pl.DataFrame({"text": ["zzz", "yyy zzz"]})
    with pytest.raises(UserError, match=r"tokenizer knows no piece of any passage; use other text or another encoder"):
        MaskedLanguageModelling().encode(frame, toy_tokenizer(), mlm_task(), 9, 0)
