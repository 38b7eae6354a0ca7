"""A task that waits 5 ms in every step, as a robot does. It needs only Gymnasium and NumPy."""

import time
from typing import Any

import gymnasium
import numpy as np

SECONDS_PER_STEP = 0.005
EPISODE = 200


class Slow(gymnasium.Env[np.ndarray, np.int64]):
    """Four numbers drift towards zero, and the action pushes them one way or the other.

    The reward is 1 in every step, and an episode is cut after 200 steps: the task costs time, and there
    is nothing in it to learn.
    """

    PUSH = np.array([0.1, -0.1, 0.05, -0.05], np.float32)

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Box(-10.0, 10.0, (4,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(2)
        self._state = np.zeros(4, np.float32)
        self._steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._state = self.np_random.normal(size=4).astype(np.float32)
        self._steps = 0
        return self._state.copy(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        time.sleep(SECONDS_PER_STEP)
        noise = self.np_random.normal(scale=0.02, size=4).astype(np.float32)
        push = self.PUSH if action else -self.PUSH
        self._state = np.clip(0.98 * self._state + push + noise, -10.0, 10.0)
        self._steps += 1
        return self._state.copy(), 1.0, False, self._steps >= EPISODE, {}
