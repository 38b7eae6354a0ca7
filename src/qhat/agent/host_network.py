"""The online network in NumPy, in which an `Agent` acts: it is faster than a call of a compiled program."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from qhat import runtime
from qhat.axes.axis import defines
from qhat.engine.described import DESCRIBED, Exported, read_network
from qhat.engine.learner import Learner

QUICK = ("dense", "relu", "normalise", "flatten", "layer_norm", "fractions", "atoms", "mean_fractions")
"""Operations that take a few µs in NumPy; convolutions take milliseconds."""


class HostNetwork:
    """Q of one observation, as the exported policy computes it (`qhat.runtime`).

    The compiled update also returns the network's tensors as one vector (`tensors`), which `load` copies.
    """

    def __init__(self, learner: Learner, dtype: str, described: Exported):
        self._learner, self._dtype = learner, dtype
        shapes = {name: tensor.shape for name, tensor in described.tensors.items()}
        self._weights = np.zeros(sum(map(math.prod, shapes.values())), np.float32)
        views, at = {}, 0
        for name, shape in shapes.items():
            views[name] = self._weights[at : at + math.prod(shape)].reshape(shape)
            at += math.prod(shape)
        self._forward = runtime.plan(described.ops, views)
        self._shape = (learner.actions.factors, learner.actions.width)
        exists = learner.actions.exists
        self._missing = None if exists is None else ~np.asarray(exists)
        self._loaded: Any = None

    @staticmethod
    def of(learner: Learner, dtype: str) -> HostNetwork | None:
        """Return a learner's network; `None` where NumPy is slow, or a part does not describe itself."""
        for axis, (method, arithmetic) in DESCRIBED.items():
            if not defines(getattr(learner.recipe, axis), method, arithmetic):
                return None
        try:
            described = _described(learner, dtype)
        except jax.errors.ConcretizationTypeError:
            # A part from outside the package describes itself in NumPy alone.
            return None
        quick = all(op["op"] in QUICK for op in described.ops)
        return HostNetwork(learner, dtype, described) if quick else None

    def tensors(self, online: Any) -> Float[Array, " T"]:
        """Return the tensors of the parameters `online`, for `load`; traceable."""
        described = read_network(self._learner, online, self._dtype, None)
        return jnp.concatenate([jnp.ravel(tensor) for tensor in described.tensors.values()])

    def load(self, tensors: Any) -> None:
        """Use what `tensors` returned, from now on. Waits for the program that computes it."""
        if tensors is not self._loaded:
            np.copyto(self._weights, tensors)
            self._loaded = tensors

    def q_values(self, observation: np.ndarray) -> np.ndarray:
        """Return Q `[F, C]` of one observation."""
        q = self._forward(observation).reshape(self._shape)
        return q.copy() if self._missing is None else np.where(self._missing, -np.inf, q)


def _described(learner: Learner, dtype: str) -> Exported:
    """The operations, and the shapes of their tensors."""
    found: list[Exported] = []

    def trace(key: Any) -> None:
        found.append(read_network(learner, learner.init_parameters(key), dtype, None))

    jax.eval_shape(trace, jax.random.key(0))
    return found[0]
