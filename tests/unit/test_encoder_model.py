"""The encoder's forward pass against transformers' own classes, on tiny random models; the hub's layout."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from xlift.artifacts import publish_folder
from xlift.encoder.hub import write_hub
from xlift.encoder.model import Encoder, WrappedEncoder, load_encoder, word_embeddings
from xlift.errors import UserError
from xlift.tasks.mlm import MaskedHead
from xlift.training.build import take_over

CPU = torch.device("cpu")
SIZES = {
    "vocab_size": 61,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
}
NATIVE = {
    "bert": (transformers.BertConfig(**SIZES, type_vocab_size=2), transformers.BertModel),
    "roberta": (transformers.RobertaConfig(**SIZES, type_vocab_size=2), transformers.RobertaModel),
    "xlm-roberta": (transformers.XLMRobertaConfig(**SIZES, type_vocab_size=2), transformers.XLMRobertaModel),
}
DISTILBERT = transformers.DistilBertConfig(
    vocab_size=61, dim=32, n_layers=3, n_heads=4, hidden_dim=48, max_position_embeddings=40
)
WRAPPED = {
    "distilbert": (DISTILBERT, transformers.DistilBertModel),
    "electra": (transformers.ElectraConfig(**SIZES, embedding_size=16), transformers.ElectraModel),
    "mpnet": (transformers.MPNetConfig(**SIZES), transformers.MPNetModel),
}


def saved(config, kind, folder: Path):
    """A random model with every weight far from its initial value, saved as transformers saves it."""
    torch.manual_seed(5)
    model = kind(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(folder)
    return model


def inputs(pad: int, padded: bool = True) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randint(5, 61, (4, 11), generator=generator)
    types = torch.randint(0, 2, (4, 11), generator=generator)
    if not padded:
        return tokens, None, types
    mask = torch.arange(11) < torch.tensor([11, 7, 1, 4])[:, None]
    return tokens.masked_fill(~mask, pad), mask, types


@pytest.mark.parametrize("padded", [True, False], ids=["padded", "full"])
@pytest.mark.parametrize("name", sorted(NATIVE))
def test_native_equals_transformers_in_every_layer(tmp_path, name, padded):
    config, kind = NATIVE[name]
    reference = saved(config, kind, tmp_path)
    encoder = load_encoder(tmp_path, dtype=torch.float32, device=CPU)
    assert isinstance(encoder, Encoder)
    assert (encoder.hidden_size, encoder.layers, encoder.vocabulary) == (32, 3, 61)
    assert encoder.max_tokens == (40 if name == "bert" else 38)
    tokens, mask, types = inputs(encoder.pad_id, padded)
    for kinds in (types, None):
        with torch.inference_mode():
            expected = reference(
                input_ids=tokens,
                attention_mask=None if mask is None else mask.long(),
                token_type_ids=kinds,
                output_hidden_states=True,
            ).hidden_states
            found = [encoder(tokens, mask, kinds, layer=layer) for layer in range(4)]
            last = encoder(tokens, mask, kinds)
        real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        for layer in range(4):
            torch.testing.assert_close(found[layer][real], expected[layer][real], atol=1e-5, rtol=0)
        assert torch.equal(last, found[3])


@pytest.mark.parametrize("name", sorted(NATIVE))
def test_padding_changes_nothing(tmp_path, name):
    config, kind = NATIVE[name]
    saved(config, kind, tmp_path)
    encoder = load_encoder(tmp_path, dtype=torch.float32, device=CPU)
    tokens, mask, _ = inputs(encoder.pad_id)
    with torch.inference_mode():
        torch.testing.assert_close(encoder(tokens, mask)[1, :7], encoder(tokens[1:2, :7])[0], atol=1e-5, rtol=0)


def test_earlier_layer_skips_the_later_ones(tmp_path):
    saved(*NATIVE["bert"], tmp_path)
    encoder = load_encoder(tmp_path, dtype=torch.float32, device=CPU)
    encoder.encoder.layer[1].register_forward_hook(lambda *_: pytest.fail("layer 2 was computed"))
    encoder(inputs(0)[0], layer=1)
    with pytest.raises(UserError, match="layer 4 is asked for"):
        encoder(inputs(0)[0], layer=4)


@pytest.mark.parametrize("length", [11, 300], ids=["short", "long"])
def test_low_precision_and_autocast_stay_close(tmp_path, length):
    config = transformers.BertConfig(**SIZES | {"max_position_embeddings": 300})
    saved(config, transformers.BertModel, tmp_path)
    encoder = load_encoder(tmp_path, dtype=torch.float32, device=CPU)
    half = load_encoder(tmp_path, dtype=torch.bfloat16, device=CPU)
    tokens = torch.randint(5, 61, (2, length), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(length) < torch.tensor([length, length // 2])[:, None]
    with torch.inference_mode():
        expected = encoder(tokens, mask)[mask]
        plain = half(tokens, mask)
        with torch.autocast("cpu", torch.bfloat16):
            cast = [encoder(tokens, mask), half(tokens, mask)]
    for found in (plain, *cast):
        assert found.dtype == torch.bfloat16
        cosine = torch.nn.functional.cosine_similarity(found[mask].float(), expected, dim=-1)
        assert cosine.min() > 0.99


def test_dropout_only_in_training_and_only_where_asked(tmp_path):
    saved(*NATIVE["roberta"], tmp_path)
    tokens = inputs(1, padded=False)[0]
    none = load_encoder(tmp_path, dtype=torch.float32, device=CPU, dropout=0.0).train()
    assert torch.equal(none(tokens), none(tokens))
    assert not any(isinstance(module, torch.nn.Dropout) for module in none.modules())
    some = load_encoder(tmp_path, dtype=torch.float32, device=CPU).train()
    assert not torch.equal(some(tokens), some(tokens))
    assert torch.equal(some.eval()(tokens), none(tokens))


@pytest.mark.parametrize("name", sorted(WRAPPED))
def test_other_architectures_go_through_transformers(tmp_path, name):
    config, kind = WRAPPED[name]
    reference = saved(config, kind, tmp_path)
    encoder = load_encoder(tmp_path, dtype=torch.float32, device=CPU, dropout=0.0).train()
    assert isinstance(encoder, WrappedEncoder)
    assert (encoder.hidden_size, encoder.layers, encoder.vocabulary) == (32, 3, 61)
    assert encoder.max_tokens == (38 if name == "mpnet" else 40)
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    tokens, mask, types = inputs(encoder.pad_id)
    extra = {"token_type_ids": types} if name == "electra" else {}
    with torch.inference_mode():
        expected = reference(input_ids=tokens, attention_mask=mask.long(), output_hidden_states=True, **extra)
        torch.testing.assert_close(
            encoder(tokens, mask, types)[mask], expected.last_hidden_state[mask], atol=1e-5, rtol=0
        )
        torch.testing.assert_close(
            encoder(tokens, mask, types, layer=1)[mask], expected.hidden_states[1][mask], atol=1e-5, rtol=0
        )


def test_unknown_activation_goes_through_transformers(tmp_path):
    config = transformers.BertConfig(**SIZES, hidden_act="silu")
    saved(config, transformers.BertModel, tmp_path)
    assert isinstance(load_encoder(tmp_path, dtype=torch.float32, device=CPU), WrappedEncoder)


def test_weights_that_do_not_fit_are_refused(tmp_path):
    saved(*NATIVE["bert"], tmp_path)
    path = tmp_path / "model.safetensors"
    whole = load_file(path)
    name = "encoder.layer.1.output.dense.bias"

    def refused(weights, match):
        save_file(weights, path, metadata={"format": "pt"})
        with pytest.raises(UserError, match=match):
            load_encoder(tmp_path, dtype=torch.float32, device=CPU)

    refused({key: value for key, value in whole.items() if key != name}, f"lacks the weight {name}")
    refused(
        whole | {"extra.weight": torch.zeros(2)},
        "has unknown the weight extra.weight|unknown weight extra.weight",
    )
    refused(whole | {name: torch.zeros(7)}, rf"{name} has shape \[7\] where config.json says \[32\]")
    path.write_bytes(b"not safetensors")
    with pytest.raises(UserError, match="cannot be read as an encoder's weights"):
        load_encoder(tmp_path, dtype=torch.float32, device=CPU)
    path.unlink()
    with pytest.raises(UserError, match=r"model\.safetensors"):
        load_encoder(tmp_path, dtype=torch.float32, device=CPU)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match="lacks the key 'hidden_size'"):
        load_encoder(tmp_path, dtype=torch.float32, device=CPU)
    (tmp_path / "config.json").unlink()
    with pytest.raises(UserError, match=r"config\.json cannot be read"):
        load_encoder(tmp_path, dtype=torch.float32, device=CPU)


def test_wrapped_weights_that_do_not_fit_are_refused(tmp_path):
    saved(*WRAPPED["distilbert"], tmp_path)
    path = tmp_path / "model.safetensors"
    whole = load_file(path)
    name = "transformer.layer.1.ffn.lin1.bias"
    save_file({key: value for key, value in whole.items() if key != name}, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match=f"lacks the weight {name}"):
        load_encoder(tmp_path, dtype=torch.float32, device=CPU)


def test_too_many_tokens_are_refused(tmp_path):
    saved(*NATIVE["roberta"], tmp_path)
    encoder = load_encoder(tmp_path, dtype=torch.float32, device=CPU)
    with pytest.raises(UserError, match="39 tokens are more than the 38 positions"):
        encoder(torch.full((1, 39), 7))


def test_changing_loaded_weights_leaves_the_file_alone(tmp_path):
    saved(*NATIVE["bert"], tmp_path)
    path = tmp_path / "model.safetensors"
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    encoder = load_encoder(tmp_path, dtype=torch.float32, device=CPU)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(1.0)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before


def test_native_encoders_import_neither_transformers_nor_peft_nor_dynamo(tmp_path):
    saved(*NATIVE["xlm-roberta"], tmp_path)
    program = (
        "import sys, torch; from pathlib import Path; from xlift.encoder.model import load_encoder;"
        "from xlift.encoder.adapt import Trainable, make_trainable;"
        "encoder = load_encoder(Path(sys.argv[1]), dtype=torch.float32, device=torch.device('cpu'));"
        "make_trainable(encoder, Trainable(method='full'), 1); encoder(torch.full((2, 5), 7)).sum().backward();"
        "print([name for name in ('transformers', 'peft', 'torch._dynamo') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# The hub's layout


def hub_model(root: Path, config, kind, name: str = "org/tiny") -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    saved(config, kind, folder)
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (NATIVE["roberta"][0], transformers.RobertaForMaskedLM),
        (NATIVE["bert"][0], transformers.BertForSequenceClassification),
        (NATIVE["xlm-roberta"][0], transformers.XLMRobertaModel),
        (NATIVE["bert"][0], transformers.BertForMaskedLM),
        (DISTILBERT, transformers.DistilBertForMaskedLM),
    ],
    ids=["roberta", "bert", "bare", "bert with its head", "distilbert"],
)
def test_hub_models_become_bare_encoders(tmp_path, config, kind):
    source = hub_model(tmp_path / "root", config, kind)
    out = tmp_path / "out"
    out.mkdir()
    write_hub("org/tiny", None, tmp_path / "root", out)
    with_head = "ForMaskedLM" in kind.__name__
    assert sorted(path.name for path in out.iterdir()) == [
        "config.json",
        *(["mlm_head.safetensors"] if with_head else []),
        "model.safetensors",
        "tokenizer.json",
    ]
    weights = load_file(out / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float16}
    assert "embeddings.word_embeddings.weight" in weights
    assert json.loads((out / "config.json").read_text())["dtype"] == "float16"

    encoder = load_encoder(out, dtype=torch.float32, device=CPU)
    reference = kind.from_pretrained(source).eval().half().float()
    tokens, mask, _ = inputs(encoder.pad_id)
    with torch.inference_mode():
        expected = reference.base_model(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
        torch.testing.assert_close(encoder(tokens, mask)[mask], expected[mask], atol=1e-5, rtol=0)
        if with_head:
            # The head stays in float32, so it is the repository's own that is compared with.
            publish_folder(tmp_path / "published", lambda to: shutil.copytree(out, to, dirs_exist_ok=True), {})
            head = MaskedHead(32, word_embeddings(encoder))
            assert take_over(head, tmp_path / "published")
            scores = kind.from_pretrained(source).eval()
            scores.base_model.load_state_dict(reference.base_model.state_dict())
            logits = scores(input_ids=tokens, attention_mask=mask.long()).logits[mask]
            pieces = tokens[mask]
            found = head(expected[mask], pieces)
            right = torch.nn.functional.cross_entropy(logits, pieces, reduction="sum")
            torch.testing.assert_close(found, right, atol=1e-4, rtol=1e-5)


def test_hub_keeps_float32_where_float16_overflows(tmp_path):
    source = hub_model(tmp_path, *NATIVE["bert"])
    weights = load_file(source / "model.safetensors")
    weights["encoder.layer.0.output.dense.bias"][0] = 1e5
    save_file(weights, source / "model.safetensors", metadata={"format": "pt"})
    out = tmp_path / "out"
    out.mkdir()
    write_hub("org/tiny", None, tmp_path, out)
    assert {weight.dtype for weight in load_file(out / "model.safetensors").values()} == {torch.float32}


def test_hub_reads_shards_and_old_layer_norm_names(tmp_path):
    source = hub_model(tmp_path, *NATIVE["bert"])
    whole = load_file(source / "model.safetensors")
    (source / "model.safetensors").unlink()
    old = {
        f"bert.{key}".replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for key, value in whole.items()
    }
    names = sorted(old)
    index = {}
    for shard, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"model-0000{shard}-of-00002.safetensors"
        save_file({name: old[name] for name in part}, source / file, metadata={"format": "pt"})
        index |= dict.fromkeys(part, file)
    (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    out = tmp_path / "out"
    out.mkdir()
    write_hub("org/tiny", None, tmp_path, out)
    found = load_file(out / "model.safetensors")
    assert sorted(found) == sorted(name for name in whole if not name.startswith("pooler."))
    for name, weight in found.items():
        assert torch.equal(weight, whole[name].half())


def test_hub_refusals_are_one_sentence(tmp_path):
    source = hub_model(tmp_path, *NATIVE["roberta"])
    out = tmp_path / "out"
    out.mkdir()

    def refused(match, name="org/tiny"):
        with pytest.raises(UserError, match=match) as caught:
            write_hub(name, None, tmp_path, out)
        assert "\n" not in str(caught.value)
        assert not any(out.iterdir())

    refused("there is no folder", "org/other")
    weights = load_file(source / "model.safetensors")
    (source / "model.safetensors").unlink()
    refused("has no model.safetensors")
    torch.save(weights, source / "pytorch_model.bin")
    refused("only pickled weights, which are never read")
    save_file({"head.weight": torch.zeros(2)}, source / "model.safetensors")
    refused("0 word embeddings are among its 1 weights")
    (source / "tokenizer.json").unlink()
    refused("has no tokenizer.json")
    (source / "config.json").write_text("{")
    refused(r"config\.json cannot be read")


def test_hub_without_a_network_says_so(tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"no-such-org/nothing-here cannot be downloaded and is not in the cache"):
        write_hub("no-such-org/nothing-here", None, None, tmp_path)
    with pytest.raises(UserError, match="is not a hub id"):
        write_hub("a/b/c", None, None, tmp_path)
