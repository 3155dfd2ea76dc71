"""The engine's means, each of which changes speed or memory and not what is computed, and the controls."""

from __future__ import annotations

import dataclasses
import itertools
import threading
import time
from collections import Counter

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

import runs
from runs import CPU, FAMILY_NAMES, FULL, LORA, loop_of, prepared, run_loop, settings, start_run
from toy import toy_frame
from xlift.compute import Compute
from xlift.encoder.model import Dropout
from xlift.errors import UserError
from xlift.tasks.encoded import IGNORED
from xlift.training import run as training_run
from xlift.training.batches import training_subset
from xlift.training.cost import EncoderShape, conventional_flops
from xlift.training.execution import Execution, MemoryPlan, Weights, activation_bytes, memory_plan
from xlift.training.feed import Feed, prefetched

# --- Feeding the device ---


def test_prefetched_steps_are_the_same_in_the_same_order():
    assert list(prefetched(iter(range(50)))) == list(range(50))
    assert list(prefetched(iter(()))) == []


def test_an_error_while_preparing_is_raised_where_the_step_is_used():
    def steps():
        yield 1
        raise ValueError("no such row")

    found = prefetched(steps())
    assert next(found) == 1
    with pytest.raises(ValueError, match="no such row"):
        next(found)


def test_the_preparing_thread_is_ahead_by_two_and_ends_with_its_reader():
    before = threading.active_count()
    made = []

    def steps():
        for step in itertools.count():
            made.append(step)
            yield step

    found = prefetched(steps())
    assert next(found) == 0
    time.sleep(0.3)
    assert made == [0, 1, 2, 3]  # one used, two waiting, one in hand
    found.close()
    assert threading.active_count() == before


def test_a_device_gets_pinned_batches_prepared_ahead(tiny_encoder, compute, monkeypatch):
    """Everything a CUDA run does but its kernels: the loop believes its device is one, and batches stay here."""
    encoded, model = prepared("tagging", tiny_encoder)
    expected = run_loop(model, encoded, settings(6), compute, tiny_encoder)
    wanted = {name: parameter.detach().clone() for name, parameter in model.trained().items()}

    encoded, model = prepared("tagging", tiny_encoder)
    pins, moves, threads = [], [], set()

    def pin(tensor):
        pins.append(tensor.shape)
        threads.add(threading.current_thread().name)
        return tensor

    def move(batch, device):
        moves.append(device)
        return batch

    class Cuda:
        type = "cuda"

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr("xlift.tasks.encoded.Batch.on", move)
    found = loop_of(model, encoded, settings(6), compute, tiny_encoder)
    found._compute = dataclasses.replace(compute)
    object.__setattr__(found._compute, "device", Cuda())
    realised = found.run()
    assert realised.losses == expected.losses
    assert all(torch.equal(parameter, wanted[name]) for name, parameter in model.trained().items())
    assert len(moves) == 6
    assert len(pins) >= 6 * 3  # tokens and the labels and words along them
    assert threads.isdisjoint({threading.main_thread().name})


class Scalars(TorchDispatchMode):
    """Counts what would make a step wait for a device: numbers read from, or shapes that depend on, its results."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        tensors = [a for a in args if isinstance(a, torch.Tensor)]
        computed = any(t.is_floating_point() or t.ndim > 1 for t in tensors)
        if func.overloadpacket.__name__ in ("_local_scalar_dense", "nonzero", "masked_select", "unique") and computed:
            self.found[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize("trainable", [LORA, FULL], ids=["lora", "full"])
def test_no_step_waits_for_the_device(family, trainable, tiny_encoder, compute):
    encoded, model = prepared(family, tiny_encoder, trainable)
    found = loop_of(model, encoded, settings(4), compute, tiny_encoder, trainable)
    steps = list(found._steps())
    with Scalars() as seen:
        for step in steps:
            found._advance(step)
    assert seen.found == {}
    with Scalars() as seen:
        found._check(4)
        float(torch.ones(()))
    assert seen.found == {"_local_scalar_dense": 1}, "the counter counts nothing"


# --- Dropout ---


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_drops_its_share_keeps_the_mean_and_is_seeded(rate, dtype):
    module = Dropout(rate)
    values = torch.ones(1000, 401, dtype=dtype)

    def drawn(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return module(values)

    found = drawn(1)
    dropped = float((found == 0).double().mean())
    # Within five standard errors of the rate; what is kept is scaled up by the same factor.
    assert abs(dropped - rate) < 5 * (rate * (1 - rate) / values.numel()) ** 0.5
    assert found.unique().tolist() == pytest.approx([0, 1 / (1 - rate)], rel=5e-3)
    assert torch.equal(found, drawn(1))
    assert not torch.equal(found, drawn(2))
    # Neighbours, whose decisions come from one random number, are independent of each other.
    pairs = (found[:, :400].reshape(-1, 4) == 0).double()
    together = pairs.T.cov()
    assert (together - torch.diag(together.diagonal())).abs().max() < 5 * rate * (1 - rate) / len(pairs) ** 0.5
    module.eval()
    assert torch.equal(module(values), values)


def test_dropouts_gradient_is_that_of_what_was_kept():
    module, values = Dropout(0.3), torch.randn(7, 5, requires_grad=True)
    found = module(values)
    found.sum().backward()
    torch.testing.assert_close(values.grad, torch.where(found == 0, 0.0, 2**16 / (2**16 - round(0.3 * 2**16))))


# --- Memory ---


@pytest.mark.parametrize("trainable", [LORA, FULL], ids=["lora", "full"])
@pytest.mark.parametrize("folder", ["native", "wrapped"])
def test_checkpointing_gives_the_same_bytes(trainable, folder, tiny_encoder, compute, tmp_path, monkeypatch):
    """Dropout included: a layer computed again draws what it drew."""
    where = tiny_encoder
    if folder == "wrapped":
        monkeypatch.setattr("xlift.encoder.model.is_native", lambda config: False)
    found = []
    for checkpointing in (False, True):
        encoded, model = prepared("classification", where, trainable, dropout=0.2)
        if checkpointing:
            model.encoder.checkpoint_layers()
        torch.manual_seed(7)
        losses = run_loop(model, encoded, settings(5), compute, where, trainable).losses
        found.append((losses, {name: p.detach().clone() for name, p in model.trained().items()}))
    assert found[0][0] == found[1][0]
    for name, weight in found[0][1].items():
        torch.testing.assert_close(found[1][1][name], weight, atol=1e-6, rtol=1e-5)


class Device(Compute):
    """A CUDA device of a stated size, as far as planning goes."""

    def __init__(self, gib: float) -> None:
        super().__init__(torch.device("cuda"), torch.bfloat16)
        object.__setattr__(self, "gib", gib)

    def memory_bytes(self) -> int:
        return int(self.gib * 2**30)


XLMR_LARGE = EncoderShape(layers=24, hidden=1024, intermediate=4096)
BODY, WORDS = 303_000_000, 257_000_000


def plan(gib: float, weights: Weights, longest: int = 512, **changes) -> MemoryPlan:
    return memory_plan(Execution(**changes), Device(gib), XLMR_LARGE, weights, longest)


def test_memory_of_a_layer_by_hand():
    # Hidden 4, inner 8, one layer: 2 x (44 + 16) + 32 + 8 bytes; recomputed: its input of 4 beside that.
    shape = EncoderShape(layers=1, hidden=4, intermediate=8)
    assert activation_bytes(shape, False, 2) == 160
    assert activation_bytes(shape, True, 2) == 160 + 8
    assert activation_bytes(shape, True, 4) == 280 + 16
    three = dataclasses.replace(shape, layers=3)
    assert (activation_bytes(three, False, 2), activation_bytes(three, True, 2)) == (480, 184)
    assert Weights(trained=10, frozen_bytes=200).bytes == 160 + 200


def test_xlmr_large_fits_sixteen_gib():
    # Word embeddings stay in the 32 bits that they are published in; what LoRA leaves alone is held in bf16.
    frozen_words, all_weights = Weights(BODY, 4 * WORDS), Weights(BODY + WORDS, 0)
    lora = Weights(4_000_000, 2 * BODY + 4 * WORDS)
    assert plan(16, frozen_words) == MemoryPlan(4096, False)
    assert plan(16, all_weights) == MemoryPlan(4096, False)
    assert plan(12, all_weights) == MemoryPlan(16384, True)
    assert plan(16, lora) == MemoryPlan(8192, False)
    assert plan(80, frozen_words) == MemoryPlan(32768, False)
    assert plan(80, all_weights).checkpointing is False
    for gib, weights in ((16, frozen_words), (12, all_weights), (16, all_weights), (80, lora)):
        made = plan(gib, weights)
        used = weights.bytes + made.micro_batch_tokens * activation_bytes(XLMR_LARGE, made.checkpointing, 2)
        assert used <= 0.85 * gib * 2**30


@pytest.mark.parametrize("family", ["multiple_choice", "retrieval"])
def test_what_has_to_be_computed_together(family, tiny_encoder):
    encoded, model = prepared(family, tiny_encoder)
    sizes = [(encoded.owner == example).nonzero().flatten() for example in range(len(encoded.split))]
    trained = [rows for rows, split in zip(sizes, encoded.split.tolist(), strict=True) if split == 0]
    assert len(trained) < len(sizes)
    largest = max(len(rows) * int(encoded.lengths[rows].max()) for rows in trained)
    expected = largest if family == "multiple_choice" else 2 * 8 * largest
    assert training_run.positions_together(model.family, encoded, 8) == expected
    if family == "retrieval":
        feed = Feed(model.family, encoded, model.encoder.pad_id, 1)
        step = feed.step(model.family.training_examples(encoded)[:8], [0])
        assert step.batches[0].padded_tokens <= expected


def test_memory_settings_are_taken_as_given():
    weights = Weights(BODY, 4 * WORDS)
    assert plan(16, weights, gradient_checkpointing="on").checkpointing
    assert not plan(16, weights, gradient_checkpointing="off").checkpointing
    assert plan(16, weights, micro_batch_tokens=1024) == MemoryPlan(1024, False)
    assert plan(16, weights, micro_batch_tokens=30_000) == MemoryPlan(30_000, True)
    cpu = Compute(CPU, torch.float32)
    assert memory_plan(Execution(), cpu, XLMR_LARGE, weights, 512) == MemoryPlan(2048, False)
    on = Execution(micro_batch_tokens=99, gradient_checkpointing="on")
    assert memory_plan(on, cpu, XLMR_LARGE, weights, 512) == MemoryPlan(99, True)


@pytest.mark.parametrize("changes", [{}, {"gradient_checkpointing": "off"}, {"micro_batch_tokens": 10**7}])
def test_what_does_not_fit_is_one_sentence(changes):
    gib = 8 if not changes else 16
    weights = Weights(BODY + WORDS, 0) if "micro_batch_tokens" not in changes else Weights(BODY, 4 * WORDS)
    longest = 512 if changes.get("gradient_checkpointing") != "off" else 8192
    with pytest.raises(UserError, match=r"GiB of weights and about \d+ token positions .* are needed; use"):
        plan(gib, weights, longest, **changes)


def test_a_run_carries_out_its_settings(tiny_encoder, tmp_path, monkeypatch):
    given = runs.publish_inputs("classification", tiny_encoder, tmp_path)
    plain = start_run("classification", given, tmp_path / "plain", training__dropout=0.0)
    assert (plain["micro_batch_tokens"], plain["gradient_checkpointing"]) == (2048, False)
    compiled = []

    def compile_encoder(encoder, dynamic):
        compiled.append(dynamic)
        return encoder.forward

    monkeypatch.setattr(training_run.torch, "compile", compile_encoder)
    execution = Execution(compile=True, gradient_checkpointing="on", micro_batch_tokens=40)
    found = start_run("classification", given, tmp_path / "other", execution, training__dropout=0.0)
    assert compiled == [True]
    assert (found["micro_batch_tokens"], found["gradient_checkpointing"]) == (40, True)
    assert found["fingerprint"] == plain["fingerprint"]
    assert found["padded_tokens"] < plain["padded_tokens"]
    assert found["final_loss"] == pytest.approx(plain["final_loss"], rel=1e-4)


# --- Cost ---


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize("layers", [None, 1], ids=["all layers", "one layer"])
@pytest.mark.parametrize("trainable", [LORA, FULL], ids=["lora", "full"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
def test_flops_of_a_run_are_within_three_per_cent_of_torchs_count(
    family, trainable, layers, checkpointing, tiny_encoder, tmp_path
):
    given = runs.publish_inputs(family, tiny_encoder, tmp_path)
    # A head is a few per cent of so small an encoder: counted as well.
    execution = Execution(gradient_checkpointing="on" if checkpointing else "off")
    seen = []

    class Counted(training_run.TrainingLoop):
        def run(self, states=None):
            with sdpa_kernel(SDPBackend.MATH), runs.flop_counter() as counter:
                realised = super().run(states)
            seen.append(counter.get_total_flops())
            return realised

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_run, "TrainingLoop", Counted)
        chosen = dataclasses.asdict(dataclasses.replace(trainable, layers=layers))
        changes = {"trainable": chosen, "training__dropout": 0.0}
        found = start_run(family, given, tmp_path / "out", execution, **changes)
    if family == "retrieval":  # similarities within the batch are not the encoder's
        assert found["flops"] < seen[0]
    assert found["flops"] == pytest.approx(seen[0], rel=0.03)


def test_conventional_flops_leave_out_embeddings_and_adapters(tiny_encoder, tmp_path):
    given = runs.publish_inputs("classification", tiny_encoder, tmp_path)
    # Two layers of hidden 32 and inner 64: four square matrices, two of 32 x 64, their biases, two norms.
    layer = 4 * (32 * 32 + 32) + (32 * 64 + 64) + (64 * 32 + 32) + 2 * 2 * 32
    for name, trainable in (("lora", LORA), ("full", FULL)):
        found = start_run("classification", given, tmp_path / name, trainable=dataclasses.asdict(trainable))
        assert found["conventional_flops"] == 6 * 2 * layer * found["tokens"]
    assert conventional_flops(7, 5) == 210


# --- Fewer and emptier examples ---


def test_shares_of_the_data_are_nested_and_seeded():
    examples = torch.arange(100) * 2
    quarter, half, whole = (set(training_subset(examples, share, 3).tolist()) for share in (0.25, 0.5, 1.0))
    assert (len(quarter), len(half), len(whole)) == (25, 50, 100)
    assert quarter < half < whole
    assert set(training_subset(examples, 0.25, 4).tolist()) != quarter
    assert training_subset(examples, 0.001, 3).numel() == 1
    assert training_subset(examples, 0.5, 3).tolist() == sorted(half)


def test_a_run_on_a_share_of_the_data_sees_no_other_example(tiny_encoder, compute, monkeypatch):
    encoded, model = prepared("classification", tiny_encoder)
    seen = []
    sound = Feed.step

    def step(self, chosen, draw):
        seen.extend(chosen.tolist())
        return sound(self, chosen, draw)

    monkeypatch.setattr(Feed, "step", step)
    run_loop(model, encoded, settings(6, unique_fraction=0.5, subset_seed=9), compute, tiny_encoder)
    allowed = training_subset(model.family.training_examples(encoded), 0.5, 9).tolist()
    assert Counter(seen) == {example: 4 for example in allowed}
    assert len(allowed) == 12


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_labels_without_content(family, tiny_encoder):
    encoded, model = prepared(family, tiny_encoder, max_length=20)
    found = model.family.shuffled(encoded, 5)
    assert torch.equal(found.tokens, encoded.tokens)
    level, name = {
        "classification": ("by_example", "label"),
        "multiple_choice": ("by_example", "label"),
        "tagging": ("by_token", "label"),
        "span": ("by_sequence", "start"),
        "retrieval": ("by_example", "gold"),
    }[family]
    before, after = getattr(encoded, level)[name], getattr(found, level)[name]
    train = encoded.split == 0
    along = {
        "by_example": train,
        "by_sequence": train[encoded.owner],
        "by_token": train[encoded.owner.repeat_interleave(encoded.lengths)],
    }[level]
    assert torch.equal(before[~along], after[~along]), "dev or test was touched"
    assert not torch.equal(before[along], after[along])
    if family == "span":
        end = found.by_sequence["end"]
        assert torch.equal(end - after, encoded.by_sequence["end"] - before)
        for sequence in range(len(after)):
            here = slice(encoded.offsets[sequence], encoded.offsets[sequence + 1])
            inside = encoded.by_token["char_start"][here] != IGNORED
            assert (after[sequence] == 0) == (before[sequence] == 0)
            assert after[sequence] == 0 or bool(inside[after[sequence] : end[sequence] + 1].all())
    else:
        assert torch.equal(before[along].sort().values, after[along].sort().values)
    if family == "tagging":
        assert torch.equal(before == IGNORED, after == IGNORED)
    if family == "multiple_choice":
        choices = torch.tensor([len(row) for row in toy_frame(family)["choices"]])
        assert bool((after < choices).all())
    assert torch.equal(getattr(model.family.shuffled(encoded, 5), level)[name], after)
    assert not torch.equal(getattr(model.family.shuffled(encoded, 6), level)[name], after)


def test_a_control_run_does_not_learn_what_its_twin_learns(tiny_encoder, tmp_path):
    given = runs.publish_inputs("classification", tiny_encoder, tmp_path)
    changes = {"trainable": dataclasses.asdict(FULL), "recipe__steps": 60, "training__dropout": 0.0}
    sound = start_run("classification", given, tmp_path / "sound", **changes)
    control = start_run("classification", given, tmp_path / "control", control="shuffled_labels", **changes)
    assert sound["dev"]["score"] > 70
    assert control["dev"]["score"] < sound["dev"]["score"]
    assert control["tokens"] == sound["tokens"]
