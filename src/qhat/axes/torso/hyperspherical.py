"""A torso with weights and features of length 1."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

from qhat.axes import operations
from qhat.axes.normalisation import unit
from qhat.axes.operations import Op
from qhat.axes.torso.residual import WIDER, Blocks
from qhat.system.errors import require
from qhat.system.lazy import Array, Float, jax, jnp

TURNS = 50
"""Of Newton and Schulz's iteration: enough for singular values of a millionth of the largest."""


@dataclasses.dataclass(frozen=True)
class SimBaV2(Blocks):
    """x ← U(x + α⊙(U(W₂ ReLU(s⊙W₁ x)) − x)), after U(s₀⊙W₀ U([s, c])), where U(x) = x/‖x‖.

    Lee et al. 2025, arXiv:2502.15280, §4. After every update each row of W is divided by its length, so
    that weights cannot grow; s and α are learned. W₁ has four times the width. The features are multiplied
    by √width, so that they are as large as those of a layer normalisation: the paper has another such layer
    there, and scales rewards. It has `--normalise` before it, 2 blocks of 512 in its critic, Adam
    without weight decay, and no hidden layer after it.
    """

    name: ClassVar[str] = "simba2"
    projects: ClassVar[bool] = True

    width: int = 128
    """Features, in and out of every block."""
    shift: float = 3.0
    """c, a number beside those of the observation, so that their size is not lost with their length."""

    def validate(self) -> None:
        super().validate()
        good = 0 < self.shift <= 1_000_000
        require(good, f"simba2:shift is {self.shift}; expected more than 0, up to 1,000,000.")

    @property
    def largest_layer(self) -> int:
        return WIDER * self.width**2

    def init(self, key: Array, shape: tuple[int, ...]) -> dict[str, Any]:
        width, (first, *keys) = self.width, jax.random.split(key, 1 + 2 * self.blocks)
        parameters: dict[str, Any] = {"input": self._scaled(first, math.prod(shape) + 1, width)}
        for name in self._names():
            parameters[f"{name}_first"] = self._scaled(keys.pop(), width, WIDER * width)
            parameters[f"{name}_second"] = _orthogonal(keys.pop(), WIDER * width, width)
            parameters[f"{name}_share"] = jnp.full(width, width**-0.5)
        return parameters

    def apply(self, parameters: dict[str, Any], observation: Array) -> Float[Array, " I"]:
        x = unit(jnp.append(observation.astype(jnp.float32).reshape(-1), self.shift))
        x = unit(self._weight(parameters["input"]) @ x)
        for name in self._names():
            y = jax.nn.relu(self._weight(parameters[f"{name}_first"]) @ x)
            y = unit(parameters[f"{name}_second"] @ y)
            x = unit(x + self._share(parameters[f"{name}_share"]) * (y - x))
        return x * self.width**0.5

    def projected(self, parameters: dict[str, Any]) -> dict[str, Any]:
        return jax.tree.map(lambda leaf: leaf if leaf.ndim < 2 else _of_length_1(leaf), parameters)

    def export_ops(self, parameters: dict[str, Any], shape: tuple[int, ...], dtype: str) -> list[Op]:
        def dense(weight: Any, name: str) -> Op:
            return operations.dense({"weight": weight, "bias": 0.0 * weight[:, 0]}, name)

        first = dense(self._weight(parameters["input"]), "input")
        ops = [operations.flatten(), operations.unit(append=self.shift), first, operations.unit()]
        for name in self._names():
            inner = [
                dense(self._weight(parameters[f"{name}_first"]), f"{name}_first"),
                operations.relu(),
                dense(parameters[f"{name}_second"], f"{name}_second"),
                operations.unit(),
            ]
            share = self._share(parameters[f"{name}_share"])
            last = self.width**0.5 if name == self._names()[-1] else 1.0
            ops += [operations.blend(inner, share, f"{name}_share"), operations.unit(length=last)]
        return ops

    def _scaled(self, key: Array, inputs: int, outputs: int) -> dict[str, Any]:
        """Return the weights of a layer and the factors of its outputs, √(2/outputs) at first."""
        return {
            "weight": _orthogonal(key, inputs, outputs),
            "scale": jnp.full(outputs, (2 / outputs) ** 0.5),
        }

    def _weight(self, layer: dict[str, Any]) -> Float[Array, "O I"]:
        return layer["scale"][:, None] * layer["weight"]

    def _share(self, parameter: Float[Array, " I"]) -> Float[Array, " I"]:
        """Return α, 1/(blocks + 1) at first: what is learned is smaller, so that its steps are larger."""
        return parameter * (self.width**0.5 / (self.blocks + 1))


def _orthogonal(key: Array, inputs: int, outputs: int) -> Float[Array, "O I"]:
    """Return rows of length 1, orthogonal to each other as far as there are no more of them than inputs.

    By products alone: XLA's call of LAPACK, which JAX's own initialiser makes, waits for ever where the
    weights of several seeds are drawn by a pool of one thread.
    """
    drawn = jax.random.normal(key, (min(outputs, inputs), max(outputs, inputs)))
    drawn = drawn / jnp.linalg.norm(drawn)

    # Newton and Schulz: each turn raises every singular value σ to (3σ − σ³)/2, towards 1.
    def turn(_: Any, x: Array) -> Array:
        return 1.5 * x - 0.5 * (x @ x.T) @ x

    rows = jax.lax.fori_loop(0, TURNS, turn, drawn)
    return _of_length_1(rows if outputs <= inputs else rows.T)


def _of_length_1(weight: Float[Array, "O I"]) -> Float[Array, "O I"]:
    return weight * jax.lax.rsqrt(jnp.maximum(jnp.sum(weight**2, axis=1, keepdims=True), 1e-20))
