"""The evaluations of a network in one update ("looks"), and the random numbers of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
from jaxtyping import Array

if TYPE_CHECKING:
    from qhat.engine.learner import Learner

LOOKS = ("online", "target", "selection", "bonus")


def drawn(learner: Learner, key: Array, batch: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Draw the noise of each look, and its fractions for each example; `None` where it has none."""
    noise_key, *keys = jax.random.split(key, 1 + len(LOOKS))
    rows: Any = learner.network.noise(noise_key, len(LOOKS))
    noise: dict[str, Any] = dict(zip(LOOKS, [None] * len(LOOKS) if rows is None else rows, strict=True))
    fractions: dict[str, Any] = {}
    for look, look_key in zip(LOOKS, keys, strict=True):
        count = learner.recipe.head.fractions(look)
        fractions[look] = jax.random.uniform(look_key, (batch, count)) if count else None
    return noise, fractions
