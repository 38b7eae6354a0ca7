"""Batches with a fixed share of recorded steps, as RLPD has a half (Ball et al. 2023, arXiv:2302.02948).

The recorded steps lie in a ring of their rows alone, `Ring.logged`, which nothing is written to during the
run: they are never overwritten. Both parts of a batch are drawn by the recipe's sampler, each with its
priorities: there are two sums. In a batch the recorded steps come first. Their slots are counted on from
`Ring.size`, which is the slot of a draw that cannot be used.
"""

from __future__ import annotations

import dataclasses
from typing import Any, final

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from qhat.axes.sampler import Sampler
from qhat.engine.replay import ring as replay
from qhat.engine.replay.ring import Ring
from qhat.engine.replay.transitions import Transition


@final
@dataclasses.dataclass(frozen=True)
class Shares:
    """A sampler over two sets of steps: the run's, and `logged`. Its state is a pair of the sampler's."""

    sampler: Sampler
    share: float
    """Share of recorded steps in a batch."""
    size: int
    """Slots of the run's steps."""
    logged: int
    """Slots of the recorded steps."""

    def init(self, capacity: int) -> tuple[Any, Any]:
        """Return the state for a ring of `capacity` slots and the recorded steps beside it."""
        return self.sampler.init(capacity), self.sampler.init(self.logged)

    def store(self, state: tuple[Any, Any], slots: Int[Array, " M"], starts: Bool[Array, " M"]) -> Any:
        """Note that `slots` of the run's steps were written."""
        return self.sampler.store(state[0], slots, starts), state[1]

    def update(self, state: tuple[Any, Any], slots: Int[Array, " B"], error: Float[Array, " B"]) -> Any:
        """Take in the TD errors of a batch. Slots out of range are dropped."""
        beside = slots - (self.size + 1)
        beside = jnp.where(beside < 0, self.logged, beside)
        run = self.sampler.update(state[0], jnp.minimum(slots, self.size), error)
        return run, self.sampler.update(state[1], beside, error)


def sampler_of(recipe: Any, stack: int, logged: int) -> Any:
    """Return what draws a recipe's batches: its sampler, or `Shares` of it beside `logged` rows."""
    size = recipe.num_envs * recipe.training.rows(recipe, stack)
    return Shares(recipe.sampler, recipe.demo_share, size, logged) if logged else recipe.sampler


def logged_rows(batch: int, share: float) -> int:
    """Return how many transitions of a batch are recorded ones."""
    return round(batch * share)


def sample(
    ring: Ring,
    sampler: Shares,
    state: tuple[Any, Any],
    key: Array,
    step: Int[Array, ""],
    *,
    batch: int,
    n: int,
    gamma: float | Float[Array, ""],
    limit: Int[Array, ""] | None = None,
) -> tuple[Transition, Int[Array, " B"], Float[Array, " B"]]:
    """Draw a batch as `ring.sample` does, a share of it from the recorded steps.

    Importance weights undo the priorities within each part. The shares stay: they are what is wanted.
    """
    assert ring.logged is not None
    count, keys = logged_rows(batch, sampler.share), jax.random.split(key)
    beside, marks = ring.logged, ring.greedy
    if marks is not None:
        beside = dataclasses.replace(beside, greedy=marks[ring.size + 1 :])
    views: dict[str, Any] = {"n": n, "gamma": gamma, "limit": limit}
    logged = replay.drawn(beside, sampler.sampler, state[1], keys[0], batch=count, **views)
    run = replay.drawn(ring, sampler.sampler, state[0], keys[1], batch=batch - count, **views)
    both: Any = jax.tree.map(lambda *parts: jnp.concatenate(parts), logged, run)
    transition, slots, relative, complete = both
    is_logged = jnp.arange(batch) < count
    slots = jnp.where(is_logged, slots + ring.size + 1, slots)
    weights = sampler.sampler.weights(jnp.where(complete, relative, jnp.inf), step)
    return (
        dataclasses.replace(transition, logged=is_logged),
        jnp.where(complete, slots, ring.size),
        jnp.where(complete, weights, 0.0),
    )
