"""What an exported network is made of: operations as plain data, which each part writes for itself.

An operation is a dictionary: `op` is its name (docs/export-format.md lists them), arrays are its tensors,
and other values its settings. `name` is the prefix under which its tensors are stored.
"""

from __future__ import annotations

import math
from typing import Any

from qhat.axes.normalisation import EPSILON, SHORTEST

Op = dict[str, Any]


def relu() -> Op:
    """Return max(x, 0)."""
    return {"op": "relu"}


def flatten() -> Op:
    """Return the numbers of an array, as a list."""
    return {"op": "flatten"}


def dense(parameters: dict[str, Any], name: str) -> Op:
    """Return weight @ x + bias."""
    return {"op": "dense", "name": name, "weight": parameters["weight"], "bias": parameters["bias"]}


def layer_norm(parameters: dict[str, Any], name: str, groups: int = 1) -> Op:
    """Return `normalise` of `groups` equal parts of x, each by itself."""
    return {"op": "layer_norm", "name": name, **parameters, "groups": groups, "epsilon": EPSILON}


def shortcut(network: list[Op]) -> Op:
    """Return x + network(x)."""
    return {"op": "shortcut", "network": network}


def unit(length: float = 1.0, append: float | None = None) -> Op:
    """Return x with a length.

    Args:
        append: a number that is put behind those of x first.
    """
    more = {} if append is None else {"append": append}
    return {"op": "unit", "length": length, "epsilon": SHORTEST, **more}


def blend(network: list[Op], share: Any, name: str) -> Op:
    """Return x + share ⊙ (network(x) − x)."""
    return {"op": "blend", "name": name, "network": network, "share": share}


def convolution(parameters: dict[str, Any], name: str, stride: int = 1, same: bool = False) -> Op:
    """Return `convolve` of the torsos.

    Args:
        same: whether the sides are padded, so that the image keeps its size.
    """
    return {"op": "convolution", "name": name, **parameters, "stride": stride, "same": same}


def image(shape: tuple[int, ...], dtype: str) -> list[Op]:
    """Return what `as_image` of the torsos does to observations of `shape`.

    Args:
        dtype: of the observations; empty where they are images already, which need nothing.
    """
    if not dtype:
        return []
    axes = list(range(len(shape)))
    if len(shape) == 4:
        axes = [1, 2, 0, 3]
    elif len(shape) == 3 and shape[0] < shape[2]:
        axes = [1, 2, 0]
    moved = [shape[axis] for axis in axes]
    sides = [*moved[:2], math.prod(moved[2:])]
    return [{"op": "image", "axes": axes, "shape": sides, "divide": 255.0 if dtype == "uint8" else 1.0}]
