"""A goal environment: in Gymnasium's API, as Gymnasium-Robotics defines it, and in JAX."""

from __future__ import annotations

from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

import qhat

BOX = gymnasium.spaces.Box(-20.0, 20.0, (1,), np.float64)


class Corridor(gymnasium.Env):
    """Steps of ±1 and 0 on a line; the reward is 0 within 0.5 of the goal, and −1 elsewhere."""

    space = gymnasium.spaces.Dict({"observation": BOX, "achieved_goal": BOX, "desired_goal": BOX})
    observation_space = space
    action_space = gymnasium.spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.at, self.steps = np.zeros(1), 0
        self.goal = self.np_random.integers(-4, 5, 1).astype(float)
        return self._shown(), {}

    def step(self, action: Any) -> Any:
        self.at, self.steps = self.at + (int(action) - 1), self.steps + 1
        reward = self.compute_reward(self.at, self.goal, {})
        return self._shown(), reward, False, self.steps == 10, {"is_success": float(reward == 0)}

    def compute_reward(self, achieved: np.ndarray, desired: np.ndarray, info: Any) -> float:
        """Return the reward for a goal, as the API of goal environments asks."""
        return 0.0 if abs(achieved[0] - desired[0]) < 0.5 else -1.0

    def _shown(self) -> dict[str, np.ndarray]:
        return {
            "observation": self.at.copy(),
            "achieved_goal": self.at.copy(),
            "desired_goal": self.goal.copy(),
        }


class Line(qhat.JaxEnvironment):
    """The corridor, in JAX."""

    observation_space = Corridor.space
    action_space = gymnasium.spaces.Discrete(3)
    max_episode_steps = 10

    def reset(self, key: Any) -> Any:
        state = {"at": jnp.zeros(1), "goal": jax.random.randint(key, (1,), -4, 5).astype(jnp.float32)}
        return state, self._shown(state)

    def step(self, state: Any, action: Any, key: Any) -> Any:
        state = {**state, "at": state["at"] + action - 1}
        reward = jnp.where(jnp.abs(state["at"] - state["goal"])[0] < 0.5, 0.0, -1.0)
        return state, self._shown(state), reward, False

    def _shown(self, state: Any) -> dict[str, Any]:
        return {"observation": state["at"], "achieved_goal": state["at"], "desired_goal": state["goal"]}


class Far(Line):
    """Its goal is never reached."""

    def reset(self, key: Any) -> Any:
        state = {"at": jnp.zeros(1), "goal": jnp.full(1, 15.0)}
        return state, self._shown(state)
