"""Learning from the last steps of every environment, without a replay to draw from."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from qhat.axes.greedy import nearly_greedy
from qhat.axes.joint_actions import of_joint_actions
from qhat.axes.policy import mask_illegal
from qhat.engine.growth import with_growth
from qhat.engine.learner import Learner, LearnerState, Metrics
from qhat.engine.replay import ring as replay
from qhat.engine.replay.nstep import CONTINUES, NOTHING, TERMINATED, Window
from qhat.engine.replay.returns import lambda_returns, latest
from qhat.engine.state import Clock, SeedState, no_metrics, split

if TYPE_CHECKING:
    from qhat.engine.iteration import Program


def learn_rollout(program: Program, clock: Clock, seed: SeedState, key: Array) -> tuple[SeedState, Metrics]:
    """Do the updates that are due, if there are: each pass goes through the steps in a new order."""
    recipe, ring, halted = program.recipe, seed.ring, seed.guard.halted(program.stops)
    steps, count = clock.iterations * recipe.num_envs, recipe.batch_size
    keys = split(key, "values", "updates")

    def learning(_: Array, carry: tuple) -> tuple:
        slots, returns, weights = known_returns(program.learner, carry[0], ring, keys["values"])
        parts = slots.shape[0] // count

        def one(index: Array, carry: tuple) -> tuple:
            learner, failed, order, _ = carry
            now = split(jax.random.fold_in(keys["updates"], index), "order", "noise")
            order = jax.lax.cond(
                index % parts == 0, lambda: jax.random.permutation(now["order"], order), lambda: order
            )
            chosen = jax.lax.dynamic_slice_in_dim(order, index % parts * count, count)
            batch = batch_of(ring, slots[chosen], returns[chosen])
            number, applies = clock.updates + 1 + index, ~halted & ~(program.stops & (failed > 0))
            fitted = (learner, batch, weights[chosen], now["noise"], number)
            learner, update = program.learner.fit(*fitted, ring.outlook, steps, ring.moments, applies)
            learner = with_growth(program.learner, learner, number, applies)
            failed += applies & ~update.metrics.finite
            return learner, failed, order, update.metrics

        learner, failed, metrics = carry
        inner = (learner, failed, jnp.arange(slots.shape[0]), metrics)
        learner, failed, _, metrics = jax.lax.fori_loop(0, recipe.updates_per_iteration, one, inner)
        return learner, failed, metrics

    # A loop of 0 or 1 turns: its condition is the clock's, which all seeds share.
    due = (program.updates_due(clock) > 0).astype(jnp.int32)
    learner, failed, metrics = jax.lax.fori_loop(
        0, due, learning, (seed.learner, jnp.int32(0), no_metrics())
    )
    guard = seed.guard.failed(failed, clock.iterations, ring.cursor)
    return dataclasses.replace(seed, learner=learner, guard=guard), metrics


def known_returns(
    learner: Learner, state: LearnerState, ring: replay.Ring, key: Array
) -> tuple[Int[Array, " N"], Float[Array, " N"], Float[Array, " N"]]:
    """Return the slots of the last steps, their λ-returns, and their weights: 0 where none is stored."""
    recipe = learner.recipe
    training: Any = recipe.training
    parameters = learner.ready(state.online, ring.outlook, ring.moments)
    slots, kinds = latest(ring, training.steps)
    q_values: Any = jax.vmap(learner.q_values, (None, 0, None))

    def look(slots: Int[Array, " E"]) -> tuple[Float[Array, " E"], Bool[Array, " E"]]:
        """Return V of what the steps led to, and whether an action is nearly greedy where it was chosen."""
        batch = of_joint_actions(steps_of(ring, slots), learner.network.joint)
        q = mask_illegal(q_values(parameters, batch.successor, key), batch.legal_next)
        pi, entropy = jax.vmap(recipe.policy.probabilities)(q, q)
        value = q + entropy if recipe.policy.has_entropy else q
        value = jnp.mean(jnp.sum(jnp.where(pi > 0, pi * value, 0.0), axis=-1), axis=-1)
        if recipe.n_step_cut is None:
            return value, jnp.ones(value.shape, bool)
        now = mask_illegal(q_values(parameters, batch.observation, key), batch.legal)
        return value, nearly_greedy(now, batch.action, recipe.n_step_cut)

    # One row of environments at a time, as acting does: all at once would take the memory of a large batch.
    value, good = jax.lax.map(look, slots)
    later = jnp.concatenate([jnp.zeros_like(good[:1]), good[:-1]])
    trace = jnp.where((kinds == CONTINUES) & later, training.trace_decay, 0.0)
    discount = jnp.where(kinds == TERMINATED, 0.0, recipe.gamma)
    returns = lambda_returns(ring.reward[slots], discount, value, trace)
    return slots.ravel(), returns.ravel(), (kinds != NOTHING).astype(jnp.float32).ravel()


def steps_of(ring: replay.Ring, slots: Int[Array, " B"]) -> replay.Transition:
    """Return the single steps at `slots`."""
    ones = jnp.ones_like(slots)
    windows = jax.vmap(Window)(ring.reward[slots], ones.astype(jnp.float32), ones, ones > 0)
    return replay.look_up(ring, slots, windows)


def batch_of(ring: replay.Ring, slots: Int[Array, " B"], returns: Float[Array, " B"]) -> replay.Transition:
    """Return the steps at `slots` with their returns, which no other state's values are added to."""
    batch = steps_of(ring, slots)
    return dataclasses.replace(
        batch, reward=returns, discount=jnp.zeros_like(returns), successor=None, legal_next=None
    )
