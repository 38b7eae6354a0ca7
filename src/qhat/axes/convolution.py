"""Convolutions of one image, in the form that XLA's CPU computes fastest.

A small image is one matrix product of its patches with the weights: that stays one product under a `vmap`
over seeds, which have different weights. Of a larger image the patches take longer than the products: there
`correlate` is faster. docs/results/convolutions.md has the figures.
"""

from __future__ import annotations

import math
from typing import Any

from qhat.axes.correlation import Window, correlate
from qhat.system.lazy import Array, Float, jax, jnp

SMALL = 4_096
"""Numbers in the patches of an image up to which one product is faster (docs/results/convolutions.md)."""


def init(key: Array, kernel: int, inputs: int, outputs: int) -> dict[str, Array]:
    """Draw weights `[kernel, kernel, inputs, outputs]` and biases from U(±1/√(kernel²·inputs))."""
    size = (kernel, kernel, inputs, outputs)
    bound = math.prod(size[:-1]) ** -0.5
    drawn = jax.random.uniform(key, (math.prod(size[:-1]) + 1, outputs), minval=-bound, maxval=bound)
    return {"weight": drawn[:-1].reshape(size), "bias": drawn[-1]}


def convolve(
    parameters: dict[str, Any], image: Float[Array, "H W C"], stride: int = 1, same: bool = False
) -> Float[Array, "h w O"]:
    """Convolve one image with the kernels of `init`, and add the biases.

    Args:
        stride: pixels from one place of the kernel to the next.
        same: whether the borders are filled with zeros, so that `[h, w]` is `[H, W]` at stride 1.
    """
    weight = parameters["weight"]
    edge = weight.shape[0] // 2 if same else 0
    image = image.astype(weight.dtype)
    if _small(image.shape, weight.shape, stride, edge):
        filled = jnp.pad(image, ((edge, edge), (edge, edge), (0, 0)))
        return _product(weight, filled, stride) + parameters["bias"]
    window = Window(stride, ((edge, edge), (edge, edge)))
    return correlate(image[None], weight, window)[0] + parameters["bias"]


def _small(image: tuple[int, ...], weight: tuple[int, ...], stride: int, edge: int) -> bool:
    """Whether one product of patches is the faster way, with or without a `vmap` over seeds."""
    places = math.prod(reach(side + 2 * edge, weight[0], stride) for side in image[:2])
    return weight[0] % stride == 0 and places * math.prod(weight[:3]) <= SMALL


def _product(weight: Array, image: Array, stride: int) -> Array:
    """Convolve as one product: of every patch of the image, side by side, with the weights."""
    kernel, _, C, outputs = weight.shape
    height, width = reach(image.shape[0], kernel, stride), reach(image.shape[1], kernel, stride)
    # Blocks of stride × stride pixels become channels: then the stride is 1.
    k = kernel // stride
    rows, columns = height + k - 1, width + k - 1
    image = image[: rows * stride, : columns * stride]
    blocks = image.reshape(rows, stride, columns, stride, C).swapaxes(1, 2)
    blocks = blocks.reshape(rows, columns, stride * stride * C)
    folded = weight.reshape(k, stride, k, stride, C, outputs).swapaxes(1, 2)
    places = [(row, column) for row in range(k) for column in range(k)]
    patches = jnp.concatenate(
        [blocks[row : row + height, column : column + width] for row, column in places], axis=-1
    )
    product = patches.reshape(height * width, -1) @ folded.reshape(-1, outputs)
    return product.reshape(height, width, outputs)


def reach(size: int, kernel: int, stride: int) -> int:
    """Places that a kernel has along an axis of `size`, without filling the borders."""
    return (size - kernel) // stride + 1


def pool(image: Float[Array, "H W C"]) -> Float[Array, "h w C"]:
    """Take the maximum of every 3×3 window at stride 2, borders filled: `h = ⌈H/2⌉`.

    As maxima along each axis: the gradient of XLA's own windows takes 3 to 9 times as long on a CPU.
    """
    return _pool_along(_pool_along(image, 0), 1)


def _pool_along(image: Array, axis: int) -> Array:
    size = image.shape[axis]
    places = -(-size // 2)
    filled = max(2 * places + 1 - size, 0)
    padding = [(0, 0)] * image.ndim
    padding[axis] = (filled // 2, filled - filled // 2)
    image = jnp.pad(image, padding, constant_values=-jnp.inf)
    first, second, third = (
        jax.lax.slice_in_dim(image, start, start + 2 * places - 1, 2, axis) for start in range(3)
    )
    return _larger(_larger(first, second), third)


def _larger(first: Array, second: Array) -> Array:
    """Return the maximum, NaN if one is; of two equal numbers the first gets the gradient."""
    return jnp.where((first >= second) | jnp.isnan(first), first, second)
