"""A network in NumPy alone: what acts where there is no JAX, or where a call of JAX would take longer."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from qhat import runtime


@dataclasses.dataclass(frozen=True)
class Plan:
    """A network as data: its operations, and the shapes of the tensors that they name."""

    ops: list[dict[str, Any]]
    shapes: dict[str, tuple[int, ...]]
    outputs: tuple[int, int]
    """F factors, C choices of the widest."""
    exists: np.ndarray | None = None
    """`[F, C]`, which choices there are; `None` is all."""


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
        self._outputs = plan.outputs
        self._missing = None if plan.exists is None else ~plan.exists

    def load(self, weights: Any) -> None:
        """Copy the tensors, joined to one vector, in the order of the plan."""
        np.copyto(self._weights, weights)

    def q_values(self, observation: np.ndarray) -> np.ndarray:
        """Return Q `[F, C]` of one observation."""
        q = self._forward(observation).reshape(self._outputs)
        return q.copy() if self._missing is None else np.where(self._missing, -np.inf, q)
