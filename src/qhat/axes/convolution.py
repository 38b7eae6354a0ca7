"""Convolutions of one image, as one matrix product: what XLA does well on a CPU.

XLA's own convolution is 4 to 6 times slower there inside a compiled loop, and under a `vmap` over seeds,
whose weights differ, becomes a grouped one. A product of patches with weights stays a batched product.
"""

from __future__ import annotations

import math
from typing import Any

from qhat.system.lazy import Array, Float, jax, jnp


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
        stride: divides the kernel's size.
        same: whether the borders are filled with zeros, so that `[h, w]` is `[H, W]` at stride 1.
    """
    weight = parameters["weight"]
    kernel, _, C, outputs = weight.shape
    if same:
        image = jnp.pad(image, ((kernel // 2,) * 2, (kernel // 2,) * 2, (0, 0)))
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
    return product.reshape(height, width, outputs) + parameters["bias"]


def reach(size: int, kernel: int, stride: int) -> int:
    """Places that a kernel has along an axis of `size`, without filling the borders."""
    return (size - kernel) // stride + 1


def pool(image: Float[Array, "H W C"]) -> Float[Array, "h w C"]:
    """Take the maximum of every 3×3 window at stride 2, borders filled: `h = ⌈H/2⌉`."""
    return jax.lax.reduce_window(image, -jnp.inf, jax.lax.max, (3, 3, 1), (2, 2, 1), "SAME")
