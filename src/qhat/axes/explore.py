"""The axis `explore`: how actions are chosen while training."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar

from qhat.axes.actions import Actions
from qhat.axes.axis import AxisValue, Schedule
from qhat.system.errors import require, setting
from qhat.system.lazy import Array, Bool, Float, Int, jax, jnp


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

    def schedules(self, steps: int) -> list[Schedule]:
        return [Schedule("ε", self.start, self.end, self.scheduled(steps).steps or 0)]

    def init(self, num_envs: int, actions: Actions) -> Any:
        repeated = jnp.zeros((num_envs, actions.factors), jnp.int32)
        return (
            (repeated, jnp.zeros((num_envs, self._deciding(actions)), jnp.int32)) if self.hold > 1 else ()
        )

    def epsilon(self, step: Int[Array, ""]) -> Float[Array, ""]:
        assert self.steps is not None, "an ε that follows the run is `scheduled` first"
        fraction = jnp.clip(step / max(self.steps, 1), 0.0, 1.0) if self.steps else 1.0
        return jnp.asarray(self.start + fraction * (self.end - self.start), jnp.float32)

    def choose(
        self,
        state: Any,
        greedy: Int[Array, "E F"],
        key: Array,
        step: Int[Array, ""],
        actions: Actions,
        legal: Bool[Array, "E F C"] | None = None,
    ) -> tuple[Any, Int[Array, "E F"]]:
        deciding = self._deciding(actions)
        bits = jax.random.bits(key, (greedy.shape[0], deciding + actions.factors))
        epsilon = self.epsilon(step)
        begins = _uniform(bits[:, :deciding]) < epsilon / (epsilon + self.hold * (1.0 - epsilon))
        if legal is None:
            drawn = (bits[:, deciding:] % jnp.asarray(actions.choices, jnp.uint32)).astype(jnp.int32)
        else:
            drawn = _nth_legal(bits[:, deciding:], legal)
        if self.hold == 1:
            return state, jnp.where(begins, drawn, greedy)
        state, action = self._hold(state, greedy, begins, drawn)
        if legal is None:
            return state, action
        # A repeated action that is no longer legal is replaced by the greedy one.
        allowed = jnp.take_along_axis(legal, action[..., None], axis=2)[..., 0]
        return state, jnp.where(allowed, action, greedy)

    def _deciding(self, actions: Actions) -> int:
        """How many decisions to explore there are at a step: one for all factors, or one for each."""
        return actions.factors if self.per_factor else 1

    def _hold(
        self,
        state: Any,
        greedy: Int[Array, "E F"],
        begins: Bool[Array, "E D"],
        drawn: Int[Array, "E F"],
    ) -> tuple[Any, Int[Array, "E F"]]:
        repeated, remaining = state
        holding = remaining > 0
        repeated = jnp.where(begins & ~holding, drawn, repeated)
        remaining = jnp.where(holding, remaining - 1, jnp.where(begins, self.hold - 1, 0))
        return (repeated, remaining), jnp.where(holding | begins, repeated, greedy)


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


def _nth_legal(bits: Array, legal: Bool[Array, "E F C"]) -> Int[Array, "E F"]:
    """Draw uniformly among the legal choices: number n of them, n random below their count."""
    rank = jnp.cumsum(legal, axis=2)
    count = jnp.maximum(rank[..., -1], 1).astype(jnp.uint32)
    wanted = (bits % count).astype(jnp.int32) + 1
    return jnp.argmax(legal & (rank == wanted[..., None]), axis=2).astype(jnp.int32)


def _uniform(bits: Array) -> Float[Array, ...]:
    """Map 32 random bits to [0, 1): the top 24 bits, as many as a float32 holds exactly."""
    return (bits >> 8).astype(jnp.float32) * 2.0**-24


EXPLORES: tuple[type[Explore], ...] = (EpsilonGreedy, NoExploration)
