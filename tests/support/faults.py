"""An environment with faults, for separate processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete

CHOICES = 3


def fate(number: Any, episode: Any, time: Any) -> tuple[Any, Any, Any]:
    """Reward in [-1, 1), terminated, truncated (also both at once) of a step, from whole numbers."""
    mixed = (number * 7_919 + episode * 104_729 + time * 1_299_709) % 1_000_003
    return mixed % 512 / 256 - 1, mixed // 512 % 10 == 0, mixed // 5_120 % 10 == 0


class Faulty(gymnasium.Env):
    """The observation shows the episode and the step; the reward depends on them and on the action.

    It hangs once for every file `sleep` that it finds.
    """

    observation_space = Box(-np.inf, np.inf, (3,), np.float32)
    action_space = Discrete(CHOICES)

    def __init__(self, folder: str):
        self.sleep = Path(folder) / "sleep"
        self.counts = np.zeros(3, np.int64)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
        if seed is not None:
            self.counts[:] = seed % 60_000, 0, 0
        self.counts[1:] = self.counts[1] + 1, 0
        return self.counts.astype(np.float32), {}

    def step(self, action: int) -> Any:
        time.sleep(0.001)
        if self.sleep.exists():
            self.sleep.unlink(missing_ok=True)
            time.sleep(1_000)
        reward, terminated, truncated = fate(*self.counts)
        self.counts[2] += 1
        observation, reward = self.counts.astype(np.float32), float(reward + 2 * action)
        return observation, reward, bool(terminated), bool(truncated), {}


class Robot(gymnasium.Env):
    """Does at its 20th step in another process (or, `always`, in any) what QHAT_FAULT says."""

    observation_space = Box(-9, 9, (2,), np.float32)
    action_space = Discrete(2)

    def __init__(self, fault: str | None = None, always: bool = False, at: int = 20):
        self.fault = os.environ.get("QHAT_FAULT", "") if fault is None else fault
        self.may, self.at, self.steps = always or multiprocessing.parent_process() is not None, at, 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
        super().reset(seed=seed)
        self.time = 0
        return self.np_random.normal(size=2).clip(-9, 9).astype(np.float32), {}

    def step(self, action: Any) -> Any:
        self.time, self.steps = self.time + 1, self.steps + 1
        if self.fault == "hang":
            time.sleep(0.003)
        if self.may and self.steps == self.at:
            if self.fault == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.fault == "raise":
                raise ConnectionError("the gripper is stuck")
            if self.fault == "hang":
                time.sleep(1_000)
        observation = self.np_random.normal(size=2).clip(-9, 9).astype(np.float32)
        return observation, float(observation[0]), False, self.time == 7, {}


gymnasium.register("Robot-v0", "faults:Robot")
