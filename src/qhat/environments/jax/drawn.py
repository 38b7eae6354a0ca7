"""One copy of an environment in JAX, stepped by Python, so that its states can be drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from qhat.environments.jax.batch import JaxBatch
from qhat.environments.jax.single import JaxEnvironment
from qhat.environments.stepped import SteppedEnvironment
from qhat.environments.wrapped import wrapped
from qhat.environments.wrappers import Wrapper
from qhat.system.errors import UsageError


def drawn(
    batch: JaxBatch, wrap: Sequence[Wrapper], seed: int
) -> tuple[SteppedEnvironment, Callable[[], np.ndarray]]:
    """Return one copy, and what draws its state.

    Raises:
        UsageError: its class does not draw.
    """
    single = batch.single
    if type(single).draw is JaxEnvironment.draw:
        raise UsageError(
            f"'{batch.spec.id}' has no pictures: its class has no draw(state), which returns a picture"
            " [height, width, 3] of a state."
        )
    stepped = SteppedEnvironment(wrapped(batch, wrap), 1, seed)
    return stepped, lambda: single.draw(_state_of(stepped.state))


def _state_of(state: Any) -> Any:
    """Return the single environment's state of the only copy of the only seed."""
    while hasattr(state, "inner"):
        state = state.inner
    playing = getattr(state, "playing", state)
    return jax.tree.map(lambda leaf: leaf[0, 0], playing.state)
