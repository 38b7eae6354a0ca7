"""An environment with a wrapper around it: a compiled environment again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Bool, Int

from qhat.environments.base import Environment, Timestep
from qhat.environments.wrappers import EnvironmentWrapper, Wrapper


class WrappedState(eqx.Module):
    """State of the environment within, and what the wrapper remembers."""

    inner: Any
    memory: Any


class WrappedEnvironment(Environment):
    """One wrapper around an environment."""

    def __init__(self, inner: Environment, part: EnvironmentWrapper):
        part.require_fit(inner)
        self.num_envs, self.snapshots = inner.num_envs, inner.snapshots
        self.spec, self.logs = part.spec(inner.spec), inner.logs
        self._inner, self._part = inner, part

    def start(self, keys: Array) -> tuple[WrappedState, Array]:
        inner, observation = self._inner.start(keys)
        memory, observation = jax.jit(jax.vmap(self._begin))(observation)
        # Leaves have a leading axis of seeds, as `start` promises.
        return WrappedState(inner, memory), observation

    def reset(self, key: Array) -> tuple[WrappedState, Array]:
        inner, observation = self._inner.reset(key)
        memory, observation = self._begin(observation)
        return WrappedState(inner, memory), observation

    def step(
        self, state: WrappedState, action: Int[Array, "E F"], key: Array
    ) -> tuple[WrappedState, Timestep]:
        inner, memory, now = self._part.step(self._inner, state.inner, state.memory, action, key)
        return WrappedState(inner, memory), now

    def legal(self, state: WrappedState) -> Bool[Array, "E F C"] | None:
        return self._inner.legal(state.inner)

    def log_notes(self) -> list[str]:
        return self._inner.log_notes()

    def close(self) -> None:
        self._inner.close()

    def _begin(self, observation: Array) -> tuple[Any, Array]:
        return self._part.begin(observation, self._inner.spec)


def wrapped(environment: Environment, wrap: Sequence[Wrapper]) -> Environment:
    """Return the environment with the wrappers of environments around it, the first one innermost."""
    for part in wrap:
        if isinstance(part, EnvironmentWrapper):
            environment = WrappedEnvironment(environment, part)
    return environment
