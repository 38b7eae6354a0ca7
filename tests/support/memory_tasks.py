"""Tasks that no policy solves without a memory, in JAX.

T-maze: Bakker 2001, "Reinforcement Learning with Long Short-Term Memory". The others as POPGym has them
(Morad et al. 2023, arXiv:2303.01859).
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import gymnax
import jax
import jax.numpy as jnp
from jaxtyping import Array

import qhat


class Corridor(eqx.Module):
    place: Array
    goal: Array
    """−1 or 1: the arm with the reward."""


class TMaze(qhat.JaxEnvironment):
    """A corridor of `delay` steps; its first observation shows which way to turn at its end.

    The four actions move ahead, back, to the left and to the right; only at the end, a T, do the last two
    lead anywhere. A step against a wall costs 0.1, the right arm brings 4, the wrong one −0.1.
    """

    observation_space = (3,)
    action_space = 4

    def __init__(self, delay: int = 30):
        self.delay, self.limit = delay, 4 * delay

    def reset(self, key: Array) -> tuple[Corridor, Array]:
        goal = jnp.where(jax.random.bernoulli(key), 1.0, -1.0)
        state = Corridor(jnp.int32(0), goal)
        return state, self._shown(state)

    def step(self, state: Corridor, action: Any, key: Array) -> tuple[Any, ...]:
        at_end = state.place == self.delay
        place = jnp.clip(
            state.place + jnp.where(action == 0, 1, jnp.where(action == 1, -1, 0)), 0, self.delay
        )
        turns = at_end & (action >= 2)
        right = jnp.where(action == 2, -1.0, 1.0) == state.goal
        bumps = (place == state.place) & ~turns
        reward = jnp.where(turns & right, 4.0, jnp.where(turns | bumps, -0.1, 0.0))
        state = Corridor(place, state.goal)
        return state, self._shown(state), reward, turns

    def _shown(self, state: Corridor) -> Array:
        sign = jnp.where(state.place == 0, state.goal, 0.0)
        return jnp.stack([sign, 1.0 * (state.place == self.delay), 1.0 * (state.place < self.delay)])


class Deal(eqx.Module):
    suits: Array
    """Of all cards, in the order in which they are dealt."""
    dealt: Array
    """Number of cards that lie open."""


class RepeatPrevious(qhat.JaxEnvironment):
    """Cards are dealt one by one; each action names the suit of the card `k` − 1 before the one shown.

    From the k-th card on, a right answer brings 1/(cards − k), a wrong one as much less: returns lie within
    [−1, 1], and a guess has −0.5 on average. POPGym's easy version has one deck and k = 4.
    """

    observation_space = (4,)
    action_space = 4

    def __init__(self, decks: int = 1, k: int = 4):
        self.cards, self.k = 52 * decks, k
        self.limit = self.cards - 1

    def reset(self, key: Array) -> tuple[Deal, Array]:
        suits = jax.random.permutation(key, jnp.arange(self.cards, dtype=jnp.int32) % 4)
        state = Deal(suits, jnp.int32(1))
        return state, self._shown(state)

    def step(self, state: Deal, action: Any, key: Array) -> tuple[Any, ...]:
        asked = state.suits[jnp.maximum(state.dealt - self.k, 0)]
        each = 1.0 / (self.cards - self.k)
        reward = jnp.where(action == asked, each, -each) * (state.dealt >= self.k)
        over = state.dealt == self.cards - 1
        state = Deal(state.suits, state.dealt + 1)
        return state, self._shown(state), reward, over

    def _shown(self, state: Deal) -> Array:
        return jax.nn.one_hot(state.suits[state.dealt - 1], 4)


class PositionOnlyCartPole(qhat.JaxEnvironment):
    """CartPole-v1 without the two velocities, for 200 steps of which each brings 1/200.

    With `noise`, every position and angle that is shown has Gaussian noise of this standard deviation:
    0.1 is POPGym's easy version, in which an angle of 0.21 ends the episode.
    """

    observation_space = (2,)
    action_space = 2
    limit = 200

    def __init__(self, noise: float = 0.0):
        self.noise = noise
        self._game = gymnax.environments.CartPole()
        self._params = self._game.default_params

    def reset(self, key: Array) -> tuple[Any, Array]:
        draw, look = jax.random.split(key)
        _, state = self._game.reset_env(draw, self._params)
        return state, self._shown(state, look)

    def step(self, state: Any, action: Any, key: Array) -> tuple[Any, ...]:
        _, state, *_ = self._game.step_env(key, state, action, self._params)
        over = self._game.is_terminated(state, self._params)
        return state, self._shown(state, key), 1.0 / self.limit, over

    def _shown(self, state: Any, key: Array) -> Array:
        true = jnp.stack([state.x, state.theta])
        if not self.noise:
            return true
        # Within twice what ends the episode, as POPGym's.
        most = 2 * jnp.array([self._params.x_threshold, self._params.theta_threshold_radians])
        return jnp.clip(true + self.noise * jax.random.normal(key, (2,)), -most, most)
