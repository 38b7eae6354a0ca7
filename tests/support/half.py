"""A corridor of which training sees one half."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

import qhat


class Half(qhat.JaxEnvironment):
    """Walk to the middle of −1…1, from the right half alone unless `both`; its mirror image swaps sides."""

    observation_space, action_space, limit = (1,), 2, 20
    mirror = qhat.Mirror.of(1, flips=[0], actions=[1, 0])

    def __init__(self, both: bool = False):
        self._both = both

    def reset(self, key: Array) -> tuple[Any, Any]:
        place = jax.random.uniform(key, (), minval=-1.0 if self._both else 0.3, maxval=1.0)
        return place, place[None]

    def step(self, state: Any, action: Array, key: Array) -> tuple[Any, ...]:
        after = jnp.clip(state + jnp.where(action == 0, -0.1, 0.1), -1.0, 1.0)
        there = jnp.abs(after) < 0.1
        return after, after[None], jnp.where(there, 1.0, -0.05), there


class Plain(Half):
    """The same, and it says nothing of a mirror image."""

    mirror = None
