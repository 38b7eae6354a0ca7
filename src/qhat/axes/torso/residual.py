"""Torsos of observations that are numbers: residual blocks with layer normalisation, which can be large."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

from qhat.axes import operations
from qhat.axes.dense import Dense
from qhat.axes.normalisation import init_norm, normalise
from qhat.axes.operations import Op
from qhat.axes.torso.base import Torso
from qhat.system.errors import require
from qhat.system.lazy import Array, Float, jax, jnp

WIDEST, DEEPEST = 100_000, 100


@dataclasses.dataclass(frozen=True)
class Blocks(Torso):
    """What these torsos share: a first layer, then blocks with as many features as it."""

    width: int = 256
    """Features, in and out of every block."""
    blocks: int = 2
    """Number of residual blocks."""

    def validate(self) -> None:
        for name, most in (("width", WIDEST), ("blocks", DEEPEST)):
            value = getattr(self, name)
            require(
                1 <= value <= most, f"{self.name}:{name} is {value}; expected 1 or more, up to {most:,}."
            )

    def gains_from_cores(self, pictures: bool) -> bool:
        return pictures

    def features(self, shape: tuple[int, ...]) -> int:
        return self.width

    @property
    def largest_layer(self) -> int:
        return self.width**2

    def _names(self) -> list[str]:
        return [f"block{index}" for index in range(self.blocks)]


@dataclasses.dataclass(frozen=True)
class BroNet(Blocks):
    """x ← x + LN(W₂ ReLU(LN(W₁ x))), after ReLU(LN(W₀ s)) (Nauman et al. 2024, arXiv:2405.16158, Fig. 3).

    The paper's critic has 2 blocks of 512, and `--optimiser adamw`. It has no hidden layer after them:
    `--hidden` without a number.
    """

    name: ClassVar[str] = "bronet"

    def init(self, key: Array, shape: tuple[int, ...]) -> dict[str, Any]:
        width, (first, *keys) = self.width, jax.random.split(key, 1 + 2 * self.blocks)
        parameters = {"input": _init_normed(first, math.prod(shape), width)}
        for name in self._names():
            for half in ("first", "second"):
                parameters[f"{name}_{half}"] = _init_normed(keys.pop(), width, width)
        return parameters

    def apply(self, parameters: dict[str, Any], observation: Array) -> Float[Array, " I"]:
        x = jax.nn.relu(_normed(parameters["input"], observation.astype(jnp.float32).reshape(-1)))
        for name in self._names():
            y = jax.nn.relu(_normed(parameters[f"{name}_first"], x))
            x = x + _normed(parameters[f"{name}_second"], y)
        return x

    def export_ops(self, parameters: dict[str, Any], shape: tuple[int, ...], dtype: str) -> list[Op]:
        def normed(name: str) -> list[Op]:
            return [
                operations.dense(parameters[name], name),
                operations.layer_norm(parameters[name]["norm"], f"{name}_norm"),
            ]

        ops = [operations.flatten(), *normed("input"), operations.relu()]
        for name in self._names():
            inner = [*normed(f"{name}_first"), operations.relu(), *normed(f"{name}_second")]
            ops.append(operations.shortcut(inner))
        return ops


@dataclasses.dataclass(frozen=True)
class SimBa(Blocks):
    """x ← x + W₂ ReLU(W₁ LN(x)), and LN at the end (Lee et al. 2024, arXiv:2410.09754, §4.2).

    W₁ has four times the width. The paper has `--normalise` before it, 2 blocks of 512 in its critic, and
    no hidden layer after it.
    """

    name: ClassVar[str] = "simba"

    width: int = 128
    """Features, in and out of every block."""

    @property
    def largest_layer(self) -> int:
        return WIDER * self.width**2

    def init(self, key: Array, shape: tuple[int, ...]) -> dict[str, Any]:
        width, (first, *keys) = self.width, jax.random.split(key, 1 + 2 * self.blocks)
        parameters = {"input": Dense().init(first, math.prod(shape), width)}
        for name in self._names():
            parameters[f"{name}_norm"] = init_norm(width)
            parameters[f"{name}_first"] = Dense().init(keys.pop(), width, WIDER * width)
            parameters[f"{name}_second"] = Dense().init(keys.pop(), WIDER * width, width)
        return {**parameters, "norm": init_norm(width)}

    def apply(self, parameters: dict[str, Any], observation: Array) -> Float[Array, " I"]:
        dense = Dense().apply
        x = dense(parameters["input"], observation.astype(jnp.float32).reshape(-1), None)
        for name in self._names():
            y = dense(parameters[f"{name}_first"], normalise(parameters[f"{name}_norm"], x), None)
            x = x + dense(parameters[f"{name}_second"], jax.nn.relu(y), None)
        return normalise(parameters["norm"], x)

    def export_ops(self, parameters: dict[str, Any], shape: tuple[int, ...], dtype: str) -> list[Op]:
        ops = [operations.flatten(), operations.dense(parameters["input"], "input")]
        for name in self._names():
            first, second = f"{name}_first", f"{name}_second"
            inner = [
                operations.layer_norm(parameters[f"{name}_norm"], f"{name}_norm"),
                operations.dense(parameters[first], first),
                operations.relu(),
                operations.dense(parameters[second], second),
            ]
            ops.append(operations.shortcut(inner))
        return [*ops, operations.layer_norm(parameters["norm"], "norm")]


WIDER = 4
"""How many times the width of a block its inner layer of `simba` has."""


def _init_normed(key: Array, inputs: int, outputs: int) -> dict[str, Any]:
    return {**Dense().init(key, inputs, outputs), "norm": init_norm(outputs)}


def _normed(parameters: dict[str, Any], x: Float[Array, " I"]) -> Float[Array, " O"]:
    return normalise(parameters["norm"], Dense().apply(parameters, x, None))
