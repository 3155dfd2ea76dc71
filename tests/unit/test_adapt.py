"""What is trained: adapters by PEFT, full fine-tuning with frozen word embeddings, and their states."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import save
from torch.nn import functional as F

from xlift.encoder.adapt import (
    Trainable,
    _LowRankProduct,
    adapted_layers,
    load_trained,
    make_trainable,
    merge_trained,
    trained_state,
)
from xlift.encoder.model import Encoder, load_encoder
from xlift.errors import UserError

CPU = torch.device("cpu")
SIZES = {
    "vocab_size": 997,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 24,
}
LORA = Trainable(rank=4, alpha=12.0)
FULL = Trainable(method="full")
WORDS = "embeddings.word_embeddings.weight"


@pytest.fixture(scope="module", params=["native", "wrapped"])
def folder(request, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(2)
    if request.param == "native":
        transformers.BertModel(transformers.BertConfig(**SIZES)).save_pretrained(out)
    else:
        transformers.ElectraModel(transformers.ElectraConfig(**SIZES, embedding_size=16)).save_pretrained(out)
    return out


def loaded(folder: Path, dtype: torch.dtype = torch.float32):
    return load_encoder(folder, dtype=dtype, device=CPU, dropout=0.0)


def tokens() -> torch.Tensor:
    return torch.randint(5, 997, (3, 9), generator=torch.Generator().manual_seed(4))


def train(encoder, steps: int = 3) -> None:
    """A few plain gradient steps, large enough to move every trained weight."""
    target = torch.randn(32, generator=torch.Generator().manual_seed(6))
    trained = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    for _ in range(steps):
        loss = (encoder(tokens()).float() - target).square().mean()
        for parameter, gradient in zip(trained, torch.autograd.grad(loss, trained), strict=True):
            parameter.data -= 0.3 * gradient


def test_lora_state_holds_the_adapters_and_nothing_else(folder):
    encoder = loaded(folder)
    layers = adapted_layers(encoder)
    assert len(layers) == 2 * 6
    assert "encoder.layer.0.attention.self.query" in layers
    make_trainable(encoder, LORA, seed=1)
    state = trained_state(encoder)
    assert list(state) == sorted(f"{layer}.lora_{part}.weight" for layer in layers for part in "AB")
    assert state["encoder.layer.1.intermediate.dense.lora_A.weight"].shape == (4, 32)
    assert state["encoder.layer.1.intermediate.dense.lora_B.weight"].shape == (48, 4)
    assert all(value.dtype == torch.float32 and value.is_contiguous() for value in state.values())
    for name, value in state.items():
        if "lora_B" in name:
            assert not value.any()
        else:
            assert 0.5 / math.sqrt(value.shape[1]) < value.abs().max() <= 1 / math.sqrt(value.shape[1])


def test_fresh_adapters_change_nothing_and_only_they_get_gradients(folder):
    before = loaded(folder)(tokens())
    encoder = loaded(folder)
    make_trainable(encoder, LORA, seed=1)
    after = encoder(tokens())
    torch.testing.assert_close(after, before, atol=1e-6, rtol=0)
    after.square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert (parameter.grad is not None) == (".lora_" in name), name


def test_same_seed_same_bytes(folder):
    states = []
    for seed, noise in ((7, 1), (7, 2), (8, 1)):
        torch.manual_seed(noise)  # the global generator is not what decides
        encoder = loaded(folder)
        make_trainable(encoder, LORA, seed)
        states.append(save(trained_state(encoder)))
    assert states[0] == states[1]
    assert states[0] != states[2]


def test_stored_adapters_are_pefts(folder):
    """PEFT's own loader takes the stored state by its names, and its own layers give the same output."""
    from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict

    ours, theirs = loaded(folder), loaded(folder)
    make_trainable(ours, LORA, seed=1)
    train(ours)
    body = getattr(theirs, "backbone", theirs)
    config = LoraConfig(r=LORA.rank, lora_alpha=LORA.alpha, target_modules=adapted_layers(theirs))
    body.peft_config = {"default": config}
    inject_adapter_in_model(config, body)
    untrained = theirs(tokens())
    outcome = set_peft_model_state_dict(body, trained_state(ours))
    assert not outcome.unexpected_keys
    assert not any("lora_" in name for name in outcome.missing_keys)
    assert (theirs(tokens()) - untrained).abs().max() > 1e-3
    torch.testing.assert_close(ours(tokens()), theirs(tokens()), atol=1e-5, rtol=0)
    gradients = []
    for encoder in (ours, theirs):
        encoder.zero_grad()
        encoder(tokens()).square().sum().backward()
        found = {name.replace(".default.", "."): p.grad for name, p in encoder.named_parameters() if "lora_" in name}
        gradients.append({name: found[name] for name in sorted(found)})
    assert list(gradients[0]) == list(gradients[1])
    for name, gradient in gradients[0].items():
        assert gradient.abs().max() > 0
        torch.testing.assert_close(gradient, gradients[1][name], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shared", [True, False], ids=["without dropout", "with dropout"])
def test_the_adapters_product_has_the_gradients_that_autograd_finds(shared):
    generator = torch.Generator().manual_seed(3)
    shapes = {"hidden": (2, 5, 4), "weight": (6, 4), "bias": (6,), "down": (3, 4), "up": (6, 3)}
    drawn = {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}
    kept = torch.tensor([1.5, 0.0]).repeat(20).view(2, 5, 4).double()
    found = []
    for product in (
        lambda x, z, a, b: _LowRankProduct.apply(x, z, drawn["weight"], drawn["bias"], a, b),
        lambda x, z, a, b: F.linear(x, drawn["weight"], drawn["bias"]) + z @ a.T @ b.T,
    ):
        hidden, down, up = (drawn[name].clone().requires_grad_() for name in ("hidden", "down", "up"))
        out = product(hidden, hidden if shared else hidden * kept, down, up)
        out.square().sum().backward()
        found.append([out, hidden.grad, down.grad, up.grad])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-10)


def test_adapters_of_a_native_encoder_need_neither_peft_nor_transformers(folder):
    code = (
        "import sys, torch; from pathlib import Path; from xlift.encoder.adapt import Trainable, make_trainable;"
        "from xlift.encoder.model import load_encoder;"
        f"e = load_encoder(Path({str(folder)!r}), dtype=torch.float32, device=torch.device('cpu'), dropout=0.0);"
        "make_trainable(e, Trainable(dropout=0.1), 1);"
        "print(sorted({'peft', 'transformers', 'torch._dynamo'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    native = '"bert"' in (folder / "config.json").read_text()
    assert found.strip() == ("[]" if native else "['peft', 'torch._dynamo', 'transformers']")


@pytest.mark.parametrize("trainable", [LORA, FULL, Trainable(method="full", freeze_word_embeddings=False)], ids=str)
def test_merged_and_reloaded_equal_the_trained(folder, trainable):
    encoder = loaded(folder)
    make_trainable(encoder, trainable, seed=1)
    start = trained_state(encoder)
    train(encoder)
    state = trained_state(encoder)
    moved = [name for name in state if not torch.equal(state[name], start[name])]
    assert len(moved) > 0.9 * len(state)
    expected = encoder(tokens())

    merged = loaded(folder)
    merge_trained(merged, state, trainable)
    assert not any("lora_" in name for name, _ in merged.named_parameters())
    torch.testing.assert_close(merged(tokens()), expected, atol=1e-5, rtol=0)

    again = loaded(folder)
    make_trainable(again, trainable, seed=9)
    load_trained(again, state, trainable)
    assert torch.equal(again(tokens()), expected)
    assert save(trained_state(again)) == save(state)
    train(encoder, 1)
    train(again, 1)
    assert save(trained_state(again)) == save(trained_state(encoder))


def test_lora_over_bfloat16_weights(folder):
    encoder = loaded(folder, torch.bfloat16)
    make_trainable(encoder, LORA, seed=1)
    assert {p.dtype for p in encoder.parameters() if p.requires_grad} == {torch.float32}
    with torch.autocast("cpu", torch.bfloat16):
        cast = encoder(tokens())
    assert cast.dtype == torch.bfloat16
    exact = loaded(folder)
    make_trainable(exact, LORA, seed=1)
    torch.testing.assert_close(cast.float(), exact(tokens()), atol=0.1, rtol=0)
    cast.float().square().sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in encoder.parameters() if p.requires_grad)


def test_full_leaves_frozen_word_embeddings_as_they_are(folder):
    encoder = loaded(folder)
    body = getattr(encoder, "backbone", encoder)
    body.get_parameter(WORDS).data = body.get_parameter(WORDS).data.half()
    make_trainable(encoder, FULL, seed=1)
    words = body.get_parameter(WORDS)
    assert words.dtype == torch.float16
    with torch.autocast("cpu", torch.bfloat16):
        encoder(tokens()).float().square().sum().backward()
    assert words.grad is None
    others = {name: parameter for name, parameter in body.named_parameters() if name != WORDS}
    assert all(parameter.requires_grad and parameter.dtype == torch.float32 for parameter in others.values())
    assert trained_state(encoder).keys() == others.keys()


def test_lora_state_is_small_on_the_packaged_encoders_shape():
    sizes = {
        "hidden_size": 384,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
    }
    config = {
        "model_type": "bert",
        "vocab_size": 250037,
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
    }
    with torch.device("meta"):
        encoder = Encoder(config | sizes)
    everything = sum(parameter.numel() for parameter in encoder.parameters())
    make_trainable(encoder, Trainable(), seed=1)
    adapters = sum(parameter.numel() for parameter in encoder.parameters() if parameter.requires_grad)
    assert (adapters, everything) == (663_552, 117_505_920)  # 1/177; 1/33 of what `full` trains


def test_states_that_do_not_fit_are_refused(folder):
    encoder = loaded(folder)
    make_trainable(encoder, LORA, seed=1)
    state = trained_state(encoder)
    first = next(iter(state))
    lacking = {name: value for name, value in state.items() if name != first}
    for wrong, match in (
        (lacking, f"lacking {first}"),
        (state | {"other.weight": torch.zeros(2)}, "with the unknown other.weight"),
        (state | {first: torch.zeros(5, 32)}, r"has shape \[5, 32\]"),
    ):
        with pytest.raises(UserError, match=match):
            load_trained(encoder, wrong, LORA)
        with pytest.raises(UserError, match=match):
            merge_trained(loaded(folder), wrong, LORA)
    with pytest.raises(UserError, match="rank=8"):
        merge_trained(loaded(folder), state, Trainable())
    with pytest.raises(UserError, match="lacking"):
        merge_trained(loaded(folder), state, FULL)


def test_adapter_dropout_acts_in_training_only(folder):
    encoder = loaded(folder)
    make_trainable(encoder, Trainable(rank=4, dropout=0.5), seed=1)
    train(encoder)
    encoder.eval()
    assert torch.equal(encoder(tokens()), encoder(tokens()))
    encoder.train()
    assert not torch.equal(encoder(tokens()), encoder(tokens()))
