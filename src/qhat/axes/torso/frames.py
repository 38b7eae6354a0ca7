"""Torsos of a few convolutions: of small games, and of video frames."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from qhat.axes import operations
from qhat.axes.convolution import convolve, init, reach
from qhat.axes.normalisation import init_norm, normalise
from qhat.axes.operations import Op
from qhat.axes.torso.base import Torso
from qhat.axes.torso.pictures import as_image, image_shape
from qhat.system.errors import UsageError, require, setting
from qhat.system.lazy import Array, Float, jax, jnp


def _over_channels(norm: dict[str, Any], image: Float[Array, "h w C"]) -> Float[Array, "h w C"]:
    """Normalise every place of an image over its channels, with one scale and offset for each channel."""
    return jax.vmap(jax.vmap(normalise, (None, 0)), (None, 0))(norm, image)


@dataclasses.dataclass(frozen=True)
class MinAtar(Torso):
    """One 3×3 convolution over a small image of channels (Young & Tian 2019, arXiv:1903.03176, §3).

    The paper's network is this with 16 filters and one hidden layer of 128.
    """

    name: ClassVar[str] = "minatar"

    filters: int = 16
    """Output channels."""
    layer_norm: bool = False
    """Whether every place is normalised over its channels before the ReLU (PQN's network)."""

    def validate(self) -> None:
        require(
            1 <= self.filters <= 10_000,
            f"minatar:filters is {self.filters}; expected 1 or more, up to 10,000.",
        )

    def gains_from_cores(self, pictures: bool) -> bool:
        return False

    def features(self, shape: tuple[int, ...]) -> int:
        if len(shape) != 3 or min(shape[:2]) < 3:
            raise UsageError(
                f"torso 'minatar' takes observations of shape (height ≥ 3, width ≥ 3, channels); this"
                f" environment's is {shape}. Use {setting('torso', 'auto')}, which fits."
            )
        return (shape[0] - 2) * (shape[1] - 2) * self.filters

    def init(self, key: Array, shape: tuple[int, ...]) -> dict[str, Any]:
        drawn = init(key, 3, shape[-1], self.filters)
        return drawn | ({"norm": init_norm(self.filters)} if self.layer_norm else {})

    def apply(self, parameters: dict[str, Any], observation: Array) -> Float[Array, " I"]:
        x = convolve(parameters, observation.astype(jnp.float32))
        if self.layer_norm:
            x = _over_channels(parameters["norm"], x)
        return jax.nn.relu(x).reshape(-1)

    def export_ops(self, parameters: dict[str, Any], shape: tuple[int, ...], dtype: str) -> list[Op]:
        whole: Op = {"op": "image", "axes": [0, 1, 2], "shape": list(shape), "divide": 1.0}
        norm = parameters.get("norm")
        convolution = {name: parameters[name] for name in ("weight", "bias")}
        ops = [*([whole] if dtype else []), operations.convolution(convolution, "")]
        if norm is not None:
            places = (shape[0] - 2) * (shape[1] - 2)
            repeated = {name: jnp.tile(value, places) for name, value in norm.items()}
            ops += [operations.flatten(), operations.layer_norm(repeated, "norm", groups=places)]
        return [*ops, operations.relu()]


class Convolutions(Torso):
    """Base of torsos that are convolutions in a row, each with a ReLU, without padding."""

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
        """Pixels of the smallest side for which every kernel has a place."""
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
class Mnih2013(Convolutions):
    """Two convolutions over video frames: 16 of 8×8 at stride 4, 32 of 4×4 at 2.

    The first DQN's, Mnih et al. 2013, arXiv:1312.5602, §4.1; a hidden layer of 256 follows there. It has a
    third of Nature's multiplications.
    """

    name: ClassVar[str] = "mnih2013"

    LAYERS: ClassVar[tuple[tuple[int, int, int], ...]] = ((8, 4, 16), (4, 2, 32))


@dataclasses.dataclass(frozen=True)
class DataEfficient(Convolutions):
    """Two convolutions over video frames: 32 of 5×5 at stride 5, 64 of 5×5 at 5.

    Data-efficient Rainbow, van Hasselt et al. 2019, arXiv:1906.05243; a hidden layer of 256 follows there.
    """

    name: ClassVar[str] = "data_efficient"

    LAYERS: ClassVar[tuple[tuple[int, int, int], ...]] = ((5, 5, 32), (5, 5, 64))
