"""Q of a sequence of observations, by a network with a memory or without."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from qhat.engine import recurrent
from qhat.engine.learner import Learner


def in_order(learner: Learner, parameters: Any, observations: np.ndarray) -> np.ndarray:
    """Return Q `[T, F, C]` of one episode's observations `[T, ...]`."""

    @jax.jit
    def look(parameters: Any, observation: Any, recall: Any) -> Any:
        return recurrent.look(learner, learner.q_values, parameters, observation, None, recall)

    recall, found = recurrent.fresh(learner, 1), []
    for observation in observations:
        q, recall = look(parameters, observation[None], recall)
        found.append(np.asarray(q)[0])
    return np.stack(found)
