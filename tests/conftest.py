"""Shared fixtures: a tiny random encoder that needs no network, and the packaged one unpacked once a session."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from faults import Fault, page

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from xlift.compute import Compute

TINY = {
    "model_type": "bert",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "hidden_act": "gelu",
    "max_position_embeddings": 160,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 1,
}


@pytest.fixture(scope="session")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Unigram tokenizer in XLM-R's manner: trained on English names, with single characters of other scripts."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    from toy import VOCABULARY
    from xlift.sources.cldr_items import raw_names

    names = sorted(raw_names("en").values())
    others = sorted({character for code in ("ar", "hi", "ru", "th") for character in "".join(raw_names(code).values())})
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(Regex(r"[\x01-\x08]"), ""),
            normalizers.Replace(Regex(r"[\t\n\x{200B}]"), " "),
            normalizers.NFKC(),
            normalizers.Strip(left=True, right=True),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=1000, special_tokens=special, unk_token="<unk>", initial_alphabet=others, show_progress=False
    )
    # The toy tasks' words are frequent enough to be pieces of their own.
    tokenizer.train_from_iterator([*names, *others, *VOCABULARY * 200], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


@pytest.fixture
def tokenizer(tokenizer_file: Path) -> Tokenizer:
    """A fresh copy: truncation is a state of the object."""
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(tokenizer_file))


@pytest.fixture(scope="session")
def tiny_encoder(tokenizer_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a published random BERT encoder (hidden 32, two layers) in the Hugging Face layout."""
    import json

    import torch
    from safetensors.torch import save_file
    from tokenizers import Tokenizer

    from xlift.artifacts import publish_folder
    from xlift.encoder.model import Encoder

    torch.set_num_threads(1)
    config = TINY | {"vocab_size": Tokenizer.from_file(str(tokenizer_file)).get_vocab_size()}
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in Encoder(config, 0.0).state_dict().items()}
    generator = torch.Generator().manual_seed(11)
    weights = {
        name: torch.randn(shape, generator=generator) * (0.05 if name.endswith("bias") or "Norm" in name else 0.3)
        + ("LayerNorm.weight" in name)
        for name, shape in sorted(shapes.items())
    }

    def write(folder: Path) -> None:
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        save_file(weights, folder / "model.safetensors")
        shutil.copy(tokenizer_file, folder / "tokenizer.json")

    folder = tmp_path_factory.mktemp("tiny_encoder")
    publish_folder(folder, write, {"fingerprint": "tiny"})
    return folder


@pytest.fixture(scope="session")
def packaged_encoder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folder of the packaged encoder (240 MB, removed at the end)."""
    from xlift.encoder.packaged import write_packaged

    out = tmp_path_factory.mktemp("packaged")
    write_packaged(out)
    yield out
    shutil.rmtree(out)


@pytest.fixture
def compute() -> Compute:
    """One CPU thread in fp32."""
    import torch

    from xlift.compute import Compute

    torch.set_num_threads(1)
    return Compute(torch.device("cpu"), torch.float32)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--write-reliability`: write docs/reliability.md from the faults that the tests inject."""
    parser.addoption("--write-reliability", action="store_true", help="write docs/reliability.md at the end")


_INJECTED: dict[str, Fault] = {}


@pytest.fixture
def fault(request: pytest.FixtureRequest) -> Fault:
    """The ledger's entry of a test that is marked with `fault("<kind>")`."""
    marker = request.node.get_closest_marker("fault")
    found = _INJECTED.setdefault(request.node.nodeid, Fault(marker.args[0]))
    return found


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """A fault whose test fails was injected and neither survived nor refused: it is counted as lost."""
    report = yield
    if call.when == "call" and report.failed and item.nodeid in _INJECTED:
        _INJECTED[item.nodeid].injected += 1
    return report


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Write the ledger where that was asked for and all tests have run, with what was lost."""
    if session.config.getoption("--write-reliability") and exitstatus in (
        pytest.ExitCode.OK,
        pytest.ExitCode.TESTS_FAILED,
    ):
        (Path(__file__).parents[1] / "docs" / "reliability.md").write_text(page(_INJECTED.values()), encoding="utf-8")
