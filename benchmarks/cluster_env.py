"""Environments of which a step takes a given time: `gym:cluster_env:Waiting-v0`."""

from __future__ import annotations

import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import register
from gymnasium.spaces import Box, Discrete

EPISODE = 500


class Waiting(gymnasium.Env):
    """Sleeps for `seconds` in each step, as a simulator in another process or a robot does.

    Args:
        kind: `small` has 8 floats, `robot` 60 floats and 6 joints, `frames` one picture of 84×84 bytes.
    """

    def __init__(self, kind: str = "small", seconds: float = 0.0):
        self._seconds, self._steps = seconds, 0
        self.action_space = Box(-1.0, 1.0, (6,), np.float32) if kind == "robot" else Discrete(4)
        self._random = np.random.default_rng(0)
        if kind == "frames":
            self.observation_space = Box(0, 255, (84, 84), np.uint8)
            self._pool = self._random.integers(0, 256, (16, 84, 84), np.uint8)
        else:
            shape = (60,) if kind == "robot" else (8,)
            self.observation_space = Box(-10.0, 10.0, shape, np.float32)
            self._pool = self._random.normal(size=(16, *shape)).astype(np.float32).clip(-10, 10)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._steps = 0
        return self._pool[0], {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if self._seconds:
            time.sleep(self._seconds)
        self._steps += 1
        observation = self._pool[self._steps % len(self._pool)]
        return observation, 1.0, self._steps >= EPISODE, False, {}


register("Waiting-v0", "cluster_env:Waiting")
