"""What an `Agent` makes of its program: a fresh state, its queue, episodes that it plays."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from qhat.agent.streams import Streams
from qhat.engine.iteration import Program
from qhat.engine.replay import linked
from qhat.engine.replay.ring import Ring
from qhat.engine.state import SeedState
from qhat.environments.base import Spec
from qhat.environments.pictured import pictured
from qhat.environments.user_envs import EnvLike
from qhat.evaluation.scoring import Fresh, played_in
from qhat.recipes.labels import label_of
from qhat.recipes.recipe import HORIZON
from qhat.runs.threads import threads_for
from qhat.system import compilation_cache, devices
from qhat.system.host_memory import nbytes, require_memory


def fresh_state(program: Program, key: jax.Array) -> SeedState:
    """Return the state of a new agent; its ring has links."""
    observation = jnp.zeros((1, *program.shape), program.dtype)
    seed = program.init(key, observation, None)
    return dataclasses.replace(seed, ring=linked.linked(seed.ring))


def prepared(program: Program) -> SeedState:
    """Prepare JAX for an agent; return the shapes of its state, after a check that it fits in memory."""
    devices.prepare(1, threads=threads_for(program.recipe, pictured(program)))
    compilation_cache.enable()
    shape = jax.eval_shape(functools.partial(fresh_state, program), jax.random.key(0))
    what = f"An agent with replay_capacity {program.recipe.replay_capacity}"
    require_memory(nbytes(shape), what, "expected less: lower replay_capacity")
    return shape


def queue_of(program: Program, ring: Ring) -> Streams:
    """Return the queue of steps that goes on where a ring ends."""
    spaces = (program.shape, program.dtype, program.actions, program.masked)
    filled, cursor = int(ring.filled[0]), int(ring.cursor[0])
    at = filled if filled < ring.rows else ring.rows + cursor % ring.rows
    gamma, moments = program.recipe.gamma, ring.moments is not None
    units = program.recipe.memory.units
    return Streams(ring.rows, *spaces, gamma, moments, max(at, 0), ring.layout, units)


def is_behind(seed: SeedState) -> bool:
    """Whether the newest step of a stream was not learned from yet."""
    scale = seed.ring.scale
    return scale is not None and int(scale.count) != int(seed.learner.optimiser["steps"])


def shown(program: Program, steps: int, updates: int) -> str:
    """Write an agent in one line."""
    label = label_of(program.recipe, None, program.shape, program.layout, (HORIZON,))
    spaces = f"observation {program.shape}, actions {program.actions.choices}"
    return f"Agent({spaces}, {label!r}, {steps:,} steps, {updates:,} updates)"


def played(
    program: Program, online: Any, env: str | EnvLike, env_kwargs: Mapping[str, Any] | None, **options: Any
) -> Fresh:
    """Play episodes with parameters, leaves `[1, ...]`, in an environment with the spaces of the program.

    Args:
        options: episodes, seed and progress, as `played_in` takes them.

    Raises:
        UsageError: the environment has other spaces.
    """
    policy = Spec("agent", "", program.shape, program.dtype, program.actions, layout=program.layout)
    spaces: dict[str, Any] = {"actions": program.actions, "env_kwargs": env_kwargs or {}}
    return played_in(
        env, program.learner, online, lambda spec: spec.require_fits(policy), **spaces, **options
    )
