"""The last steps of every environment, and their λ-returns: a view over the rings."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8

from qhat.engine.replay.nstep import NOTHING
from qhat.engine.replay.ring import Ring


def latest(ring: Ring, count: int) -> tuple[Int[Array, "T E"], UInt8[Array, "T E"]]:
    """Return the slots of the last `count` steps of every environment, the newest first, and their kinds.

    Where fewer are stored the others have the kind NOTHING.
    """
    rows = jnp.arange(min(count * (ring.stack + 1), ring.rows))
    slots = ring.before(rows)
    kinds = ring.kind[slots]
    # The nth step is the first row up to which there are n: sorting would take a twelfth of the training.
    steps = jnp.cumsum(kinds != NOTHING, axis=0)
    starts = jax.vmap(jnp.searchsorted, (1, None), 1)(steps, jnp.arange(1, count + 1))
    where = jnp.minimum(starts, rows.size - 1)
    found = jnp.take_along_axis(kinds, where, axis=0)
    kinds = jnp.where(starts < rows.size, found, NOTHING).astype(jnp.uint8)
    return jnp.take_along_axis(slots, where, axis=0), kinds


def lambda_returns(
    reward: Float[Array, "T E"],
    discount: Float[Array, "T E"],
    value: Float[Array, "T E"],
    trace: Float[Array, "T E"],
) -> Float[Array, "T E"]:
    """Return G = r + d·[(1 − λ)·V + λ·G'] of every step, the newest first; G' is that of the step after.

    Peng & Williams 1994, "Incremental multi-step Q-learning"; Gallici et al. 2025, arXiv:2407.04811.

    Args:
        discount: γ, or 0 where the episode terminated.
        value: V of the observation that the step led to.
        trace: λ, or 0 where the step after is another episode's or is not stored yet.
    """

    def back(later: Array, row: tuple[Array, Array, Array, Array]) -> tuple[Array, Array]:
        reward, discount, value, trace = row
        now = reward + discount * ((1.0 - trace) * value + trace * later)
        return now, now

    return jax.lax.scan(back, jnp.zeros_like(reward[0]), (reward, discount, value, trace))[1]
