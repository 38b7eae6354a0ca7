"""A trained policy for a control loop: observation in, action out."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from qhat.axes.greedy import best
from qhat.axes.masks import read_mask
from qhat.engine import recurrent
from qhat.engine.learner import Learner
from qhat.environments.base import Spec
from qhat.environments.observations import read_one


@dataclasses.dataclass(frozen=True)
class Policy:
    """The greedy policy of one seed. The first call compiles; later ones take some 100 µs.

    With a memory each call is a step of an episode: call `reset` before the next one begins.
    """

    learner: Learner
    parameters: Any
    spec: Spec

    def __repr__(self) -> str:
        """Return what it plays, without its weights."""
        return (
            f"Policy of {self.spec.id}: {self.spec.shape} {self.spec.dtype} to {self.spec.actions.choices}"
        )

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
        (q, recall), legal = self._look(observation), read_mask(mask, self.spec.actions, "mask")
        self._keep(recall)
        return self.spec.actions.to_env(best(q, legal, self.learner.network.joint))

    def q_values(self, observation: Any) -> np.ndarray:
        """Return Q(s, ·), `[actions]`, or `[factors, choices]` of several factors or of joints.

        With `joints="pairs"` it is `[1, joint actions]`; of these, the last joint's command changes first.
        """
        q = self._look(observation, "q_values")[0]
        return q if self.spec.actions.vector else q[0]

    def reset(self) -> None:
        """Begin an episode: a memory is empty again."""
        self._keep(recurrent.fresh(self.learner, 1))

    def _keep(self, recall: recurrent.Recall | None) -> None:
        self.__dict__["_recall"] = recall

    def _look(
        self, observation: Any, values: str = "preferences"
    ) -> tuple[np.ndarray, recurrent.Recall | None]:
        coded = read_one(observation, "observation", self.spec.shape, self.spec.dtype, self.spec.layout)
        recall = self.__dict__.get("_recall", recurrent.fresh(self.learner, 1))
        if recall is None:
            return np.asarray(self._compiled[values](self.parameters, coded)), None
        q, recall = self._recalled[values](self.parameters, coded[None], recall)
        return np.asarray(q[0]), recall

    @functools.cached_property
    def _compiled(self) -> dict[str, Any]:
        return {name: jax.jit(getattr(self.learner, name)) for name in ("preferences", "q_values")}

    @functools.cached_property
    def _recalled(self) -> dict[str, Any]:
        def looking(name: str) -> Any:
            values = getattr(self.learner, name)
            return jax.jit(lambda parameters, rows, recall: recurrent.look(
                self.learner, values, parameters, rows, None, recall
            ))  # fmt: skip

        return {name: looking(name) for name in ("preferences", "q_values")}
