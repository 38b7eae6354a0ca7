"""How much of a call the compiled program does before it looks up: nobody is heard while it runs."""

from __future__ import annotations

import dataclasses

from qhat.recipes.recipe import Recipe

SECONDS = 1.0
"""What a piece of a call may take, so that a signal is heard soon in the slowest of networks."""
GROWTH = 4


@dataclasses.dataclass
class Pace:
    """Iterations of the next piece: few while their speed is not known, as many as fit a second later.

    How a run is cut into pieces does not change its result.
    """

    learns_at: int
    """Iteration with the first update, before which iterations say nothing of the speed after it."""
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
        """Take in how long a piece took."""
        fits = int(count * SECONDS / max(seconds, 1e-9))
        self.most = max(1, min(GROWTH * self.most, fits))
