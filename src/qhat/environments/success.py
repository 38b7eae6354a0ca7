"""Whether an episode reached the task's goal, read from `info`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
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


def read(
    info: dict[str, Any], so_far: np.ndarray, real: np.ndarray, ended: np.ndarray
) -> tuple[np.ndarray | None, np.ndarray]:
    """Judge a step of a vector environment by its `info`, or `final_info` where a reset followed the step.

    Returns:
        `Timestep.success`, `None` without a name of `KEYS`, and what to remember.
    """
    final = info.get("final_info", {})
    key = key_of({**info, **final})
    if key is None:
        return None, so_far
    now, last = (np.asarray(each.get(key, np.zeros_like(ended)), float) for each in (info, final))
    flag = np.where(ended & info.get("_final_info", np.zeros_like(ended)), last, now)
    return judge(key, flag, so_far, real, ended, np)
