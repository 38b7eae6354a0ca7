"""Observations that are lost now and then, for Gymnasium."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from qhat.environments.envpool.atari import stack_of
from qhat.environments.spaces import Coded, as_array


class Flickering(gymnasium.Wrapper):
    """Shows what the wrapper `flicker` leaves of each observation after the first."""

    def __init__(self, env: gymnasium.Env, flicker: Any):
        super().__init__(as_array(env))
        space: Any = self.env.observation_space
        flicker.require_single(stack_of(env) > 1)
        self._lost = flicker.lost(space.shape, space.dtype)
        self._probability, self._value = flicker.probability, flicker.value
        if not isinstance(space, Coded):
            low = np.where(self._lost, np.minimum(space.low, self._value), space.low)
            high = np.where(self._lost, np.maximum(space.high, self._value), space.high)
            self.observation_space = gymnasium.spaces.Box(
                low.astype(space.dtype), high.astype(space.dtype), space.shape, space.dtype.type
            )

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        if self.np_random.random() < self._probability:
            observation = np.asarray(observation)
            observation = np.where(self._lost, self._value, observation).astype(observation.dtype)
        return observation, float(reward), terminated, truncated, info
