"""Brax's robots (arXiv:2106.13281)."""

from __future__ import annotations

from typing import Any

import gymnasium
import jax
import numpy as np
from jaxtyping import Array

from qhat.environments.extras import load
from qhat.environments.jax.libraries.cameras import camera_of
from qhat.environments.jax.single import JaxEnvironment
from qhat.environments.off_screen import prefer_off_screen


class Brax(JaxEnvironment):
    """An environment of Brax without its wrappers.

    Args:
        name: `ant`, `halfcheetah`, …
        episode_length: steps after which an episode is cut.
        options: arguments of the environment: `backend=spring`, …
    """

    starts = 64
    may_diverge = True

    def __init__(self, name: str, episode_length: int = 1_000, **options: Any):
        prefer_off_screen()
        envs: Any = load("brax.envs", f"brax:{name}")
        self.env, self.limit = envs.get_environment(name, **options), episode_length
        self.fps = 1 / float(self.env.dt)
        self.observation_space = jax.eval_shape(self.env.reset, jax.random.key(0)).obs.shape
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (self.env.action_size,), np.float32)

    def reset(self, key: Array) -> tuple[Any, Any]:
        state = self.env.reset(key)
        return state, state.obs

    def step(self, state: Any, action: Array, key: Array) -> tuple[Any, ...]:
        after = self.env.step(state, action)
        return after, after.obs, after.reward, after.done > 0, after.metrics

    def draw(self, state: Any) -> np.ndarray:
        image: Any = load("brax.io.image", "brax")
        camera = camera_of(self.env.sys.mj_model)
        return image.render_array(self.env.sys, state.pipeline_state, height=360, width=480, camera=camera)
