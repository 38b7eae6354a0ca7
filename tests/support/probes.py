"""Probe environments: five tasks in one, each with a known Q-function.

One compiled batch holds them all; the observation says which task it is.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from qhat.axes.actions import Actions
from qhat.environments.base import Environment, Spec, Timestep

KINDS = 5
ONE_STEP, TWO_STEPS, ACTION, SIGN_AND_ACTION, TRUNCATION = range(KINDS)
LIMIT = 3


class Probes(Environment):
    """Environment i is of kind i modulo 5. State: steps so far, and a random sign.

    - ONE_STEP: reward 1, terminates. Q = 1.
    - TWO_STEPS: reward 0, then 1, terminates. Q = γ, then 1.
    - ACTION: action 0 earns 1, action 1 earns −1, terminates.
    - SIGN_AND_ACTION: the action must agree with the observed sign: 1 or −1, terminates.
    - TRUNCATION: reward 1 for ever, one state, cut every 3 steps. Q = 1 / (1 − γ).
    """

    def __init__(self, num_envs: int = KINDS):
        self.num_envs = num_envs
        self.spec = Spec("probes", "test", (KINDS + 2,), "float32", Actions((2,)))
        self._kind = jnp.arange(num_envs) % KINDS

    def reset(self, key: Array) -> tuple[tuple[Array, Array], Array]:
        state = (jnp.zeros(self.num_envs, jnp.int32), self._signs(key))
        return state, self._observe(*state)

    def step(
        self, state: tuple[Array, Array], action: Int[Array, "E F"], key: Array
    ) -> tuple[tuple[Array, Array], Timestep]:
        time, sign = state
        chosen = action[:, 0]
        agrees = jnp.where((chosen == 1) == (sign > 0), 1.0, -1.0)
        reward = jnp.select(
            [self._kind == TWO_STEPS, self._kind == ACTION, self._kind == SIGN_AND_ACTION],
            [(time == 1) * 1.0, 1.0 - 2.0 * chosen, agrees],
            1.0,
        )
        time = time + 1
        terminated = jnp.where(self._kind == TWO_STEPS, time == 2, self._kind != TRUNCATION)
        truncated = (self._kind == TRUNCATION) & (time == LIMIT)
        successor = self._observe(time, sign)
        ended = terminated | truncated
        state = jnp.where(ended, 0, time), jnp.where(ended, self._signs(key), sign)
        return state, Timestep(
            observation=self._observe(*state),
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            successor=successor,
            real=jnp.ones(self.num_envs, bool),
        )

    def _signs(self, key: Array) -> Array:
        return jax.random.rademacher(key, (self.num_envs,), jnp.float32)

    def _observe(self, time: Array, sign: Array) -> Array:
        second = (self._kind == TWO_STEPS) & (time == 1)
        shown = jnp.where(self._kind == SIGN_AND_ACTION, sign, 0.0)
        return jnp.column_stack([jax.nn.one_hot(self._kind, KINDS), second * 1.0, shown])


def expected_q(gamma: float, worst_bonus: float = 0.0) -> tuple[Array, Array]:
    """Return observations `[7, 7]` and their optimal action values `[7, 2]`.

    Args:
        worst_bonus: bonus of an action that the policy takes almost never.
    """
    worse = -1.0 + worst_bonus

    def see(kind: int, second: float = 0.0, sign: float = 0.0) -> Array:
        return jnp.concatenate([jax.nn.one_hot(kind, KINDS), jnp.array([second, sign])])

    rows = [
        (see(ONE_STEP), (1.0, 1.0)),
        (see(TWO_STEPS), (gamma, gamma)),
        (see(TWO_STEPS, second=1.0), (1.0, 1.0)),
        (see(ACTION), (1.0, worse)),
        (see(SIGN_AND_ACTION, sign=1.0), (worse, 1.0)),
        (see(SIGN_AND_ACTION, sign=-1.0), (1.0, worse)),
        (see(TRUNCATION), (1 / (1 - gamma), 1 / (1 - gamma))),
    ]
    return jnp.stack([row[0] for row in rows]), jnp.array([row[1] for row in rows])


class Chain(Environment):
    """Five places in a row. Action 1 goes on and earns 1 at the end, action 0 goes back for −0.1.

    An episode is cut after 50 steps. State: the place, and steps so far.
    """

    PLACES, LIMIT = 5, 50

    def __init__(self, num_envs: int = 1):
        self.num_envs = num_envs
        self.spec = Spec("chain", "test", (self.PLACES,), "float32", Actions((2,)))

    def reset(self, key: Array) -> tuple[tuple[Array, Array], Array]:
        start = jnp.zeros(self.num_envs, jnp.int32)
        return (start, start), self._observe(start)

    def step(
        self, state: tuple[Array, Array], action: Int[Array, "E F"], key: Array
    ) -> tuple[tuple[Array, Array], Timestep]:
        place, time = state
        on = action[:, 0] == 1
        terminated = on & (place == self.PLACES - 1)
        truncated = ~terminated & (time + 1 == self.LIMIT)
        place = jnp.clip(place + jnp.where(on, 1, -1), 0, self.PLACES - 1)
        successor, over = self._observe(place), terminated | truncated
        place, time = jnp.where(over, 0, place), jnp.where(over, 0, time + 1)
        return (place, time), Timestep(
            observation=self._observe(place),
            reward=jnp.where(terminated, 1.0, jnp.where(on, 0.0, -0.1)),
            terminated=terminated,
            truncated=truncated,
            successor=successor,
            real=jnp.ones(self.num_envs, bool),
        )

    def q(self, gamma: float) -> tuple[Array, np.ndarray]:
        """Return every observation and its Q, by value iteration."""
        q = np.zeros((self.PLACES, 2))
        for _ in range(500):
            value = q.max(axis=1)
            q[:, 1] = [*(gamma * value[1:]), 1.0]
            q[:, 0] = -0.1 + gamma * value[[0, *range(self.PLACES - 1)]]
        return self._observe(jnp.arange(self.PLACES)), q

    def _observe(self, place: Array) -> Array:
        return (place[:, None] == jnp.arange(self.PLACES)).astype(jnp.float32)
