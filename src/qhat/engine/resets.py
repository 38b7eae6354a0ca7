"""Draws weights anew in the middle of training, if the recipe says so."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from qhat.engine.calibration import split_trainable
from qhat.engine.learner import Learner, LearnerState


def with_reset(
    learner: Learner,
    state: LearnerState,
    key: Array,
    updates: Int[Array, ""],
    applies: Array | bool,
) -> LearnerState:
    """Return the state after gradient update number `updates`, reset if that is due.

    Supports and statistics stay as they are: they are measured, not learned.
    """
    reset = learner.recipe.reset
    if not reset.happens:
        return state
    # Folded in, so that the update before it draws what it drew without resets.
    key = jax.random.fold_in(key, 1)

    def anew(state: LearnerState) -> LearnerState:
        trained, fixed = split_trainable(state.online)
        mixed = reset.mixed(trained, learner.network.init(key))
        weights = learner.network.projected(mixed, jnp.bool_(True))
        online = {**weights, **fixed}
        optimiser = learner.recipe.optimiser.first(weights)
        fresh = LearnerState(online, learner.recipe.target.first(online), optimiser)
        return jax.tree.map(functools.partial(jnp.where, applies), fresh, state)

    # Of the clock alone, which all seeds share: a condition per seed would draw weights at every update.
    return jax.lax.cond(reset.due(updates), anew, lambda state: state, state)
