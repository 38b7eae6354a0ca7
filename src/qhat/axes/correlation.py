"""A convolution of a batch of images that XLA's CPU computes fast everywhere, also in a loop's gradient.

XLA hands a convolution to its library of products only where the axes come in one order: images as
(batch, height, width, channels), kernels as (height, width, inputs, outputs). JAX's gradient of a kernel
has another order, which XLA repairs outside of loops alone (jax-ml/jax#12868): in a loop it takes 20 to 50
times as long. This primitive is the same function, and its gradients are convolutions in that one order.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from qhat.system.lazy import Array, Float, jax, jnp

ORDER = ("NHWC", "HWIO", "NHWC")


@dataclasses.dataclass(frozen=True)
class Window:
    """How a kernel moves over an image; heights and widths are numbers of pixels."""

    stride: int = 1
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    """Zeros above and below, left and right; a negative number cuts pixels off."""
    spread: int = 1
    """Distance of the image's pixels: between two of them are `spread − 1` zeros."""
    dilation: int = 1
    """Distance of the kernel's pixels."""

    def sizes(self, image: tuple[int, ...], kernel: tuple[int, ...]) -> tuple[int, int]:
        """Return height and width of the result."""
        height, width = (
            (self._wide(image[1 + axis], self.spread) + sum(self.padding[axis])
             - self._wide(kernel[axis], self.dilation)) // self.stride + 1
            for axis in (0, 1)
        )  # fmt: skip
        return height, width

    def of_images(self, image: tuple[int, ...], kernel: tuple[int, ...]) -> Window:
        """Return the window over the result's gradient that gives the gradient of the images."""
        reached, padding = self.sizes(image, kernel), []
        for axis in (0, 1):
            before = self._wide(kernel[axis], self.dilation) - 1 - self.padding[axis][0]
            after = self._wide(image[1 + axis], self.spread) + self._wide(kernel[axis], self.dilation) - 1
            padding.append((before, after - self._wide(reached[axis], self.stride) - before))
        return Window(self.spread, (padding[0], padding[1]), self.stride, self.dilation)

    def of_kernels(self, image: tuple[int, ...], kernel: tuple[int, ...]) -> Window:
        """Return the window over the images, with the result's gradient as kernel, for the kernels'."""
        reached, padding = self.sizes(image, kernel), []
        for axis in (0, 1):
            after = self._wide(reached[axis], self.stride) - self._wide(image[1 + axis], self.spread)
            after += self._wide(kernel[axis], self.dilation) - 1 - self.padding[axis][0]
            padding.append((self.padding[axis][0], after))
        return Window(self.dilation, (padding[0], padding[1]), self.spread, self.stride)

    @staticmethod
    def _wide(size: int, distance: int) -> int:
        return (size - 1) * distance + 1


def correlate(
    images: Float[Array, "N H W C"], kernels: Float[Array, "k l C O"], window: Window
) -> Float[Array, "N h w O"]:
    """Return the sum of the pixels under each place of the window, times the kernels.

    Under `vmap` images share one call; where the kernels differ too, as those of seeds do, calls follow one
    another.
    """
    return _primitive().bind(images, kernels, window=window)


@functools.cache
def _primitive() -> Any:
    """Return the primitive of `correlate`, with its rules. JAX is imported here first."""
    from jax.extend.core import Primitive
    from jax.interpreters import ad, batching, mlir

    primitive = Primitive("qhat_correlate")
    primitive.def_impl(jax.jit(_apply, static_argnames="window"))
    primitive.def_abstract_eval(_shaped)
    mlir.register_lowering(primitive, mlir.lower_fun(_apply, multiple_results=False))
    ad.defbilinear(primitive, _to_images, _to_kernels)
    batching.primitive_batchers[primitive] = _batch
    return primitive


def _apply(images: Array, kernels: Array, *, window: Window) -> Array:
    return jax.lax.conv_general_dilated(
        images, kernels, (window.stride,) * 2, window.padding, (window.spread,) * 2, (window.dilation,) * 2,
        dimension_numbers=ORDER,
    )  # fmt: skip


def _shaped(images: Any, kernels: Any, *, window: Window) -> Any:
    from jax.core import ShapedArray

    sizes = window.sizes(images.shape, kernels.shape)
    return ShapedArray((images.shape[0], *sizes, kernels.shape[3]), images.dtype)


def _to_images(gradient: Array, images: Any, kernels: Array, *, window: Window) -> Array:
    """Return the gradient of the images: over the gradient of the result goes the turned kernel."""
    k, stride, shape = kernels.shape[0], window.stride, images.aval.shape
    plain = window.spread == window.dilation == 1 and window.padding == ((0, 0), (0, 0))
    if plain and stride > 1 and k % stride == 0 and kernels.shape[1] == k:
        return _to_blocks(gradient, kernels, stride, shape)
    turned = jnp.swapaxes(kernels[::-1, ::-1], 2, 3)
    return correlate(gradient, turned, window.of_images(shape, kernels.shape))


def _to_blocks(gradient: Array, kernels: Array, stride: int, shape: tuple[int, ...]) -> Array:
    """Return the gradient of the images in blocks of stride × stride pixels: no product is with a zero."""
    k, C, outputs = kernels.shape[0] // stride, kernels.shape[2], kernels.shape[3]
    folded = kernels.reshape(k, stride, k, stride, C, outputs).swapaxes(1, 2).reshape(k, k, -1, outputs)
    turned = jnp.swapaxes(folded[::-1, ::-1], 2, 3)
    blocks = correlate(gradient, turned, Window(padding=((k - 1, k - 1), (k - 1, k - 1))))
    N, rows, columns, _ = blocks.shape
    blocks = blocks.reshape(N, rows, columns, stride, stride, C).swapaxes(2, 3)
    reached = blocks.reshape(N, rows * stride, columns * stride, C)
    rest = [(0, all_of - part) for all_of, part in zip(shape, reached.shape, strict=True)]
    return jnp.pad(reached, rest)


def _to_kernels(gradient: Array, images: Array, kernels: Any, *, window: Window) -> Array:
    """Return the gradient of the kernels: the batch takes the channels' place."""
    found = correlate(
        jnp.transpose(images, (3, 1, 2, 0)),
        jnp.transpose(gradient, (1, 2, 0, 3)),
        window.of_kernels(images.shape, kernels.aval.shape),
    )
    return jnp.transpose(found, (1, 2, 0, 3))


def _batch(arguments: Any, axes: Any, *, window: Window) -> tuple[Array, int]:
    (images, kernels), (of_images, of_kernels) = arguments, axes
    if of_kernels is None:
        images = jnp.moveaxis(images, of_images, 0)
        out = correlate(images.reshape(-1, *images.shape[2:]), kernels, window)
        return out.reshape(*images.shape[:2], *out.shape[1:]), 0
    kernels = jnp.moveaxis(kernels, of_kernels, 0)
    if of_images is None:
        return jax.lax.map(lambda each: correlate(images, each, window), kernels), 0
    images = jnp.moveaxis(images, of_images, 0)
    return jax.lax.map(lambda pair: correlate(pair[0], pair[1], window), (images, kernels)), 0
