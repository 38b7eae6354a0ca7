"""Gymnasium's spaces as environments use them: bounds, seeds, coded observations, words for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

from qhat.environments.observations import Entry, Observations, entries_of
from qhat.system.errors import UnfitActionError, UsageError, near_miss, require, setting


def bounded(space: gymnasium.Space, low: float, high: float) -> gymnasium.spaces.Box:
    """Return a Box with these bounds where it has none. Raises `UsageError` for any other space."""
    if not isinstance(space, gymnasium.spaces.Box):
        raise UsageError(f"{setting('wrap', 'bound_actions')} is around actions {space}; expected a Box.")
    least, most = (
        np.where(np.isfinite(bounds), bounds, default).astype(space.dtype)
        for bounds, default in ((space.low, low), (space.high, high))
    )
    return gymnasium.spaces.Box(least, most, space.shape, np.dtype(space.dtype).type)


def episode_seeds(seed: int, since: int, count: int, restarts: int = 0) -> list[int]:
    """Return the seeds of `count` environments of seed number `seed`, which share none with a neighbour's.

    Args:
        since: step that the run continues from.
        restarts: how often the environments were restarted since then.
    """
    draw = np.random.default_rng([seed, since, restarts] if restarts else [seed, since])
    return draw.integers(2**31 - 1, size=count).tolist()


def contained(action: np.ndarray, space: gymnasium.Space) -> np.ndarray:
    """Return actions `[N, *shape]` in their space's type.

    Raises:
        UnfitActionError: the space does not contain one of them.
    """
    typed = action.astype(space.dtype)
    inside = all(space.contains(np.asarray(row)) for row in typed)
    if not inside or not np.allclose(typed, action):
        raise UnfitActionError(f"actions of {space}")
    return typed


class Coded(gymnasium.spaces.Box):
    """Space of arrays that stand for observations of another space."""

    def __init__(self, layout: Observations):
        dtype: Any = np.dtype(layout.dtype)
        low, high = (0, 1) if dtype.kind == "b" else (-np.inf, np.inf)
        if dtype.kind in "iu":
            low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
        super().__init__(low, high, layout.shape, dtype)
        self.layout = layout


def given_entries(space: gymnasium.Space, env_id: str) -> tuple[Entry, ...]:
    """Return the arrays that an environment of this space gives, coded ones as they are."""
    if isinstance(space, Coded):
        return (Entry((), tuple(space.shape), np.dtype(space.dtype).name),)
    return entries_of(space, env_id)


class Stacked(gymnasium.wrappers.FrameStackObservation):
    """Stacks the arrays of a `Coded` space."""

    def __init__(self, env: gymnasium.Env, stack_size: int):
        super().__init__(env, stack_size=stack_size)
        space = env.observation_space
        if isinstance(space, Coded):
            self.observation_space = Coded(space.layout.stacked(stack_size))


def as_array(env: gymnasium.Env) -> gymnasium.Env:
    """Return an environment whose observation is one array, read as training reads it."""
    if isinstance(env.observation_space, gymnasium.spaces.Box):
        return env
    observations = Observations.of(env.observation_space, env.spec.id if env.spec else str(env))
    return gymnasium.wrappers.TransformObservation(env, observations.read_one, Coded(observations))


def without(env: gymnasium.Env, keys: Sequence[str]) -> gymnasium.Env:
    """Return an environment whose observations lack these entries.

    Raises:
        UsageError: it has no such entry, or no other.
    """
    space = env.observation_space
    known = list(space.spaces) if isinstance(space, gymnasium.spaces.Dict) else []
    for key in keys:
        require(
            key in known,
            f"{setting('wrap', 'drop:keys=...')} names '{key}', and '{env.spec.id if env.spec else env}'"
            " shows"
            f" {', '.join(map(str, known)) or 'no dictionary'}; expected one of its entries."
            + near_miss(key, map(str, known)),
        )
    left = [key for key in known if key not in keys]
    require(
        bool(left),
        f"{setting('wrap', 'drop:keys=...')} leaves none of {', '.join(known)}; expected one at least to"
        " stay.",
    )
    return gymnasium.wrappers.FilterObservation(env, left)


def describe(space: gymnasium.Space) -> str:
    """Say a space for people: `(4,) float32`, `4 discrete`, `{achieved_goal, observation}`."""
    if isinstance(space, gymnasium.spaces.Discrete):
        return f"{space.n} discrete"
    if isinstance(space, gymnasium.spaces.MultiDiscrete):
        return "×".join(str(int(n)) for n in space.nvec.ravel()) + " discrete"
    if isinstance(space, gymnasium.spaces.Dict):
        return "{" + ", ".join(sorted(str(key) for key in space.spaces)) + "}"
    if isinstance(space, gymnasium.spaces.Tuple):
        return "(" + ", ".join(describe(part) for part in space.spaces) + ")"
    return f"{space.shape} {space.dtype}"
