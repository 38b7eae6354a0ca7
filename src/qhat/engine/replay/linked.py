"""Writes blocks of rows into a ring with links, as an `Agent` has."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from qhat.engine.replay.links import Links, Rows
from qhat.engine.replay.nstep import CONTINUES, NOTHING
from qhat.engine.replay.ring import Ring


def write(ring: Ring, rows: Rows) -> tuple[Ring, Int[Array, " M"], Bool[Array, " M"]]:
    """Write consecutive rows into a ring with links; they are no more than the ring has.

    Returns:
        the ring, the slots that were written, and which of them are starts.
    """
    assert ring.links is not None
    begin, count, stay, cursor, filled = rows.place
    row = jnp.arange(rows.reward.shape[0])
    slots = jnp.where(row < count, (begin + row) % ring.rows, ring.size)
    # No older row is one of those written here, so the order of the two does not matter.
    linked = jnp.concatenate([slots, rows.older[:, 0]])
    kind, after, following = jnp.concatenate([rows.links, rows.older[:, 1:]]).T
    moments, outlook = ring.moments, ring.outlook
    if moments is not None:
        numbers = rows.observation if ring.layout is None else ring.layout.shown(rows.observation)[1]
        moments = moments.see(numbers, row < stay)
    if outlook is not None:
        outlook = outlook.widened(*rows.ranges)
    scale = ring.scale
    if scale is not None:
        is_known = rows.older[:, 0] < ring.size
        scale = scale.cut(jnp.any(is_known & (rows.older[:, 1] != CONTINUES)))
        fits = True if moments is None else moments.finite
        scale = scale.see_all(rows.reward, rows.links[:, 0], row < count, fits)
        moments = jax.tree.map(lambda new, old: jnp.where(fits, new, old), moments, ring.moments)
    ring = dataclasses.replace(
        ring,
        observation=ring.observation.at[slots].set(rows.observation, mode="drop"),
        action=ring.action.at[slots].set(rows.action, mode="drop"),
        reward=ring.reward.at[slots].set(rows.reward, mode="drop"),
        kind=ring.kind.at[linked].set(kind.astype(jnp.uint8), mode="drop"),
        cursor=jnp.full_like(ring.cursor, cursor),
        filled=jnp.full_like(ring.filled, filled),
        legal=None if ring.legal is None else ring.legal.at[slots].set(rows.legal, mode="drop"),
        outlook=outlook,
        moments=moments,
        links=Links(
            ring.links.after.at[linked].set(after, mode="drop"),
            ring.links.next.at[linked].set(following, mode="drop"),
            None
            if ring.links.before is None
            else ring.links.before.at[slots].set(rows.before, mode="drop"),
        ),
        memory=None if ring.memory is None else ring.memory.at[slots].set(rows.memory, mode="drop"),
        greedy=None if ring.greedy is None else ring.greedy.at[slots].set(False, mode="drop"),
        scale=scale,
    )
    return ring, slots, rows.links[:, 0] != NOTHING


def linked(ring: Ring) -> Ring:
    """Return the ring of one environment with links: each row leads to the row after it.

    The newest row leads nowhere yet, as no step has followed it.
    """
    assert ring.cursor.shape[0] == 1
    start = (ring.kind != NOTHING).astype(jnp.int32)
    newest = jnp.arange(ring.rows) == (ring.cursor - 1) % ring.rows
    goes_on = (ring.kind == CONTINUES) & ~newest
    before = None
    if ring.memory is not None:
        before = jnp.where(jnp.roll(goes_on, 1), start, 0)
    return dataclasses.replace(ring, links=Links(start, goes_on.astype(jnp.int32), before))


def merged(ring: Ring, count: int, mean: np.ndarray, m2: np.ndarray) -> Ring:
    """Add observations to `moments` that the ring never stored."""
    assert ring.moments is not None
    delta, within = jnp.asarray(mean - ring.moments.mean, jnp.float32), jnp.asarray(m2, jnp.float32)
    moments = ring.moments.merged(jnp.float32(count), delta, within)
    return dataclasses.replace(ring, moments=moments)
