"""Target networks that follow the online network."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar

from qhat.axes.axis import AxisValue
from qhat.system.errors import require
from qhat.system.lazy import Array, Int, jax, jnp


class Target(AxisValue, abc.ABC):
    """Moves θ⁻ towards θ after a gradient update."""

    axis: ClassVar[str] = "target"

    def first(self, online: Any) -> Any:
        """Return θ⁻ of fresh weights; `None` is θ itself."""
        return jax.tree.map(jnp.copy, online)

    @abc.abstractmethod
    def follow(self, target: Any, online: Any, updates: Int[Array, ""]) -> Any:
        """Return the new θ⁻ after `updates` gradient updates in all."""


@dataclasses.dataclass(frozen=True)
class Hard(Target):
    """θ⁻ ← θ every `every` gradient updates (Mnih et al. 2015, algorithm 1)."""

    name: ClassVar[str] = "hard"

    every: int = 250
    """C, gradient updates between copies."""

    def validate(self) -> None:
        require(self.every >= 1, f"hard:every is {self.every}; expected 1 or more updates.")

    def follow(self, target: Any, online: Any, updates: Int[Array, ""]) -> Any:
        copy = updates % self.every == 0
        return jax.tree.map(lambda old, new: jnp.where(copy, new, old), target, online)


@dataclasses.dataclass(frozen=True)
class Soft(Target):
    """θ⁻ ← τ·θ + (1 − τ)·θ⁻ after every update (Lillicrap et al. 2016, arXiv:1509.02971, alg. 1)."""

    name: ClassVar[str] = "soft"

    tau: float = 0.005
    """τ, the share of θ that θ⁻ takes over; 1 is no target network."""

    def validate(self) -> None:
        require(0.0 < self.tau <= 1.0, f"soft:tau is {self.tau}; expected a share within (0, 1].")

    def follow(self, target: Any, online: Any, updates: Int[Array, ""]) -> Any:
        return jax.tree.map(lambda old, new: old + self.tau * (new - old), target, online)
