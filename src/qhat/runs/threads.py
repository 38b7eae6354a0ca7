"""How many cores compute one seed."""

from __future__ import annotations

import itertools

from qhat.recipes.recipe import Recipe

GAIN = 2**24
"""Multiplications of one product from which on a second core saves time (docs/results/threads.md)."""


def threads_for(recipe: Recipe, pictures: bool) -> int | None:
    """Return 1 if no product of an update is large enough to gain from a second core; `None` is all cores.

    XLA gives its threads small operations too, and each then waits for the other's memory: a step of a
    small network takes half as much processor time more, and longer where the cores have other work.

    Args:
        pictures: whether observations have pictures of 36 pixels or more a side.
    """
    rows = recipe.batch_size * max(1, recipe.head.fractions("online"))
    layers = [wide * high for wide, high in itertools.pairwise(recipe.hidden)]
    largest = rows * max([recipe.torso.largest_layer, *layers])
    return None if largest >= GAIN or recipe.torso.gains_from_cores(pictures) else 1
