"""Links between rows of one ring that hold steps of several streams, or sensors that are read twice.

A training loop has a ring per environment, where the row after a step's is what follows it. An `Agent` has
one ring for all its streams: each row says where its successor's observation is, and where the next step of
its stream. They are one row where the next step began at the very observation that this one ended at, and
two where the sensor was read again in between: a successor is stored as it was, and the n steps go on.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8

from qhat.engine.replay.nstep import NOTHING


class Links(eqx.Module):
    """Where the rows of a ring lead to, counted in rows onward; 0 is nowhere yet."""

    after: Int[Array, " N"]
    """To the row that holds the observation which the step led to."""
    next: Int[Array, " N"]
    """To the next step of the same stream."""

    @staticmethod
    def empty(size: int) -> Links:
        """Return the links of `size` rows that hold nothing."""
        return Links(jnp.zeros(size, jnp.int32), jnp.zeros(size, jnp.int32))


class Rows(eqx.Module):
    """A block of consecutive rows to write, and links of older rows that are known by now."""

    observation: Array
    """`[M, ...]`"""
    action: Int[Array, "M F"]
    reward: Float[Array, " M"]
    links: Int[Array, "M 3"]
    """Kind of each row (`qhat.engine.replay.nstep`), its `after` and its `next`."""
    older: Int[Array, "M 4"]
    """Slot of an older row, its kind, `after` and `next`; a slot out of range is dropped."""
    place: Int[Array, " 5"]
    """Slot of the first row, how many of the M rows are written, how many of these stay when the next
    block comes, and the ring's cursor and filled rows after this block."""
    ranges: Float[Array, "2 2"]
    """Smallest and largest return so far, looking back, and the same of rewards."""
    legal: Bool[Array, "M F C"] | None = None


def walk(
    links: Links, kind: UInt8[Array, " N"], slots: Int[Array, " B"], n: int, rows: int
) -> tuple[Int[Array, "n B"], UInt8[Array, "n B"]]:
    """Return the slots of n steps that follow each other in one stream, and their kinds.

    A step that is not stored yet has the kind NOTHING. All slots belong to one ring of `rows` rows.
    """

    def one(carry: tuple, _: None) -> tuple:
        slot, known = carry
        onward = links.next[slot]
        kinds = jnp.where(known, kind[slot], jnp.uint8(NOTHING))
        return ((slot + onward) % rows, known & (onward > 0)), (slot, kinds)

    _, (steps, kinds) = jax.lax.scan(one, (slots, jnp.ones(slots.shape, bool)), length=n)
    return steps, kinds
