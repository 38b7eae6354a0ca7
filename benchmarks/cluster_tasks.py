"""Tasks of the cluster benchmarks: `gym:cluster_tasks:Slow-v0` waits in every step, as a simulator does."""

from __future__ import annotations

import os
import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import register


class Slow(gymnasium.Env):
    """Four numbers are drawn in every step; the reward is 1 where the action is the first one's sign."""

    def __init__(self, seconds: float = 0.005, length: int = 200):
        self.observation_space = gymnasium.spaces.Box(-1.0, 1.0, (4,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(2)
        self._seconds, self._length = seconds, length

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._steps = 0
        return self._drawn(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if self._seconds:
            time.sleep(self._seconds)
        reward = float((self._now[0] > 0) == bool(action))
        self._steps += 1
        return self._drawn(), reward, False, self._steps >= self._length, {}

    def _drawn(self) -> np.ndarray:
        self._now = self.np_random.uniform(-1.0, 1.0, 4).astype(np.float32)
        return self._now.copy()


class Busy(Slow):
    """Computes instead: a loop of Python that takes about `seconds` of a core."""

    def __init__(self, seconds: float = 0.0002, length: int = 200):
        super().__init__(0.0, length)
        self._turns = int(seconds * 2.5e7)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        for _ in range(self._turns):
            pass
        return super().step(action)


class Counted(Slow):
    """Its observation is the episode's number in two halves and the steps so far, which are the reward."""

    def __init__(self, seconds: float = 0.005, length: int = 200):
        super().__init__(seconds, length)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        # Of the system: processes with equal seeds number their episodes differently too.
        number = int.from_bytes(os.urandom(4), "little")
        self._number = (number & 0xFFFF, number >> 16)
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        observation, _, terminated, truncated, info = super().step(action)
        return observation, float(self._steps), terminated, truncated, info

    def _drawn(self) -> np.ndarray:
        self._now = np.array([*self._number, self._steps], np.float32)
        return self._now.copy()


for kind in (Slow, Busy, Counted):
    register(f"{kind.__name__}-v0", f"cluster_tasks:{kind.__name__}")
