"""The axis `dense`: what a fully connected layer is."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar

from qhat._lazy import Array, Float, jax
from qhat.axis import AxisValue


class Layer(AxisValue, abc.ABC):
    """A layer constructor: parameters are a dictionary of arrays, application is a function."""

    axis: ClassVar[str] = "dense"

    @abc.abstractmethod
    def init(self, key: Array, inputs: int, outputs: int) -> dict[str, Array]:
        """Return the parameters of a layer."""

    @abc.abstractmethod
    def apply(
        self, parameters: dict[str, Array], x: Float[Array, " I"], key: Array | None
    ) -> Float[Array, " O"]:
        """Apply the layer to one example. `key` is its own noise, `None` means no noise."""


@dataclasses.dataclass(frozen=True)
class Dense(Layer):
    """y = W x + b, both drawn from U(±1/√inputs)."""

    name: ClassVar[str] = "dense"

    def init(self, key: Array, inputs: int, outputs: int) -> dict[str, Array]:
        weight_key, bias_key = jax.random.split(key)
        bound = inputs**-0.5
        return {
            "weight": jax.random.uniform(weight_key, (outputs, inputs), minval=-bound, maxval=bound),
            "bias": jax.random.uniform(bias_key, (outputs,), minval=-bound, maxval=bound),
        }

    def apply(
        self, parameters: dict[str, Any], x: Float[Array, " I"], key: Array | None
    ) -> Float[Array, " O"]:
        return parameters["weight"] @ x + parameters["bias"]


LAYERS: tuple[type[Layer], ...] = (Dense,)
