"""ε-greedy."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from qhat.axes.actions import Actions
from qhat.axes.explore.base import Falling, uniform
from qhat.system.errors import require
from qhat.system.lazy import Array, Bool, Float, Int, jax, jnp


@dataclasses.dataclass(frozen=True)
class EpsilonGreedy(Falling):
    """ε-greedy (Watkins 1989), with ε a line over *environment steps* and a hold for real motors.

    ε is the expected share of steps that explore whatever `hold` is: an exploratory action that is
    repeated for k steps begins with probability ε / (ε + k(1 − ε)).
    """

    name: ClassVar[str] = "epsilon"
    symbol: ClassVar[str] = "ε"

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
        super().validate()
        require(self.hold >= 1, f"epsilon:hold is {self.hold}; expected 1 or more steps.")
        require(
            isinstance(self.per_factor, bool),
            f"epsilon:per_factor is {self.per_factor!r}; expected true or false.",
        )

    def init(self, num_envs: int, actions: Actions) -> Any:
        repeated = jnp.zeros((num_envs, actions.factors), jnp.int32)
        return (
            (repeated, jnp.zeros((num_envs, self._deciding(actions)), jnp.int32)) if self.hold > 1 else ()
        )

    def epsilon(self, step: Int[Array, ""]) -> Float[Array, ""]:
        return self.size(step, jnp)

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
        epsilon = self.size(step, xp)
        begins = uniform(bits[:, :deciding], xp) < epsilon / (epsilon + self.hold * (1.0 - epsilon))
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
        explores = (bits[0] >> 8) * 2.0**-24 < float(self.size(step, np))
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


def _nth_legal(bits: Any, legal: Any, xp: Any) -> Any:
    """Draw uniformly among the legal choices `[E, F, C]`: number n of them, n random below their count."""
    rank = xp.cumsum(legal, axis=2)
    count = xp.maximum(rank[..., -1], 1).astype(xp.uint32)
    wanted = (bits % count).astype(xp.int32) + 1
    return xp.argmax(legal & (rank == wanted[..., None]), axis=2).astype(xp.int32)
