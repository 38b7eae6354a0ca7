"""Random shifts of a batch's pictures, as DrQ makes them (Kostrikov et al. 2021, arXiv:2004.13649)."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from qhat.axes.torso.pictures import sides
from qhat.engine.replay.ring import Transition
from qhat.environments.observations import Observations
from qhat.system.errors import require, setting

KEY = 1
"""Folded into an update's key for the key of its shifts."""


def require_pictures(most: int, shape: tuple[int, ...], dtype: str, layout: Observations | None) -> None:
    """Raise `UsageError` if observations are no pictures of more than `most` pixels a side.

    Args:
        dtype: of observations, where no layout says what they are.
    """
    if not most:
        return
    pictures = layout is not None or dtype == "uint8" or len(shape) > 2
    across = across_of(shape, layout) if pictures else None
    require(
        across is not None,
        f"{setting('random_shift', most)} moves pictures; this environment's observations are {shape}"
        f" of {dtype}. Leave it out.",
    )
    assert across is not None
    least = min(shape[axis] for axis in across)
    require(
        most < least,
        f"{setting('random_shift')} is {most}; expected fewer pixels than a side of the pictures,"
        f" {least}: 4 is usual.",
    )


def across_of(shape: tuple[int, ...], layout: Observations | None) -> tuple[int, int] | None:
    """Return the axes of height and width; `None` if the observation is not one picture.

    Where a layout says which they are, no shape is interpreted: a stack of three colours looks like rows.
    """
    if layout is None:
        return sides(shape)
    if not layout.is_picture:
        return None
    height, width, *_ = layout.framed[0].image_axes
    return height, width


def with_shifts(batch: Transition, most: int, key: Array, layout: Observations | None = None) -> Transition:
    """Return the batch with both its pictures moved, if `most` is not 0."""
    if not most:
        return batch
    across = across_of(batch.observation.shape[1:], layout)
    assert across is not None, "`require_pictures` has seen to it"
    keys = jax.random.split(jax.random.fold_in(key, KEY))
    before, after = (
        None if each is None else shifted(each, most, of, across)
        for each, of in zip((batch.observation, batch.successor), keys, strict=True)
    )
    return dataclasses.replace(batch, observation=before, successor=after)


def shifted(pictures: Array, most: int, key: Array, across: tuple[int, int]) -> Array:
    """Move every picture of `[B, ...]` by up to `most` pixels along the axes `across`.

    Its edge fills the rest.
    """
    by = jax.random.randint(key, (pictures.shape[0], 2), -most, most + 1)
    return jax.vmap(functools.partial(_moved, across=across))(pictures, by)


def _moved(picture: Array, by: Int[Array, " 2"], across: tuple[int, int]) -> Array:
    for axis, distance in zip(across, (by[0], by[1]), strict=True):
        size = picture.shape[axis]
        picture = jnp.take(picture, jnp.clip(jnp.arange(size) + distance, 0, size - 1), axis=axis)
    return picture
