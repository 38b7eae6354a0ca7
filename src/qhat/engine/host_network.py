"""A learner's online network in NumPy, where that is faster than a call of a compiled program, or alone."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from qhat.axes.axis import defines
from qhat.engine.described import DESCRIBED, Exported, read_network
from qhat.engine.learner import Learner
from qhat.engine.numpy_network import NumpyNetwork, Plan

QUICK = ("dense", "relu", "normalise", "flatten", "layer_norm", "fractions", "atoms", "mean_fractions",
         "shortcut", "blend", "unit")  # fmt: skip
"""Operations that take a few µs in NumPy; convolutions take milliseconds."""


class HostNetwork:
    """Q of one observation, in the process of the learner.

    The compiled update also returns the network's tensors as one vector (`tensors`), which `load` copies.
    """

    def __init__(self, learner: Learner, dtype: str, plan: Plan):
        self._learner, self._dtype, self._network = learner, dtype, NumpyNetwork(plan)
        self._loaded: Any = None

    @staticmethod
    def of(learner: Learner, dtype: str) -> HostNetwork | None:
        """Return a learner's network; `None` where NumPy is slow, or a part does not describe itself."""
        # What a plan computes is preferences; of these this network is asked for Q too.
        plan = None if learner.recipe.behaviour.acts else plan_of(learner, dtype)
        quick = plan is not None and all(op["op"] in QUICK for op in plan.ops)
        return HostNetwork(learner, dtype, plan) if plan is not None and quick else None

    def tensors(self, online: Any) -> Float[Array, " T"]:
        """Return the tensors of the parameters `online`, for `load`; traceable."""
        return tensors_of(self._learner, self._dtype, online)

    def load(self, tensors: Any) -> None:
        """Use what `tensors` returned, from now on. Waits for the program that computes it."""
        if tensors is not self._loaded:
            self._network.load(tensors)
            self._loaded = tensors

    def q_values(self, observation: np.ndarray) -> np.ndarray:
        """Return Q `[F, C]` of one observation."""
        return self._network.q_values(observation)

    def greedy(self, observations: np.ndarray, legal: np.ndarray | None) -> np.ndarray:
        """Return the best legal choices `[B, F]` for observations `[B, ...]`."""
        return self._network.greedy(observations, legal)


def plan_of(learner: Learner, dtype: str) -> Plan | None:
    """Return a learner's network as data; `None` where a part does not describe itself.

    Args:
        dtype: of observations.
    """
    if learner.recipe.memory.remembers:
        # A plan computes from one observation alone.
        return None
    for axis, (method, arithmetic) in DESCRIBED.items():
        if not defines(getattr(learner.recipe, axis), method, arithmetic):
            return None
    try:
        described = _described(learner, dtype)
    except jax.errors.ConcretizationTypeError:
        # A part from outside the package describes itself in NumPy alone.
        return None
    # By name: JAX sorts the keys of parameters, and a part may write its tensors in their order.
    shapes = {name: tuple(described.tensors[name].shape) for name in sorted(described.tensors)}
    actions, joint = learner.actions, learner.network.joint
    outputs = (actions.factors, actions.width) if joint is None else (1, len(joint.table))
    exists = None if learner.network.exists is None else np.asarray(learner.network.exists)
    return Plan(described.ops, shapes, outputs, exists, joint)


def tensors_of(learner: Learner, dtype: str, online: Any) -> Float[Array, " T"]:
    """Return the tensors of a plan, joined to one vector, for the parameters `online`; traceable."""
    described = read_network(learner, online, dtype, None)
    return jnp.concatenate([jnp.ravel(described.tensors[name]) for name in sorted(described.tensors)])


def _described(learner: Learner, dtype: str) -> Exported:
    """The operations, and the shapes of their tensors."""
    found: list[Exported] = []

    def trace(key: Any) -> None:
        found.append(read_network(learner, learner.init_parameters(key), dtype, None))

    jax.eval_shape(trace, jax.random.key(0))
    return found[0]
