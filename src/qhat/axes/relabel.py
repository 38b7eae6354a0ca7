"""The axis `relabel`: whether a stored step is also learned from with another goal than its own."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar

from qhat.axes.axis import AxisValue
from qhat.system.errors import require
from qhat.system.lazy import Array, Bool, Float, Int, jax, jnp


class Relabel(AxisValue, abc.ABC):
    """Chooses other goals for drawn steps, and knows the reward of every goal.

    A goal is what an observation has as `desired_goal`; `achieved_goal` is compared with it.
    """

    axis: ClassVar[str] = "relabel"
    happens: ClassVar[bool] = True
    """Whether any step gets another goal; without it, nothing is stored or compiled for goals."""
    differing: float = 0.001
    """Share of steps that may have another reward than `reward` gives; with more, a run stops."""

    @abc.abstractmethod
    def choose(self, key: Array, left: Int[Array, " B"]) -> tuple[Bool[Array, " B"], Int[Array, " B"]]:
        """Choose the steps that get another goal, and where that is from.

        Args:
            left: number of later steps of the same episode that are stored.

        Returns:
            which steps get one, and how many steps later it was achieved: 0, by the step itself, to `left`.
        """

    @abc.abstractmethod
    def reward(self, achieved: Float[Array, "*B G"], desired: Float[Array, "*B G"]) -> Float[Array, "*B"]:
        """Return the task's reward for a step that led to `achieved` when `desired` was the goal."""

    @abc.abstractmethod
    def reached(self, achieved: Float[Array, "*B G"], desired: Float[Array, "*B G"]) -> Bool[Array, "*B"]:
        """Return whether `achieved` counts as the goal `desired`."""


@dataclasses.dataclass(frozen=True)
class NoRelabel(Relabel):
    """Every step keeps its goal."""

    name: ClassVar[str] = "none"
    happens: ClassVar[bool] = False

    def choose(self, key: Array, left: Int[Array, " B"]) -> tuple[Bool[Array, " B"], Int[Array, " B"]]:
        return jnp.zeros(left.shape, bool), jnp.zeros_like(left)

    def reward(self, achieved: Float[Array, "*B G"], desired: Float[Array, "*B G"]) -> Float[Array, "*B"]:
        return jnp.zeros(achieved.shape[:-1])

    def reached(self, achieved: Float[Array, "*B G"], desired: Float[Array, "*B G"]) -> Bool[Array, "*B"]:
        return jnp.zeros(achieved.shape[:-1], bool)


@dataclasses.dataclass(frozen=True)
class Hindsight(Relabel):
    """A share of the drawn steps gets a goal that was achieved later in the same episode.

    Hindsight experience replay, strategy `future` (Andrychowicz et al. 2017, arXiv:1707.01495, §3.3 and
    §4.5). The reward is computed here, so these settings have to be those of the environment; a run that
    sees other rewards stops and says so. The defaults are those of Gymnasium-Robotics' Fetch.
    """

    name: ClassVar[str] = "hindsight"

    share: float = 0.8
    """Share of the drawn steps with another goal: k / (k + 1) for the paper's k = 4 goals per step."""
    distance: float = 0.05
    """Distance of the achieved from the desired goal below which the goal is reached."""
    success: float = 0.0
    """Reward of a step that ends at the goal."""
    failure: float = -1.0
    """Reward of every other step."""
    dense: bool = False
    """Whether the reward is the negative distance instead."""
    differing: float = 0.001
    """Share of the environment's steps that may have another reward, such as a collision's."""

    def validate(self) -> None:
        require(
            0 < self.share <= 1, f"hindsight:share is {self.share}; expected a share above 0, at most 1."
        )
        require(
            0 <= self.differing <= 1,
            f"hindsight:differing is {self.differing}; expected a share within [0, 1].",
        )
        require(self.distance > 0, f"hindsight:distance is {self.distance}; expected more than 0.")
        require(
            self.success > self.failure,
            f"hindsight:success is {self.success} and failure {self.failure}; expected success > failure.",
        )

    def choose(self, key: Array, left: Int[Array, " B"]) -> tuple[Bool[Array, " B"], Int[Array, " B"]]:
        which, when = jax.random.uniform(key, (2, *left.shape))
        later = jnp.minimum((when * (left + 1)).astype(jnp.int32), left)
        return which < self.share, later

    def reward(self, achieved: Float[Array, "*B G"], desired: Float[Array, "*B G"]) -> Float[Array, "*B"]:
        if self.dense:
            return -self._distance(achieved, desired)
        return jnp.where(self.reached(achieved, desired), self.success, self.failure)

    def reached(self, achieved: Float[Array, "*B G"], desired: Float[Array, "*B G"]) -> Bool[Array, "*B"]:
        return self._distance(achieved, desired) < self.distance

    @staticmethod
    def _distance(achieved: Any, desired: Any) -> Any:
        return jnp.sqrt(jnp.sum(jnp.square(achieved - desired), axis=-1))


RELABELS: tuple[type[Relabel], ...] = (NoRelabel, Hindsight)
