"""A network in NumPy alone: what acts where there is no JAX, or where a call of JAX would take longer."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from qhat import runtime
from qhat.axes.greedy import best
from qhat.axes.joint_actions import JointActions


@dataclasses.dataclass(frozen=True)
class Plan:
    """A network as data: its operations, and the shapes of the tensors that they name."""

    ops: list[dict[str, Any]]
    shapes: dict[str, tuple[int, ...]]
    outputs: tuple[int, int]
    """F factors, C choices of the widest; or 1, and the number of joint actions."""
    exists: np.ndarray | None = None
    """`[F, C]`, which choices there are; `None` is all."""
    joint: JointActions | None = None
    """Joint actions, if Q is of them."""


class NumpyNetwork:
    """Q of one observation, as the exported policy computes it (`qhat.runtime`)."""

    def __init__(self, plan: Plan):
        sizes = {name: math.prod(shape) for name, shape in plan.shapes.items()}
        self._weights = np.zeros(sum(sizes.values()), np.float32)
        views, at = {}, 0
        for name, shape in plan.shapes.items():
            views[name] = self._weights[at : at + sizes[name]].reshape(shape)
            at += sizes[name]
        self._forward = runtime.plan(plan.ops, views)
        self._outputs, self._joint = plan.outputs, plan.joint
        self._missing = None if plan.exists is None else ~plan.exists

    def load(self, weights: Any) -> None:
        """Copy the tensors, joined to one vector, in the order of the plan."""
        np.copyto(self._weights, weights)

    def q_values(self, observation: np.ndarray) -> np.ndarray:
        """Return Q `[F, C]` of one observation."""
        q = self._forward(observation).reshape(self._outputs)
        return q.copy() if self._missing is None else np.where(self._missing, -np.inf, q)

    def greedy(self, observations: np.ndarray, legal: np.ndarray | None) -> np.ndarray:
        """Return the best legal choices `[B, F]` for observations `[B, ...]`."""
        each = [self.q_values(observation) for observation in observations]
        return best(each[0][None] if len(each) == 1 else np.stack(each), legal, self._joint)
