"""The tasks of the offline benchmark, made of Unicode CLDR's names."""

from __future__ import annotations

from xlift.catalog.task import Recipe, Task, codes

# CLDR covers every language of XTREME-R with names of its own but Haitian Creole (`ht` inherits from French).
_CLDR_LANGUAGES = codes(
    "af ar az bg bn de el en es et eu fa fi fr gu he hi hu id it ja jv ka kk ko lt ml mr ms my nl pa pl pt qu ro ru sw "
    "ta te th tl tr uk ur vi wo yo zh"
)

_ENTITY_TAGS = ("O", *(f"{p}-{k}" for k in ("CURRENCY", "LANGUAGE", "TERRITORY") for p in ("B", "I")))


def _rates(lora: float, full: float) -> dict[str, float]:
    return {"lora": lora, "full": full}


# Steps, batch and learning rates of the cldr_* tasks are xlift's own, chosen so that the default study fits two
# cores and twelve minutes; they follow no publication.
CLDR_TASKS: tuple[Task, ...] = (
    Task(
        name="cldr_pairs",
        family="classification",
        source="cldr",
        roles=("intermediate",),
        languages=("en",),
        metrics=("accuracy",),
        labels=("listed", "other_kind", "same_kind"),
        train_examples=6000,
        recipe=Recipe(steps=24, batch_size=16, learning_rate=_rates(1e-3, 5e-5), max_length=64),
        licence="Unicode-3.0",
        summary="Is an item in a list, of the list's kind, or of another kind? English sentence pairs.",
    ),
    Task(
        name="cldr_choice",
        family="multiple_choice",
        source="cldr",
        roles=("intermediate",),
        languages=("en",),
        metrics=("accuracy",),
        choices=4,
        train_examples=6000,
        recipe=Recipe(steps=24, batch_size=16, learning_rate=_rates(1e-3, 5e-5), max_length=64),
        licence="Unicode-3.0",
        summary="Which of four items is of the same kind as three listed ones? English.",
    ),
    Task(
        name="cldr_qa",
        family="span",
        source="cldr",
        roles=("intermediate",),
        languages=("en",),
        metrics=("squad_f1", "squad_em"),
        train_examples=6000,
        recipe=Recipe(steps=16, batch_size=16, learning_rate=_rates(3e-3, 1e-4), max_length=128, stride=32),
        licence="Unicode-3.0",
        summary="Find the one item of the asked kind in a few clauses. English extractive question answering.",
    ),
    Task(
        name="cldr_retrieval",
        family="retrieval",
        source="cldr",
        roles=("target",),
        languages=_CLDR_LANGUAGES,
        metrics=("accuracy_at_1",),
        test_examples=32,
        max_length=64,
        cross_lingual_only=True,
        licence="Unicode-3.0",
        summary="Find the English name of a territory or language by its name in another language; no training.",
    ),
    Task(
        name="cldr_kind",
        family="classification",
        source="cldr",
        roles=("target",),
        languages=_CLDR_LANGUAGES,
        metrics=("accuracy",),
        labels=("currency", "language", "script", "territory", "unit"),
        train_examples=550,
        test_examples=40,
        recipe=Recipe(steps=40, batch_size=16, learning_rate=_rates(2e-3, 1e-4), max_length=64),
        licence="Unicode-3.0",
        summary="Say what kind of thing a name names: territory, language, script, currency or unit.",
    ),
    Task(
        name="cldr_entities",
        family="tagging",
        source="cldr",
        roles=("target",),
        languages=_CLDR_LANGUAGES,
        metrics=("span_f1", "token_accuracy"),
        labels=_ENTITY_TAGS,
        train_examples=2000,
        test_examples=14,
        recipe=Recipe(steps=64, batch_size=8, learning_rate=_rates(2e-3, 1e-4), max_length=128, stride=32),
        licence="Unicode-3.0",
        summary="Tag territories, languages and currencies in a localised enumeration (IOB2).",
    ),
)
