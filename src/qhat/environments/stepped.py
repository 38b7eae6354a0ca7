"""A compiled environment, stepped by Python: for what decides outside a compiled program."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from qhat.environments.base import Environment, Timestep
from qhat.environments.host import HostEnvironment


class SteppedEnvironment(HostEnvironment):
    """Copies of an environment that compiles, for each of S seeds."""

    def __init__(self, environment: Environment, seeds: int, seed: int):
        """Compile its step.

        Args:
            seeds: how many, S.
            seed: of its random numbers.
        """
        self.spec, self.num_envs, self.seeds = environment.spec, environment.num_envs, seeds
        self._environment, self._turn, self.logs = environment, 0, environment.logs
        self._start_key, self._step_key = jax.random.split(jax.random.key(seed))
        self._step: Any = jax.jit(jax.vmap(environment.step))
        self._state: Any = None
        self._now: Timestep | None = None

    @property
    def state(self) -> Any:
        """The environments' state now; leaves `[S, ...]`."""
        return self._state

    def start(self) -> np.ndarray:
        self._state, observation = self._environment.start(jax.random.split(self._start_key, self.seeds))
        return np.asarray(observation)

    def legal(self) -> np.ndarray | None:
        legal = jax.vmap(self._environment.legal)(self._state)
        return None if legal is None else np.asarray(legal)

    def send(self, action: np.ndarray) -> None:
        keys = jax.random.split(jax.random.fold_in(self._step_key, self._turn), self.seeds)
        self._state, self._now = self._step(self._state, action, keys)
        self._turn += 1

    def receive(self) -> Timestep:
        return jax.tree.map(np.asarray, self._now)

    def close(self) -> None:
        self._environment.close()


def stepped(environment: Environment | HostEnvironment, seeds: int = 1, seed: int = 0) -> HostEnvironment:
    """Return the environment as Python steps it; one of the host loop's is returned as it is."""
    if isinstance(environment, HostEnvironment):
        return environment
    return SteppedEnvironment(environment, seeds, seed)
