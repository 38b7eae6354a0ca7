"""Reads sensor_msgs/Image messages: encodings, padded rows, byte order; and changes their size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .messages import near
from .task import UnusableError

ENCODINGS: Mapping[str, tuple[str, str]] = {
    "mono8": ("u1", "g"), "8UC1": ("u1", "g"), "mono16": ("u2", "g"), "16UC1": ("u2", "g"),
    "32FC1": ("f4", "g"), "rgb8": ("u1", "rgb"), "bgr8": ("u1", "bgr"), "8UC3": ("u1", "bgr"),
    "rgba8": ("u1", "rgba"), "bgra8": ("u1", "bgra"), "8UC4": ("u1", "bgra"),
    "yuv422": ("u1", "uyvy"), "uyvy": ("u1", "uyvy"), "yuv422_yuy2": ("u1", "yuyv"), "yuyv": ("u1", "yuyv"),
}  # fmt: skip
"""The type of a number, and the channels, of sensor_msgs/image_encodings. 8UC3 is BGR, as in OpenCV."""
GREY = np.array([0.299, 0.587, 0.114])
"""Weights of red, green and blue (ITU-R BT.601), as in OpenCV."""


def picture(message: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return an Image with the shape of the training, `[*shape]`.

    Args:
        shape: `[H, W]`, `[H, W, C]` or `[C, H, W]`, with 1 or 3 channels (red, green, blue).

    Raises:
        UnusableError: an encoding that is not known, or fewer bytes than the message declares.
    """
    channels, last = layout(shape)
    grid = shape if len(shape) == 2 else (shape[:2] if last else shape[1:])
    image = resized(with_channels(decoded(message), channels), grid[0], grid[1])
    if len(shape) == 2:
        return image[..., 0]
    return image if last else np.moveaxis(image, -1, 0)


def layout(shape: tuple[int, ...]) -> tuple[int, bool]:
    """Return the number of channels, and whether they are the last axis. Raises `UnusableError`."""
    if len(shape) == 2:
        return 1, True
    if len(shape) == 3 and shape[2] in (1, 3):
        return shape[2], True
    if len(shape) == 3 and shape[0] in (1, 3):
        return shape[0], False
    raise UnusableError(
        f"is an image of shape {shape}; expected [H, W], [H, W, C] or [C, H, W] with 1 or 3 channels."
    )


def decoded(message: Any) -> np.ndarray:
    """Return the pixels, `[H, W, C]`; colours are red, green, blue."""
    encoding = str(message.encoding)
    if encoding not in ENCODINGS:
        raise UnusableError(
            f"the image's encoding is '{encoding}'; expected one of {', '.join(ENCODINGS)}."
            f"{near(encoding, ENCODINGS)}"
        )
    kind, channels = ENCODINGS[encoding]
    height, width, step = int(message.height), int(message.width), int(message.step)
    count = 2 if channels in ("uyvy", "yuyv") else len(channels)
    dtype = np.dtype((">" if message.is_bigendian else "<") + kind)
    data = np.frombuffer(memoryview(message.data), np.uint8)
    row = width * count * dtype.itemsize
    if height < 1 or width < 1 or step < row or data.size < step * height:
        raise UnusableError(
            f"the image has {data.size} bytes in rows of {step}, for {width}x{height} pixels in"
            f" '{encoding}'; expected rows of at least {row}, and {height} of them."
        )
    rows = data[: step * height].reshape(height, step)[:, :row]
    pixels = np.ascontiguousarray(rows).view(dtype).reshape(height, width, count).astype(np.float64)
    if count == 2:
        return _from_yuv(pixels, luma=1 if channels == "uyvy" else 0)
    if channels.startswith("bgr"):
        return pixels[..., 2::-1]
    return pixels[..., :3] if count == 4 else pixels


def _from_yuv(pixels: np.ndarray, luma: int) -> np.ndarray:
    """Return red, green and blue of pairs of pixels that share their colour (ITU-R BT.601)."""
    if pixels.shape[1] % 2:
        raise UnusableError("the image has an odd width in YUV 4:2:2; expected an even one.")
    y = 1.164 * (pixels[..., luma] - 16.0)
    u, v = (np.repeat(pixels[:, at::2, 1 - luma], 2, axis=1) - 128.0 for at in (0, 1))
    colours = (y + 1.596 * v, y - 0.392 * u - 0.813 * v, y + 2.017 * u)
    return np.clip(np.stack(colours, axis=-1), 0.0, 255.0)


def with_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """Return an image in grey or in colour."""
    if image.shape[2] == channels:
        return image
    return (image @ GREY)[..., None] if channels == 1 else np.repeat(image, 3, axis=2)


def resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return an image of another size: the mean of the area of every pixel, as OpenCV's INTER_AREA."""
    if image.shape[:2] == (height, width):
        return image
    rows, columns = _areas(image.shape[0], height), _areas(image.shape[1], width)
    return np.einsum("ih,hwc,jw->ijc", rows, image, columns, optimize=True)


def _areas(size: int, wanted: int) -> np.ndarray:
    """Return how much of each of `wanted` pixels every one of `size` pixels covers, `[wanted, size]`."""
    ends = np.linspace(0.0, size, wanted + 1)
    places = np.arange(size)
    overlap = np.minimum(ends[1:, None], places + 1.0) - np.maximum(ends[:-1, None], places)
    weights = np.maximum(overlap, 0.0)
    return weights / weights.sum(axis=1, keepdims=True)
