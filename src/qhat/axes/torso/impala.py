"""Torsos of fifteen convolutions with shortcuts, which differ in how they end."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from qhat.axes import operations, pooling
from qhat.axes.convolution import convolve, init, pool
from qhat.axes.operations import Op
from qhat.axes.spectral import normalise
from qhat.axes.torso.base import Torso
from qhat.axes.torso.pictures import as_image, image_shape
from qhat.system.errors import require
from qhat.system.lazy import Array, Float, jax

FILTERS = (16, 32, 32)
"""Of each section, before they are multiplied by `width`."""
RESIDUAL = ("block0_first", "block0_second", "block1_first", "block1_second")
"""Convolutions of a section's two residual blocks."""
LEAST = 8
"""Pixels of the smallest side."""


@dataclasses.dataclass(frozen=True)
class Impala(Torso):
    """Fifteen convolutions with shortcuts (Espeholt et al. 2018, arXiv:1802.01561, Fig. 3, right).

    Three sections of 16, 32 and 32 filters: a convolution, the maximum of 3×3 at stride 2, two residual
    blocks. One hidden layer of 256 follows there. `impala:width=2,pool=6,spectral=true` is the encoder of
    Beyond The Rainbow (Clark et al. 2024, arXiv:2411.03820).
    """

    name: ClassVar[str] = "impala"

    width: int = 1
    """Multiplies the filters."""
    pool: int | None = None
    """Side of the square of maxima that the last section is reduced to; with none, it is not reduced."""
    spectral: bool = False
    """Whether the weights of the residual blocks are divided by their largest singular value."""

    def validate(self) -> None:
        _require_width(self)
        require(
            self.pool is None or 1 <= self.pool <= 1_000,
            f"impala:pool is {self.pool}; expected none, or 1 or more, up to 1,000.",
        )

    def form(self, shape: tuple[int, int, int]) -> tuple[int, ...]:
        return (1, *shape)

    def features(self, shape: tuple[int, ...]) -> int:
        height, width = _sides(self._image_shape(shape))
        if self.pool is not None:
            height = width = self.pool
        return height * width * FILTERS[-1] * self.width

    def init(self, key: Array, shape: tuple[int, ...]) -> dict[str, Any]:
        return _init(key, self._image_shape(shape)[2], self.width)

    def apply(self, parameters: dict[str, Any], observation: Array) -> Float[Array, " I"]:
        x = _sections(self._weights(parameters), as_image(observation))
        return (x if self.pool is None else pooling.adaptive_max(x, self.pool)).reshape(-1)

    def export_ops(self, parameters: dict[str, Any], shape: tuple[int, ...], dtype: str) -> list[Op]:
        ops = operations.image(shape, dtype) + _section_ops(self._weights(parameters))
        if self.pool is not None:
            ops.append(pooling.adaptive_max_op(*_sides(self._image_shape(shape)), self.pool))
        return ops

    def _image_shape(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        if self.pool is None:
            return image_shape(shape, self.name, LEAST)
        # The last section has a pixel for every 8, and at least as many as are kept.
        return image_shape(shape, f"{self.name}:pool={self.pool}", max(LEAST, 8 * self.pool - 7))

    def _weights(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """Return the parameters with the weights that the convolutions use."""
        if not self.spectral:
            return parameters
        return {
            name: {**layer, "weight": normalise(layer["weight"])} if name.endswith(RESIDUAL) else layer
            for name, layer in parameters.items()
        }


@dataclasses.dataclass(frozen=True)
class Impoola(Torso):
    """`impala` that ends in the mean of each filter over all pixels (Trumpp et al. 2025, arXiv:2503.05546).

    One hidden layer of 256 follows there: of 32 features, where `impala` has 3,872 for 84×84 pixels.
    """

    name: ClassVar[str] = "impoola"

    width: int = 1
    """Multiplies the filters."""

    def validate(self) -> None:
        _require_width(self)

    def form(self, shape: tuple[int, int, int]) -> tuple[int, ...]:
        return (1, *shape)

    def features(self, shape: tuple[int, ...]) -> int:
        image_shape(shape, self.name, LEAST)
        return FILTERS[-1] * self.width

    def init(self, key: Array, shape: tuple[int, ...]) -> dict[str, Any]:
        return _init(key, image_shape(shape, self.name, LEAST)[2], self.width)

    def apply(self, parameters: dict[str, Any], observation: Array) -> Float[Array, " I"]:
        return pooling.mean_pixels(_sections(parameters, as_image(observation)))

    def export_ops(self, parameters: dict[str, Any], shape: tuple[int, ...], dtype: str) -> list[Op]:
        return [*operations.image(shape, dtype), *_section_ops(parameters), pooling.mean_pixels_op()]


def _require_width(torso: Impala | Impoola) -> None:
    require(
        1 <= torso.width <= 10_000,
        f"{torso.name}:width is {torso.width}; expected 1 or more, up to 10,000.",
    )


def _sides(shape: tuple[int, int, int]) -> tuple[int, int]:
    """Return height and width of the last section for an image of `shape`."""
    height, width, _ = shape
    for _ in FILTERS:
        height, width = -(-height // 2), -(-width // 2)
    return height, width


def _init(key: Array, channels: int, width: int) -> dict[str, Any]:
    """Draw the parameters of all sections, by name of the convolution."""
    parameters = {}
    for section, filters in enumerate(width * each for each in FILTERS):
        key, *keys = jax.random.split(key, 2 + len(RESIDUAL))
        parameters[f"section{section}"] = init(keys[0], 3, channels, filters)
        for drawn, name in zip(keys[1:], RESIDUAL, strict=True):
            parameters[f"section{section}_{name}"] = init(drawn, 3, filters, filters)
        channels = filters
    return parameters


def _sections(parameters: Mapping[str, Any], x: Float[Array, "H W C"]) -> Float[Array, "h w c"]:
    """Return the last section's output after a ReLU."""

    def section_layer(name: str, x: Array) -> Array:
        return convolve(parameters[name], x, same=True)

    for section in range(len(FILTERS)):
        x = pool(section_layer(f"section{section}", x))
        for block in range(0, len(RESIDUAL), 2):
            y = x
            for name in RESIDUAL[block : block + 2]:
                y = section_layer(f"section{section}_{name}", jax.nn.relu(y))
            x = x + y
    return jax.nn.relu(x)


def _section_ops(parameters: Mapping[str, Any]) -> list[Op]:
    """Return `_sections` as operations."""
    ops = []
    for section in range(len(FILTERS)):
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
