"""What a mixture's reference budget is, worked out from its parts."""

from __future__ import annotations

from collections.abc import Mapping

from xlift.catalog.task import MIXTURE, Recipe
from xlift.errors import UserError
from xlift.settings import Mixture, RecipeOverride

BATCH_SIZE = 32
"""Examples of a step, all of one part, unless the study's `recipes` say otherwise."""


def capped_sum(sizes: Mapping[str, int | None], cap: int) -> int | None:
    """Training examples of all parts, none counted beyond the cap; None where a part's are not known."""
    known = [min(size, cap) for size in sizes.values() if size is not None]
    return sum(known) if len(known) == len(sizes) else None


def mixture_recipe(
    block: Mixture,
    change: RecipeOverride | None,
    recipes: Mapping[str, Recipe],
    sizes: Mapping[str, int | None],
    method: str,
    file: str,
) -> Recipe:
    """A mixture's recipe from those of its parts and their numbers of training examples, by name.

    Steps: `epochs` over the capped sum in batches of 32. Longest sequence: of each part its own, and the longest of all
    is the mixture's. No learning rate where the study gives none: it is then the lowest of the parts'.
    """
    change = change or RecipeOverride()
    batch_size = change.batch_size or BATCH_SIZE
    steps = change.steps
    if steps is None:
        total = capped_sum(sizes, block.cap)
        if total is None:
            unknown = next(name for name, size in sorted(sizes.items()) if size is None)
            raise UserError(
                f"{file}: mixture: the number of {unknown}'s training examples is not known; set "
                f"recipes.{unknown}.train_examples, or the reference steps as recipes.{MIXTURE}.steps"
            )
        steps = max(1, round(block.epochs * total / batch_size))
    return Recipe(
        steps=steps,
        batch_size=batch_size,
        learning_rate={} if change.learning_rate is None else {method: change.learning_rate},
        max_length=change.max_length or max(recipe.max_length for recipe in recipes.values()),
        warmup=change.warmup,
    )
