"""The retrieval targets of XTREME-R and XTREME: Tatoeba, LAReQA, Mewsli-X, BUCC 2018."""

from __future__ import annotations

from xlift.catalog.intermediate import SQUAD_EXAMPLES, SQUAD_LICENCE
from xlift.catalog.recipes import LORA, MEMORY, XTREME, recipe
from xlift.catalog.target import same
from xlift.catalog.task import Slice, Task, codes, renamed

_TATOEBA = renamed(
    "af:afr ar:ara az:aze bg:bul bn:ben de:deu el:ell es:spa et:est eu:eus fa:pes fi:fin fr:fra he:heb hi:hin "
    "hu:hun id:ind it:ita ja:jpn jv:jav ka:kat kk:kaz ko:kor lt:lit ml:mal mr:mar nl:nld pl:pol pt:por ro:ron "
    "ru:rus sw:swh ta:tam te:tel th:tha tl:tgl tr:tur uk:ukr ur:urd vi:vie zh:cmn"
)
_LAREQA = codes("ar de el en es hi ru th tr vi zh")
_MEWSLIX = codes("ar de en es fa ja pl ro ta tr uk")
_BUCC = codes("de fr ru zh")
_TATOEBA_SLICES = (
    Slice("test", "mteb/tatoeba-bitext-mining", {c: f"{_TATOEBA[c]}-eng" for c in sorted(_TATOEBA)}, "test", "tatoeba"),
)
_TATOEBA_LANGUAGES = tuple(sorted(_TATOEBA))

_DUAL = (
    "The dual encoder departs from XTREME's third_party/bert.py: states are mean-pooled, where theirs are the pooler's "
    "of the first token; the logit scale starts at 20 and stays below 100, where theirs starts at 100; documents that "
    "answer a query as well as its own are none of its negatives. "
)

RETRIEVAL_TASKS: tuple[Task, ...] = (
    Task(
        name="tatoeba_direct",
        family="retrieval",
        source="hub",
        roles=("target",),
        languages=_TATOEBA_LANGUAGES,
        metrics=("accuracy_at_1", "accuracy_at_1_common"),
        test_examples=2000,
        max_length=512,
        cross_lingual_only=True,
        slices=_TATOEBA_SLICES,
        licence="CC BY 2.0 FR",
        provenance=(
            f"Length and layer: {XTREME}run_tatoeba.sh. This is XTREME's protocol; XTREME-R's is tatoeba_squad."
        ),
        summary="Find the translation of an English sentence, 41 languages; no training.",
    ),
    Task(
        name="tatoeba_squad",
        family="retrieval",
        source="hub",
        roles=("target",),
        languages=_TATOEBA_LANGUAGES,
        metrics=("accuracy_at_1", "accuracy_at_1_common"),
        test_examples=2000,
        training_data=("squad_v1",),
        max_length=512,
        cross_lingual_only=True,
        stages=("squad",),
        slices=_TATOEBA_SLICES,
        licence=f"Tatoeba: CC BY 2.0 FR; SQuAD: {SQUAD_LICENCE}",
        provenance=(
            f"{XTREME}run_tatoeba.sh as XTREME-R has it: a model trained to answer SQuAD's questions, its states read "
            "as tatoeba_direct reads the encoder's. The recipe is xquad's, of 3 epochs; the name of the checkpoint in "
            "that script says 2."
        ),
        summary="The same after question answering was trained on SQuAD v1.1 (XTREME-R's protocol).",
    ),
    Task(
        name="lareqa",
        family="retrieval",
        source="hub",
        roles=("target",),
        languages=_LAREQA,
        metrics=("map_at_20",),
        train_examples=SQUAD_EXAMPLES,
        test_examples=2400,
        training_data=("squad_v1",),
        document_length=256,
        recipe=recipe(3, SQUAD_EXAMPLES, 2e-5, 2e-5, 96, batch_size=16, warmup=0.0),
        slices=(
            Slice("train", "rajpurkar/squad", {"en": "plain_text"}, "train", "squad_sentences_in_context"),
            Slice("dev", "rajpurkar/squad", {"en": "plain_text"}, "validation", "squad_sentences_in_context"),
            Slice("test", "lareqa", same(_LAREQA), "validation", "lareqa"),
        ),
        licence=SQUAD_LICENCE,
        provenance=(
            f"Recipe: {XTREME}train_lareqa.sh (96 tokens a question, 256 an answer, batches of 16, the first of "
            f"its two rates: 2e-5, then 5e-5). {_DUAL}{LORA} SQuAD's sentences are cut by a rule of xlift's own. The "
            "sentence boundaries of XQuAD-R are in LAReQA's own files only, which a study gives as a folder."
        ),
        summary="Find the sentences of any language that answer a question, 11 languages (Roy et al. 2020).",
    ),
    Task(
        name="mewslix",
        family="retrieval",
        source="folder",
        roles=("target",),
        languages=_MEWSLIX,
        metrics=("map_at_20",),
        train_examples=167_719,
        test_examples=92_600,
        recipe=recipe(2, 167_719, 2e-5, 1e-5, 64, batch_size=64, warmup=0.0),
        slices=(
            Slice("train", "mewslix", {"en": "en"}, "train", "mewslix"),
            Slice("dev", "mewslix", {"en": "en"}, "dev", "mewslix"),
            Slice("test", "mewslix", same(_MEWSLIX), "test", "mewslix"),
            Slice("validation", "mewslix", same(_MEWSLIX), "dev", "mewslix"),
        ),
        licence="not looked up (Wikipedia and WikiNews text)",
        provenance=(
            f"Epochs, length and the base rate: {XTREME}train_mewslix.sh; the large rate: its later version "
            f"[{MEMORY}]. Batch of 64, each query against all of it: xlift's own (theirs: 256 for mBERT, 32 for XLM-R, "
            "each query against the part of the batch that is computed with it). Training pairs whose sentence is in "
            f"dev too are left out. {_DUAL}{LORA} train_examples and files: Mewsli-X's own description "
            "(mewsli-x_20220518_6)."
        ),
        summary="Find the entity that a mention in the news means, among a million, 11 languages (Mewsli-X).",
    ),
    Task(
        name="bucc2018",
        family="retrieval",
        source="folder",
        roles=("target",),
        languages=_BUCC,
        metrics=("bitext_f1",),
        test_examples=700_000,
        max_length=512,
        cross_lingual_only=True,
        slices=(
            Slice("dev", "bucc2018", same(_BUCC), "sample", "bucc"),
            Slice("test", "bucc2018", same(_BUCC), "training", "bucc"),
        ),
        licence="not stated (Wikipedia and news text)",
        provenance=(
            "The sample data is dev and the training data is scored, as in "
            f"{XTREME}download_data.sh, for the gold pairs of the test data are not public. Length: "
            f"{XTREME}run_bucc2018.sh, which reads the first token's state at layer 7 of every encoder, where here "
            "the states of all tokens are averaged, at the layer that Tatoeba is read at. The hub's copies hold the "
            "gold pairs only, nothing to mine them from."
        ),
        summary="Mine the translations out of two texts, 4 languages with English (BUCC 2018; XTREME only).",
    ),
)
