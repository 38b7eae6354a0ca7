"""Where an environment says which actions are legal: read into `info["action_mask"]`, wherever it is.

Gymnasium gives a mask in `info["action_mask"]`, PettingZoo in the entry `"action_mask"` of a dictionary,
sb3-contrib by a method `action_masks()`. Entry i of a mask is for the i-th choice: action `start + i`.
"""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

from qhat.axes.masks import NAMES as KEYS

KEY = KEYS[0]
"""Where Gymnasium gives a mask."""


@dataclasses.dataclass(frozen=True)
class MaskSource:
    """One place where masks are found."""

    place: str
    """`info`, `observation` or `method`."""
    key: str

    @property
    def where(self) -> str:
        """The place as it is written in Python."""
        if self.place == "method":
            return f"{self.key}()"
        return f"{'obs' if self.place == 'observation' else 'info'}['{self.key}']"

    @staticmethod
    def of_spaces(observation: Any, action: Any) -> MaskSource | None:
        """Find a mask among the entries of a dictionary: one that has a number for every choice."""
        if not isinstance(observation, Dict):
            return None
        entries = observation.spaces
        found = [key for key in KEYS if key in entries and _numbers(entries[key]) == _choices(action)]
        return MaskSource("observation", found[0]) if found and len(entries) > 1 else None

    @staticmethod
    def of_info(info: Any) -> MaskSource | None:
        """Find a mask in what a reset or a step says."""
        found = [key for key in KEYS if isinstance(info, dict) and info.get(key) is not None]
        return MaskSource("info", found[0]) if found else None

    @staticmethod
    def of_method(env: gymnasium.Env) -> MaskSource | None:
        """Find sb3-contrib's method, which takes no arguments."""
        name = KEYS[1]
        method = env.get_wrapper_attr(name) if env.has_wrapper_attr(name) else None
        if not callable(method):
            return None
        try:
            inspect.signature(method).bind()
        except (TypeError, ValueError):
            return None
        return MaskSource("method", name)


class MaskInInfo(gymnasium.Wrapper):
    """Moves a mask from the observation, or from the method, to `info["action_mask"]`."""

    def __init__(self, env: gymnasium.Env, source: MaskSource):
        super().__init__(env)
        self.mask_source = source
        if source.place == "observation":
            self.observation_space = without_mask(env.observation_space, source.key)

    def reset(self, **options: Any) -> Any:
        return self._moved(self.env.reset(**options))

    def step(self, action: Any) -> Any:
        return self._moved(self.env.step(action))

    def _moved(self, given: Any) -> Any:
        """Move it, where `given` is what Gymnasium expects: whoever reads the rest refuses it."""
        if not (isinstance(given, tuple) and len(given) > 1 and isinstance(given[-1], dict)):
            return given
        observation, info, key = given[0], dict(given[-1]), self.mask_source.key
        if self.mask_source.place == "method":
            if MaskSource.of_info(info) is None:
                info[KEY] = np.asarray(self.env.get_wrapper_attr(key)())
        elif isinstance(observation, dict) and key in observation:
            info[KEY] = _copied(observation[key])
            rest = {name: value for name, value in observation.items() if name != key}
            alone = not isinstance(self.observation_space, Dict)
            observation = next(iter(rest.values())) if alone else rest
        return (observation, *given[1:-1], info)


def mask_in_info(env: gymnasium.Env) -> gymnasium.Env:
    """Return an environment that gives its masks, if it has any, in `info`."""
    spaces = [getattr(env, part, None) for part in ("observation_space", "action_space")]
    if None in spaces or env.has_wrapper_attr("mask_source"):
        return env
    source = MaskSource.of_spaces(spaces[0], spaces[1]) or MaskSource.of_method(env)
    return MaskInInfo(env, source) if source else env


def without_mask(space: Any, key: str) -> gymnasium.Space:
    """Return what is left to learn from; the space of a single entry is that entry's own."""
    rest = {name: part for name, part in space.spaces.items() if name != key}
    return next(iter(rest.values())) if len(rest) == 1 else Dict(rest)


def _choices(space: gymnasium.Space) -> int:
    """How many choices an action has, of all factors together; 0 where masks have no meaning."""
    if isinstance(space, Discrete):
        return int(space.n)
    if isinstance(space, MultiDiscrete):
        return int(space.nvec.sum())
    return 2 * int(np.prod(space.shape)) if isinstance(space, MultiBinary) else 0


def _numbers(space: gymnasium.Space) -> int:
    """How many numbers a mask's space has; -1 for one that can be no mask."""
    if isinstance(space, Tuple):
        parts = [_numbers(part) for part in space.spaces]
        return -1 if min(parts, default=-1) < 0 else sum(parts)
    binary = isinstance(space, MultiBinary) or (
        isinstance(space, Box) and bool((space.low >= 0).all() and (space.high <= 1).all())
    )
    flat = binary and space.shape is not None and len(space.shape) in (1, 2)
    return int(np.prod(space.shape or ())) if flat else -1


def _copied(mask: Any) -> Any:
    return tuple(np.array(part) for part in mask) if isinstance(mask, tuple) else np.array(mask)
