"""Links between the rows of one ring, for several streams and for sensors that are read twice.

A training loop has a ring for each environment, where the next row follows each step. An `Agent` has one
ring for all its streams: each row links to the row of its successor's observation, and to the next step of
its stream. Both are the same row if the next step began with the observation that this step ended with.
They are two rows if the sensor was read again in between: the successor is stored unchanged, and the
n-step sum continues.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8

from qhat.engine.replay.nstep import NOTHING


class Links(eqx.Module):
    """Distance from each row to the rows it leads to, in rows; 0 while there is none."""

    after: Int[Array, " N"]
    """Distance to the row with the observation that the step led to."""
    next: Int[Array, " N"]
    """Distance to the next step of the same stream."""
    before: Int[Array, " N"] | None = None
    """Distance back to the step before, of its stream and episode; only for a network with a memory."""

    @staticmethod
    def empty(size: int) -> Links:
        """Return the links of `size` rows that hold nothing."""
        return Links(jnp.zeros(size, jnp.int32), jnp.zeros(size, jnp.int32))


class Rows(eqx.Module):
    """A block of consecutive rows to write, and new links of older rows."""

    observation: Array
    """`[M, ...]`"""
    action: Int[Array, "M F"]
    reward: Float[Array, " M"]
    links: Int[Array, "M 3"]
    """Kind of each row (`qhat.engine.replay.nstep`), its `after` and its `next`."""
    older: Int[Array, "M 4"]
    """Slot of an older row, its kind, `after` and `next`; a slot out of range is dropped."""
    place: Int[Array, " 5"]
    """Slot of the first row, number of the M rows to write, number of these that the next block does not
    overwrite, and the ring's cursor and filled rows after this block."""
    ranges: Float[Array, "2 2"]
    """Smallest and largest discounted sum of past rewards so far, and the same of rewards."""
    legal: Bool[Array, "M F C"] | None = None
    memory: Float[Array, "M U"] | None = None
    """State of the network's memory that each observation met."""
    before: Int[Array, " M"] | None = None
    """Distance back to the step before."""


def walk(
    links: Links, kind: UInt8[Array, " N"], slots: Int[Array, " B"], n: int, rows: int
) -> tuple[Int[Array, "n B"], UInt8[Array, "n B"]]:
    """Return the slots and kinds of n steps that follow each other in one stream.

    A step that is not stored yet has the kind NOTHING. All slots belong to one ring of `rows` rows.
    """

    def one(carry: tuple, _: None) -> tuple:
        slot, known = carry
        onward = links.next[slot]
        kinds = jnp.where(known, kind[slot], jnp.uint8(NOTHING))
        return ((slot + onward) % rows, known & (onward > 0)), (slot, kinds)

    _, (steps, kinds) = jax.lax.scan(one, (slots, jnp.ones(slots.shape, bool)), length=n)
    return steps, kinds
