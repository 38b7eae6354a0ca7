"""Keeps numbers that are not finite out of replay and weights, and records the first of them.

A seed that stops at such a number stores and learns nothing afterwards, while the other seeds continue. A
seed that skips leaves such rows out, and cuts its replay there.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from qhat.environments.base import Timestep
from qhat.environments.finite import numbers_of
from qhat.environments.observations import Observations

NOTHING, OBSERVATION, REWARD, UPDATE = range(4)
"""The first thing that was not finite; `UPDATE` is a loss or a gradient."""


class Guard(eqx.Module):
    """The guard of one seed. A value; its record of the first fault never changes."""

    skipped: Int[Array, ""]
    """Number of rows and updates that were left out."""
    blind: Bool[Array, " E"]
    """Whether the pending action was chosen without an observation."""
    what: Int[Array, ""]
    iteration: Int[Array, ""]
    """Number of iterations before the one of the first fault."""
    faulty: Bool[Array, " E"]
    observation: Array
    """`[E, ...]`, unchanged; of packed observations the floats; `[0]` if observations are whole numbers."""
    reward: Float[Array, " E"]
    action: Int[Array, "E F"]
    """The action that led to the fault."""
    cursor: Int[Array, " E"]
    """Replay's cursor at the fault: the rows before it are the last steps."""
    layout: Observations | None = eqx.field(static=True, default=None)
    """The parts of an observation."""

    @staticmethod
    def new(observation: Array, action: Int[Array, "E F"], layout: Observations | None = None) -> Guard:
        """Return a guard without a fault."""
        observation = numbers_of(observation, layout)
        E, zero = observation.shape[0], jnp.int32(0)
        no, keeps = jnp.zeros(E, bool), jnp.issubdtype(observation.dtype, jnp.inexact)
        shape = observation.shape if keeps else (0,)
        kept = jnp.zeros(shape, observation.dtype)
        rows = jnp.zeros(E, jnp.int32)
        zeros = (jnp.zeros(E), jnp.zeros_like(action))
        return Guard(zero, no, zero, zero, no, kept, *zeros, rows, layout)

    def halted(self, stops: bool) -> Bool[Array, ""]:
        """Whether the seed has stopped."""
        return stops & (self.what != NOTHING)

    def begin(
        self, observation: Array, iteration: Int[Array, ""], cursor: Int[Array, " E"]
    ) -> tuple[Guard, Array]:
        """Check the first observations of new episodes; return them with zeros for those not finite."""
        lost = ~self._finite(observation)
        guard = self._noted(lost.any(), OBSERVATION, iteration, lost, cursor)
        guard = guard._kept(lost.any() & (self.what == NOTHING), observation, self.reward, self.action)
        guard = dataclasses.replace(guard, blind=lost, skipped=self.skipped + lost.sum())
        return guard, self._without(lost, observation)

    def screen(
        self,
        step: Timestep,
        learned: Float[Array, " E"],
        action: Int[Array, "E F"],
        iteration: Int[Array, ""],
        cursor: Int[Array, " E"],
        stops: bool,
    ) -> tuple[Guard, Timestep]:
        """Remove what is not finite from a step: such rows are no transitions.

        Args:
            learned: the rewards as they are stored.
            stops: whether the seed stops at its first fault: then no later row is a transition either.
        """
        lost = ~self._finite(step.observation)
        wrong = lost
        if step.successor is not step.observation:
            wrong |= step.real & ~self._finite(step.successor)
        paid = jnp.ones_like(lost)
        rewards = {id(reward): reward for reward in (step.reward, step.scored, learned)}
        for reward in rewards.values():
            paid &= jnp.isfinite(reward)
        faulty = wrong | (step.real & ~paid)
        found = faulty.any()
        what = jnp.where(wrong.any(), OBSERVATION, REWARD)
        left_out = faulty | (self.blind & step.real)
        count = jnp.where(self.halted(stops), 0, left_out.sum())
        guard = self._noted(found, what, iteration, faulty, cursor)
        guard = guard._kept(found & (self.what == NOTHING), step.observation, step.reward, action)
        guard = dataclasses.replace(guard, blind=lost, skipped=self.skipped + count)
        halted, broken = guard.halted(stops), step.broken
        real = step.real & ~left_out & ~halted
        if not stops:
            broken = left_out if broken is None else broken | left_out
        elif broken is not None:
            broken &= ~halted
        observation = self._without(lost, step.observation)
        same = step.successor is step.observation
        return guard, step._replace(
            observation=observation,
            successor=observation if same else self._without(wrong, step.successor),
            reward=jnp.where(paid, step.reward, 0.0),
            score=None if step.score is None else jnp.where(paid, step.score, 0.0),
            real=real,
            broken=broken,
        )

    def failed(self, updates: Int[Array, ""], iteration: Int[Array, ""], cursor: Int[Array, " E"]) -> Guard:
        """Count `updates` that were not applied."""
        guard = self._noted(updates > 0, UPDATE, iteration, jnp.zeros_like(self.faulty), cursor)
        return dataclasses.replace(guard, skipped=self.skipped + updates)

    def _noted(self, found: Any, what: Any, iteration: Any, faulty: Any, cursor: Any) -> Guard:
        """Record a fault that was `found`, if it is the first."""
        first = found & (self.what == NOTHING)
        new = {"what": jnp.int32(what), "iteration": iteration, "faulty": faulty, "cursor": cursor}
        old = {name: getattr(self, name) for name in new}
        return dataclasses.replace(self, **{name: jnp.where(first, new[name], old[name]) for name in new})

    def _kept(self, first: Any, observation: Array, reward: Array, action: Array) -> Guard:
        """Keep the values of a first fault."""
        known, observation = self.observation, numbers_of(observation, self.layout)
        if known.ndim == observation.ndim:
            known = jnp.where(first, observation, known)
        reward, action = (
            jnp.where(first, new, old) for new, old in ((reward, self.reward), (action, self.action))
        )
        return dataclasses.replace(self, observation=known, reward=reward, action=action)

    def _finite(self, rows: Array) -> Bool[Array, " E"]:
        numbers = numbers_of(rows, self.layout)
        if not jnp.issubdtype(numbers.dtype, jnp.inexact):
            return jnp.ones(rows.shape[0], bool)
        return jnp.isfinite(numbers).reshape(rows.shape[0], -1).all(axis=1)

    def _without(self, where: Bool[Array, " E"], rows: Array) -> Array:
        # The bytes of a packed observation may hold floats; zero bytes read as 0.0.
        if not jnp.issubdtype(numbers_of(rows, self.layout).dtype, jnp.inexact):
            return rows
        return jnp.where(where.reshape(-1, *[1] * (rows.ndim - 1)), jnp.zeros_like(rows), rows)
