"""Whether two observations share memory: some environments write each observation over the last one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

OVERLAP_WORK: Any = 10_000
"""Limit of NumPy's search for an overlap of two interleaved arrays."""


def share_memory(one: Any, other: Any) -> bool:
    """Whether two observations share memory, in whole or in part, that somebody can write to."""
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return np.may_share_memory(one, other) and not _is_fixed(one) and _overlap(one, other)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return any(share_memory(value, other[name]) for name, value in one.items() if name in other)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        if one is other and isinstance(one, list):
            return len(one) > 0
        return any(map(share_memory, one, other))
    if isinstance(one, int | float | str | np.generic | jax.Array) or other is None:
        return False
    arrays = array_of(one), array_of(other)
    return all(isinstance(each, np.ndarray) for each in arrays) and (one is other or share_memory(*arrays))


def _overlap(one: np.ndarray, other: np.ndarray) -> bool:
    try:
        return np.shares_memory(one, other, max_work=OVERLAP_WORK)
    except np.exceptions.TooHardError:
        return False


def _is_fixed(array: np.ndarray) -> bool:
    """Whether nobody can write to the memory of `array`, as far as NumPy knows."""
    owner: Any = array
    while isinstance(owner, np.ndarray):
        if owner.flags.writeable:
            return False
        owner = owner.base
    return owner is None or isinstance(owner, bytes | jax.Array)


def same_memory(one: Any, other: Any) -> bool:
    """Whether two observations are the same part of memory."""
    if one is other:
        return True
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same_memory(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same_memory, one, other))
    arrays = array_of(one), array_of(other)
    if not all(isinstance(each, np.ndarray) for each in arrays):
        return bool(one == other)
    first, second = (each.__array_interface__ for each in arrays)
    return all(first[part] == second[part] for part in ("data", "shape", "strides", "typestr"))


def array_of(value: Any) -> Any:
    """`value` as an array over the same memory where it can be one; else `value`."""
    if isinstance(value, np.ndarray | Mapping):
        return value
    try:
        return np.asarray(value)
    except (TypeError, ValueError):
        return value
