"""Groups of observations, as simulators of robots have them: what the robot sees, what training sees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np

from qhat.system.errors import UsageError, near_miss

JOIN = "+"
"""Between the names of several groups."""


def space_of_groups(shown: Any, group: str, env_id: str) -> gymnasium.Space:
    """Return the space of the groups that are shown.

    Args:
        shown: an observation's shapes: one array, or arrays by group.
        group: names of groups, joined by `+`.

    Raises:
        UsageError: there is no such group.
    """
    if not isinstance(shown, Mapping):
        return _box(shown)
    names = group.split(JOIN)
    for name in names:
        if name not in shown:
            raise UsageError(
                f"Environment '{env_id}' has no group of observations '{name}'; it has"
                f" {', '.join(shown)}.{near_miss(name, shown)}"
            )
    if len(names) == 1:
        return _box(shown[names[0]])
    return gymnasium.spaces.Dict({name: _box(shown[name]) for name in names})


def grouped(observation: Any, group: str) -> Any:
    """Return the groups of an observation that are shown."""
    if not isinstance(observation, Mapping):
        return observation
    names = group.split(JOIN)
    return observation[names[0]] if len(names) == 1 else {name: observation[name] for name in names}


def _box(shown: Any) -> gymnasium.Space:
    return gymnasium.spaces.Box(-np.inf, np.inf, tuple(shown.shape), np.dtype(shown.dtype).type)
