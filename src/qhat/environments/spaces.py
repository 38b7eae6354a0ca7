"""From Gymnasium's observations to what the engine takes, one array each; actions are `qhat.actions`'s.

Numbers keep their meaning and lose their width: 64-bit observations become 32-bit ones, uint8 and bool
stay as they are. A dictionary becomes one float32 vector: its entries flattened, one after the other, in
the alphabetical order of their keys (a nested dictionary in its key's place, a tuple by index). A
`Discrete` observation is one-hot.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np

from qhat.errors import UsageError

NARROWER = {"float64": "float32", "float16": "float32", "int64": "int32", "uint64": "uint32"}


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One array within an observation."""

    path: tuple[Any, ...]
    """Keys and indices that lead to it."""
    shape: tuple[int, ...]
    dtype: str
    choices: int = 0
    """Number of values of a `Discrete`, which is one-hot; 0 for arrays."""
    start: int = 0
    """Lowest value of a `Discrete`."""

    @property
    def where(self) -> str:
        """The path for people: ` at 'arm.angle'`; empty for the whole observation."""
        return f" at '{'.'.join(str(key) for key in self.path)}'" if self.path else ""

    @property
    def size(self) -> int:
        """How many numbers it comes to."""
        return self.choices or math.prod(self.shape)


@dataclasses.dataclass(frozen=True)
class Observations:
    """How an observation space becomes one array."""

    leaves: tuple[Leaf, ...]

    @staticmethod
    def of(space: gymnasium.Space, env_id: str) -> Observations:
        """Read a space. Raises `UsageError` for one that is not made of numbers."""
        return Observations(tuple(_leaves(space, (), env_id)))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one observation."""
        alone = self.leaves[0]
        if len(self.leaves) > 1 or alone.path:
            return (sum(leaf.size for leaf in self.leaves),)
        return (alone.choices,) if alone.choices else alone.shape

    @property
    def dtype(self) -> str:
        """Type that one is stored as."""
        alone = self.leaves[0]
        if len(self.leaves) > 1 or alone.path:
            return "float32"
        return "bool" if alone.choices else NARROWER.get(alone.dtype, alone.dtype)

    def read(self, value: Any, xp: Any = np) -> Any:
        """Make one array `[N, ...]` of a batch of observations.

        Args:
            xp: NumPy or `jax.numpy`.
        """
        parts = [_one_hot(leaf, _at(value, leaf.path), xp) for leaf in self.leaves]
        if len(parts) == 1 and not self.leaves[0].path:
            return parts[0].astype(self.dtype)
        flat = [part.reshape(part.shape[0], -1).astype("float32") for part in parts]
        return xp.concatenate(flat, axis=1)

    def read_one(self, value: Any, space: gymnasium.Space) -> np.ndarray:
        """Make one array of one observation of `space`."""
        batch = gymnasium.vector.utils.create_empty_array(space, 1)
        return self.read(gymnasium.vector.utils.concatenate(space, [value], batch))[0]


def bounded(space: gymnasium.Space, low: float, high: float) -> gymnasium.spaces.Box:
    """Return a Box with these bounds where it has none. Raises `UsageError` for any other space."""
    if not isinstance(space, gymnasium.spaces.Box):
        raise UsageError(f"--wrap bound_actions is around actions {space}; expected a Box.")
    least, most = (
        np.where(np.isfinite(bounds), bounds, told).astype(space.dtype)
        for bounds, told in ((space.low, low), (space.high, high))
    )
    return gymnasium.spaces.Box(least, most, space.shape, np.dtype(space.dtype).type)


def episode_seeds(seed: int, since: int, count: int, restarts: int = 0) -> list[int]:
    """Return the seeds of `count` environments of seed number `seed`, which share none with a neighbour's.

    Args:
        since: step that the run goes on from.
        restarts: how often the environments were begun anew since then.
    """
    draw = np.random.default_rng([seed, since, restarts] if restarts else [seed, since])
    return draw.integers(2**31 - 1, size=count).tolist()


def as_array(env: gymnasium.Env) -> gymnasium.Env:
    """Return an environment whose observation is one array, read as training reads it."""
    space = env.observation_space
    if isinstance(space, gymnasium.spaces.Box):
        return env
    observations = Observations.of(space, env.spec.id if env.spec else str(env))

    dtype: Any = np.dtype(observations.dtype)
    low, high = (0, 1) if dtype.kind == "b" else (-np.inf, np.inf)
    if dtype.kind in "iu":
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    box = gymnasium.spaces.Box(low, high, observations.shape, dtype)
    return gymnasium.wrappers.TransformObservation(
        env, lambda value: observations.read_one(value, space), box
    )


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


def _leaves(space: gymnasium.Space, path: tuple[Any, ...], env_id: str) -> Iterator[Leaf]:
    if isinstance(space, gymnasium.spaces.Dict):
        for key in sorted(space.spaces):
            yield from _leaves(space.spaces[key], (*path, key), env_id)
    elif isinstance(space, gymnasium.spaces.Tuple):
        for index, part in enumerate(space.spaces):
            yield from _leaves(part, (*path, index), env_id)
    elif isinstance(space, gymnasium.spaces.Discrete):
        yield Leaf(path, (), "int32", int(space.n), int(space.start))
    elif isinstance(space, gymnasium.spaces.Box | gymnasium.spaces.MultiBinary):
        yield Leaf(path, tuple(space.shape), np.dtype(space.dtype).name)
    elif isinstance(space, gymnasium.spaces.MultiDiscrete):
        yield Leaf(path, tuple(space.shape), "float32")
    else:
        where = f" at {'.'.join(str(part) for part in path)}" if path else ""
        raise UsageError(
            f"Environment '{env_id}' has observations {space}{where}; expected arrays, discrete values,"
            " or dictionaries and tuples of them."
        )


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def _one_hot(leaf: Leaf, value: Any, xp: Any) -> Any:
    if not leaf.choices:
        return value
    return (value - leaf.start).reshape(-1, 1) == xp.arange(leaf.choices)
