"""Brings commands into use in the middle of training, if the recipe says so.

Which commands are in use is part of the parameters, as what no gradient moves: a checkpoint knows them. One
that is not in use has the value CLOSED, lower than any return.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Int

from qhat.axes.resolution import between
from qhat.engine.calibration import OPENED, split_trainable
from qhat.engine.doubling import SQUARES
from qhat.engine.learner import Learner, LearnerState


def with_growth(
    learner: Learner, state: LearnerState, updates: Int[Array, ""], applies: Array | bool
) -> LearnerState:
    """Return the state after gradient update number `updates`, with the commands of its level."""
    resolution, network = learner.recipe.resolution, learner.network
    if not resolution.grows:
        return state
    opened = resolution.opened(learner.actions.choices)
    mixing, table = jnp.asarray(between(opened)), jnp.asarray(opened, jnp.float32)
    before, now = (resolution.level(count, len(opened)) for count in (updates - 1, updates))

    def grown(state: LearnerState) -> LearnerState:
        # What is in use stays so: weights that were loaded may have more than their level.
        old = state.online[OPENED]
        mix = jnp.where(old[..., None] > 0.5, jnp.eye(old.shape[-1]), mixing[before, now])
        online, target = (
            parameters and {**network.mixed_choices(parameters, mix), OPENED: jnp.maximum(old, table[now])}
            for parameters in (state.online, state.target)
        )
        flat, unravel = ravel_pytree(split_trainable(state.online)[0])

        def moment(path: tuple, leaf: Array) -> Array:
            if leaf.shape != flat.shape:
                return leaf
            squares = getattr(path[-1], "name", "") in SQUARES
            tree = network.mixed_choices(unravel(jnp.sqrt(leaf) if squares else leaf), mix)
            new = ravel_pytree(tree)[0]
            return new**2 if squares else new

        optimiser = jax.tree_util.tree_map_with_path(moment, state.optimiser)
        new = LearnerState(online, target, optimiser)
        return jax.tree.map(functools.partial(jnp.where, applies), new, state)

    # Of the clock alone, which all seeds share.
    return jax.lax.cond(now > before, grown, lambda state: state, state)


def open_choices(
    parameters: Any, legal: Bool[Array, "E F C"] | None, count: int
) -> Bool[Array, "E F C"] | None:
    """Return the legal actions of `count` environments that are in use; `None` is all."""
    if OPENED not in parameters:
        return legal
    opened = jnp.broadcast_to(parameters[OPENED] > 0.5, (count, *parameters[OPENED].shape))
    if legal is None:
        return opened
    both = opened & legal
    # A state may allow only commands that are not in use yet.
    return jnp.where(both.any(axis=2, keepdims=True), both, legal)
