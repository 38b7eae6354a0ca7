"""A trained policy for a control loop: observation in, action out."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from qhat.axes.greedy import best
from qhat.axes.masks import read_mask
from qhat.engine.learner import Learner
from qhat.environments.base import Spec
from qhat.environments.observations import read_one


@dataclasses.dataclass(frozen=True)
class Policy:
    """The greedy policy of one seed. The first call compiles; later ones take some 100 µs."""

    learner: Learner
    parameters: Any
    spec: Spec

    def __call__(self, observation: Any, mask: Any = None) -> Any:
        """Return the action for one observation.

        Args:
            observation: the environment's own, after `--wrap`; or the array that training stores of it.
            mask: the legal actions, as Gymnasium's `info["action_mask"]`; entry i is action `start + i`.

        Returns:
            the environment's own action: an `int` for `Discrete`, else an array of the space's type and
            shape, with the command of every joint for a `Box`.

        Raises:
            UsageError: another shape, or numbers that are not finite.
        """
        q, legal = self._q(observation), read_mask(mask, self.spec.actions, "mask")
        return self.spec.actions.to_env(best(q, legal, self.learner.network.joint))

    def q_values(self, observation: Any) -> np.ndarray:
        """Return Q(s, ·), `[actions]`, or `[factors, choices]` of several factors or of joints.

        With `joints="pairs"` it is `[1, joint actions]`; of these, the last joint's command changes first.
        """
        q = self._q(observation)
        return q if self.spec.actions.vector else q[0]

    def _q(self, observation: Any) -> np.ndarray:
        coded = read_one(observation, "observation", self.spec.shape, self.spec.dtype, self.spec.layout)
        return np.asarray(self._compiled(self.parameters, coded))

    @functools.cached_property
    def _compiled(self) -> Any:
        return jax.jit(self.learner.q_values)
