"""After how many steps an environment says that it cuts an episode."""

from __future__ import annotations

from typing import Any

import gymnasium
from gymnasium.wrappers import TimeLimit

NAMES = (
    "max_episode_steps",
    "_max_episode_steps",
    "max_steps",
    "_max_steps",
    "max_episode_length",
    "horizon",
)
"""Attributes by which environments keep a limit of their own, as MiniGrid's do."""
FRAMES = "max_num_frames_per_episode"
"""Atari's limit: an option of its constructor, in frames, of which a step has one or more."""


def declared_by(env: gymnasium.Env) -> int:
    """Return the steps, or more than that; 0 where it says nothing."""
    found = getattr(env.spec, "max_episode_steps", None)
    around: Any = env
    while not found and isinstance(around, gymnasium.Wrapper):
        found = getattr(around, "_max_episode_steps", None) if isinstance(around, TimeLimit) else None
        around = around.env
    inner, spec = env.unwrapped, env.unwrapped.spec
    candidates = [
        found,
        *(getattr(inner, name, None) for name in NAMES),
        (spec.kwargs if spec else {}).get(FRAMES),
    ]
    return next((int(one) for one in candidates if _is_count(one)), 0)


def _is_count(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 2**31
