"""A cue that training sees all the time, and a robot at first alone."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

import qhat
from qhat.environments.groups import grouped, space_of_groups

LAST = 5


class Cue(qhat.JaxEnvironment):
    """After `LAST` steps the action has to be the cue: `full` shows it, `own` at the first step only."""

    action_space, limit = 2, LAST + 1

    def __init__(self, group: str = "full"):
        self._group = group
        self.observation_space = space_of_groups(self._all(jnp.int32(0), jnp.int32(0)), group, "Cue")

    def reset(self, key: Array) -> tuple[Any, Any]:
        state = (jnp.int32(0), jax.random.randint(key, (), 0, 2))
        return state, grouped(self._all(*state), self._group)

    def step(self, state: Any, action: Array, key: Array) -> tuple[Any, ...]:
        turn, cue = state
        last = turn == LAST
        after = (turn + 1, cue)
        reward = jnp.where(last & (action == cue), 1.0, 0.0)
        return after, grouped(self._all(*after), self._group), reward, last

    def _all(self, turn: Array, cue: Array) -> dict[str, Array]:
        sign, clock = 2.0 * cue - 1.0, turn / LAST
        shown = jnp.stack([jnp.where(turn == 0, sign, 0.0), clock])
        return {"full": jnp.stack([sign, clock]).astype(jnp.float32), "own": shown.astype(jnp.float32)}
