"""Sizes compiled calls to about one second, so that signals are handled."""

from __future__ import annotations

import dataclasses

from qhat.recipes.recipe import Recipe

SECONDS = 1.0
"""Duration of a piece of a call: a signal waits no longer, however slow the network is."""
GROWTH = 4


@dataclasses.dataclass
class Pace:
    """Iterations of the next piece: few while their speed is unknown, later as many as fit a second.

    Results do not depend on how a run is split into pieces.
    """

    learns_at: int
    """Iteration with the first update; the speed of earlier iterations says nothing about later ones."""
    most: int = 1

    @staticmethod
    def of(recipe: Recipe) -> Pace:
        return Pace(-(-recipe.first_update // recipe.num_envs) - 1)

    def piece(self, at: int, wanted: int) -> int:
        """Return how many of the `wanted` iterations to do from iteration `at` on."""
        if at == self.learns_at:
            self.most = 1
        if at < self.learns_at:
            wanted = min(wanted, self.learns_at - at)
        return min(wanted, self.most)

    def took(self, count: int, seconds: float) -> None:
        """Record how long a piece took."""
        fits = int(count * SECONDS / max(seconds, 1e-9))
        self.most = max(1, min(GROWTH * self.most, fits))
