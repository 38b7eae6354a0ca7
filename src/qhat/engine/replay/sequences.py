"""Sequences of steps for a memory: another view over the same rows, built when a batch is drawn.

A sequence is the rows around a start: `burn_in` before it, and those whose steps are learned from, with the
rows that their n-step returns lead to. In the ring of a training loop these follow each other, also over an
episode's end: its last observation is a row that holds no step, and the row after it begins anew. In a ring
with links the rows are those of the start's episode.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8

from qhat.axes.sampler import Sampler
from qhat.engine.replay import ring as replay
from qhat.engine.replay import shares
from qhat.engine.replay.nstep import CONTINUES, NOTHING
from qhat.engine.replay.ring import Ring
from qhat.engine.replay.transitions import Sequences, Transition

MOST = 0.9
"""η: share of a sequence's largest error in its priority; the rest is of their mean (R2D2)."""


def sample(
    ring: Ring,
    sampler: Sampler,
    state: Any,
    key: Array,
    step: Int[Array, ""],
    *,
    memory: Any,
    batch: int,
    n: int,
    gamma: float | Float[Array, ""],
    limit: Int[Array, ""] | None = None,
) -> tuple[Transition, Int[Array, " S"], Float[Array, " B"]]:
    """Draw starts as `ring.sample` does; return the B transitions of their S sequences.

    Observations and successors are numbers of rows of the sequences' learned parts, one after the other.

    Args:
        memory: the recipe's, with `length` and `burn_in`.
        batch: B, transitions of all sequences.

    Returns:
        transitions, the slots of the starts, and the weights of the transitions.
    """
    burn, length = memory.burn_in, memory.length
    S, wide = batch // length, length + n
    _, starts, weights = replay.sample(
        ring, sampler, state, key, step, batch=S, n=n, gamma=gamma, limit=limit
    )
    slots, kinds = around(ring, jnp.where(starts < ring.size, starts, 0), burn, wide)
    before = jnp.concatenate([jnp.full((S, 1), NOTHING, kinds.dtype), kinds[:, :-1]], axis=1)
    assert ring.memory is not None
    sequences = Sequences(ring.observation[slots], ring.memory[slots], before == NOTHING)

    learned = slots[:, burn : burn + length].ravel()
    windows = replay.view(ring, learned, n, gamma, limit)
    complete = windows.complete & (kinds[:, burn : burn + length].ravel() != NOTHING)
    rows = (jnp.arange(S)[:, None] * wide + jnp.arange(length)).ravel()
    ahead = rows + jnp.where(complete, windows.length, 1)
    after = slots[:, burn:].ravel()[ahead]
    transition = Transition(
        observation=rows,
        action=ring.action[learned],
        reward=jnp.where(complete, windows.reward, 0.0),
        discount=windows.discount,
        successor=ahead,
        legal=None if ring.legal is None else ring.legal[learned],
        legal_next=None if ring.legal is None else ring.legal[after],
        sequences=sequences,
    )
    return transition, starts, jnp.where(complete, jnp.repeat(weights, length), 0.0)


def sampling(memory: Any, sampler: Any) -> Callable[..., tuple[Transition, Array, Array]]:
    """Return what draws a recipe's batches: `ring.sample`, or of sequences for a memory, or of shares."""
    if isinstance(sampler, shares.Shares):
        return shares.sample
    return functools.partial(sample, memory=memory) if memory.remembers else replay.sample


def around(
    ring: Ring, starts: Int[Array, " S"], back: int, count: int
) -> tuple[Int[Array, "S T"], UInt8[Array, "S T"]]:
    """Return the slots and kinds of the rows around each start: `back` before it, and `count` from it on.

    A row that is not there has the kind NOTHING, and any slot.
    """
    links = ring.links
    if links is None:
        slots = ring.ahead(starts[:, None], jnp.arange(-back, count))
        return slots, ring.kind[slots]
    assert links.before is not None
    oldest = jnp.where(ring.filled[0] == ring.rows, ring.cursor[0], 0)
    distances = links.before

    def backward(carry: tuple, _: None) -> tuple:
        slot, known = carry
        steps = distances[slot]
        known &= (steps > 0) & (steps <= (slot - oldest) % ring.rows)
        slot = jnp.where(known, (slot - steps) % ring.rows, slot)
        return (slot, known), (slot, jnp.where(known, ring.kind[slot], NOTHING).astype(jnp.uint8))

    def forward(carry: tuple, _: None) -> tuple:
        slot, known = carry
        kind = jnp.where(known, ring.kind[slot], NOTHING).astype(jnp.uint8)
        onward = jnp.where(
            (kind == CONTINUES) & (links.next[slot] > 0), links.next[slot], links.after[slot]
        )
        known &= (kind != NOTHING) & (onward > 0)
        return (jnp.where(known, (slot + onward) % ring.rows, slot), known), (slot, kind)

    begin = (starts, jnp.ones(starts.shape, bool))
    _, earlier = jax.lax.scan(backward, begin, length=back, reverse=True)
    _, later = jax.lax.scan(forward, begin, length=count)
    slots, kinds = (jnp.concatenate(both).T for both in zip(earlier, later, strict=True))
    return slots, kinds


def errors_of(errors: Float[Array, " B"], weights: Float[Array, " B"], draws: int) -> Float[Array, " S"]:
    """Return the error of each draw, for its priority: η·max + (1 − η)·mean of those of a sequence.

    Rows of weight 0 are no steps, and have errors that nothing is learned from.
    """
    if errors.shape[0] == draws:
        return errors
    steps = (weights > 0).reshape(draws, -1)
    rows = jnp.where(steps, jnp.abs(errors).reshape(draws, -1), 0.0)
    mean = jnp.sum(rows, axis=1) / jnp.maximum(jnp.sum(steps, axis=1), 1)
    return MOST * jnp.max(rows, axis=1) + (1.0 - MOST) * mean
