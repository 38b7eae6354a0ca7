"""The base of every exploration strategy."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

from qhat.axes.actions import Actions
from qhat.axes.axis import AxisValue, Schedule, defines, missing
from qhat.system.errors import require
from qhat.system.lazy import Array, Bool, Float, Int

LADDER, STEEPNESS = 0.4, 7.0
"""ε of the first of several actors, and how steeply it falls to the last: the paper's ε and α."""


class Explore(AxisValue, abc.ABC):
    """How the behaviour policy explores. State is a pytree of arrays, one row per environment."""

    axis: ClassVar[str] = "explore"

    @abc.abstractmethod
    def init(self, num_envs: int, actions: Actions) -> Any:
        """Return the exploration state before the first step."""

    @abc.abstractmethod
    def epsilon(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """Return the share of steps that explore at environment step `step`."""

    def scheduled(self, steps: int) -> Explore:
        """Return the same over a run of `steps` environment steps, where its schedule follows the run."""
        return self

    def for_actor(self, actor: int, actors: int) -> Explore:
        """Return how one of several actors explores; one actor explores as the recipe says.

        Actor i of N has ε = 0.4^(1 + 7i/(N − 1)) (Horgan et al. 2018, arXiv:1803.00933, §4.1): some try
        much, others follow the policy to where it leads. The ε of `EpsilonGreedy` falls to that from its
        start, in place of its end; the paper's actors have theirs from the first step on.
        """
        from qhat.axes.explore.epsilon import EpsilonGreedy

        return self if actors == 1 else EpsilonGreedy(at := rung(actor, actors), at, steps=0)

    @abc.abstractmethod
    def choose(
        self,
        state: Any,
        greedy: Int[Array, "E F"],
        key: Array,
        step: Int[Array, ""],
        actions: Actions,
        legal: Bool[Array, "E F C"] | None = None,
    ) -> tuple[Any, Int[Array, "E F"]]:
        """Return the new state and the actions to execute, which are legal ones."""

    @missing
    def random_numbers(self, actions: Actions) -> int:
        """Return how many random numbers `decide` takes for each environment."""
        raise NotImplementedError(self.name)

    @missing
    def decide(
        self,
        state: Any,
        greedy: Any,
        bits: Any,
        step: Any,
        actions: Actions,
        legal: Any,
        xp: Any,
    ) -> tuple[Any, Any]:
        """Do what `choose` does, with given random numbers; an `Agent` then acts without JAX.

        Args:
            bits: uniform random numbers of 32 bits, `[E, random_numbers]`.
            xp: the library to compute with, `numpy` or `jax.numpy`.
        """
        raise NotImplementedError(self.name)

    @missing
    def decide_one(self, bits: Sequence[int], step: int, choices: int) -> int | None:
        """Do what `decide` does for one environment with one factor and no state, where all is legal.

        Returns:
            the choice to execute; `None` for the greedy one.
        """
        raise NotImplementedError(self.name)


class Falling(Explore):
    """Exploration of a size that falls on a line over environment steps, and then stays.

    A derived class has these as its fields, and checks `start` and `end`.
    """

    symbol: ClassVar[str]
    """Of the size."""
    start: float
    end: float
    steps: int | None
    """Environment steps over which it falls; none: `fraction` of the run."""
    fraction: float

    def validate(self) -> None:
        require(
            self.steps is None or self.steps >= 0,
            f"{self.name}:steps is {self.steps}; expected 0 or more steps, or none for a fraction of the"
            " run.",
        )
        require(
            0.0 <= self.fraction <= 1.0,
            f"{self.name}:fraction is {self.fraction}; expected a share of the run within [0, 1].",
        )

    def scheduled(self, steps: int) -> Falling:
        """With the number of steps that `fraction` is, which then says no more."""
        if self.steps is not None:
            return self
        change = {"steps": round(self.fraction * steps), "fraction": type(self).fraction}
        return dataclasses.replace(self, **change)  # pyright: ignore[reportArgumentType, reportCallIssue]

    def for_actor(self, actor: int, actors: int) -> Explore:
        """With a size that falls to the actor's ε of Ape-X's ladder, in place of its end."""
        if actors == 1:
            return self
        change = {"start": max(self.start, rung(actor, actors)), "end": rung(actor, actors)}
        return dataclasses.replace(self, **change)  # pyright: ignore[reportArgumentType, reportCallIssue]

    def schedules(self, steps: int) -> list[Schedule]:
        return [Schedule(self.symbol, self.start, self.end, self.scheduled(steps).steps or 0)]

    def size(self, step: Any, xp: Any) -> Any:
        """Return the size at environment step `step`, a float32."""
        assert self.steps is not None, f"a {self.symbol} that follows the run is `scheduled` first"
        if not self.steps:
            return xp.float32(self.end)
        done = step / self.steps
        fraction = min(done, 1.0) if isinstance(done, float) else xp.clip(done, 0.0, 1.0)
        return xp.float32(self.start + fraction * (self.end - self.start))


def chooses_one(explore: Explore) -> bool:
    """Whether `decide_one` does what `choose` and `decide` do: no derived class has other ones."""
    return all(defines(explore, "decide_one", method) for method in ("choose", "decide"))


def rung(actor: int, actors: int) -> float:
    """Return ε of one of several actors."""
    return LADDER ** (1 + STEEPNESS * actor / (actors - 1))


def uniform(bits: Any, xp: Any) -> Any:
    """Map 32 random bits to [0, 1): the top 24 bits, as many as a float32 holds exactly."""
    return (bits >> 8).astype(xp.float32) * xp.float32(2.0**-24)
