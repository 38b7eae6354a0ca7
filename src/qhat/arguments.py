"""Reading what callers of `Agent` hand over: spaces, settings, numbers."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from qhat.actions import Actions
from qhat.errors import UsageError, near_miss, require
from qhat.recipe import Recipe


def is_number(value: Any) -> bool:
    """Whether `value` is one finite number."""
    try:
        return bool(np.isfinite(value))
    except (TypeError, ValueError):
        return False


def known_settings(settings: dict[str, Any]) -> dict[str, Any]:
    names = [field.name for field in dataclasses.fields(Recipe) if field.name != "num_envs"]
    for name in settings:
        require(name in names, f"Agent has no setting '{name}'." + near_miss(name, names))
    return settings


def read_observation(observation: Any) -> tuple[tuple[int, ...], str]:
    """Read a size, a shape, a (shape, dtype) pair, or a Box."""
    dtype: Any = getattr(observation, "dtype", None) or "float32"
    shape = getattr(observation, "shape", observation)
    if isinstance(shape, tuple) and len(shape) == 2 and isinstance(shape[0], tuple):
        shape, dtype = shape
    if isinstance(shape, int):
        shape = (shape,)
    if not isinstance(shape, tuple) or not all(isinstance(n, int) and n > 0 for n in shape):
        raise UsageError(f"observation is {observation!r}; expected a size, a shape or a Gymnasium Box.")
    name = np.dtype(dtype).name
    return shape, "float32" if name == "float64" else name


def read_actions(actions: Any) -> Actions:
    """Read a number of actions, or a Discrete space."""
    if isinstance(actions, Actions):
        return actions
    count = getattr(actions, "n", actions)
    if not isinstance(count, int | np.integer) or isinstance(count, bool) or count < 1:
        raise UsageError(
            f"actions is {actions!r}; expected a number of actions or a Gymnasium Discrete space."
        )
    return Actions((int(count),))
