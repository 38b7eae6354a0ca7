"""From a Gymnasium space to entries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from qhat.environments.observations.entry import Entry
from qhat.system.errors import UsageError, setting


def entries_of(space: Any, env_id: str) -> tuple[Entry, ...]:
    """Return the arrays of a space, a dictionary's in the alphabetical order of its keys.

    Args:
        env_id: empty where an agent has the space, and no environment.

    Raises:
        UsageError: an entry is no array of numbers, or there is no number at all.
    """
    entries = tuple(_entries(space, (), env_id))
    if not sum(entry.size for entry in entries):
        raise UsageError(
            f"{_name(env_id)} has observations {space}, which hold no number; expected one or more."
            " Correct its observation_space."
        )
    return entries


def _entries(space: Any, path: tuple[Any, ...], env_id: str) -> Iterator[Entry]:
    from gymnasium import spaces

    if isinstance(space, spaces.Dict):
        for key in sorted(space.spaces):
            yield from _entries(space.spaces[key], (*path, key), env_id)
    elif isinstance(space, spaces.Tuple):
        for index, part in enumerate(space.spaces):
            yield from _entries(part, (*path, index), env_id)
    elif isinstance(space, spaces.Discrete):
        yield Entry(path, (), "int32", int(space.n), int(space.start))
    elif isinstance(space, spaces.Box):
        yield Entry.array(path, tuple(space.shape), np.dtype(space.dtype).name, space.low, space.high)
    elif isinstance(space, spaces.MultiBinary):
        yield Entry.array(path, tuple(space.shape), np.dtype(space.dtype).name, 0, 1)
    elif isinstance(space, spaces.MultiDiscrete):
        high = np.asarray(space.start) + np.asarray(space.nvec) - 1
        entry = Entry.array(path, tuple(space.shape), np.dtype(space.dtype).name, space.start, high)
        yield Entry(path, entry.shape, "float32", low=entry.low, high=entry.high)
    else:
        raise UsageError(_refusal(space, path, env_id))


def _refusal(space: Any, path: tuple[Any, ...], env_id: str) -> str:
    kind, label = type(space).__name__, ".".join(str(part) for part in path)
    where = f" at '{label}'" if path else ""
    if len(path) == 1 and isinstance(path[0], str):
        drop = f": {setting('wrap', f'drop:keys={label}')}" if env_id else ""
        remedy = f"Leave the entry out{drop}."
    else:
        remedy = "Wrap the environment so that it gives numbers (gymnasium.wrappers.TransformObservation)."
    return (
        f"{_name(env_id)} has observations of {kind}{where}, which no network reads as it is;"
        f" expected arrays, discrete values, or dictionaries and tuples of them. {remedy}"
    )


def _name(env_id: str) -> str:
    return f"Environment '{env_id}'" if env_id else "The agent"
