"""Numbers that are not finite: rows that have some are no transitions, and end their episodes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

from jaxtyping import Bool, Float, Shaped

Step = TypeVar("Step")


def sound(step: Step, xp: Any) -> Step:
    """Return a step as it is judged: an episode is over before a row that is not finite.

    Args:
        step: `Timestep` or `HostStep`; a row is an environment's.
    """
    given: Any = step
    failed = xp.zeros_like(given.real)
    for name in ("reward", "score", "successor"):
        value = getattr(given, name)
        if value is not None and xp.issubdtype(value.dtype, xp.inexact):
            failed |= ~xp.isfinite(value).reshape(*failed.shape, -1).all(axis=-1)
    failed &= given.real
    broken = failed if given.broken is None else given.broken | failed
    changes: Any = {"real": given.real & ~failed, "broken": broken}
    return given._replace(**changes) if hasattr(given, "_replace") else replace(given, **changes)


def sieve(
    observation: Shaped[Any, "N ..."], reward: Float[Any, " N"], broken: Bool[Any, " N"], xp: Any
) -> tuple[Any, Any, Bool[Any, " N"], Bool[Any, " N"]]:
    """Take out what is not finite.

    Args:
        broken: whether the step before brought such an observation: this one was acted on blindly.

    Returns:
        observation and reward, with zeros in the rows that are not finite; which rows are to be
        believed; and what to hand in as `broken` with the next step.
    """
    if observation.dtype.kind != "f":
        failed = xp.zeros_like(broken)
    else:
        failed = ~xp.isfinite(observation).reshape(len(broken), -1).all(axis=1)
        wide = failed.reshape(-1, *[1] * (observation.ndim - 1))
        observation = xp.where(wide, xp.zeros_like(observation), observation)
    counted = xp.isfinite(reward)
    reward = xp.where(counted, reward, xp.zeros_like(reward))
    return observation, reward, counted & ~failed & ~broken, failed
