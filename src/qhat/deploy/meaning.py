"""Reads names, units and bounds of observations and actions from an environment."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np

from qhat.environments.base import Spec
from qhat.environments.catalogue import is_from_python
from qhat.environments.named import known_names
from qhat.environments.observations import Observations
from qhat.environments.wrappers import ActionRepeat, Wrapper
from qhat.system.errors import QhatError, UsageError

MOST_NAMES = 4_096
"""Largest number of named numbers in an observation; larger ones are pixels."""


@dataclasses.dataclass(frozen=True)
class Meaning:
    """Names, units, bounds and period; `None` is unknown."""

    names: list[str] | None = None
    units: list[str] | None = None
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    """Bounds of a whole observation, `[*shape]`."""
    action_names: list[str] | None = None
    action_units: list[str] | None = None
    drives: list[tuple[float, float]] | None = None
    """Scale and offset of every joint's position."""
    labels: list[str] | None = None
    period: float | None = None


def meaning_of(
    env: gymnasium.Env | None, spec: Spec, wrap: Sequence[Wrapper], frame: tuple[int, ...]
) -> Meaning:
    """Read the meaning of a Gymnasium environment's numbers.

    First from `metadata["observation_names"]`, `"observation_units"`, `"action_names"`, `"action_units"`,
    `"action_labels"` and `"control_period"` (seconds); then from its spaces, `dt`, `tau` and `render_fps`.

    Args:
        env: wrapped as in training; `None` if Gymnasium has none.
        frame: shape of one observation, without its stack.
    """
    size = int(np.prod(frame))
    metadata = dict(getattr(env, "metadata", None) or {})
    known = known_names(spec.id)
    home = type(getattr(env, "unwrapped", None)).__module__
    if is_from_python(spec.id) and not home.startswith("gymnasium."):
        # Another environment that has the same id.
        known = ((), ())
    names = _texts(metadata.get("observation_names"), size) or _named(env, spec, size)
    units = _texts(metadata.get("observation_units"), size)
    if names is None and len(known[0]) == size:
        split = [one.partition(" ") for one in known[0]]
        names, units = [one[0] for one in split], [one[2] for one in split]
    discrete = spec.actions.factors == 1 and spec.actions.commands is None
    labels = _texts(metadata.get("action_labels"), spec.actions.width) if discrete else None
    if labels is None and discrete and len(known[1]) == spec.actions.width:
        labels = list(known[1])
    low = high = None
    if env is not None:
        space = env.observation_space
        if isinstance(space, gymnasium.spaces.Box) and space.shape == spec.shape:
            low, high = space.low, space.high
    return Meaning(
        names=names,
        units=units,
        low=low,
        high=high,
        action_names=_texts(metadata.get("action_names"), spec.actions.factors),
        action_units=_texts(metadata.get("action_units"), spec.actions.factors),
        labels=labels,
        period=_period(env, metadata, wrap, spec),
    )


def _texts(value: Any, count: int) -> list[str] | None:
    """Read a list of `count` texts; `None` if there is no list."""
    if not isinstance(value, list | tuple):
        return None
    if len(value) != count or not all(isinstance(one, str) for one in value):
        raise QhatError(
            f"The environment's metadata names {len(value)} of {count} numbers; expected a text for each."
        )
    return list(value)


def _named(env: gymnasium.Env | None, spec: Spec, size: int) -> list[str] | None:
    """Name the numbers of a dictionary by its keys."""
    layout = spec.layout
    if layout is None and env is not None:
        with contextlib.suppress(UsageError):
            layout = Observations.of(env.unwrapped.observation_space, spec.id)
    if layout is None or size > MOST_NAMES:
        return None
    leaves = layout.entries
    if layout.is_packed or not leaves[0].path or sum(leaf.size for leaf in leaves) != size:
        return None
    names = []
    for leaf in leaves:
        several = [f"{leaf.label}[{index}]" for index in range(leaf.size)]
        names += [leaf.label] if leaf.size == 1 else several
    return names


def _period(
    env: gymnasium.Env | None, metadata: Mapping[str, Any], wrap: Sequence[Wrapper], spec: Spec
) -> float | None:
    """Return the seconds between two decisions, if known."""
    inner = getattr(env, "unwrapped", None)
    rate = metadata.get("render_fps")
    for value in (
        metadata.get("control_period"),
        getattr(inner, "dt", None),
        getattr(inner, "tau", None),
        1 / rate if isinstance(rate, int | float) and rate > 0 else None,
    ):
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e6:
            repeats = np.prod([part.count for part in wrap if isinstance(part, ActionRepeat)])
            return float(value) * float(repeats)
    return None
