"""Which axes of an observation are height, width and channels."""

from __future__ import annotations

from qhat.system.errors import UsageError, setting
from qhat.system.lazy import Array, Float, jnp


def image_shape(shape: tuple[int, ...], torso: str, least: int) -> tuple[int, int, int]:
    """Read the shape of an observation as (height, width, channels).

    Of three axes, the channels are the first or the last, whichever is shorter; two axes are one channel;
    of four, (stack, height, width, colours), the first and the last are the channels.

    Raises:
        UsageError: it is no image, or a side is shorter than `least`.
    """
    read = read_picture(shape)
    if read is None or min(read[:2]) < least:
        raise UsageError(
            f"torso '{torso}' takes images of {least} pixels or more a side, (height, width), (height,"
            f" width, channels), (channels, height, width) or (stack, height, width, colours); this"
            f" environment's observations are {shape}. Use {setting('torso', 'auto')}, which fits."
        )
    return read


def read_picture(shape: tuple[int, ...]) -> tuple[int, int, int] | None:
    """Return (height, width, channels) as `image_shape` reads them; `None` if it is no picture."""
    match shape:
        case (height, width):
            return height, width, 1
        case (first, middle, last) if first != last:
            return (middle, last, first) if first < last else (first, middle, last)
        case (stack, height, width, colours):
            return height, width, stack * colours
    return None


def sides(shape: tuple[int, ...]) -> tuple[int, int] | None:
    """Return the axes of height and width, as `image_shape` reads them; `None` if it is no picture."""
    read = read_picture(shape)
    if read is None:
        return None
    return (0, 1) if shape[:2] == read[:2] else (1, 2)


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
