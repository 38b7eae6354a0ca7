"""Navix's tasks (arXiv:2407.19396): MiniGrid in JAX."""

from __future__ import annotations

from typing import Any

import gymnasium
import jax
import numpy as np
from jaxtyping import Array

from qhat.environments.extras import defer_plotting, load
from qhat.environments.jax.single import JaxEnvironment

MOST = 10
"""Largest number of a cell's kind, colour or state."""


class Navix(JaxEnvironment):
    """A task of Navix.

    Args:
        name: `Navix-Empty-8x8-v0`, …
        options: arguments of its constructor: `max_steps`, …
    """

    def __init__(self, name: str, **options: Any):
        defer_plotting()
        self.env: Any = load("navix", f"navix:{name}").make(name, **options)
        shown = jax.eval_shape(self.env.reset, jax.random.key(0)).observation
        high = MOST if shown.ndim == 3 and shown.shape[-1] == 3 and shown.shape[0] < 32 else 255
        self.observation_space = gymnasium.spaces.Box(
            0, high, tuple(shown.shape), np.dtype(shown.dtype).type
        )
        self.action_space = len(self.env.action_set)

    def reset(self, key: Array) -> tuple[Any, Any]:
        now = self.env.reset(key)
        return now, now.observation

    def step(self, state: Any, action: Array, key: Array) -> tuple[Any, ...]:
        # `step` would begin a new episode by itself, one step late.
        after = self.env._step(state, action)
        info = {"truncated": after.is_truncation()}
        return after, after.observation, after.reward, after.is_termination(), info
