"""Whether an episode reached the task's goal, read from `info`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from jaxtyping import Bool, Float

KEYS = ("is_success", "success")
"""Names in `info`. Goal environments (Gymnasium-Robotics) give the first at every step, and the
episode's last one counts; Meta-World gives the second, and one step with it is enough."""


def key_of(names: Collection[str]) -> str | None:
    """Return the name in `info` that reports success, if there is one."""
    return next((key for key in KEYS if key in names), None)


def judge(
    key: str, flag: Any, so_far: Bool[Any, " N"], real: Bool[Any, " N"], ended: Bool[Any, " N"], xp: Any
) -> tuple[Float[Any, " N"], Bool[Any, " N"]]:
    """Return `Timestep.success` of a step, and what to remember until the next.

    Args:
        key: one of `KEYS`.
        flag: the entry of `info`, numbers or truth values `[N]`.
        so_far: what was remembered.
        ended: real steps that ended an episode.
    """
    reached = real & (flag > 0)
    if key == "success":
        reached = reached | so_far
    return xp.where(ended, reached, xp.nan).astype("float32"), reached & ~ended
