"""The axis `torso`: from an observation to a feature vector, before the hidden layers."""

from __future__ import annotations

import abc
import dataclasses
import math
from typing import Any, ClassVar

from qhat._lazy import Array, Float, jax, jnp
from qhat.axis import AxisValue
from qhat.errors import UsageError


class Torso(AxisValue, abc.ABC):
    """Turns one observation into features; parameters are a (nested) dictionary of arrays."""

    axis: ClassVar[str] = "torso"

    @abc.abstractmethod
    def features(self, shape: tuple[int, ...]) -> int:
        """Return the number of features for observations of `shape`. Raises `UsageError`."""

    @abc.abstractmethod
    def init(self, key: Array, shape: tuple[int, ...]) -> dict[str, Any]:
        """Return the parameters."""

    @abc.abstractmethod
    def apply(self, parameters: dict[str, Any], observation: Array) -> Float[Array, " I"]:
        """Return the features of one observation of any dtype."""


@dataclasses.dataclass(frozen=True)
class MLP(Torso):
    """Flatten the observation; the hidden layers do the rest."""

    name: ClassVar[str] = "mlp"

    def features(self, shape: tuple[int, ...]) -> int:
        return math.prod(shape)

    def init(self, key: Array, shape: tuple[int, ...]) -> dict[str, Any]:
        return {}

    def apply(self, parameters: dict[str, Any], observation: Array) -> Float[Array, " I"]:
        return observation.astype(jnp.float32).reshape(-1)


@dataclasses.dataclass(frozen=True)
class MinAtar(Torso):
    """One 3×3 convolution over a small image of channels (Young & Tian 2019, arXiv:1903.03176, §3).

    The paper's network is this with 16 filters and one hidden layer of 128.
    """

    name: ClassVar[str] = "minatar"

    filters: int = 16
    """Output channels."""

    def features(self, shape: tuple[int, ...]) -> int:
        if len(shape) != 3 or min(shape[:2]) < 3:
            raise UsageError(
                f"torso 'minatar' takes observations of shape (height ≥ 3, width ≥ 3, channels); this"
                f" environment's is {shape}. Use --torso mlp."
            )
        return (shape[0] - 2) * (shape[1] - 2) * self.filters

    def init(self, key: Array, shape: tuple[int, ...]) -> dict[str, Any]:
        weight_key, bias_key = jax.random.split(key)
        bound = (9 * shape[-1]) ** -0.5
        size = (3, 3, shape[-1], self.filters)
        return {
            "weight": jax.random.uniform(weight_key, size, minval=-bound, maxval=bound),
            "bias": jax.random.uniform(bias_key, (self.filters,), minval=-bound, maxval=bound),
        }

    def apply(self, parameters: dict[str, Any], observation: Array) -> Float[Array, " I"]:
        image = jax.lax.conv_general_dilated(
            observation.astype(jnp.float32)[None],
            parameters["weight"],
            window_strides=(1, 1),
            padding="VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return jax.nn.relu(image[0] + parameters["bias"]).reshape(-1)


TORSOS: tuple[type[Torso], ...] = (MLP, MinAtar)
