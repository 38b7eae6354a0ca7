"""Stacks of frames: of an observation of K frames only the newest is stored; sampling joins them again.

Observations `[K·c, ...]` hold the last K frames of an episode along their first axis, the newest last
(c is 1, or the colours of a frame). A step adds one frame, so a row of the ring holds one frame
`[c, ...]`, and the K−1 rows before it hold the others. The first observation of an episode has no rows
before it: all its K frames are written, the K−1 older ones in rows that are no starts. The environment
decides what these are (zeros, the first frame K times, the last frames of the previous life); replay
assumes nothing about them. An observation that is no stack has K = 1, and a row holds all of it.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from qhat.system.errors import require, setting


def frame_shape(shape: tuple[int, ...], stack: int) -> tuple[int, ...]:
    """Return the shape of one of the `stack` frames of an observation."""
    if stack == 1:
        return shape
    require(
        bool(shape) and stack >= 1 and shape[0] % stack == 0,
        f"Observations of shape {shape} are no stack of {stack} frames; expected a first axis that {stack}"
        " divides.",
    )
    return (shape[0] // stack, *shape[1:])


def require_frames(shape: tuple[int, ...], stack: int, rows: int, n_step: int) -> None:
    """Raise `UsageError` if a ring is too small for whole stacks and n complete steps.

    Args:
        rows: of each environment's ring.
    """
    frame_shape(shape, stack)
    require(
        rows >= n_step + 2 * stack,
        f"{setting('replay_capacity')} leaves {rows} rows for each environment; expected at least n_step"
        f" + 2·{stack} ="
        f" {n_step + 2 * stack} where observations are stacks of {stack} frames.",
    )


def split(observation: Array, stack: int) -> Array:
    """Return the frames of observations: `[E, K·c, ...] → [K, E, c, ...]`, the oldest first."""
    if stack == 1:
        return observation[None]
    frames = observation.reshape(observation.shape[0], stack, -1, *observation.shape[2:])
    return jnp.moveaxis(frames, 1, 0)


def join(frames: Array) -> Array:
    """Join frames to observations: `[B, K, c, ...] → [B, K·c, ...]`."""
    return frames.reshape(frames.shape[0], -1, *frames.shape[3:])


def rows_of_a_step(stack: int, first: Bool[Array, " E"]) -> tuple[Int[Array, "W E"], Bool[Array, "W E"]]:
    """Return the rows of a step, counted from the cursor, and which of them stay unchanged.

    W = 2K: the K frames of the acted-on observation (only the newest is new, except in the `first` step of
    an episode), the frame of the successor, and the K−1 rows after it. These hold frames of observations
    whose older frames were just overwritten.
    """
    place = jnp.arange(2 * stack)[:, None]
    shift = jnp.where(first, 0, 1 - stack)
    return place + shift, (place < stack - 1) & ~first
