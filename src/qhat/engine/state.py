"""The state of training: one pytree. Saving it is saving the run."""

import dataclasses
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from qhat.engine.guard import Guard
from qhat.engine.learner import LearnerState, Metrics
from qhat.engine.recurrent import Recall
from qhat.engine.replay.ring import Ring
from qhat.environments.base import Timestep


class Clock(eqx.Module):
    """Counters that all seeds share: schedules read them, and they are never batched."""

    iterations: Int[Array, ""]
    """Vectorised environment steps done."""
    updates: Int[Array, ""]
    """Gradient updates done."""


class Episodes(eqx.Module):
    """Score of the running episode of every environment."""

    returns: Float[Array, " E"]
    lengths: Int[Array, " E"]


class SeedState(eqx.Module):
    """Everything that belongs to one seed."""

    key: Array
    """Root of this seed's random keys; each key is derived from it, a name and the clock."""
    learner: LearnerState
    ring: Ring
    sampler: Any
    exploration: Any
    observation: Array
    """`[E, ...]`, for which `action` was chosen."""
    action: Int[Array, "E F"]
    """Chosen, not yet executed."""
    environment: Any
    """State of the compiled environment; `None` in a host loop."""
    episodes: Episodes
    guard: Guard
    legal: Array | None = None
    """`[E, F, C]`, actions that `observation` allows; `None` where nothing is masked."""
    recall: Recall | None = None
    """States of the memory around `observation`, of a network with one."""


class TrainState(eqx.Module):
    """S seeds and their clock."""

    clock: Clock
    seeds: SeedState
    """Every leaf has a leading axis S."""


class Log(eqx.Module):
    """What one iteration of one seed reports."""

    ended: Array
    """`[E]`, whether an episode ended."""
    returns: Float[Array, " E"]
    """Its undiscounted return, where one ended."""
    lengths: Int[Array, " E"]
    broken: Array
    """`[E]`, whether an episode was given up: numbers were not finite, or its process died."""
    info: Float[Array, "E K"] | None
    """Values that the run logs, NaN where there is none; `None` where it logs none."""
    metrics: Metrics
    """NaN where no update was made."""


Tree = TypeVar("Tree")


def strongly_typed(tree: Tree) -> Tree:
    """Return the arrays with the types that a loop returns.

    JAX types an array made from a Python number "weakly" until a program returns it. A loop would compile
    for such a first state, and again for its own result.
    """

    def one(leaf: Array) -> Array:
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return leaf if is_key else jax.lax.convert_element_type(leaf, leaf.dtype)

    return jax.tree.map(one, tree)


def split(key: Array, *names: str) -> dict[str, Array]:
    """Split a key by name, so that no two uses share a key."""
    return dict(zip(names, jax.random.split(key, len(names)), strict=True))


def tally(seed: SeedState, timestep: Timestep) -> tuple[SeedState, tuple[Array | None, ...]]:
    """Add the step to the running episodes; return the fields of its `Log`, but for the metrics."""
    returns = seed.episodes.returns + jnp.where(timestep.real, timestep.scored, 0.0)
    lengths = seed.episodes.lengths + timestep.real
    ended = over = timestep.finished
    broken = jnp.zeros_like(ended)
    if timestep.broken is not None:
        broken, over = timestep.broken & (lengths > 0), over | timestep.broken
    running = Episodes(jnp.where(over, 0.0, returns), jnp.where(over, 0, lengths))
    info = None if timestep.info is None else jnp.where(timestep.real[:, None], timestep.info, jnp.nan)
    return dataclasses.replace(seed, episodes=running), (ended, returns, lengths, broken, info)


def no_metrics() -> Metrics:
    return Metrics(*(jnp.float32(jnp.nan) for _ in dataclasses.fields(Metrics)))
