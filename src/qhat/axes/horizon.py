"""The axis `horizon`: whether the number of summed rewards and the discount change during training."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar

from qhat.axes.axis import AxisValue
from qhat.system.errors import require, setting
from qhat.system.lazy import Array, Float, Int, jnp


class Horizon(AxisValue, abc.ABC):
    """Says n and γ of a gradient update; the recipe's `n_step` and `gamma` are those at the end."""

    axis: ClassVar[str] = "horizon"

    @abc.abstractmethod
    def longest(self, n_step: int) -> int:
        """Return the largest n of the run, of a recipe with `n_step`."""

    @abc.abstractmethod
    def at(
        self, updates: Int[Array, ""], n_step: int, gamma: float
    ) -> tuple[Int[Array, ""] | None, Float[Array, ""] | float]:
        """Return n and γ.

        Args:
            updates: gradient updates since the weights were drawn.

        Returns:
            n, `None` where it is always `n_step`, and γ.
        """


@dataclasses.dataclass(frozen=True)
class Fixed(Horizon):
    """Every update has the recipe's n and γ."""

    name: ClassVar[str] = "fixed"

    def longest(self, n_step: int) -> int:
        return n_step

    def at(
        self, updates: Int[Array, ""], n_step: int, gamma: float
    ) -> tuple[Int[Array, ""] | None, Float[Array, ""] | float]:
        return None, gamma


@dataclasses.dataclass(frozen=True)
class Receding(Horizon):
    """Fresh weights begin with many rewards and a small discount, and come to the recipe's n and γ.

    n falls, and 1 − γ falls, by a constant factor per update (BBF: Schwarzer et al. 2023, arXiv:2305.19452,
    §3; the discount alone: François-Lavet et al. 2015, arXiv:1512.02011). After a reset it begins anew.
    """

    name: ClassVar[str] = "receding"

    n_step: int = 10
    """n of the first update."""
    gamma: float = 0.97
    """γ of the first update."""
    updates: int = 10_000
    """Gradient updates until n and γ are the recipe's."""

    def validate(self) -> None:
        require(self.n_step >= 1, f"receding:n_step is {self.n_step}; expected 1 or more.")
        require(0 <= self.gamma < 1, f"receding:gamma is {self.gamma}; expected a discount within [0, 1).")
        require(self.updates >= 1, f"receding:updates is {self.updates}; expected 1 or more updates.")

    def validate_within(self, recipe: Any) -> None:
        require(
            self.n_step >= recipe.n_step and self.gamma <= recipe.gamma < 1,
            f"receding begins at n = {self.n_step} and γ = {self.gamma:g}, and the recipe has"
            f" {setting('n_step', recipe.n_step)} and {setting('gamma', recipe.gamma)}; expected n to"
            " fall, and γ to grow, below 1.",
        )

    def longest(self, n_step: int) -> int:
        return max(self.n_step, n_step)

    def at(
        self, updates: Int[Array, ""], n_step: int, gamma: float
    ) -> tuple[Int[Array, ""] | None, Float[Array, ""] | float]:
        done = jnp.clip(updates / self.updates, 0.0, 1.0)
        n = jnp.round(self.n_step * (n_step / self.n_step) ** done).astype(jnp.int32)
        return n, 1.0 - (1.0 - self.gamma) * ((1.0 - gamma) / (1.0 - self.gamma)) ** done


HORIZONS: tuple[type[Horizon], ...] = (Fixed, Receding)
