"""A trained network as a list of operations and their tensors: what runs it needs to know no recipe.

What is linear is folded, in float64: the streams of a dueling network into one layer, the quantiles of a
choice into their mean. Atoms that are not in use are left out, noise too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from qhat.axes.actions import Actions
from qhat.axes.dense import Dense, Noisy
from qhat.axes.heads import Categorical, Expected, HLGauss, Implicit, Quantile
from qhat.axes.merge import Dueling, Plain
from qhat.axes.torso import MLP, RESIDUAL, Auto, Impala, MinAtar, Nature, Torso
from qhat.engine.learner import STATISTICS, SUPPORT, Learner
from qhat.engine.network import Network, embed
from qhat.engine.replay.moments import EPSILON, LIMIT
from qhat.system.errors import require

KNOWN: dict[str, tuple[type, ...]] = {
    "head": (Expected, Categorical, HLGauss, Quantile, Implicit),
    "dense": (Dense, Noisy),
    "merge": (Plain, Dueling),
    "torso": (MLP, MinAtar, Nature, Impala, Auto),
}
"""Parts whose arithmetic is written here."""
Op = dict[str, Any]
RELU: Op = {"op": "relu"}


@dataclasses.dataclass
class Exported:
    """Operations in their order, and the tensors that they name."""

    ops: list[Op] = dataclasses.field(default_factory=list)
    tensors: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def add(self, op: str, tensors: Mapping[str, Any] | None = None, name: str = "", **fields: Any) -> None:
        """Add an operation; its tensors are stored as `name/key`."""
        self.ops.append({"op": op, **self.store(tensors or {}, name), **fields})

    def store(self, tensors: Mapping[str, Any], name: str) -> dict[str, str]:
        """Store tensors, and return their names by key."""
        names = {key: f"{name}/{key}" for key in tensors}
        for key, full in names.items():
            self.tensors[full] = np.asarray(tensors[key], np.float32)
        return names


def require_known(learner: Learner) -> None:
    """Raise `UsageError` for the first part of a recipe that the exported operations cannot say."""
    for axis, kinds in KNOWN.items():
        part = getattr(learner.recipe, axis)
        require(
            type(part) in kinds,
            f"{axis} '{part.name}' cannot be exported; expected one of"
            f" {', '.join(kind.name for kind in kinds)}: a part from outside the package has arithmetic of"
            " its own.",
        )


def read_network(learner: Learner, parameters: Any, dtype: str, stack: Op | None) -> Exported:
    """Return the network of one seed's parameters.

    Args:
        dtype: of observations.
        stack: the operation that puts frames together, where the caller hands over one at a time.

    Raises:
        UsageError: a part of the recipe is from outside the package.
    """
    require_known(learner)
    network, head = learner.network, learner.recipe.head
    exported = Exported()
    if stack is not None:
        exported.ops.append(stack)
    _add_features(exported, learner, parameters, dtype)
    for index in range(len(network.hidden) - 1):
        _add_hidden(exported, network, parameters, [f"hidden{index}"], f"hidden{index}")
    if isinstance(head, Implicit):
        table = embed(parameters["embedding"], head.fixed_fractions())  # pyright: ignore[reportArgumentType]
        exported.add("fractions", {"table": table}, "fractions")
    names = [f"{stream}_hidden" for stream in network.merge.streams(network.actions.width)]
    if network.hidden:
        _add_hidden(exported, network, parameters, names, "last")
    if isinstance(head, Implicit):
        exported.add("mean_fractions")
    _add_outputs(exported, learner, parameters)
    return exported


def _add_features(exported: Exported, learner: Learner, parameters: Any, dtype: str) -> None:
    """Add what happens between an observation and the hidden layers."""
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
        "A stack (--wrap frame_stack) of observations that are pictures beside others cannot be exported;"
        " expected one of a single picture, or no stack.",
    )
    inputs = []
    for entry, (name, torso, shape) in zip(layout.framed, branches, strict=True):
        part = Exported(tensors=exported.tensors) if layout.is_packed else exported
        offset, scale = entry.scale
        away: dict[str, Any] = {"subtract": offset} if offset else {}
        sides = list(entry.image_shape)
        part.add("image", axes=list(entry.image_axes), shape=sides, divide=scale, **away)
        own = torsos.get(name, {}) if layout.is_packed else torsos
        _add_torso(part, torso, own, shape, "", f"torso/{name}" if layout.is_packed else "torso")
        stored = "uint8" if entry.is_bytes else "float32"
        where = {"name": f"observation.{entry.label}", "shape": list(entry.shape), "dtype": stored}
        inputs.append({**where, "network": part.ops})
    if not layout.is_packed:
        return
    if layout.numbers:
        part = Exported(tensors=exported.tensors)
        if learner.recipe.normalise:
            _add_normalise(part, parameters)
        part.add("flatten")
        told = {"name": "observation", "shape": [layout.count], "dtype": "float32"}
        inputs.append({**told, "network": part.ops})
    exported.ops.append({"op": "parts", "inputs": inputs})


def _add_normalise(exported: Exported, parameters: Any) -> None:
    moments = parameters[STATISTICS]
    count = np.asarray(moments.count)
    # In float32, as training does.
    variance = np.asarray(moments.m2) / np.maximum(count, np.float32(1))
    variance = variance if count > 0 else np.ones_like(variance)
    told = {"mean": moments.mean, "deviation": np.sqrt(variance + np.float32(EPSILON))}
    exported.add("normalise", told, "normalise", limit=LIMIT)


def _add_torso(
    exported: Exported,
    torso: Torso,
    parameters: Any,
    shape: tuple[int, ...],
    dtype: str,
    prefix: str = "torso",
) -> None:
    """Add a torso and flatten what it gives.

    Args:
        dtype: of the array that it takes; empty where that is an image already.
    """
    if isinstance(torso, MinAtar):
        if dtype:
            exported.add("image", axes=[0, 1, 2], shape=list(shape), divide=1.0)
        exported.add("convolution", parameters, prefix, stride=1, same=False)
        exported.ops.append(RELU)
    elif isinstance(torso, Nature):
        _add_image(exported, shape, dtype)
        for index, (_, stride, _) in enumerate(torso.LAYERS):
            name = f"convolution{index}"
            exported.add("convolution", parameters[name], f"{prefix}/{name}", stride=stride, same=False)
            exported.ops.append(RELU)
    elif isinstance(torso, Impala):
        _add_image(exported, shape, dtype)
        for section in range(3):
            name = f"section{section}"
            exported.add("convolution", parameters[name], f"{prefix}/{name}", stride=1, same=True)
            exported.add("pool")
            for block in range(0, len(RESIDUAL), 2):
                pair = zip(("first", "second"), RESIDUAL[block : block + 2], strict=True)
                both = {
                    which: exported.store(parameters[f"{name}_{conv}"], f"{prefix}/{name}_{conv}")
                    for which, conv in pair
                }
                exported.ops.append({"op": "residual", **both})
        exported.ops.append(RELU)
    exported.add("flatten")


def _add_image(exported: Exported, shape: tuple[int, ...], dtype: str) -> None:
    """Add what `as_image` of the torsos does."""
    if not dtype:
        return
    axes = list(range(len(shape)))
    if len(shape) == 4:
        axes = [1, 2, 0, 3]
    elif len(shape) == 3 and shape[0] < shape[2]:
        axes = [1, 2, 0]
    moved = [shape[axis] for axis in axes]
    sides = [*moved[:2], int(np.prod(moved[2:]))]
    exported.add("image", axes=axes, shape=sides, divide=255.0 if dtype == "uint8" else 1.0)


def _add_hidden(exported: Exported, network: Network, parameters: Any, names: list[str], name: str) -> None:
    """Add one hidden layer, or those of all streams as one."""
    joined = {
        key: np.concatenate([np.asarray(parameters[own][key]) for own in names])
        for key in ("weight", "bias")
    }
    exported.add("dense", joined, name)
    if network.layer_norm:
        norms = {
            key: np.concatenate([np.asarray(parameters[f"{own}_norm"][key]) for own in names])
            for key in ("scale", "offset")
        }
        exported.add("layer_norm", norms, f"{name}_norm", groups=len(names), epsilon=1e-5)
    exported.ops.append(RELU)


def _add_outputs(exported: Exported, learner: Learner, parameters: Any) -> None:
    network, head, actions = learner.network, learner.recipe.head, learner.actions
    F, C, K = actions.factors, actions.width, network.outputs
    streams = network.merge.streams(C)
    layers = {}
    for place, (name, width) in enumerate(streams.items()):
        weight, bias = (np.asarray(parameters[name][key], np.float64) for key in ("weight", "bias"))
        whole = weight
        if network.hidden:
            # Each stream reads its own part of what all of them computed.
            inputs = weight.shape[1]
            whole = np.zeros((len(weight), inputs * len(streams)))
            whole[:, place * inputs : (place + 1) * inputs] = weight
        both = np.concatenate([whole, bias[:, None]], axis=1)
        layers[name] = both.reshape(F, width, K, -1)
    z = layers["q"] if isinstance(network.merge, Plain) else _dueling(layers, actions)
    if isinstance(head, Quantile):
        z = z.mean(axis=2, keepdims=True)
    values = None
    if isinstance(head, Categorical | HLGauss):
        basis = head.basis(parameters[SUPPORT], None)
        active = np.asarray(basis.active)
        z, values = z[:, :, active], np.asarray(basis.values)[active]
    flat = z.reshape(-1, z.shape[-1])
    exported.add("dense", {"weight": flat[:, :-1], "bias": flat[:, -1]}, "outputs")
    if values is not None:
        exported.add("atoms", {"values": values}, "atoms")


def _dueling(layers: dict[str, np.ndarray], actions: Actions) -> np.ndarray:
    """V + A − the mean of A over the choices that there are."""
    advantage = layers["advantage"]
    exists = np.asarray(actions.all_legal, float)[:, :, None, None]
    mean = (advantage * exists).sum(axis=1, keepdims=True) / exists.sum(axis=1, keepdims=True)
    return layers["value"] + advantage - mean
