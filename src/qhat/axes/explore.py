"""The axis `explore`: how actions are chosen while training."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from qhat.axes.actions import Actions
from qhat.axes.axis import AxisValue, Schedule, defines, missing
from qhat.system.errors import require, setting
from qhat.system.lazy import Array, Bool, Float, Int, jax, jnp

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
        return self if actors == 1 else EpsilonGreedy(at := _rung(actor, actors), at, steps=0)

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


@dataclasses.dataclass(frozen=True)
class EpsilonGreedy(Explore):
    """ε-greedy (Watkins 1989), with ε a line over *environment steps* and a hold for real motors.

    ε is the expected share of steps that explore whatever `hold` is: an exploratory action that is
    repeated for k steps begins with probability ε / (ε + k(1 − ε)).
    """

    name: ClassVar[str] = "epsilon"

    start: float = 1.0
    """ε at step 0."""
    end: float = 0.05
    """ε from step `steps` on."""
    steps: int | None = None
    """Environment steps over which ε falls from `start` to `end`; none: `fraction` of the run."""
    hold: int = 1
    """Steps for which an exploratory action is repeated; more than 1 spares motors."""
    per_factor: bool = False
    """Whether every factor explores separately: a few joints at most steps, not all at some steps."""
    fraction: float = 0.1
    """Share of the run over which ε falls, where `steps` is none."""

    def validate(self) -> None:
        for word, value in (("start", self.start), ("end", self.end)):
            require(0.0 <= value <= 1.0, f"epsilon:{word} is {value}; expected a share within [0, 1].")
        require(
            self.steps is None or self.steps >= 0,
            f"epsilon:steps is {self.steps}; expected 0 or more steps, or none for a fraction of the run.",
        )
        require(
            0.0 <= self.fraction <= 1.0,
            f"epsilon:fraction is {self.fraction}; expected a share of the run within [0, 1].",
        )
        require(self.hold >= 1, f"epsilon:hold is {self.hold}; expected 1 or more steps.")
        require(
            isinstance(self.per_factor, bool),
            f"epsilon:per_factor is {self.per_factor!r}; expected true or false.",
        )

    def scheduled(self, steps: int) -> EpsilonGreedy:
        """With the number of steps that `fraction` is, which then says no more."""
        if self.steps is not None:
            return self
        return dataclasses.replace(
            self, steps=round(self.fraction * steps), fraction=EpsilonGreedy.fraction
        )

    def for_actor(self, actor: int, actors: int) -> Explore:
        if actors == 1:
            return self
        end = _rung(actor, actors)
        return dataclasses.replace(self, start=max(self.start, end), end=end)

    def schedules(self, steps: int) -> list[Schedule]:
        return [Schedule("ε", self.start, self.end, self.scheduled(steps).steps or 0)]

    def init(self, num_envs: int, actions: Actions) -> Any:
        repeated = jnp.zeros((num_envs, actions.factors), jnp.int32)
        return (
            (repeated, jnp.zeros((num_envs, self._deciding(actions)), jnp.int32)) if self.hold > 1 else ()
        )

    def epsilon(self, step: Int[Array, ""]) -> Float[Array, ""]:
        return self._epsilon(step, jnp)

    def _epsilon(self, step: Any, xp: Any) -> Any:
        assert self.steps is not None, "an ε that follows the run is `scheduled` first"
        if not self.steps:
            return xp.float32(self.end)
        done = step / self.steps
        fraction = min(done, 1.0) if isinstance(done, float) else xp.clip(done, 0.0, 1.0)
        return xp.float32(self.start + fraction * (self.end - self.start))

    def choose(
        self,
        state: Any,
        greedy: Int[Array, "E F"],
        key: Array,
        step: Int[Array, ""],
        actions: Actions,
        legal: Bool[Array, "E F C"] | None = None,
    ) -> tuple[Any, Int[Array, "E F"]]:
        bits = jax.random.bits(key, (greedy.shape[0], self.random_numbers(actions)))
        return self.decide(state, greedy, bits, step, actions, legal, jnp)

    def random_numbers(self, actions: Actions) -> int:
        return self._deciding(actions) + actions.factors

    def decide(
        self, state: Any, greedy: Any, bits: Any, step: Any, actions: Actions, legal: Any, xp: Any
    ) -> tuple[Any, Any]:
        deciding = self._deciding(actions)
        epsilon = self._epsilon(step, xp)
        begins = _uniform(bits[:, :deciding], xp) < epsilon / (epsilon + self.hold * (1.0 - epsilon))
        if legal is None:
            drawn = (bits[:, deciding:] % xp.asarray(actions.choices, xp.uint32)).astype(xp.int32)
        else:
            drawn = _nth_legal(bits[:, deciding:], legal, xp)
        if self.hold == 1:
            return state, xp.where(begins, drawn, greedy)
        state, action = self._hold(state, greedy, begins, drawn, xp)
        if legal is None:
            return state, action
        # A repeated action that is no longer legal is replaced by the greedy one.
        allowed = xp.take_along_axis(legal, action[..., None], axis=2)[..., 0]
        return state, xp.where(allowed, action, greedy)

    def decide_one(self, bits: Sequence[int], step: int, choices: int) -> int | None:
        assert self.hold == 1, "a held action is a state"
        explores = (bits[0] >> 8) * 2.0**-24 < float(self._epsilon(step, np))
        return bits[1] % choices if explores else None

    def _deciding(self, actions: Actions) -> int:
        """How many decisions to explore there are at a step: one for all factors, or one for each."""
        return actions.factors if self.per_factor else 1

    def _hold(self, state: Any, greedy: Any, begins: Any, drawn: Any, xp: Any) -> tuple[Any, Any]:
        repeated, remaining = state
        holding = remaining > 0
        repeated = xp.where(begins & ~holding, drawn, repeated)
        remaining = xp.where(holding, remaining - 1, xp.where(begins, self.hold - 1, 0))
        return (repeated, remaining), xp.where(holding | begins, repeated, greedy)


@dataclasses.dataclass(frozen=True)
class NoExploration(Explore):
    """The greedy action, always: for noisy layers, which explore by themselves."""

    name: ClassVar[str] = "greedy"

    def validate_within(self, recipe: Any) -> None:
        require(
            recipe.dense.noise_size(1, 1) > 0,
            f"{setting('explore', 'greedy')} never tries another action with"
            f" {setting('dense', recipe.dense.name)}; expected {setting('dense', 'noisy')} beside it, or"
            f" {setting('explore', 'epsilon')}.",
        )

    def init(self, num_envs: int, actions: Actions) -> Any:
        return ()

    def epsilon(self, step: Int[Array, ""]) -> Float[Array, ""]:
        return jnp.float32(0.0)

    def choose(
        self,
        state: Any,
        greedy: Int[Array, "E F"],
        key: Array,
        step: Int[Array, ""],
        actions: Actions,
        legal: Bool[Array, "E F C"] | None = None,
    ) -> tuple[Any, Int[Array, "E F"]]:
        return state, greedy

    def random_numbers(self, actions: Actions) -> int:
        return 0

    def decide(
        self, state: Any, greedy: Any, bits: Any, step: Any, actions: Actions, legal: Any, xp: Any
    ) -> tuple[Any, Any]:
        return state, greedy

    def decide_one(self, bits: Sequence[int], step: int, choices: int) -> int | None:
        return None


def chooses_one(explore: Explore) -> bool:
    """Whether `decide_one` does what `choose` and `decide` do: no derived class has other ones."""
    return all(defines(explore, "decide_one", method) for method in ("choose", "decide"))


def _rung(actor: int, actors: int) -> float:
    """Return ε of one of several actors."""
    return LADDER ** (1 + STEEPNESS * actor / (actors - 1))


def _nth_legal(bits: Any, legal: Any, xp: Any) -> Any:
    """Draw uniformly among the legal choices `[E, F, C]`: number n of them, n random below their count."""
    rank = xp.cumsum(legal, axis=2)
    count = xp.maximum(rank[..., -1], 1).astype(xp.uint32)
    wanted = (bits % count).astype(xp.int32) + 1
    return xp.argmax(legal & (rank == wanted[..., None]), axis=2).astype(xp.int32)


def _uniform(bits: Any, xp: Any) -> Any:
    """Map 32 random bits to [0, 1): the top 24 bits, as many as a float32 holds exactly."""
    return (bits >> 8).astype(xp.float32) * xp.float32(2.0**-24)


EXPLORES: tuple[type[Explore], ...] = (EpsilonGreedy, NoExploration)
