"""Warnings of an `Agent`, each at most one time: about the scale of rewards, and a narrow support."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from qhat.engine.replay.nstep import CONTINUES, NOTHING
from qhat.engine.replay.ring import Ring
from qhat.environments.reward_scale import reward_scale_advice
from qhat.recipes.recipe import Recipe
from qhat.system.errors import warn

CLIPPED = 0.01
"""Share of the targets' mass beyond the support above which an update counts as clipped."""
UPDATES = 1_000
"""Clipped updates minus the others at which the warning comes; doubling the support takes fewer."""


class Notices:
    """Checks the results of `replay`, and warns."""

    def __init__(self, recipe: Recipe):
        self._recipe = recipe
        self._rewards = not recipe.head.calibrates
        self._clipped: int | None = 0

    def look(self, update: int, numbers: Mapping[str, float], ring: Callable[[], Ring]) -> None:
        """Look at the metrics of gradient update `update`, counted from 1."""
        if self._rewards:
            self._rewards = False
            self._look_at_rewards(ring())
        if self._clipped is not None:
            self._look_at_support(update, numbers["clipped"])

    def _look_at_rewards(self, ring: Ring) -> None:
        used = int(ring.filled[0])
        kind = np.asarray(ring.kind[:used])
        rewards = np.where(kind == NOTHING, 0.0, ring.reward[:used])
        if advice := reward_scale_advice(rewards, kind != CONTINUES, self._recipe.gamma, flag=False):
            warn(advice, stacklevel=4)

    def _look_at_support(self, update: int, clipped: float) -> None:
        assert self._clipped is not None
        self._clipped = max(0, self._clipped + (1 if clipped > CLIPPED else -1))
        if self._clipped < UPDATES:
            return
        self._clipped, head = None, self._recipe.head
        warn(
            f"{clipped:.1%} of the targets' mass lies beyond the support of {head.name} after {update:,}"
            " updates. It counts as the outermost atoms, so values there are wrong. Expected a wider"
            f" support: head={type(head).__name__}(v_min=LOW, v_max=HIGH) of qhat.axes.heads.",
            stacklevel=4,
        )
