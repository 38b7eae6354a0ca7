"""Warns of rewards of a size that a network learns badly from, as soon as learning has started."""

from __future__ import annotations

import warnings

import numpy as np

from qhat.engine.replay.nstep import CONTINUES, NOTHING
from qhat.engine.state import TrainState
from qhat.environments.reward_scale import reward_scale_advice
from qhat.recipes.recipe import Recipe


def look_at_rewards(recipe: Recipe, state: TrainState, count: int) -> None:
    """Look at the rewards of the first seed, where learning started within the last `count` iterations."""
    at, E = int(state.clock.iterations), recipe.num_envs
    starts = recipe.first_update
    # A support that places itself follows any scale.
    if recipe.head.calibrates or not (at - count) * E < starts <= at * E:
        return
    ring = state.seeds.ring
    used = int(np.asarray(ring.filled[0]).max())
    rewards, kinds = (np.asarray(leaf[0]).reshape(E, -1)[:, :used].T for leaf in (ring.reward, ring.kind))
    rewards = np.where(kinds == NOTHING, 0.0, rewards)
    if advice := reward_scale_advice(rewards, kinds != CONTINUES, recipe.gamma):
        warnings.warn(advice, stacklevel=2)
