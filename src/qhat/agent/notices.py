"""What `Agent` warns of, at most once each: a scale of rewards, and a support that stays too narrow."""

from __future__ import annotations

import warnings

import numpy as np

from qhat.engine.learner import Metrics
from qhat.engine.replay.nstep import CONTINUES, NOTHING
from qhat.engine.replay.ring import Ring
from qhat.environments.reward_scale import reward_scale_advice
from qhat.recipes.recipe import Recipe

CLIPPED = 0.01
"""Share of the targets' mass beyond the support that counts."""
UPDATES = 1_000
"""Updates with that share, less those without it, after which it is said: doubling takes fewer."""


class Notices:
    """Looks at what `replay` did, and warns."""

    def __init__(self, recipe: Recipe):
        self._recipe = recipe
        self._clipped: int | None = 0

    def look(self, update: int, metrics: Metrics, ring: Ring) -> dict[str, float]:
        """Return the numbers of gradient update `update` (from 1), and warn where they ask for it."""
        numbers = {name: float(value) for name, value in vars(metrics).items()}
        if update == 1 and not self._recipe.head.calibrates:
            self._look_at_rewards(ring)
        self._look_at_support(update, numbers["clipped"])
        return numbers

    def _look_at_rewards(self, ring: Ring) -> None:
        used = int(ring.filled[0])
        kind = np.asarray(ring.kind[:used])
        rewards = np.where(kind == NOTHING, 0.0, ring.reward[:used])
        if advice := reward_scale_advice(rewards, kind != CONTINUES, self._recipe.gamma, flag=False):
            warnings.warn(advice, stacklevel=4)

    def _look_at_support(self, update: int, clipped: float) -> None:
        if self._clipped is None:
            return
        self._clipped = max(0, self._clipped + (1 if clipped > CLIPPED else -1))
        if self._clipped < UPDATES:
            return
        self._clipped, head = None, self._recipe.head
        warnings.warn(
            f"{clipped:.1%} of the targets' mass lies beyond the support of {head.name} after {update:,}"
            " updates, and counts as its outermost atoms: values there are wrong. Expected a wider support:"
            f" head={type(head).__name__}(v_min=LOW, v_max=HIGH) of qhat.axes.heads.",
            stacklevel=4,
        )
