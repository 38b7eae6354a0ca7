"""Environments that actors on a cluster step: an observation says which step of which episode it is.

gym:cluster_envs:Numbered-v0    gym:cluster_envs:Moody-v0    gym:cluster_envs:Barred-v0
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import register


class Numbered(gymnasium.Env):
    """Observation: the episode's number in two halves, and the steps so far. Reward: the steps so far."""

    def __init__(self, seconds: float = 0.0, length: int = 11):
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(3)
        self._seconds, self._length = seconds, length

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        number = int.from_bytes(os.urandom(4), "little")
        self._number, self._steps = (number & 0xFFFF, number >> 16), 0
        return self._observation(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if self._seconds:
            time.sleep(self._seconds)
        self._steps += 1
        over = self._steps >= self._length + self._number[0] % 5
        by_limit = bool(self._number[1] % 2)
        return self._observation(), float(self._steps), over and not by_limit, over and by_limit, {}

    def _observation(self) -> np.ndarray:
        return np.array([*self._number, self._steps], np.float32)


class Moody(Numbered):
    """Raises, hangs or exits at step `at` of an episode, if the file is not there, which it then writes."""

    def __init__(self, what: str = "raise", at: int = 5, file: str = "", seconds: float = 0.001):
        super().__init__(seconds)
        self._what, self._at, self._file = what, at, file
        if what == "never":
            raise RuntimeError("the motor is not there")

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        result = super().step(action)
        if self._steps == self._at and not os.path.exists(self._file):
            with open(self._file, "w"):
                pass
            if self._what == "hang":
                time.sleep(1_000)
            if self._what == "exit":
                os._exit(3)
            raise RuntimeError("the arm is stuck")
        return result


class Barred(Numbered):
    """Allows the action that the number of steps says, and the last one."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        observation, info = super().reset(seed=seed)
        return observation, {**info, "action_mask": self._mask()}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert self._mask()[action], "an action that was not allowed"
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated, truncated, {**info, "action_mask": self._mask()}

    def _mask(self) -> np.ndarray:
        return np.array([self._steps % 2 == 0, self._steps % 2 == 1, True], np.int8)


class Modules(Numbered):
    """Says in `info` whether its process has imported JAX."""

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated, truncated, {**info, "jax": float("jax" in sys.modules)}


for kind in (Numbered, Moody, Barred, Modules):
    register(f"{kind.__name__}-v0", f"cluster_envs:{kind.__name__}")
