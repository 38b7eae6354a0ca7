"""Jumanji's puzzles, packing, routing and games (arXiv:2306.09884)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from qhat.environments.extras import defer_plotting, load
from qhat.environments.jax.single import JaxEnvironment

MASK = "action_mask"
COUNT = 256
"""Values of a `Discrete` within an observation from which it is a count, shown as a number from 0 to 1."""
MOST = 16_384
"""Actions that a mask of several axes may come to."""


class Jumanji(JaxEnvironment):
    """An environment of Jumanji. The rewards of a team are added.

    Args:
        name: `Snake-v1`, …
        options: arguments of its constructor: `time_limit`, …
    """

    def __init__(self, name: str, **options: Any):
        defer_plotting()
        self.env: Any = load("jumanji", f"jumanji:{name}").make(name, **options)
        specs: Any = load("jumanji.specs", f"jumanji:{name}")
        space = specs.jumanji_specs_to_gym_spaces(self.env.observation_spec)
        self.observation_space = _shown_space(space)
        first = jax.eval_shape(self.env.reset, jax.random.key(0))[1].observation
        self._mask = getattr(first, MASK, None)
        self._joint = _joint(self.env.action_spec, self._mask)
        self.action_space = (
            math.prod(self._joint) if self._joint else _whole(self.env.action_spec, self._mask, specs)
        )

    def reset(self, key: Array) -> tuple[Any, Any]:
        state, now = self.env.reset(key)
        return (state, self._legal(now)), self._observed(now)

    def step(self, state: Any, action: Array, key: Array) -> tuple[Any, ...]:
        if self._joint:
            action = jnp.stack(jnp.unravel_index(action, self._joint)).astype(self.env.action_spec.dtype)
        after, now = self.env.step(state[0], action)
        ended = now.last() & (jnp.max(now.discount) == 0)
        info = {"truncated": now.last() & ~ended}
        return (after, self._legal(now)), self._observed(now), jnp.sum(now.reward), ended, info

    def action_mask(self, state: Any) -> Any:
        return None if self._mask is None else state[1]

    def _legal(self, now: Any) -> Any:
        if self._mask is None:
            return None
        mask = getattr(now.observation, MASK)
        mask = mask.reshape(-1) if self._joint else mask
        # Where nothing is legal, the episode is over: any action may follow.
        return mask | ~mask.any(axis=-1, keepdims=True)

    def _observed(self, now: Any) -> Any:
        return _shown(now.observation, self.observation_space)


def _joint(spec: Any, mask: Any) -> tuple[int, ...]:
    """Return the sizes of an action's parts where only whole actions are legal or not; empty otherwise."""
    sizes = tuple(map(int, np.asarray(getattr(spec, "num_values", 0)).reshape(-1)))
    if len(sizes) < 2 or math.prod(sizes) > MOST:
        return ()
    by_part = mask is not None and mask.shape == (len(sizes), max(sizes)) and len(set(sizes)) == 1
    return () if by_part else sizes


def _whole(spec: Any, mask: Any, specs: Any) -> gymnasium.Space:
    """Return the space of actions; whole numbers within bounds are choices, as many as the mask has."""
    space = specs.jumanji_specs_to_gym_spaces(spec)
    if isinstance(space, gymnasium.spaces.Box) and np.dtype(space.dtype or float).kind in "iu":
        most = space.high.astype(np.int64) - space.low + 1
        counts = most if mask is None else np.minimum(most, mask.shape[-1])
        return gymnasium.spaces.MultiDiscrete(counts, start=space.low.astype(np.int64))
    return space


def _shown_space(space: Any, name: str = "") -> Any:
    """Return the space without its mask, counts as numbers from 0 to 1."""
    if isinstance(space, gymnasium.spaces.Dict):
        parts = {key: _shown_space(part) for key, part in space.spaces.items() if key != MASK}
        return gymnasium.spaces.Dict(parts)
    if isinstance(space, gymnasium.spaces.Discrete) and space.n > COUNT:
        return gymnasium.spaces.Box(0.0, float(space.n), (), np.float32)
    return space


def _shown(observation: Any, space: gymnasium.Space) -> Any:
    """Return what a space has of an observation: its parts are attributes or entries."""
    if not isinstance(space, gymnasium.spaces.Dict):
        return observation
    has = (
        observation.__getitem__
        if isinstance(observation, Mapping)
        else lambda key: getattr(observation, key)
    )
    return {key: _shown(has(key), part) for key, part in space.spaces.items()}
