"""The target tasks of XTREME-R (Ruder et al. 2021) and the two that only XTREME (Hu et al. 2020) has."""

from __future__ import annotations

from xlift.catalog.intermediate import (
    MNLI_DEV,
    MNLI_EXAMPLES,
    MNLI_LICENCE,
    MNLI_TRAIN,
    NLI_LABELS,
    SQUAD_DEV,
    SQUAD_EXAMPLES,
    SQUAD_LICENCE,
    SQUAD_TRAIN,
)
from xlift.catalog.recipes import CONVERTED, LORA, MEMORY, XTREME, recipe
from xlift.catalog.task import Slice, Split, Task, codes, renamed

UPOS = codes("ADJ ADP ADV AUX CCONJ DET INTJ NOUN NUM PART PRON PROPN PUNCT SCONJ SYM VERB X")
ENTITY_TAGS = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC")
# In XTREME's copy; XTREME-R adds five that are in a repository of their own.
_UDPOS = renamed(
    "af:Afrikaans ar:Arabic bg:Bulgarian de:German el:Greek en:English es:Spanish et:Estonian eu:Basque fa:Persian "
    "fi:Finnish fr:French he:Hebrew hi:Hindi hu:Hungarian id:Indonesian it:Italian ja:Japanese kk:Kazakh ko:Korean "
    "mr:Marathi nl:Dutch pt:Portuguese ru:Russian ta:Tamil te:Telugu th:Thai tl:Tagalog tr:Turkish ur:Urdu "
    "vi:Vietnamese yo:Yoruba zh:Chinese"
)
_UDPOS_ADDED = codes("lt pl ro uk wo")
_UDPOS_TEST_ONLY = codes("kk th tl yo")
_XNLI = codes("ar bg de el en es fr hi ru sw th tr ur vi zh")
_XCOPA = codes("et ht id it qu sw ta th tr vi zh")
_PANX = codes(
    "af ar az bg bn de el en es et eu fa fi fr gu he hi hu id it ja jv ka kk ko lt ml mr ms my nl pa pl pt qu ro ru sw "
    "ta te th tl tr uk ur vi yo zh"
)
_XQUAD = codes("ar de el en es hi ro ru th tr vi zh")
_MLQA = codes("ar de en es hi vi zh")
_TYDIQA = codes("ar bn en fi id ko ru sw te")
_PAWSX = codes("de en es fr ja ko zh")


def same(languages: tuple[str, ...], pattern: str = "{}") -> dict[str, str]:
    """Config by language, where the config's name holds the language's code."""
    return {code: pattern.format(code) for code in languages}


def _udpos(split: Split, rows: str, without: tuple[str, ...] = ()) -> tuple[Slice, ...]:
    """UD rows in the languages of XTREME and in those that XTREME-R adds."""
    columns = {"tags": "pos_tags"}
    first = {code: f"udpos.{name}" for code, name in sorted(_UDPOS.items()) if code not in without}
    return (
        Slice(split, "google/xtreme", first, rows, "tagged", columns),
        Slice(split, "izhx/xtreme-r-udpos", same(_UDPOS_ADDED), rows, "tagged", columns, revision=CONVERTED),
    )


def _pawsx(split: Split, configs: dict[str, str], rows: str) -> Slice:
    columns = {"text_a": "sentence1", "text_b": "sentence2"}
    return Slice(split, "google-research-datasets/paws-x", configs, rows, "paraphrase", columns)


def _scored(repository: str, configs: dict[str, str], reader: str, revision: str | None = None) -> tuple[Slice, Slice]:
    """Test rows, and the validation rows that may take their place."""
    return (
        Slice("test", repository, configs, "test", reader, revision=revision),
        Slice("validation", repository, configs, "validation", reader, revision=revision),
    )


_LARGE = f"Learning rates of base and large encoders, epochs, batch and length: {XTREME}"
_QA_RECIPE = recipe(3, SQUAD_EXAMPLES, 3e-5, 3e-5, 384, stride=128, warmup=0.0609)
_QA = (
    f"Recipe: {XTREME}train_qa.sh (3 epochs in batches of 32, 3e-5 for all sizes, 384 tokens, stride 128; 500 steps of "
    f"warm-up, here as a share of the steps; their weight decay of 1e-4 is not taken over). {LORA} "
    "Windows of a long context share 128 tokens, as in Hugging Face's present question-answering example, where "
    "XTREME's third_party/processors/squad.py moves them on by 128; and the best span over all windows is the answer, "
    "without XTREME's rule that its first token is read in the window with most context on both sides. "
)
_SQUAD_DEV = (
    f"Dev is SQuAD v1.1's validation data without the paragraphs that are scored. train_examples: 87,599 [{MEMORY}]."
)
_COPA_TRAIN = Slice("train", "aps/super_glue", {"en": "copa"}, "train", "copa", revision=CONVERTED)
_COPA_DEV = Slice("dev", "aps/super_glue", {"en": "copa"}, "validation", "copa", revision=CONVERTED)
_COPA_RECIPE = recipe(5, 400, 2e-5, 3e-5, 128, warmup=0.0)
_XCOPA_SOURCE = f"{_LARGE}train_xcopa.sh. {LORA} train_examples: the data set's own count [{MEMORY}]."
_COPA_LICENCE = "BSD 2-Clause (the hub states none)"
_SIQA_LICENCE = "none stated"

TARGET_TASKS: tuple[Task, ...] = (
    Task(
        name="xnli",
        family="classification",
        source="hub",
        roles=("target",),
        languages=_XNLI,
        metrics=("accuracy",),
        labels=NLI_LABELS,
        train_examples=MNLI_EXAMPLES,
        test_examples=5010,
        training_data=("mnli",),
        recipe=recipe(5, MNLI_EXAMPLES, 2e-5, 3e-5, 128, warmup=0.0),
        slices=(MNLI_TRAIN, MNLI_DEV, *_scored("facebook/xnli", same(_XNLI), "nli")),
        licence=f"XNLI: CC BY-NC 4.0; MNLI: {MNLI_LICENCE}",
        provenance=f"{_LARGE}train_xnli.sh. {LORA} Dev is MNLI's matched validation data.",
        summary="Natural language inference in 15 languages (Conneau et al. 2018).",
    ),
    Task(
        name="xcopa",
        family="multiple_choice",
        source="hub",
        roles=("target",),
        languages=_XCOPA,
        metrics=("accuracy",),
        choices=2,
        train_examples=400,
        test_examples=500,
        training_data=("copa", "social_iqa"),
        stages=("social_iqa", "copa"),
        recipe=_COPA_RECIPE,
        slices=(_COPA_TRAIN, _COPA_DEV, *_scored("cambridgeltl/xcopa", same(_XCOPA), "copa")),
        licence=f"XCOPA: CC BY 4.0; COPA: {_COPA_LICENCE}; Social IQa: {_SIQA_LICENCE}",
        provenance=f"{_XCOPA_SOURCE} The prompt is XTREME's, in English for every language.",
        summary="Which of two is the cause or the effect? In 11 languages (Ponti et al. 2020).",
    ),
    Task(
        name="social_iqa",
        family="multiple_choice",
        source="hub",
        roles=("stage",),
        languages=("en",),
        metrics=("accuracy",),
        choices=3,
        train_examples=33_410,
        recipe=recipe(5, 33_410, 2e-5, 3e-5, 128, warmup=0.0),
        slices=(
            Slice("train", "allenai/social_i_qa", {"en": "default"}, "train", "social_iqa", revision=CONVERTED),
            Slice("dev", "allenai/social_i_qa", {"en": "default"}, "validation", "social_iqa", revision=CONVERTED),
        ),
        licence=_SIQA_LICENCE,
        provenance=_XCOPA_SOURCE,
        summary="Which of three answers about a social situation? (Sap et al. 2019)",
    ),
    Task(
        name="copa",
        family="multiple_choice",
        source="hub",
        roles=("stage",),
        languages=("en",),
        metrics=("accuracy",),
        choices=2,
        train_examples=400,
        recipe=_COPA_RECIPE,
        slices=(_COPA_TRAIN, _COPA_DEV),
        licence=_COPA_LICENCE,
        provenance=_XCOPA_SOURCE,
        summary="Which of two is the cause or the effect? English (Roemmele et al. 2011).",
    ),
    Task(
        name="udpos",
        family="tagging",
        source="hub",
        roles=("target",),
        languages=tuple(sorted((*_UDPOS, *_UDPOS_ADDED))),
        metrics=("token_accuracy", "xtreme_f1"),
        labels=UPOS,
        train_examples=21_253,
        recipe=recipe(10, 21_253, 2e-5, 2e-5, 128, stride=32, warmup=0.0),
        slices=(
            Slice("train", "google/xtreme", {"en": "udpos.English"}, "train", "tagged", {"tags": "pos_tags"}),
            Slice("dev", "google/xtreme", {"en": "udpos.English"}, "validation", "tagged", {"tags": "pos_tags"}),
            *_udpos("test", "test"),
            *_udpos("validation", "validation", without=_UDPOS_TEST_ONLY),
        ),
        licence="by treebank: mostly CC BY-SA and CC BY-NC-SA",
        provenance=(
            f"Recipe: {XTREME}train_udpos.sh, with windows for long sentences where XTREME cuts them. {LORA} "
            f"train_examples: XTREME's Table 1 (UD 2.5) [{MEMORY}]. Configs, splits and columns of izhx/xtreme-r-udpos "
            f"(lt, pl, ro, uk, wo) are {MEMORY}."
        ),
        summary="Universal part-of-speech tags, 38 languages (Universal Dependencies).",
    ),
    Task(
        name="panx",
        family="tagging",
        source="hub",
        roles=("target",),
        languages=_PANX,
        metrics=("span_f1", "token_accuracy"),
        labels=ENTITY_TAGS,
        train_examples=20_000,
        test_examples=6_000,
        recipe=recipe(10, 20_000, 2e-5, 2e-5, 128, stride=32, warmup=0.0),
        slices=(
            Slice("train", "unimelb-nlp/wikiann", {"en": "en"}, "train", "tagged", {"tags": "ner_tags"}),
            Slice("dev", "unimelb-nlp/wikiann", {"en": "en"}, "validation", "tagged", {"tags": "ner_tags"}),
            Slice("test", "unimelb-nlp/wikiann", same(_PANX), "test", "tagged", {"tags": "ner_tags"}),
            Slice("validation", "unimelb-nlp/wikiann", same(_PANX), "validation", "tagged", {"tags": "ner_tags"}),
        ),
        licence="none stated (Wikipedia text)",
        provenance=(
            f"Recipe: {XTREME}train_panx.sh, with windows for long sentences where XTREME cuts them. {LORA} "
            "train_examples: Rahimi et al. 2019."
        ),
        summary="Names of persons, places and organisations, 48 languages (WikiANN).",
    ),
    Task(
        name="xquad",
        family="span",
        source="hub",
        roles=("target",),
        languages=_XQUAD,
        metrics=("squad_f1", "squad_em"),
        train_examples=SQUAD_EXAMPLES,
        test_examples=1190,
        training_data=("squad_v1",),
        recipe=_QA_RECIPE,
        slices=(
            SQUAD_TRAIN,
            SQUAD_DEV,
            Slice("test", "google/xquad", same(_XQUAD, "xquad.{}"), "validation", "squad"),
        ),
        licence=SQUAD_LICENCE,
        provenance=_QA + _SQUAD_DEV,
        summary="Extractive questions, 12 languages, translated from SQuAD (Artetxe et al. 2020).",
    ),
    Task(
        name="squad",
        family="span",
        source="hub",
        roles=("stage",),
        languages=("en",),
        metrics=("squad_f1", "squad_em"),
        train_examples=SQUAD_EXAMPLES,
        training_data=("squad_v1",),
        recipe=_QA_RECIPE,
        slices=(SQUAD_TRAIN, SQUAD_DEV),
        licence=SQUAD_LICENCE,
        provenance=f"{_QA}Dev is SQuAD v1.1's validation data. train_examples: 87,599 [{MEMORY}].",
        summary="Extractive questions, English, as XTREME trains them (Rajpurkar et al. 2016).",
    ),
    Task(
        name="mlqa",
        family="span",
        source="hub",
        roles=("target",),
        languages=_MLQA,
        metrics=("mlqa_f1", "mlqa_em"),
        train_examples=SQUAD_EXAMPLES,
        test_examples=6000,
        training_data=("squad_v1",),
        recipe=_QA_RECIPE,
        slices=(
            SQUAD_TRAIN,
            SQUAD_DEV,
            *_scored("facebook/mlqa", same(_MLQA, "mlqa.{0}.{0}"), "squad", CONVERTED),
        ),
        licence=f"MLQA: CC BY-SA 3.0; SQuAD: {SQUAD_LICENCE}",
        provenance=_QA + _SQUAD_DEV,
        summary="Extractive questions about aligned Wikipedia passages, 7 languages (Lewis et al. 2020).",
    ),
    Task(
        name="tydiqa",
        family="span",
        source="hub",
        roles=("target",),
        languages=_TYDIQA,
        metrics=("squad_f1", "squad_em"),
        train_examples=3_696,
        test_examples=564,
        recipe=recipe(3, 3_696, 3e-5, 3e-5, 384, stride=128),
        slices=(
            Slice("train", "google-research-datasets/tydiqa", {"en": "secondary_task"}, "train", "tydiqa"),
            SQUAD_DEV,
            Slice(
                "test",
                "google-research-datasets/tydiqa",
                dict.fromkeys(_TYDIQA, "secondary_task"),
                "validation",
                "tydiqa",
            ),
        ),
        licence=f"TyDi QA: Apache-2.0; SQuAD (dev): {SQUAD_LICENCE}",
        provenance=(
            f"{_QA}The script's 500 steps of warm-up are more than the whole run has: the study's warm-up is taken "
            "instead. What the hub calls validation is what is scored, and it has no other English rows than those and "
            "train's, so that dev is SQuAD v1.1's validation data. train_examples: the English rows."
        ),
        summary="Questions asked by people who want to know, 9 languages (TyDi QA, gold passage).",
    ),
    Task(
        name="pawsx",
        family="classification",
        source="hub",
        roles=("target",),
        languages=_PAWSX,
        metrics=("accuracy",),
        labels=("0", "1"),
        train_examples=49_401,
        test_examples=2000,
        recipe=recipe(5, 49_401, 2e-5, 2e-5, 128, warmup=0.0),
        slices=(
            _pawsx("train", {"en": "en"}, "train"),
            _pawsx("dev", {"en": "en"}, "validation"),
            _pawsx("test", same(_PAWSX), "test"),
            _pawsx("validation", same(_PAWSX), "validation"),
        ),
        licence="free use, credit to Google LLC",
        provenance=f"{_LARGE}train_pawsx.sh. {LORA} train_examples: Yang et al. 2019 [{MEMORY}].",
        summary="Is one sentence a paraphrase of the other? 7 languages (Yang et al. 2019; XTREME only).",
    ),
)
