"""Whether an episode reached the task's goal, as environments tell it in `info`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from jaxtyping import Bool, Float

KEYS = ("is_success", "success")
"""Names in `info`. Goal environments (Gymnasium-Robotics) tell the first at every step: an episode's last
one counts; of Meta-World's, the second, once is enough."""


def key_of(names: Collection[str]) -> str | None:
    """Return which of the names tells of success, if one does."""
    return next((key for key in KEYS if key in names), None)


def judge(
    key: str, flag: Any, so_far: Bool[Any, " N"], real: Bool[Any, " N"], ended: Bool[Any, " N"], xp: Any
) -> tuple[Float[Any, " N"], Bool[Any, " N"]]:
    """Return `Timestep.success` of a step, and what to remember until the next.

    Args:
        key: one of `KEYS`.
        flag: what `info` told of it, numbers or truth values `[N]`.
        so_far: what was remembered.
        ended: real steps that ended an episode.
    """
    reached = real & (flag > 0)
    if key == "success":
        reached = reached | so_far
    return xp.where(ended, reached, xp.nan).astype("float32"), reached & ~ended
