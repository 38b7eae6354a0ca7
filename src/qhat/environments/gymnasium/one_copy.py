"""The vector environment of one copy, which an actor or an evaluation steps."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import iterate

ARRAYS = (Box, Discrete, MultiBinary, MultiDiscrete)
"""Spaces with one array for a value."""


class OneCopy(SyncVectorEnv):
    """Steps one copy, and resets it in the step that ends an episode, as `SyncVectorEnv` does.

    That is written for any number of copies, and takes three times as long for one.
    """

    def __init__(self, env: gymnasium.Env):
        super().__init__([lambda: env], copy=False, autoreset_mode=AutoresetMode.SAME_STEP)

    @staticmethod
    def takes(env: gymnasium.Env) -> bool:
        """Whether an observation is one array."""
        return isinstance(env.observation_space, ARRAYS)

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        env, (action,) = self.envs[0], iterate(self.action_space, actions)
        observation, reward, terminated, truncated, info = env.step(action)
        infos: dict[str, Any] = {}
        if terminated or truncated:
            infos = self._add_info(infos, {"final_obs": observation, "final_info": info}, 0)
            observation, info = env.reset()
        if info:
            infos = self._add_info(infos, info, 0)
        rows = np.asarray(observation, self.single_observation_space.dtype)[None]
        flags = np.array([[terminated], [truncated]], bool)
        return rows, np.array([reward], np.float64), flags[0], flags[1], infos
