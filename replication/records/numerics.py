"""Numerics: integers that a record carries of all that decided its numbers.

A change of what the code computes raises the integer of what computes it; a change of how it is written raises none.
`tests/rehearsals.json` holds what each integer stands for, so a change that nobody declared is found. A method states
its own integer in its class (`numerics: ClassVar[int] = 2`), a probe or a toy study in its module (`NUMERICS = 2`);
what states none is at 1.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from replication.experiment.recipe import AXES, Recipe

SHARED = {
    "data": 1,  # corpus, tokenizer, packing, the order of rows
    "model": 1,  # what is built from a role and a seed, and its forward pass
    "loss": 1,  # where the axes meet, with and without logits
    "optimiser": 1,  # the step, its rate, what is clipped, what a checkpoint brings back
    "delivery": 1,  # random streams, draws, caches: which target a batch gets
    "evaluate": 1,  # the metrics of a trained student
}


def numerics_of(recipe: Recipe, module: ModuleType | None = None) -> dict[str, int]:
    """The integers of a run of this recipe; `module` is its probe's, None of a training."""
    if recipe.measurement is None or module is None:
        return SHARED | of_methods(recipe) | of_methods(recipe.training_recipe)
    parts = {part: SHARED[part] for part in recipe.measurement.numerics}
    return parts | {f"probe.{recipe.probe}": of_module(module)} | of_methods(recipe)


def of_methods(holder: Any) -> dict[str, int]:
    """ "<axis>.<Class>" -> integer, of the methods that a recipe or a toy's setting names on its axes."""
    named = {axis: type(getattr(holder, axis)) for axis in AXES if hasattr(holder, axis)}
    return {f"{axis}.{cls.__name__}": of_class(cls) for axis, cls in named.items()}


def of_class(cls: type) -> int:
    return int(getattr(cls, "numerics", 1))


def of_module(module: ModuleType) -> int:
    return int(getattr(module, "NUMERICS", 1))
