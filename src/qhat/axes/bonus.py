"""The axis `bonus`: what is added to the reward of the action that was taken."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar

from qhat.axes.axis import AxisValue
from qhat.axes.policy import log_softmax
from qhat.system.errors import require
from qhat.system.lazy import Array, Float, Int, jnp


class Bonus(AxisValue, abc.ABC):
    """b(s, a), for one example."""

    axis: ClassVar[str] = "bonus"
    uses_target: ClassVar[bool]
    """Whether the target network looks at the acted-on observation for it."""

    @abc.abstractmethod
    def value(self, q: Float[Array, "F C"], action: Int[Array, " F"]) -> Float[Array, ""]:
        """Return b(s, a), given Q̄(s, ·) by the target network if `uses_target`."""


@dataclasses.dataclass(frozen=True)
class NoBonus(Bonus):
    """b = 0."""

    name: ClassVar[str] = "none"
    uses_target: ClassVar[bool] = False

    def value(self, q: Float[Array, "F C"], action: Int[Array, " F"]) -> Float[Array, ""]:
        return jnp.float32(0.0)


@dataclasses.dataclass(frozen=True)
class Munchausen(Bonus):
    """b = α·[τ·log π̄(a|s)] within [l₀, 0] (Vieillard et al. 2020, arXiv:2007.14430, eq. 2).

    With n steps the bonus is the first action's.
    """

    name: ClassVar[str] = "munchausen"
    uses_target: ClassVar[bool] = True

    alpha: float = 0.9
    """α, how much of the log-policy is added."""
    tau: float = 0.03
    """τ, temperature of π̄; the same as a softmax policy's."""
    floor: float = -1.0
    """l₀, what τ·log π̄ is cut off at, in the units of the return."""

    def validate(self) -> None:
        require(0 <= self.alpha <= 1, f"munchausen:alpha is {self.alpha}; expected within [0, 1].")
        require(self.tau > 0, f"munchausen:tau is {self.tau}; expected a temperature above 0.")
        require(self.floor <= 0, f"munchausen:floor is {self.floor}; expected 0 or less.")

    def validate_within(self, recipe: Any) -> None:
        other = recipe.policy.temperature
        require(
            other is None or self.tau == other,
            f"munchausen:tau is {self.tau} and {recipe.policy.name}:tau is {other}; expected one"
            " temperature: the bonus is the log-probability of the backup's own policy.",
        )

    def value(self, q: Float[Array, "F C"], action: Int[Array, " F"]) -> Float[Array, ""]:
        log_pi = log_softmax(q, self.tau)
        chosen = jnp.sum(jnp.take_along_axis(log_pi, action[:, None], axis=1))
        return self.alpha * jnp.clip(self.tau * chosen, self.floor, 0.0)


BONUSES: tuple[type[Bonus], ...] = (NoBonus, Munchausen)
