"""An iteration of a run that learns from logs: updates alone. Nothing is stored, and nothing acts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax.numpy as jnp
from jaxtyping import Array

from qhat.engine.state import Clock, Log, SeedState

if TYPE_CHECKING:
    from qhat.engine.iteration import Program


def learn_from_logs(
    program: Program, clock: Clock, seed: SeedState, keys: dict[str, Array]
) -> tuple[SeedState, Log]:
    """Do the updates that are due, on batches of the recorded steps in replay.

    Args:
        keys: as `Program.keys` returns them.
    """
    seed, metrics = program.learn(clock, seed, keys["learn"], jnp.int32(0))
    E = program.recipe.num_envs
    no = jnp.zeros(E, bool)
    return seed, Log(no, jnp.zeros(E), jnp.zeros(E, jnp.int32), no, None, metrics)
