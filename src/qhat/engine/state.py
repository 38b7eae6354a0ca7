"""The state of training: one pytree. Saving it is saving the run."""

from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from qhat.engine.guard import Guard
from qhat.engine.learner import LearnerState, Metrics
from qhat.engine.replay.ring import Ring


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
    """Root of this seed's randomness; every use is derived from it, a name and the clock."""
    learner: LearnerState
    ring: Ring
    sampler: Any
    exploration: Any
    observation: Array
    """`[E, ...]`, what `action` was chosen for."""
    action: Int[Array, "E F"]
    """Chosen, not yet executed."""
    environment: Any
    """The compiled environment's own state; `None` on a host loop."""
    episodes: Episodes
    guard: Guard
    legal: Array | None = None
    """`[E, F, C]`, actions that `observation` allows; `None` where nothing is masked."""


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
    """`[E]`, whether an episode was given up: its numbers were not finite, or its process was lost."""
    metrics: Metrics
    """NaN where no update was made."""


Tree = TypeVar("Tree")


def strongly_typed(tree: Tree) -> Tree:
    """Return the arrays with the types that a loop gives them back with.

    JAX types what began as a Python number "weakly" until it has been through a program; a loop would be
    compiled once for such a beginning and once more for its own result.
    """

    def one(leaf: Array) -> Array:
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return leaf if is_key else jax.lax.convert_element_type(leaf, leaf.dtype)

    return jax.tree.map(one, tree)
