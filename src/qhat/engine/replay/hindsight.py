"""Transitions as if another goal had been set: a view over replay.

Replay stores what happened. A batch that was drawn is relabelled afterwards: rewards, the n-step sum and
both observations are those of the new goal, which the same episode achieved later.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from qhat.engine.replay.nstep import TERMINATED, TRUNCATED, n_step
from qhat.engine.replay.ring import Ring, Transition


def relabelled(
    ring: Ring,
    batch: Transition,
    slots: Int[Array, " B"],
    key: Array,
    n: int,
    gamma: float | Float[Array, ""],
    limit: Int[Array, ""] | None = None,
) -> Transition:
    """Return a batch of which some transitions have another goal; the batch itself without `Goals`.

    Args:
        slots: where the transitions begin; those out of range stay as they are.
        limit: most rewards to sum, 1 to n; `None` is n.
    """
    goals = ring.goals
    if goals is None:
        return batch
    valid, slots = slots < ring.size, jnp.minimum(slots, ring.size - 1)
    left = goals.left(slots, ring.rows)
    chosen, later = goals.rule.choose(key, jnp.maximum(left, 0))
    chosen &= valid & (left >= 0)
    goal = ring.observation[ring.ahead(slots, later + 1)][:, slice(*goals.achieved)]
    path = ring.ahead(slots[:, None], jnp.arange(n + 1))
    shown = ring.observation[path[:, 1:]][..., slice(*goals.achieved)]
    old = ring.observation[path[:, :-1]][..., slice(*goals.desired)]
    new = jnp.broadcast_to(goal[:, None], shown.shape)
    kinds = ring.kind[path[:, :-1]]
    # An episode that ended at its goal would have gone on with another one.
    ended = (kinds == TERMINATED) & ~(goals.ends & goals.rule.reached(shown, old))
    kinds = jnp.where((kinds == TERMINATED) & ~ended, TRUNCATED, kinds)
    kinds = jnp.where(goals.ends & goals.rule.reached(shown, new), TERMINATED, kinds).astype(jnp.uint8)
    greedy = None if ring.greedy is None else ring.greedy[path[:, :-1]]
    windows = jax.vmap(n_step, in_axes=(0, 0, None, 0, None))
    window = windows(kinds, goals.reward(shown, new), gamma, greedy, limit)
    after = ring.observation[ring.ahead(slots, window.length)]
    place = (slice(None), slice(*goals.desired))
    other = dataclasses.replace(
        batch,
        observation=batch.observation.at[place].set(goal),
        reward=window.reward,
        discount=window.discount,
        successor=after.at[place].set(goal),
    )

    def either(new: Any, old: Any) -> Any:
        return jnp.where(chosen.reshape(-1, *[1] * (old.ndim - 1)), new, old)

    return jax.tree.map(either, other, batch)
