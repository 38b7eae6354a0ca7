"""Action repeat for Gymnasium: its own came with 1.3, and qhat takes 1.1."""

from __future__ import annotations

from typing import Any

import gymnasium


class Repeat(gymnasium.Wrapper):
    """Executes every action `count` times and adds the rewards; stops at the episode's end."""

    def __init__(self, env: gymnasium.Env, count: int):
        super().__init__(env)
        self._count = count

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        total, reached = float(reward), info.get("success")
        for _ in range(self._count - 1):
            if terminated or truncated:
                break
            observation, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            reached = reached or info.get("success")
        if reached is not None:
            # One success within the repeated steps is enough under this name.
            info = {**info, "success": reached}
        return observation, total, terminated, truncated, info
