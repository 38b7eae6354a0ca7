"""The steps between an observation's entries and one array of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from qhat.environments.observations.entry import Entry
from qhat.system.lazy import jax, jnp


def image_of(entry: Entry, picture: Any) -> Any:
    """Bring pictures `[..., *shape]` of an entry to `[..., height, width, channels]`, scaled, float32."""
    lead = picture.ndim - len(entry.shape)
    axes = (*range(lead), *(lead + axis for axis in entry.image_axes))
    moved = picture.transpose(axes).reshape(*picture.shape[:lead], *entry.image_shape).astype("float32")
    offset, scale = entry.scale
    moved = moved - np.float32(offset) if offset else moved
    return moved if scale == 1.0 else moved / np.float32(scale)


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def one_hot(entry: Entry, value: Any, xp: Any) -> Any:
    if not entry.choices:
        return value
    return (value - entry.start).reshape(-1, 1) == xp.arange(entry.choices)


def batch(entries: tuple[Entry, ...], value: Any) -> Any:
    """Put one observation into a batch of its own, by paths."""
    if not entries[0].path:
        return np.asarray(value)[None]
    return nested({entry: np.asarray(at(value, entry.path))[None] for entry in entries})


def nested(parts: Mapping[Entry, Any]) -> dict[Any, Any]:
    """Put arrays where their paths say, dictionary within dictionary."""
    whole: dict[Any, Any] = {}
    for entry, part in parts.items():
        into = whole
        for key in entry.path[:-1]:
            into = into.setdefault(key, {})
        into[entry.path[-1]] = part
    return whole


def as_bytes(rows: Any, xp: Any) -> Any:
    if xp is np:
        return np.ascontiguousarray(rows, "<f4").view(np.uint8)
    return jax.lax.bitcast_convert_type(rows, jnp.uint8).reshape(rows.shape[0], -1)


def as_floats(rows: Any) -> Any:
    if isinstance(rows, np.ndarray):
        return np.ascontiguousarray(rows).view("<f4")
    *lead, size = rows.shape
    return jax.lax.bitcast_convert_type(rows.reshape(*lead, size // 4, 4), jnp.float32)
