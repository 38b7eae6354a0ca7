"""Environments whose rewards and ends are computed from a formula: the ground truth of the contract tests.

A step of episode `episode` of copy `number` at `time` has a fate: a hash of these three. Nothing that an
adapter or the replay does can change it, so what is stored can be checked without watching the environment.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from qhat.axes.actions import Actions
from qhat.environments.base import Environment, Spec, Timestep

CHOICES = 3
MASK = 0xFFFFFFFF


def fate(number: Any, episode: Any, time: Any, xp: Any = np) -> tuple[Any, Any, Any]:
    """Reward in [-1, 1), terminated, truncated (also both at once). Arrays of 32-bit numbers."""
    mixed = xp.asarray(number, xp.uint32) * xp.uint32(0x9E3779B1)
    for part in (episode, time):
        mixed = (mixed ^ xp.asarray(part, xp.uint32)) * xp.uint32(0x85EBCA6B)
        mixed = mixed ^ (mixed >> xp.uint32(13))
    mixed = mixed * xp.uint32(0xC2B2AE35)
    mixed = mixed ^ (mixed >> xp.uint32(16))
    reward = (mixed % xp.uint32(512)).astype(xp.float32) / 256 - 1
    terminated = (mixed >> xp.uint32(9)) % xp.uint32(10) == 0
    truncated = (mixed >> xp.uint32(17)) % xp.uint32(10) == 0
    return reward, terminated, truncated


class ScriptedGym(gymnasium.Env):
    """The script as a Gymnasium environment, which overwrites its observation array at every step."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float64)
    action_space = gymnasium.spaces.Discrete(CHOICES, start=5)

    def __init__(self):
        self.counts = np.zeros(3)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
        if seed is not None:
            self.counts[:] = seed % 60_000, 0, 0
        self.counts[1:] = self.counts[1] + 1, 0
        return self.counts, {}

    def step(self, action: int) -> Any:
        assert self.action_space.contains(action), "the space's own numbers, from 5"
        with np.errstate(over="ignore"):
            reward, terminated, truncated = fate(*self.counts.astype(np.uint32))
        self.counts[2] += 1
        return self.counts, float(reward), bool(terminated), bool(truncated), {}


class ScriptedCopy(ScriptedGym):
    """The same, with a fresh array every time.

    A caller's own `AsyncVectorEnv` that resets in the same step needs it: its processes keep the array of
    the last observation and send it after the reset has written over it. Nobody outside can tell.
    """

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
        observation, info = super().reset(seed=seed, options=options)
        return observation.copy(), info

    def step(self, action: int) -> Any:
        observation, *rest = super().step(action)
        return observation.copy(), *rest


class ScriptedCompiled(Environment):
    """The script as a compiled environment, reset in the step that ends an episode or in the next one."""

    def __init__(self, num_envs: int, *, next_step: bool):
        self.num_envs, self.next_step = num_envs, next_step
        self.spec = Spec("scripted", "test", (3,), "float32", Actions((CHOICES,)))

    def reset(self, key: Array) -> tuple[Any, Array]:
        number = jax.random.randint(key, (), 0, 50_000) + jnp.arange(self.num_envs)
        numbers = jnp.stack([number, jnp.ones_like(number), jnp.zeros_like(number)], axis=1)
        return (numbers, jnp.zeros(self.num_envs, bool)), numbers.astype(jnp.float32)

    def step(self, state: Any, action: Int[Array, "E F"], key: Array) -> tuple[Any, Timestep]:
        numbers, waiting = state
        reward, terminated, truncated = fate(numbers[:, 0], numbers[:, 1], numbers[:, 2], jnp)
        after = numbers.at[:, 2].add(1)
        again = jnp.stack([numbers[:, 0], numbers[:, 1] + 1, jnp.zeros_like(numbers[:, 0])], axis=1)
        ended = (terminated | truncated) & ~waiting
        if self.next_step:
            # The row after an end brings the next beginning, with a reward and flags that mean nothing.
            numbers = shown = jnp.where(waiting[:, None], again, after)
            successor, waiting_next = shown, ended
        else:
            numbers, successor, waiting_next = jnp.where(ended[:, None], again, after), after, waiting
        return (numbers, waiting_next), Timestep(
            observation=numbers.astype(jnp.float32),
            reward=reward,
            terminated=terminated & ~waiting,
            truncated=truncated & ~terminated & ~waiting,
            successor=successor.astype(jnp.float32),
            real=~waiting,
        )


class Circle(gymnasium.Env):
    """Three states in a circle, each with a reward of its own; cut every five steps, never terminated."""

    observation_space = gymnasium.spaces.Box(0, 1, (3,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    REWARDS = (1.0, -0.5, 2.0)
    LIMIT = 5

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
        self.time = 0
        return self._observation(), {}

    def step(self, action: int) -> Any:
        reward = self.REWARDS[self.time % 3]
        self.time += 1
        return self._observation(), reward, False, self.time == self.LIMIT, {}

    def _observation(self) -> np.ndarray:
        return np.eye(3, dtype=np.float32)[self.time % 3]

    @classmethod
    def values(cls, gamma: float) -> np.ndarray:
        """Q of the three states, whatever is done: Q(s) = r(s) + γ·Q(s + 1)."""
        follow = np.roll(np.eye(3), 1, axis=1)
        return np.linalg.solve(np.eye(3) - gamma * follow, np.asarray(cls.REWARDS))
