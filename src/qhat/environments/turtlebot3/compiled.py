"""`qhat:TurtleBot3-v0`: the mobile robot as an environment that compiles into the loop."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from qhat.axes.actions import Actions
from qhat.environments.base import Environment, Spec, Timestep
from qhat.environments.catalogue import Entry
from qhat.environments.turtlebot3 import physics as turtlebot3
from qhat.environments.turtlebot3.physics import TURNS, Outcome, Robot, TurtleBot3Options


class TurtleBot3Environment(Environment):
    """E arenas with a robot each."""

    def __init__(self, entry: Entry, num_envs: int, *, options: Mapping[str, object] | None = None):
        self._options = TurtleBot3Options.of(options or {}, entry.id)
        self.num_envs = num_envs
        self.spec = Spec(
            id=entry.id,
            backend="qhat",
            shape=(turtlebot3.BEAMS + 2,),
            dtype="float32",
            actions=Actions((len(TURNS),)),
            options=tuple(sorted((options or {}).items())),
        )

    def reset(self, key: Array) -> tuple[Robot, Array]:
        return jax.vmap(self._fresh)(jax.random.split(key, self.num_envs))

    def step(self, state: Robot, action: Int[Array, "E F"], key: Array) -> tuple[Robot, Timestep]:
        keys = jax.random.split(key, self.num_envs)
        state, observation, successor, outcome = jax.vmap(self._step)(state, action[:, 0], keys)
        return state, Timestep(
            observation=observation,
            reward=outcome.reward,
            terminated=outcome.collided,
            truncated=outcome.late,
            successor=successor,
            real=jnp.ones(self.num_envs, bool),
            success=outcome.success,
        )

    def _fresh(self, key: Array) -> tuple[Robot, Array]:
        draw, look = jax.random.split(key)
        robot = turtlebot3.begin(draw, self._options)
        return robot, turtlebot3.observe(robot, look, self._options)

    def _step(self, robot: Robot, action: Array, key: Array) -> tuple[Robot, Array, Array, Outcome]:
        drive, look, again = jax.random.split(key, 3)
        robot, outcome = turtlebot3.advance(robot, action, drive, self._options)
        successor = turtlebot3.observe(robot, look, self._options)
        ended = outcome.collided | outcome.late
        robot, observation = jax.tree.map(
            lambda new, old: jnp.where(ended, new, old), self._fresh(again), (robot, successor)
        )
        return robot, observation, successor, outcome
