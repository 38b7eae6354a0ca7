"""How the last feature map of a torso is reduced: in JAX, and as operations of an exported network."""

from __future__ import annotations

from qhat.axes.operations import Op
from qhat.system.lazy import Array, Float, jax, jnp


def windows(size: int, count: int) -> list[tuple[int, int]]:
    """Return start and end of the `count` windows of PyTorch's adaptive pools along an axis of `size`."""
    return [(index * size // count, -(-(index + 1) * size // count)) for index in range(count)]


def adaptive_max(image: Float[Array, "H W C"], side: int) -> Float[Array, "s s C"]:
    """Take the maximum of each of `side` × `side` windows that cover the image."""
    for axis in (0, 1):
        cut = [
            jax.lax.slice_in_dim(image, start, end, axis=axis).max(axis)
            for start, end in windows(image.shape[axis], side)
        ]
        image = jnp.stack(cut, axis)
    return image


def adaptive_max_op(height: int, width: int, side: int) -> Op:
    """Return `adaptive_max` of an image: for each output row and column, the input's that it is over."""
    return {"op": "adaptive_max", "rows": _indices(height, side), "columns": _indices(width, side)}


def mean_pixels(image: Float[Array, "H W C"]) -> Float[Array, " C"]:
    """Take the mean of each channel."""
    return image.mean((0, 1))


def mean_pixels_op() -> Op:
    """Return `mean_pixels`."""
    return {"op": "mean_pixels"}


def _indices(size: int, count: int) -> list[list[int]]:
    """Return the indices of each window, as many for each: the last of a shorter one is repeated."""
    found = windows(size, count)
    longest = max(end - start for start, end in found)
    return [[min(start + offset, end - 1) for offset in range(longest)] for start, end in found]
