"""Reading what callers hand over as an observation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from qhat.environments.observations.arrays import nested
from qhat.environments.observations.coding import Observations
from qhat.environments.observations.entry import Entry
from qhat.system.errors import UsageError
from qhat.system.files import quote

LARGE = 1e30
"""Sum of squares below which every number is finite, and fits into float32."""


def read_value(observations: Observations, value: Any, name: str) -> np.ndarray:
    """Read one observation of a caller's: the environment's own, or one that is coded already.

    Raises:
        UsageError: an entry is missing, of another shape, or has numbers that are not finite.
    """
    if observations.is_one and not observations.frames and not observations.entries[0].choices:
        only = observations.entries[0]
        return read_numbers(value, name, only.shape, observations.dtype)
    if isinstance(value, Mapping) or (
        isinstance(value, tuple | list) and _is_structure(observations, value)
    ):
        parts = {entry: _read_entry(entry, value, name) for entry in observations.entries}
        return observations.read(nested(parts))[0]
    array = np.asarray(value)
    only = observations.entries[0]
    if observations.is_one and only.choices and array.ndim == 0:
        return observations.read(_read_entry(only, array, name))[0]
    coded = read_numbers(array, name, observations.shape, observations.dtype)
    if observations.is_one and only.choices and not _is_code(array, only):
        last = only.start + only.choices - 1
        raise UsageError(
            f"{name} is {quote(array.tolist())}; expected a whole number from {only.start} to {last}, or"
            " its code, a 1 among zeros. Several observations at once have a stream each:"
            " act(observations, stream=[...])."
        )
    if not observations.is_finite(coded):
        raise UsageError(
            f"{name} has numbers that are not finite; expected finite ones. Nothing was stored."
        )
    return coded


def read_one(
    observation: Any, name: str, shape: tuple[int, ...], dtype: str, layout: Observations | None = None
) -> np.ndarray:
    """Read one observation: a copy of `dtype`. Raises `UsageError`; nothing was stored.

    Args:
        layout: what it is made of: the environment's own observation is taken too.
    """
    if layout is not None:
        return read_value(layout, observation, name)
    return read_numbers(observation, name, shape, dtype)


def _is_code(array: np.ndarray, entry: Entry) -> bool:
    """Whether it is one-hot; of a stack, where an episode has only begun, frames may be empty."""
    rows = array.reshape(-1, entry.choices)
    return bool(np.isin(rows, (0, 1)).all() and (rows.sum(axis=1) <= 1).all() and rows.any())


def _is_structure(observations: Observations, value: Any) -> bool:
    """Whether a tuple or list is the environment's own, and no coded array in a list's clothes."""
    tops = {entry.path[0] for entry in observations.entries if entry.path}
    return bool(tops) and all(type(top) is int for top in tops) and len(value) == len(tops)


def _read_entry(entry: Entry, value: Any, name: str) -> np.ndarray:
    """Read one entry as a batch of one."""
    for depth, key in enumerate(entry.path):
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            missing = ".".join(str(part) for part in entry.path[: depth + 1])
            raise UsageError(
                f"{name} has no entry '{missing}'; expected {entry.text} there, as the environment's space"
                " says. Nothing was stored."
            ) from None
    where = f"{name}{entry.where}"
    if not entry.choices:
        return read_numbers(value, where, entry.shape, entry.stored if entry.order else "float32")[None]
    number = read_numbers(value, where, (), "float32")
    good = number == np.floor(number) and 0 <= number - entry.start < entry.choices
    if not good:
        last = entry.start + entry.choices - 1
        raise UsageError(f"{where} is {value}; expected a whole number from {entry.start} to {last}.")
    return np.asarray(value)[None].astype(np.int64)


def read_numbers(value: Any, name: str, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Read one array: a copy of `dtype`. Raises `UsageError`; nothing was stored."""
    if (
        dtype == "float32"
        and type(value) is np.ndarray
        and value.dtype.kind == "f"
        and value.shape == shape
    ):
        flat = value.reshape(-1)
        # A control loop reads thousands a second: if the sum of squares is below, all numbers are good.
        if flat.dot(flat) < LARGE:
            return value.astype(np.float32)
    try:
        raw = np.asarray(value)
        numbers = raw if raw.dtype == np.bool_ else raw.astype(np.float64)
    except (TypeError, ValueError):
        raise UsageError(f"{name} is {value!r}; expected numbers of shape {shape}.") from None
    if raw.shape != shape:
        raise UsageError(f"{name} has shape {raw.shape}; expected {shape}.")
    largest: Any = np.iinfo(dtype) if np.issubdtype(dtype, np.integer) else np.finfo(np.float32)
    good = np.isfinite(numbers) & (numbers >= largest.min) & (numbers <= largest.max)
    if not (dtype == "bool" or good.all()):
        where = np.argwhere(~good)[0]
        raise UsageError(
            f"{name} is {raw[tuple(where)]} at index {tuple(map(int, where))}; expected finite numbers"
            f" that a {dtype} can hold. Nothing was stored."
        )
    return np.array(raw, dtype=dtype)
