"""Craftax (arXiv:2402.16801), a game of survival with tools, and its smaller, classic version."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import gymnasium
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from qhat.environments.extras import defer_plotting, load
from qhat.environments.jax.single import JaxEnvironment
from qhat.environments.observations import Observations, entries_of
from qhat.environments.options import require_known

FOREVER = 2**30
"""Steps that no episode lasts: qhat cuts episodes itself, since a time limit is no end of the game."""


class Craftax(JaxEnvironment):
    """A game of Craftax.

    Args:
        name: `Craftax-Symbolic-v1`, …
        options: fields of the game's `EnvParams`: `max_timesteps`, `god_mode`, …
    """

    starts = 16
    # A world takes as long as some twenty steps of the game.
    start_every = 8

    def __init__(self, name: str, **options: Any):
        defer_plotting()
        self.env: Any = _maker(name)(name, auto_reset=False)
        params = self.env.default_params
        require_known(options, [field.name for field in dataclasses.fields(params)], f"craftax:{name}")
        self._params = params.replace(**{**options, "max_timesteps": FOREVER})
        self.limit = int(options.get("max_timesteps", params.max_timesteps))
        self._map = _map_shape(self.env) if "Symbolic" in name else None
        self.observation_space = _space(self.env.observation_space(params).shape, self._map)
        self.action_space = int(self.env.action_space(params).n)

    def reset(self, key: Array) -> tuple[Any, Any]:
        observation, state = self.env.reset_env(key, self._params)
        return state, self._observed(observation)

    def step(self, state: Any, action: Array, key: Array) -> tuple[Any, ...]:
        observation, after, reward, over, info = self.env.step_env(key, state, action, self._params)
        return after, self._observed(observation), reward, jnp.asarray(over, bool), _numbers(info)

    def _observed(self, observation: Array) -> Any:
        """Return a symbolic observation as the map around the player and the numbers of what it carries."""
        if self._map is None:
            return observation
        size = math.prod(self._map)
        cells = observation[:size].reshape(self._map).astype(jnp.uint8)
        return {"map": cells, "inventory": observation[size:]}

    def draw(self, state: Any) -> np.ndarray:
        game = "craftax_classic" if "classic" in type(self.env).__module__ else "craftax"
        renderer = load(f"craftax.{game}.renderer", "craftax")
        constants = load(f"craftax.{game}.constants", "craftax")
        pixels = renderer.render_craftax_pixels(state, constants.BLOCK_PIXEL_SIZE_HUMAN)
        return np.asarray(pixels).clip(0, 255).astype(np.uint8)


def _map_shape(env: Any) -> tuple[int, ...]:
    return tuple(load(type(env).__module__, "craftax").get_map_obs_shape())


def _space(shape: Sequence[int], cells: tuple[int, ...] | None) -> gymnasium.Space:
    """Return the space of pixels, or of a map (its cells lie beside each other) and an inventory."""
    if cells is None:
        return gymnasium.spaces.Box(0.0, 1.0, tuple(shape), np.float32)
    carried = (math.prod(shape) - math.prod(cells),)
    parts: dict[str, gymnasium.Space] = {
        "map": gymnasium.spaces.Box(0, 1, cells, np.uint8),
        "inventory": gymnasium.spaces.Box(-np.inf, np.inf, carried, np.float32),
    }
    space = gymnasium.spaces.Dict(parts)
    # More channels than cells in a row: by its shape alone, nobody would say that it is a map.
    entries = entries_of(space, "craftax")
    marked = (dataclasses.replace(one, order="hwc" if one.path == ("map",) else "") for one in entries)
    space.layout = Observations(tuple(marked))  # pyright: ignore[reportAttributeAccessIssue]
    return space


def _maker(name: str) -> Any:
    return load("craftax.craftax_env", f"craftax:{name}").make_craftax_env_from_name


def _numbers(info: dict[str, Any]) -> dict[str, Any]:
    """Return what of `info` is a number: `Achievements/collect_wood`, 100 where an episode had it."""
    return {name: value for name, value in info.items() if jnp.ndim(value) == 0}
