"""What an `Agent` makes of its program: a fresh state, and a score."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from qhat.engine.iteration import Program
from qhat.engine.replay import linked
from qhat.engine.state import SeedState
from qhat.environments.base import Spec
from qhat.environments.user_envs import EnvLike
from qhat.evaluation.scoring import score_in
from qhat.evaluation.statistics import Score


def fresh_state(program: Program, key: jax.Array) -> SeedState:
    """Return the state of a new agent, whose ring has links."""
    observation = jnp.zeros((1, *program.shape), program.dtype)
    seed = program.init(key, observation, None)
    return dataclasses.replace(seed, ring=linked.linked(seed.ring))


def evaluated(
    program: Program,
    online: Any,
    env: str | EnvLike,
    env_kwargs: Mapping[str, Any],
    options: Mapping[str, Any],
) -> Score:
    """Score parameters, leaves `[1, ...]`, in an environment with the spaces of the program.

    Args:
        options: other arguments of `score_in`.

    Raises:
        UsageError: the environment has other spaces.
    """
    spaces = (program.shape, program.dtype, program.actions)
    policy = Spec("agent", "", *spaces, layout=program.layout)
    return score_in(
        env,
        program.learner,
        online,
        lambda spec: spec.require_fits(policy),
        actions=program.actions,
        env_kwargs=env_kwargs,
        **options,
    )
