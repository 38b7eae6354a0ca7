"""The axis `reset`: whether weights are drawn anew in the middle of training."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar

from qhat.axes.axis import AxisValue, spell
from qhat.axes.torso import MLP, Torso
from qhat.system.errors import require, setting
from qhat.system.lazy import Array, Bool, Int, jax, jnp

TORSO = "torso"
"""Name of the torso's parameters in the network's."""


class Reset(AxisValue, abc.ABC):
    """Says when weights are drawn anew, and how much of the old ones stays."""

    axis: ClassVar[str] = "reset"
    happens: ClassVar[bool] = True
    """Whether there are resets at all; an update without them does not look."""

    def scheduled(self, updates: int) -> Reset:
        """Return the same for a run of so many gradient updates."""
        return self

    def endless(self) -> Reset:
        """Return the same for a loop without a known end."""
        return self

    def require_fit(self, torso: Torso) -> None:
        """Raise `UsageError` if a network with this torso would stay as it is."""

    @abc.abstractmethod
    def due(self, updates: Int[Array, ""]) -> Bool[Array, ""]:
        """Return whether weights are reset after `updates` gradient updates in all."""

    @abc.abstractmethod
    def since(self, updates: Int[Array, ""]) -> Int[Array, ""]:
        """Return the number of gradient updates since the last reset, after `updates` in all."""

    @abc.abstractmethod
    def mixed(self, parameters: dict[str, Any], fresh: dict[str, Any]) -> dict[str, Any]:
        """Return the weights after a reset, given the old ones and fresh ones."""


@dataclasses.dataclass(frozen=True)
class NoReset(Reset):
    """Weights are drawn at the start alone."""

    name: ClassVar[str] = "none"
    happens: ClassVar[bool] = False

    def due(self, updates: Int[Array, ""]) -> Bool[Array, ""]:
        return jnp.bool_(False)

    def since(self, updates: Int[Array, ""]) -> Int[Array, ""]:
        return updates

    def mixed(self, parameters: dict[str, Any], fresh: dict[str, Any]) -> dict[str, Any]:
        return parameters


@dataclasses.dataclass(frozen=True)
class Periodic(Reset):
    """Every so many updates, θ ← keep·θ + (1 − keep)·fresh weights; replay stays.

    Nikishin et al. 2022, arXiv:2205.07802, §4, draw the last layers anew; shrink and perturb (Ash & Adams
    2020, arXiv:1910.08475) moves the others half the way, as in BBF (Schwarzer et al. 2023,
    arXiv:2305.19452, §3). The target network becomes the online network, and the optimiser starts afresh.
    """

    name: ClassVar[str] = "periodic"

    every: int = 40_000
    """Gradient updates between resets."""
    keep: float = 0.0
    """Share of the hidden and output layers' weights that stays."""
    keep_torso: float = 0.5
    """Share of the torso's weights that stays; 1 leaves the torso as it is."""
    last: int | None = None
    """Gradient update after which there is no reset; none: when fewer than `every` are left. An `Agent`
    has no known end, and goes on."""

    def validate(self) -> None:
        require(self.every >= 1, f"periodic:every is {self.every}; expected 1 or more updates.")
        for name in ("keep", "keep_torso"):
            share = getattr(self, name)
            require(0 <= share <= 1, f"periodic:{name} is {share}; expected a share within [0, 1].")
        require(
            self.keep < 1 or self.keep_torso < 1,
            "periodic:keep and keep_torso are both 1, which resets nothing; expected less for one of them.",
        )
        require(
            self.last is None or self.last >= 0,
            f"periodic:last is {self.last}; expected an update, 0 or more, or none.",
        )

    def require_fit(self, torso: Torso) -> None:
        require(
            self.keep < 1 or not isinstance(torso, MLP),
            f"{setting('reset', spell(self))} resets the torso alone, and {setting('torso', torso.name)}"
            " has no weights; expected a keep below 1.",
        )

    def scheduled(self, updates: int) -> Periodic:
        return (
            self if self.last is not None else dataclasses.replace(self, last=max(0, updates - self.every))
        )

    def endless(self) -> Periodic:
        return self if self.last is not None else dataclasses.replace(self, last=2**31 - 1)

    def due(self, updates: Int[Array, ""]) -> Bool[Array, ""]:
        assert self.last is not None, "a reset that follows the run is `scheduled` first"
        return (updates % self.every == 0) & (updates <= self.last)

    def since(self, updates: Int[Array, ""]) -> Int[Array, ""]:
        assert self.last is not None, "a reset that follows the run is `scheduled` first"
        return updates - jnp.minimum(updates, self.last) // self.every * self.every

    def mixed(self, parameters: dict[str, Any], fresh: dict[str, Any]) -> dict[str, Any]:
        def mix(share: float) -> Any:
            return lambda old, new: share * old + (1.0 - share) * new

        return {
            name: jax.tree.map(mix(self.keep_torso if name == TORSO else self.keep), old, fresh[name])
            for name, old in parameters.items()
        }


RESETS: tuple[type[Reset], ...] = (NoReset, Periodic)
