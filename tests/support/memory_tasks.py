"""Tasks that no policy solves without a memory, in JAX.

T-maze: Bakker 2001, "Reinforcement Learning with Long Short-Term Memory". The others as POPGym has them
(Morad et al. 2023, arXiv:2303.01859).
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

import qhat


class Corridor(eqx.Module):
    place: Array
    goal: Array
    """−1 or 1: the arm with the reward."""


class TMaze(qhat.JaxEnvironment):
    """A corridor of `delay` steps; its first observation shows which way to turn at its end.

    The four actions move ahead, back, to the left and to the right; only at the end, a T, do the last two
    lead anywhere. A step against a wall costs 0.1, the right arm brings 4, the wrong one −0.1.
    """

    observation_space = (3,)
    action_space = 4

    def __init__(self, delay: int = 30):
        self.delay, self.limit = delay, 4 * delay

    def reset(self, key: Array) -> tuple[Corridor, Array]:
        goal = jnp.where(jax.random.bernoulli(key), 1.0, -1.0)
        state = Corridor(jnp.int32(0), goal)
        return state, self._shown(state)

    def step(self, state: Corridor, action: Any, key: Array) -> tuple[Any, ...]:
        at_end = state.place == self.delay
        place = jnp.clip(
            state.place + jnp.where(action == 0, 1, jnp.where(action == 1, -1, 0)), 0, self.delay
        )
        turns = at_end & (action >= 2)
        right = jnp.where(action == 2, -1.0, 1.0) == state.goal
        bumps = (place == state.place) & ~turns
        reward = jnp.where(turns & right, 4.0, jnp.where(turns | bumps, -0.1, 0.0))
        state = Corridor(place, state.goal)
        return state, self._shown(state), reward, turns

    def _shown(self, state: Corridor) -> Array:
        sign = jnp.where(state.place == 0, state.goal, 0.0)
        return jnp.stack([sign, 1.0 * (state.place == self.delay), 1.0 * (state.place < self.delay)])
