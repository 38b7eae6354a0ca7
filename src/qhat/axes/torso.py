"""The axis `torso`: from an observation to a feature vector, before the hidden layers."""

from __future__ import annotations

import abc
import dataclasses
import math
from typing import Any, ClassVar

from qhat.axes import operations
from qhat.axes.axis import AxisValue, missing
from qhat.axes.convolution import convolve, init, pool, reach
from qhat.axes.operations import Op
from qhat.system.errors import UsageError, require, setting
from qhat.system.lazy import Array, Float, jax, jnp


class Torso(AxisValue, abc.ABC):
    """Turns one observation into features; parameters are a (nested) dictionary of arrays."""

    axis: ClassVar[str] = "torso"

    def fitted(self, shape: tuple[int, ...]) -> Torso:
        """Return the torso that this one is for observations of `shape`."""
        return self

    def of_image(self, shape: tuple[int, int, int]) -> Torso:
        """Return the torso that this one is for images (height, width, channels)."""
        return self

    def form(self, shape: tuple[int, int, int]) -> tuple[int, ...]:
        """Return the shape in which it takes an image without mistaking its axes."""
        return shape

    @abc.abstractmethod
    def features(self, shape: tuple[int, ...]) -> int:
        """Return the number of features for observations of `shape`. Raises `UsageError`."""

    @abc.abstractmethod
    def init(self, key: Array, shape: tuple[int, ...]) -> dict[str, Any]:
        """Return the parameters."""

    @abc.abstractmethod
    def apply(self, parameters: dict[str, Any], observation: Array) -> Float[Array, " I"]:
        """Return the features of one observation of any dtype."""

    @missing
    def export_ops(self, parameters: dict[str, Any], shape: tuple[int, ...], dtype: str) -> list[Op]:
        """Return `apply` as operations; what they give is flattened.

        Args:
            shape: of one observation.
            dtype: of observations; empty for an image in the torso's own order, already scaled.
        """
        raise NotImplementedError(self.name)


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

    def export_ops(self, parameters: dict[str, Any], shape: tuple[int, ...], dtype: str) -> list[Op]:
        return []


@dataclasses.dataclass(frozen=True)
class MinAtar(Torso):
    """One 3×3 convolution over a small image of channels (Young & Tian 2019, arXiv:1903.03176, §3).

    The paper's network is this with 16 filters and one hidden layer of 128.
    """

    name: ClassVar[str] = "minatar"

    filters: int = 16
    """Output channels."""

    def validate(self) -> None:
        require(
            1 <= self.filters <= 10_000,
            f"minatar:filters is {self.filters}; expected 1 or more, up to 10,000.",
        )

    def features(self, shape: tuple[int, ...]) -> int:
        if len(shape) != 3 or min(shape[:2]) < 3:
            raise UsageError(
                f"torso 'minatar' takes observations of shape (height ≥ 3, width ≥ 3, channels); this"
                f" environment's is {shape}. Use {setting('torso', 'mlp')}."
            )
        return (shape[0] - 2) * (shape[1] - 2) * self.filters

    def init(self, key: Array, shape: tuple[int, ...]) -> dict[str, Any]:
        return init(key, 3, shape[-1], self.filters)

    def apply(self, parameters: dict[str, Any], observation: Array) -> Float[Array, " I"]:
        return jax.nn.relu(convolve(parameters, observation.astype(jnp.float32))).reshape(-1)

    def export_ops(self, parameters: dict[str, Any], shape: tuple[int, ...], dtype: str) -> list[Op]:
        whole: Op = {"op": "image", "axes": [0, 1, 2], "shape": list(shape), "divide": 1.0}
        return [*([whole] if dtype else []), operations.convolution(parameters, ""), operations.relu()]


class Convolutions(Torso, abc.ABC):
    """Convolutions one after another, each with a ReLU."""

    LAYERS: ClassVar[tuple[tuple[int, int, int], ...]]
    """Kernel, stride and filters of each."""

    def form(self, shape: tuple[int, int, int]) -> tuple[int, ...]:
        return (1, *shape)

    def features(self, shape: tuple[int, ...]) -> int:
        height, width, _ = image_shape(shape, self.name, self._least)
        for kernel, stride, _ in self.LAYERS:
            height, width = reach(height, kernel, stride), reach(width, kernel, stride)
        return height * width * self.LAYERS[-1][2]

    def init(self, key: Array, shape: tuple[int, ...]) -> dict[str, Any]:
        channels = [image_shape(shape, self.name, self._least)[2], *(layer[2] for layer in self.LAYERS)]
        keys = jax.random.split(key, len(self.LAYERS))
        return {
            f"convolution{index}": init(keys[index], kernel, channels[index], filters)
            for index, (kernel, _, filters) in enumerate(self.LAYERS)
        }

    def apply(self, parameters: dict[str, Any], observation: Array) -> Float[Array, " I"]:
        x = as_image(observation)
        for index, (_, stride, _) in enumerate(self.LAYERS):
            x = jax.nn.relu(convolve(parameters[f"convolution{index}"], x, stride))
        return x.reshape(-1)

    def export_ops(self, parameters: dict[str, Any], shape: tuple[int, ...], dtype: str) -> list[Op]:
        ops = operations.image(shape, dtype)
        for index, (_, stride, _) in enumerate(self.LAYERS):
            name = f"convolution{index}"
            ops += [operations.convolution(parameters[name], name, stride), operations.relu()]
        return ops

    @property
    def _least(self) -> int:
        """The shortest side of an image that every convolution has a place on."""
        side = 1
        for kernel, stride, _ in reversed(self.LAYERS):
            side = (side - 1) * stride + kernel
        return side


@dataclasses.dataclass(frozen=True)
class Nature(Convolutions):
    """Three convolutions over video frames: 32 of 8×8 at stride 4, 64 of 4×4 at 2, 64 of 3×3 at 1.

    Mnih et al. 2015, doi.org/10.1038/nature14236, Methods; one hidden layer of 512 follows there.
    """

    name: ClassVar[str] = "nature"

    LAYERS: ClassVar[tuple[tuple[int, int, int], ...]] = ((8, 4, 32), (4, 2, 64), (3, 1, 64))


@dataclasses.dataclass(frozen=True)
class DataEfficient(Convolutions):
    """Two convolutions over video frames: 32 of 5×5 at stride 5, 64 of 5×5 at stride 5.

    The encoder of data-efficient Rainbow (van Hasselt et al. 2019, arXiv:1906.05243); one hidden
    layer of 256 follows there. Of 84×84 it makes 576 features, where `nature` makes 3,136.
    """

    name: ClassVar[str] = "data_efficient"

    LAYERS: ClassVar[tuple[tuple[int, int, int], ...]] = ((5, 5, 32), (5, 5, 64))


@dataclasses.dataclass(frozen=True)
class Impala(Torso):
    """Fifteen convolutions with shortcuts (Espeholt et al. 2018, arXiv:1802.01561, Fig. 3, right).

    Three sections of 16, 32 and 32 filters: a convolution, the maximum of 3×3 at stride 2, two residual
    blocks. One hidden layer of 256 follows there.
    """

    name: ClassVar[str] = "impala"

    width: int = 1
    """Multiplies the filters."""

    def validate(self) -> None:
        require(
            1 <= self.width <= 10_000, f"impala:width is {self.width}; expected 1 or more, up to 10,000."
        )

    def form(self, shape: tuple[int, int, int]) -> tuple[int, ...]:
        return (1, *shape)

    def features(self, shape: tuple[int, ...]) -> int:
        height, width, _ = image_shape(shape, self.name, least=8)
        for _ in self._filters:
            height, width = -(-height // 2), -(-width // 2)
        return height * width * self._filters[-1]

    def init(self, key: Array, shape: tuple[int, ...]) -> dict[str, Any]:
        channels = image_shape(shape, self.name, least=8)[2]
        parameters = {}
        for section, filters in enumerate(self._filters):
            key, *keys = jax.random.split(key, 2 + len(RESIDUAL))
            parameters[f"section{section}"] = init(keys[0], 3, channels, filters)
            for drawn, name in zip(keys[1:], RESIDUAL, strict=True):
                parameters[f"section{section}_{name}"] = init(drawn, 3, filters, filters)
            channels = filters
        return parameters

    def apply(self, parameters: dict[str, Any], observation: Array) -> Float[Array, " I"]:
        x = as_image(observation)

        def section_layer(name: str, x: Array) -> Array:
            return convolve(parameters[name], x, same=True)

        for section in range(len(self._filters)):
            x = pool(section_layer(f"section{section}", x))
            for block in range(0, len(RESIDUAL), 2):
                y = x
                for name in RESIDUAL[block : block + 2]:
                    y = section_layer(f"section{section}_{name}", jax.nn.relu(y))
                x = x + y
        return jax.nn.relu(x).reshape(-1)

    def export_ops(self, parameters: dict[str, Any], shape: tuple[int, ...], dtype: str) -> list[Op]:
        ops = operations.image(shape, dtype)
        for section in range(len(self._filters)):
            name = f"section{section}"
            ops += [operations.convolution(parameters[name], name, same=True), {"op": "pool"}]
            for block in range(0, len(RESIDUAL), 2):
                first, second = (f"{name}_{conv}" for conv in RESIDUAL[block : block + 2])
                ops.append(
                    {
                        "op": "residual",
                        "first": {"name": first, **parameters[first]},
                        "second": {"name": second, **parameters[second]},
                    }
                )
        return [*ops, operations.relu()]

    @property
    def _filters(self) -> tuple[int, ...]:
        return tuple(self.width * filters for filters in (16, 32, 32))


RESIDUAL = ("block0_first", "block0_second", "block1_first", "block1_second")
"""Convolutions of a section's two residual blocks."""


@dataclasses.dataclass(frozen=True)
class Auto(Torso):
    """The torso that the observation's shape asks for: `fitted` says which.

    A vector gets `mlp`; a picture whose sides have 36 pixels or more `nature`; a smaller one, with
    its channels last, `minatar`.
    """

    name: ClassVar[str] = "auto"

    def fitted(self, shape: tuple[int, ...]) -> Torso:
        image = _read(shape)
        if image is not None and min(image[:2]) >= 36:
            return Nature()
        if len(shape) == 3 and shape[2] <= min(shape[:2]) and 3 <= min(shape[:2]) < 36:
            return MinAtar()
        return MLP()

    def of_image(self, shape: tuple[int, int, int]) -> Torso:
        least = min(shape[:2])
        return Nature() if least >= 36 else MinAtar() if least >= 3 else MLP()

    def features(self, shape: tuple[int, ...]) -> int:
        return self.fitted(shape).features(shape)

    def init(self, key: Array, shape: tuple[int, ...]) -> dict[str, Any]:
        return self.fitted(shape).init(key, shape)

    def apply(self, parameters: dict[str, Any], observation: Array) -> Float[Array, " I"]:
        return self.fitted(observation.shape).apply(parameters, observation)

    def export_ops(self, parameters: dict[str, Any], shape: tuple[int, ...], dtype: str) -> list[Op]:
        return self.fitted(shape).export_ops(parameters, shape, dtype)


def image_shape(shape: tuple[int, ...], torso: str, least: int) -> tuple[int, int, int]:
    """Read the shape of an observation as (height, width, channels).

    Of three axes, the channels are the first or the last, whichever is shorter; two axes are one channel;
    of four, (stack, height, width, colours), the first and the last are the channels.

    Raises:
        UsageError: it is no image, or a side is shorter than `least`.
    """
    read = _read(shape)
    if read is None or min(read[:2]) < least:
        raise UsageError(
            f"torso '{torso}' takes images of {least} pixels or more a side, (height, width), (height,"
            f" width, channels), (channels, height, width) or (stack, height, width, colours); this"
            f" environment's observations are {shape}. Use {setting('torso', 'mlp')}."
        )
    return read


def _read(shape: tuple[int, ...]) -> tuple[int, int, int] | None:
    match shape:
        case (height, width):
            return height, width, 1
        case (first, middle, last) if first != last:
            return (middle, last, first) if first < last else (first, middle, last)
        case (stack, height, width, colours):
            return height, width, stack * colours
    return None


def as_image(observation: Array) -> Float[Array, "H W C"]:
    """Bring one observation into the order of `image_shape`; uint8 is scaled from 0…255 to 0…1."""
    image = observation.astype(jnp.float32)
    if observation.dtype == jnp.uint8:
        image = image / 255.0
    if image.ndim == 2:
        return image[..., None]
    if image.ndim == 4:
        return jnp.moveaxis(image, 0, 2).reshape(*image.shape[1:3], -1)
    return jnp.moveaxis(image, 0, 2) if image.shape[0] < image.shape[2] else image


TORSOS: tuple[type[Torso], ...] = (Auto, MLP, MinAtar, Nature, DataEfficient, Impala)
