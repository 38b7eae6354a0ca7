"""Observations in a manifest: what is written of them, and how it is read back."""

from __future__ import annotations

import math
from typing import Any

from qhat.axes.actions import NUMBERS
from qhat.environments.observations.coding import Observations


def write_observation(shape: tuple[int, ...], dtype: str, layout: Observations | None) -> dict[str, Any]:
    """Write what `read_space` and `read_layout` read."""
    entries = {} if layout is None else {"layout": layout.to_json()}
    return {"shape": list(shape), "dtype": dtype, **entries}


def read_space(shape: Any, dtype: Any) -> tuple[tuple[int, ...], str]:
    """Read what a manifest says of observations. Raises `TypeError` or `ValueError` for anything else."""
    good = isinstance(shape, list) and len(shape) <= 32 and isinstance(dtype, str) and dtype in NUMBERS
    if not good or any(type(size) is not int or size < 0 for size in shape):
        raise TypeError
    if math.prod(shape) >= 2**31:
        raise ValueError
    return tuple(shape), dtype


def read_layout(data: Any, shape: tuple[int, ...], dtype: str) -> Observations | None:
    """Read what a manifest says of the entries of observations; `None` in one of an earlier version.

    Raises:
        TypeError: it is damaged, or of observations of another shape.
    """
    if data is None:
        return None
    layout = Observations.from_json(data)
    if (layout.shape, layout.dtype) != (shape, dtype):
        raise TypeError
    return layout
