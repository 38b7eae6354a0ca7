"""Describes a trained network as a list of operations and their tensors, which run without the recipe.

Linear parts are folded: the streams of a dueling network into one layer, the quantiles of a choice into
their mean. Noise is left out. In NumPy this is done in float64, and unused atoms are left out too. Inside
`jax.jit` it is done in float32: the operations are then constant, and the tensors follow the parameters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from qhat.axes.axis import defines
from qhat.axes.greedy import CLOSED
from qhat.axes.joint_actions import JointActions
from qhat.axes.operations import Op, layer_norm, relu
from qhat.axes.torso import Torso
from qhat.engine.calibration import OPENED, STATISTICS, SUPPORT
from qhat.engine.learner import Learner
from qhat.engine.network import Network, embed
from qhat.engine.replay.moments import EPSILON, LIMIT
from qhat.system.errors import require, setting

DESCRIBED = {
    "head": ("export_outputs", "mean"),
    "dense": ("export_affine", "apply"),
    "merge": ("export_rows", "merge"),
    "behaviour": ("export_rows", "beside"),
    "torso": ("export_ops", "apply"),
    "memory": ("export_ops", "advance"),
}
"""By axis, the method that describes a part's computation, and the method that computes."""


@dataclasses.dataclass
class Exported:
    """Operations in order, and the tensors that they name."""

    ops: list[Op] = dataclasses.field(default_factory=list)
    tensors: dict[str, Any] = dataclasses.field(default_factory=dict)
    xp: Any = np
    """The library that computes them: NumPy, or `jax.numpy` while JAX traces."""
    joint: JointActions | None = None
    """Joint actions, if the outputs are of them."""

    def add(self, op: str, tensors: Mapping[str, Any] | None = None, name: str = "", **fields: Any) -> None:
        """Add an operation; its tensors are stored as `name/key`."""
        self.ops.append({"op": op, **self.store(tensors or {}, name), **fields})

    def put(self, op: Op, prefix: str = "") -> None:
        """Add an operation as parts return it: with arrays in place of names."""
        self.ops.append(self._named(op, prefix))

    def store(self, tensors: Mapping[str, Any], name: str) -> dict[str, str]:
        """Store tensors, and return their names by key."""
        names = {key: f"{name}/{key}" for key in tensors}
        for key, full in names.items():
            self.tensors[full] = self.xp.asarray(tensors[key], np.float32)
        return names

    def _named(self, op: Mapping[str, Any], prefix: str) -> Op:
        name = "/".join(part for part in (prefix, op.get("name", "")) if part)
        named: Op = {}
        for key, value in op.items():
            if isinstance(value, Mapping):
                named[key] = self._named(value, prefix)
            elif key == "network":
                named[key] = [self._named(part, prefix) for part in value]
            elif hasattr(value, "shape"):
                named |= self.store({key: value}, name)
            elif key != "name":
                named[key] = value
        return named


def require_exportable(learner: Learner) -> None:
    """Raise `UsageError` for the first part of a recipe that does not describe its computation."""
    for axis, (method, arithmetic) in DESCRIBED.items():
        part = getattr(learner.recipe, axis)
        require(
            defines(part, method, arithmetic),
            f"{axis} '{part.name}' cannot be exported; expected one whose class has a method {method} that"
            f" describes {arithmetic} (docs/extending.md).",
        )


def read_network(learner: Learner, parameters: Any, dtype: str, stack: Op | None) -> Exported:
    """Return the network of one seed's parameters.

    Args:
        dtype: of observations.
        stack: the operation that stacks frames, if the caller gives one frame at a time.

    Raises:
        UsageError: a part of the recipe does not describe its computation.
    """
    require_exportable(learner)
    network, head = learner.network, learner.recipe.head
    traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(parameters))
    exported = Exported(xp=jnp if traced else np, joint=network.joint)
    if stack is not None:
        exported.ops.append(stack)
    _add_features(exported, learner, parameters, dtype)
    for index in range(len(network.hidden) - 1):
        _add_hidden(exported, network, parameters, [f"hidden{index}"], f"hidden{index}")
    for op in learner.recipe.memory.export_ops(parameters.get("memory", {})):
        exported.put(op)
    if (fractions := head.fixed_fractions()) is not None:
        exported.add("fractions", {"table": embed(parameters["embedding"], fractions)}, "fractions")
    names = [f"{stream}_hidden" for stream in _streams(network)]
    if network.hidden:
        _add_hidden(exported, network, parameters, names, "last")
    _add_outputs(exported, learner, parameters)
    return exported


def _add_features(exported: Exported, learner: Learner, parameters: Any, dtype: str) -> None:
    """Add the operations from an observation to the hidden layers."""
    network, layout, torsos = learner.network, learner.network.layout, parameters.get("torso", {})
    branches = network.branches()
    if layout is None or not branches:
        if learner.recipe.normalise:
            _add_normalise(exported, parameters)
            dtype = "float32"
        _add_torso(exported, network.torso, torsos, network.shape, dtype)
        return
    require(
        not (layout.is_packed and layout.frames),
        f"A stack ({setting('wrap', 'frame_stack')}) of observations with a picture and other parts"
        " cannot be exported; expected observations of a single picture, or no stack.",
    )
    inputs = []
    for entry, (name, torso, shape) in zip(layout.framed, branches, strict=True):
        part = Exported([], exported.tensors, exported.xp) if layout.is_packed else exported
        offset, scale = entry.scale
        away: dict[str, Any] = {"subtract": offset} if offset else {}
        sides = list(entry.image_shape)
        part.add("image", axes=list(entry.image_axes), shape=sides, divide=scale, **away)
        weights = torsos.get(name, {}) if layout.is_packed else torsos
        _add_torso(part, torso, weights, shape, "", f"torso/{name}" if layout.is_packed else "torso")
        stored = "uint8" if entry.is_bytes else "float32"
        where = {"name": f"observation.{entry.label}", "shape": list(entry.shape), "dtype": stored}
        inputs.append({**where, "network": part.ops})
    if not layout.is_packed:
        return
    if layout.numbers:
        part = Exported([], exported.tensors, exported.xp)
        if learner.recipe.normalise:
            _add_normalise(part, parameters)
        part.add("flatten")
        numbers = {"name": "observation", "shape": [layout.count], "dtype": "float32"}
        inputs.append({**numbers, "network": part.ops})
    exported.ops.append({"op": "parts", "inputs": inputs})


def _add_normalise(exported: Exported, parameters: Any) -> None:
    moments, xp = parameters[STATISTICS], exported.xp
    count = xp.asarray(moments.count)
    # In float32, as training does.
    variance = xp.asarray(moments.m2) / xp.maximum(count, np.float32(1))
    variance = xp.where(count > 0, variance, xp.ones_like(variance))
    tensors = {"mean": moments.mean, "deviation": xp.sqrt(variance + np.float32(EPSILON))}
    exported.add("normalise", tensors, "normalise", limit=LIMIT)


def _add_torso(
    exported: Exported,
    torso: Torso,
    parameters: Any,
    shape: tuple[int, ...],
    dtype: str,
    prefix: str = "torso",
) -> None:
    """Add a torso and flatten its output.

    Args:
        dtype: type of its input array; empty if the input is an image already.
    """
    for op in torso.export_ops(parameters, shape, dtype):
        exported.put(op, prefix)
    exported.add("flatten")


def _add_hidden(exported: Exported, network: Network, parameters: Any, names: list[str], name: str) -> None:
    """Add one hidden layer, or those of all streams as one."""
    layers, xp = [network.dense.export_affine(parameters[layer]) for layer in names], exported.xp
    joined = {
        key: xp.concatenate([xp.asarray(layer[key]) for layer in layers]) for key in ("weight", "bias")
    }
    exported.add("dense", joined, name)
    if network.layer_norm:
        norms = {
            key: xp.concatenate([xp.asarray(parameters[f"{layer}_norm"][key]) for layer in names])
            for key in ("scale", "offset")
        }
        exported.put(layer_norm(norms, f"{name}_norm", groups=len(names)))
    exported.put(relu())


def _add_outputs(exported: Exported, learner: Learner, parameters: Any) -> None:
    network, head, actions = learner.network, learner.recipe.head, learner.network.actions
    F, K, xp = actions.factors, network.outputs, exported.xp
    exact = np.float64 if xp is np else np.float32
    streams = _streams(network)
    layers = {}
    for place, (name, width) in enumerate(streams.items()):
        layer = network.dense.export_affine(parameters[name])
        weight, bias = (xp.asarray(layer[key], exact) for key in ("weight", "bias"))
        whole = [weight]
        if network.hidden:
            # The hidden layers of all streams are joined; each stream reads its part.
            nothing = xp.zeros(weight.shape, exact)
            whole = [weight if other == place else nothing for other in range(len(streams))]
        both = xp.concatenate([*whole, bias[:, None]], axis=1)
        layers[name] = both.reshape(F, width, K, -1)
    exists = np.asarray(actions.all_legal, bool)
    if network.behaviour.acts:
        preferences = network.behaviour.export_rows(network.merge, layers, exists)
        _add_last(exported, preferences.rows, preferences.after)
        return
    rows = network.merge.export_rows(layers, exists)
    if OPENED in parameters:
        nothing = xp.zeros(rows.shape[-1], exact)
        closed = xp.concatenate([nothing[:-1], xp.asarray([CLOSED], exact)])
        rows = xp.where(xp.asarray(parameters[OPENED])[..., None, None] > 0.5, rows, closed)
    if network.mixes is not None:
        rows = network.mixes.mix(rows, xp)
    outputs = head.export_outputs(rows, parameters.get(SUPPORT, {}))
    for op in outputs.before:
        exported.put(op)
    _add_last(exported, outputs.rows, outputs.after)


def _add_last(exported: Exported, rows: Any, after: tuple[Op, ...]) -> None:
    """Add the last layer, of rows with a bias at their ends, and the operations after it."""
    flat = rows.reshape(-1, rows.shape[-1])
    exported.add("dense", {"weight": flat[:, :-1], "bias": flat[:, -1]}, "outputs")
    for op in after:
        exported.put(op)


def _streams(network: Network) -> dict[str, int]:
    """Return the outputs (per factor) of the streams that the policy needs."""
    C = network.actions.width
    every = network.merge.streams(C) | network.behaviour.streams(C)
    return {name: every[name] for name in network.behaviour.export_streams(tuple(network.merge.streams(C)))}
