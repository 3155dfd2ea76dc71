"""The nine English intermediate tasks of Phang et al. (2020)."""

from __future__ import annotations

from dataclasses import replace

from xlift.catalog.recipes import CONVERTED, LORA, MEMORY, PHANG, recipe
from xlift.catalog.task import Slice, Split, Task

EN = ("en",)
NLI_LABELS = ("entailment", "neutral", "contradiction")
SQUAD_TRAIN = Slice("train", "rajpurkar/squad", {"en": "plain_text"}, "train", "squad")
SQUAD_DEV = Slice("dev", "rajpurkar/squad", {"en": "plain_text"}, "validation", "squad")
MNLI_TRAIN = Slice("train", "nyu-mll/glue", {"en": "mnli"}, "train", "nli")
MNLI_DEV = Slice("dev", "nyu-mll/glue", {"en": "mnli"}, "validation_matched", "nli")
SQUAD_EXAMPLES = 87_599
MNLI_EXAMPLES = 392_702
SQUAD_LICENCE = "CC BY-SA 4.0"
MNLI_LICENCE = "OANC; parts CC BY 3.0, CC BY-SA 3.0 and others"

# The supertags of CCGbank are known from its files only. Tags are named by how frequent they are in training: the
# manifest of the prepared data says which is which.
CCG_TAGS = 500
CCG_RARE = "rare"
_CCG_LABELS = (*(f"tag{rank:03d}" for rank in range(CCG_TAGS - 1)), CCG_RARE)

_SAME_EXAMPLES = (
    f"Epochs: {PHANG} [{MEMORY}], in batches of 32 whatever theirs were (the examples seen are theirs). Learning rate "
    "of large encoders: 1e-5, the same source; of base encoders: xlift's own, twice that. "
)


def _provenance(batch: int, size: str = "the data set's own count of its training rows", more: str = "") -> str:
    theirs = "" if batch == 32 else f" Their batch: {batch}."
    return f"{_SAME_EXAMPLES}{LORA}{theirs} train_examples: {size} [{MEMORY}].{' ' + more if more else ''}"


def _both(repository: str, config: str, reader: str, revision: str | None = None) -> tuple[Slice, Slice]:
    """Training rows, and validation rows as dev."""
    return (
        Slice("train", repository, {"en": config}, "train", reader, revision=revision),
        Slice("dev", repository, {"en": config}, "validation", reader, revision=revision),
    )


_SPLITS: tuple[Split, ...] = ("train", "dev")
_ANLI = tuple(
    Slice(split, "facebook/anli", {"en": "plain_text"}, f"{split}_r{round_}", "nli")
    for split in _SPLITS
    for round_ in (1, 2, 3)
)
# Its annotators agreed on no label for 785 training and 158 validation pairs, which are left out.
_SNLI = tuple(replace(part, labels={"-1": ""}) for part in _both("stanfordnlp/snli", "plain_text", "nli"))
_QUESTIONS = {"text_a": "question1", "text_b": "question2"}

INTERMEDIATE_TASKS: tuple[Task, ...] = (
    Task(
        name="mnli",
        family="classification",
        source="hub",
        roles=("intermediate",),
        languages=EN,
        metrics=("accuracy",),
        labels=NLI_LABELS,
        train_examples=MNLI_EXAMPLES,
        recipe=recipe(2, MNLI_EXAMPLES, 2e-5, 1e-5, 256),
        slices=(MNLI_TRAIN, MNLI_DEV),
        licence=MNLI_LICENCE,
        provenance=_provenance(24),
        summary="Natural language inference, many genres (Williams et al. 2018).",
    ),
    Task(
        name="anli_plus",
        family="classification",
        source="hub",
        roles=("intermediate",),
        languages=EN,
        metrics=("accuracy",),
        labels=NLI_LABELS,
        train_examples=1_104_934,
        training_data=("anli", "mnli", "snli"),
        recipe=recipe(2, 1_104_934, 2e-5, 1e-5, 256),
        slices=(*_ANLI, MNLI_TRAIN, MNLI_DEV, *_SNLI),
        licence=f"ANLI: CC BY-NC 4.0; SNLI: CC BY-SA 4.0; MNLI: {MNLI_LICENCE}",
        provenance=_provenance(
            24,
            "ANLI 162,865, MNLI 392,702, SNLI 549,367 with a label",
            "One head and one label set over all three, examples drawn in proportion to their number.",
        ),
        summary="Adversarial NLI, all three rounds, with MNLI and SNLI (Nie et al. 2020).",
    ),
    Task(
        name="qqp",
        family="classification",
        source="hub",
        roles=("intermediate",),
        languages=EN,
        metrics=("accuracy",),
        labels=("not_duplicate", "duplicate"),
        train_examples=363_846,
        recipe=recipe(3, 363_846, 2e-5, 1e-5, 256),
        slices=(
            Slice("train", "nyu-mll/glue", {"en": "qqp"}, "train", "paraphrase", _QUESTIONS),
            Slice("dev", "nyu-mll/glue", {"en": "qqp"}, "validation", "paraphrase", _QUESTIONS),
        ),
        licence="none; Quora's terms of service, non-commercial",
        provenance=_provenance(24),
        summary="Are two questions duplicates of each other? (Quora question pairs)",
    ),
    Task(
        name="squad_v1",
        family="span",
        source="hub",
        roles=("intermediate",),
        languages=EN,
        metrics=("squad_f1", "squad_em"),
        train_examples=SQUAD_EXAMPLES,
        recipe=recipe(3, SQUAD_EXAMPLES, 2e-5, 1e-5, 384, stride=128),
        slices=(SQUAD_TRAIN, SQUAD_DEV),
        licence=SQUAD_LICENCE,
        provenance=_provenance(8),
        summary="Find the answer in a Wikipedia paragraph (Rajpurkar et al. 2016).",
    ),
    Task(
        name="squad_v2",
        family="span",
        source="hub",
        roles=("intermediate",),
        languages=EN,
        metrics=("squad_v2_f1", "squad_v2_em"),
        train_examples=130_319,
        # Its answerable questions are SQuAD v1.1's.
        training_data=("squad_v1", "squad_v2"),
        unanswerable=True,
        recipe=recipe(3, 130_319, 2e-5, 1e-5, 384, stride=128),
        slices=_both("rajpurkar/squad_v2", "squad_v2", "squad"),
        licence=SQUAD_LICENCE,
        provenance=_provenance(8),
        summary="The same, with questions that have no answer (Rajpurkar et al. 2018).",
    ),
    Task(
        name="hellaswag",
        family="multiple_choice",
        source="hub",
        roles=("intermediate",),
        languages=EN,
        metrics=("accuracy",),
        choices=4,
        train_examples=39_905,
        recipe=recipe(7, 39_905, 2e-5, 1e-5, 256),
        slices=_both("Rowan/hellaswag", "default", "hellaswag"),
        licence="MIT",
        provenance=_provenance(24),
        summary="Which of four endings continues a description? (Zellers et al. 2019)",
    ),
    Task(
        name="ccg",
        family="tagging",
        source="folder",
        roles=("intermediate",),
        languages=EN,
        metrics=("token_accuracy",),
        labels=_CCG_LABELS,
        recipe=recipe(15, 38_015, 2e-5, 1e-5, 256, stride=64),
        slices=(
            Slice("train", "ccg", {"en": "default"}, "train", "ccg"),
            Slice("dev", "ccg", {"en": "default"}, "validation", "ccg"),
        ),
        licence="CCGbank: LDC2005T13, for its licensees only",
        provenance=_provenance(
            24,
            "unknown, since the data is the user's (38,015 in the paper)",
            f"The {CCG_TAGS - 1} supertags most frequent in training are classes of their own and all others one.",
        ),
        summary="Categorial supertags of CCGbank, or of a substitute in the same columns, from a folder.",
    ),
    Task(
        name="cosmos_qa",
        family="multiple_choice",
        source="hub",
        roles=("intermediate",),
        languages=EN,
        metrics=("accuracy",),
        choices=4,
        train_examples=25_262,
        recipe=recipe(15, 25_262, 2e-5, 1e-5, 256),
        slices=_both("allenai/cosmos_qa", "default", "cosmos_qa", CONVERTED),
        licence="CC BY 4.0",
        provenance=_provenance(4, "25,262 rows on the hub (the paper has 25,588)"),
        summary="Which of four answers to a question about a blog paragraph? (Huang et al. 2019)",
    ),
    Task(
        name="commonsense_qa",
        family="multiple_choice",
        source="hub",
        roles=("intermediate",),
        languages=EN,
        metrics=("accuracy",),
        choices=5,
        train_examples=9_741,
        recipe=recipe(10, 9_741, 2e-5, 1e-5, 256),
        slices=_both("tau/commonsense_qa", "default", "commonsense_qa"),
        licence="MIT",
        provenance=_provenance(4),
        summary="Which of five answers to a commonsense question? (Talmor et al. 2019)",
    ),
)
