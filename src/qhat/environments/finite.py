"""Numbers that are not finite: rows that have some are no transitions, and end their episodes."""

from __future__ import annotations

from typing import Any

from jaxtyping import Bool, Float, Shaped

from qhat.environments.base import Timestep
from qhat.environments.observations import Observations


def sound(step: Timestep, xp: Any, layout: Observations | None = None) -> Timestep:
    """Return a step as it is judged: an episode is over before a row that is not finite.

    Args:
        layout: what its observations are made of.
    """
    failed = xp.zeros_like(step.real)
    for name in ("reward", "score", "successor"):
        value = getattr(step, name)
        if name == "successor":
            value = numbers_of(value, layout)
        if value is not None and xp.issubdtype(value.dtype, xp.inexact):
            failed |= ~xp.isfinite(value).reshape(*failed.shape, -1).all(axis=-1)
    failed &= step.real
    broken = failed if step.broken is None else step.broken | failed
    return step._replace(real=step.real & ~failed, broken=broken)


def numbers_of(rows: Any, layout: Observations | None) -> Any:
    """Return what of coded observations `[..., *shape]` may not be finite."""
    return layout.floats(rows) if layout is not None and layout.is_packed else rows


def sieve(
    observation: Shaped[Any, "N ..."],
    reward: Float[Any, " N"],
    broken: Bool[Any, " N"],
    xp: Any,
    layout: Observations | None = None,
) -> tuple[Any, Any, Bool[Any, " N"], Bool[Any, " N"]]:
    """Take out what is not finite.

    Args:
        broken: whether the step before brought such an observation: this one was acted on blindly.
        layout: what observations are made of.

    Returns:
        observation and reward, with zeros in the rows that are not finite; which rows are to be
        believed; and `broken` for the next step.
    """
    numbers = numbers_of(observation, layout)
    if numbers.dtype.kind != "f":
        failed = xp.zeros_like(broken)
    else:
        failed = ~xp.isfinite(numbers).reshape(len(broken), -1).all(axis=1)
        wide = failed.reshape(-1, *[1] * (observation.ndim - 1))
        observation = xp.where(wide, xp.zeros_like(observation), observation)
    counted = xp.isfinite(reward)
    reward = xp.where(counted, reward, xp.zeros_like(reward))
    return observation, reward, counted & ~failed & ~broken, failed
