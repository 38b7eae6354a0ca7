"""Physics that fails: rows whose numbers are not finite are no transitions, and end their episodes."""

from __future__ import annotations

from typing import Any

from jaxtyping import Bool, Float, Shaped


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
