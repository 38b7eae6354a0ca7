"""Groups of observations, as simulators of robots have them: what the robot sees, what training sees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np

from qhat.system.errors import UsageError, near_miss


def groups_of(shown: Mapping[str, Any], group: str, env_id: str) -> tuple[str, ...]:
    """Return the names of the groups that are shown.

    Args:
        shown: an observation, by group.
        group: names of groups, joined by `+`.

    Raises:
        UsageError: there is no such group.
    """
    names = tuple(group.split("+"))
    for name in names:
        if name not in shown:
            raise UsageError(
                f"Environment '{env_id}' has no group of observations '{name}'; it has"
                f" {', '.join(shown)}.{near_miss(name, shown)}"
            )
    return names


def space_of_groups(shown: Any, group: str, env_id: str) -> gymnasium.Space:
    """Return the space of the groups that are shown.

    Args:
        shown: an observation's shapes, by group.
        group: names of groups, joined by `+`.

    Raises:
        UsageError: there is no such group.
    """
    if not isinstance(shown, Mapping):
        raise UsageError(f"Environment '{env_id}' has no groups of observations; leave group out.")
    names = groups_of(shown, group, env_id)
    if len(names) == 1:
        return box_of(shown[names[0]])
    return gymnasium.spaces.Dict({name: box_of(shown[name]) for name in names})


def grouped(observation: Any, group: str) -> Any:
    """Return the groups of an observation that are shown."""
    names = group.split("+")
    return observation[names[0]] if len(names) == 1 else {name: observation[name] for name in names}


def box_of(shown: Any) -> gymnasium.spaces.Box:
    """Return the space of an array of any numbers."""
    return gymnasium.spaces.Box(-np.inf, np.inf, tuple(shown.shape), np.dtype(shown.dtype).type)
