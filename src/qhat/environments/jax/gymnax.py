"""Adapter for gymnax: environments written in JAX, reset on the same step as they end."""

import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from qhat.axes.actions import BINS, Actions
from qhat.environments.base import Environment, Spec, Timestep
from qhat.environments.catalogue import Entry
from qhat.environments.extras import defer_plotting
from qhat.environments.options import require_known


class GymnaxEnvironment(Environment):
    """E copies of a gymnax environment."""

    def __init__(
        self,
        entry: Entry,
        num_envs: int,
        *,
        options: Mapping[str, object] | None = None,
        bins: Sequence[int] = BINS,
    ):
        defer_plotting()
        gymnax: Any = importlib.import_module("gymnax")
        self._env, params = gymnax.make(entry.name)
        require_known(options or {}, [field.name for field in dataclasses.fields(params)], entry.id)
        self._params = dataclasses.replace(params, **(options or {}))
        space = self._env.observation_space(self._params)
        taken = _as_gymnasium(self._env.action_space(self._params))
        self.num_envs = num_envs
        self.spec = Spec(
            id=entry.id,
            backend="gymnax",
            shape=tuple(space.shape),
            dtype="float32",
            actions=Actions.of(taken, f"Environment '{entry.id}'", bins),
            reference=entry.reference,
        )

    def reset(self, key: Array) -> tuple[Any, Array]:
        keys = jax.random.split(key, self.num_envs)
        observation, state = jax.vmap(self._env.reset, in_axes=(0, None))(keys, self._params)
        # A constant leaf (time = 0) must have the type that a step gives it: the loop carries it.
        state = jax.tree.map(lambda leaf: jnp.asarray(leaf), state)
        return state, self._as_spec(observation)

    def step(self, state: Any, action: Int[Array, "E F"], key: Array) -> tuple[Any, Timestep]:
        keys = jax.random.split(key, self.num_envs)
        observation, state, reward, terminated, truncated, info = jax.vmap(
            self._env.step, in_axes=(0, 0, 0, None)
        )(keys, state, self.spec.actions.to_env(action, jnp), self._params)
        return state, Timestep(
            observation=self._as_spec(observation),
            reward=reward.astype(jnp.float32),
            terminated=terminated.astype(bool),
            truncated=truncated.astype(bool) & ~terminated.astype(bool),
            successor=self._as_spec(info["final_observation"]),
            real=jnp.ones(self.num_envs, bool),
        )

    def _as_spec(self, observation: Array) -> Array:
        return observation.astype(self.spec.dtype)


def _as_gymnasium(space: Any) -> gymnasium.Space:
    if hasattr(space, "n"):
        return gymnasium.spaces.Discrete(int(space.n))
    low, high = (
        np.broadcast_to(np.asarray(bound, np.float32), space.shape) for bound in (space.low, space.high)
    )
    return gymnasium.spaces.Box(low, high, dtype=np.float32)
