"""Pgx's board and card games (arXiv:2303.17503); the other players move at random."""

from __future__ import annotations

from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from qhat.environments.extras import load
from qhat.environments.jax.single import JaxEnvironment

ME = 0
"""The player that learns. Who begins is drawn anew in each game."""


class Pgx(JaxEnvironment):
    """A game of Pgx, seen by one player. The others choose legal actions at random.

    Args:
        name: `tic_tac_toe`, `2048`, …
    """

    def __init__(self, name: str):
        self.env: Any = load("pgx", f"pgx:{name}").make(name)
        shown = jax.eval_shape(self.env.init, jax.random.key(0)).observation
        low, high = (0, 1) if shown.dtype == bool else (-np.inf, np.inf)
        kind = np.dtype(shown.dtype).type if np.isfinite(high) else np.float32
        self.observation_space = gymnasium.spaces.Box(low, high, tuple(shown.shape), kind)
        self.action_space = int(self.env.num_actions)

    def reset(self, key: Array) -> tuple[Any, Any]:
        begin, others = jax.random.split(key)
        state = self._others_move(self.env.init(begin), jnp.float32(0), others)[0]
        return state, self._observed(state)

    def step(self, state: Any, action: Array, key: Array) -> tuple[Any, ...]:
        move, others = jax.random.split(key)
        after = self.env.step(state, action, move)
        after, reward = self._others_move(after, after.rewards[ME], others)
        return after, self._observed(after), reward, after.terminated, {"truncated": after.truncated}

    def action_mask(self, state: Any) -> Any:
        return state.legal_action_mask

    def _observed(self, state: Any) -> Array:
        return jnp.asarray(self.env.observe(state), self.observation_space.dtype)

    def _others_move(self, state: Any, reward: Array, key: Array) -> tuple[Any, Array]:
        """Let the others move until it is this player's turn, or the game is over."""

        def waits(carry: tuple) -> Array:
            now = carry[0]
            return (now.current_player != ME) & ~now.terminated & ~now.truncated

        def move(carry: tuple) -> tuple:
            now, total, key = carry
            key, choose, play = jax.random.split(key, 3)
            action = jax.random.categorical(choose, jnp.where(now.legal_action_mask, 0.0, -jnp.inf))
            now = self.env.step(now, action, play)
            return now, total + now.rewards[ME], key

        return jax.lax.while_loop(waits, move, (state, reward, key))[:2]
