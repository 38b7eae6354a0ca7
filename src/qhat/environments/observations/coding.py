"""From what an environment shows to one array, and back to what a network takes."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from qhat.environments.observations.arrays import as_bytes, as_floats, at, batch, image_of, one_hot
from qhat.environments.observations.entry import Entry
from qhat.environments.observations.notes import described, notes_of
from qhat.environments.observations.spaces import entries_of

MOST_ENTRIES = 4_096


@dataclasses.dataclass(frozen=True)
class Observations:
    """How an observation becomes one array, and what a network is shown of it.

    A single array stays what it is; a `Discrete` is one-hot. A dictionary or tuple becomes one float32
    vector, its entries one after the other. One with pictures is packed: a vector of bytes, the pictures'
    first, then the numbers, four bytes each. One that is a single picture becomes that picture.
    """

    entries: tuple[Entry, ...]
    frames: tuple[int, ...] = ()
    """Sizes of the axes along which observations are stacked, before those of one."""

    @staticmethod
    def of(space: Any, env_id: str) -> Observations:
        """Read a space. Raises `UsageError` for one that is not made of numbers."""
        coded = getattr(space, "layout", None)
        return coded if isinstance(coded, Observations) else Observations(entries_of(space, env_id))

    @staticmethod
    def plain(shape: tuple[int, ...], dtype: str) -> Observations:
        """Describe an array with the bounds of its type."""
        kind = np.dtype(dtype).kind
        low, high = -math.inf, math.inf
        if kind == "b":
            low, high = 0, 1
        elif kind in "iu":
            low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
        return Observations((Entry.array((), shape, dtype, low, high),))

    def stacked(self, count: int) -> Observations:
        """Return what a stack of `count` observations is."""
        return dataclasses.replace(self, frames=(count, *self.frames))

    @property
    def is_one(self) -> bool:
        """Whether it is an array, or a `Discrete`, by itself."""
        return len(self.entries) == 1 and not self.entries[0].path

    @functools.cached_property
    def pictures(self) -> tuple[Entry, ...]:
        """The pictures, in the order in which they are packed: those of bytes first."""
        found = [entry for entry in self.entries if entry.order]
        return tuple(sorted(found, key=lambda entry: not entry.is_bytes))

    @functools.cached_property
    def numbers(self) -> tuple[Entry, ...]:
        """The entries that are no pictures."""
        return tuple(entry for entry in self.entries if not entry.order)

    @property
    def count(self) -> int:
        """How many numbers there are beside the pictures."""
        return sum(entry.size for entry in self.numbers)

    @property
    def is_picture(self) -> bool:
        """Whether it is one picture and nothing else."""
        return len(self.entries) == 1 and bool(self.pictures)

    @property
    def is_packed(self) -> bool:
        """Whether it is packed into bytes."""
        return bool(self.pictures) and not self.is_picture

    @property
    def bytes(self) -> int:
        """Size of the pictures that are packed as bytes."""
        return sum(entry.size for entry in self.pictures if entry.is_bytes)

    @functools.cached_property
    def shape(self) -> tuple[int, ...]:
        """Shape of one observation."""
        only = self.entries[0]
        if self.is_packed:
            floats = self.count + sum(entry.size for entry in self.pictures if not entry.is_bytes)
            return (*self.frames, self.bytes + 4 * floats)
        if self.is_one or self.is_picture:
            return (*self.frames, *((only.choices,) if only.choices else only.shape))
        return (*self.frames, self.count)

    @functools.cached_property
    def dtype(self) -> str:
        """Type that one is stored as."""
        if self.is_packed:
            return "uint8"
        return self.entries[0].stored if self.is_one or self.is_picture else "float32"

    def read(self, value: Any, xp: Any = np) -> Any:
        """Make one array `[N, ...]` of a batch of observations; one that is coded stays as it is.

        Args:
            xp: NumPy or `jax.numpy`.
        """
        if self._is_coded(value):
            return value.astype(self.dtype)
        if self.is_one or self.is_picture:
            only = self.entries[0]
            return one_hot(only, at(value, only.path), xp).astype(self.dtype)
        rows: dict[Entry, Any] = {}
        for entry in self.entries:
            part = one_hot(entry, at(value, entry.path), xp)
            rows[entry] = part.reshape(part.shape[0], -1)
        if not self.is_packed:
            return xp.concatenate([rows[entry].astype("float32") for entry in self.entries], axis=1)
        whole = [rows[entry].astype("uint8") for entry in self.pictures if entry.is_bytes]
        floats = [*(entry for entry in self.pictures if not entry.is_bytes), *self.numbers]
        if floats:
            joined = xp.concatenate([rows[entry].astype("float32") for entry in floats], axis=1)
            whole.append(as_bytes(joined, xp))
        return xp.concatenate(whole, axis=1)

    def read_one(self, value: Any) -> np.ndarray:
        """Make one array of one observation."""
        if isinstance(value, np.ndarray) and self._is_coded(value[None]):
            return value.astype(self.dtype)
        return np.asarray(self.read(batch(self.entries, value))[0])

    def flat(self, value: Any) -> np.ndarray:
        """Return a batch of observations as numbers alone, `[N, D]` of float32, pictures' among them."""
        coded = self.read(value)
        if not self.is_packed:
            return coded.reshape(len(coded), -1)
        numbers = self.floats(coded)
        whole = [coded[..., : self.bytes].astype(np.float32), numbers]
        return np.concatenate([part.reshape(len(coded), -1) for part in whole], axis=1)

    def floats(self, coded: Any) -> Any:
        """Return what of packed observations `[..., bytes]` is float32: the pictures' and the numbers."""
        return as_floats(coded[..., self.bytes :])

    def shown(self, coded: Any) -> tuple[list[Any], Any]:
        """Decode one observation `[*shape]`, or batches of it.

        Returns:
            the pictures `[..., height, width, channels]` of float32, scaled to 0…1 by their bounds; and
            the numbers, as they are stored, or `None` where there are none.
        """
        if self.is_picture:
            return [image_of(self.framed[0], coded)], None
        if not self.is_packed:
            return [], coded
        images, floats, begin, place = [], self.floats(coded), 0, 0
        for entry, framed in zip(self.pictures, self.framed, strict=True):
            if entry.is_bytes:
                part, begin = coded[..., begin : begin + entry.size], begin + entry.size
            else:
                part, place = floats[..., place : place + entry.size], place + entry.size
            lead = part.shape[: part.ndim - 1 - len(self.frames)]
            images.append(image_of(framed, part.reshape(*lead, *framed.shape)))
        return images, floats[..., place:] if self.numbers else None

    @functools.cached_property
    def framed(self) -> tuple[Entry, ...]:
        """The pictures as they are in a stack."""
        return tuple(entry.framed(self.frames) for entry in self.pictures)

    @property
    def numbers_shape(self) -> tuple[int, ...] | None:
        """Shape of the numbers that `shown` returns."""
        if not self.numbers:
            return None
        return (*self.frames, self.count) if self.is_packed else self.shape

    @property
    def standardises(self) -> bool:
        """Whether the bounds say that a network cannot take the numbers as they are."""
        return any(entry.is_large for entry in self.entries)

    def is_finite(self, coded: np.ndarray) -> bool:
        """Whether every number of a coded observation is finite."""
        values = self.floats(coded) if self.is_packed else coded
        return values.dtype.kind != "f" or bool(np.isfinite(values).all())

    def to_json(self) -> dict[str, Any]:
        """Write it for a manifest."""
        return {"entries": [entry.to_json() for entry in self.entries], "frames": list(self.frames)}

    @staticmethod
    def from_json(data: Any) -> Observations:
        """Read what `to_json` wrote. Raises `TypeError`, `ValueError` or `KeyError`."""
        if not isinstance(data, Mapping) or not isinstance(data["entries"], list):
            raise TypeError
        entries, frames = tuple(map(Entry.from_json, data["entries"])), data.get("frames", [])
        good = 0 < len(entries) <= MOST_ENTRIES and isinstance(frames, list) and len(frames) <= 8
        good &= len({entry.path for entry in entries}) == len(entries)
        if not good or any(type(count) is not int or not 0 < count < 2**31 for count in frames):
            raise TypeError
        return Observations(entries, tuple(frames))

    def _is_coded(self, value: Any) -> bool:
        """Whether a batch is one array of this shape already."""
        shape = getattr(value, "shape", None)
        if not isinstance(shape, tuple) or isinstance(value, Mapping):
            return False
        if self.is_one and not self.frames and not self.entries[0].choices:
            return False
        return len(shape) == 1 + len(self.shape) and shape[1:] == self.shape

    def notes(self, env_id: str, normalise: bool | None = None) -> list[str]:
        """Say what a user should know before training begins.

        Args:
            env_id: empty where there is none.
            normalise: what the recipe says of normalising; `None` leaves it to the spaces.
        """
        return list(notes_of(self, env_id, normalise))

    def describe_entries(self, normalise: bool | None = None) -> list[tuple[str, str, str]]:
        """Say of every entry its path, its space, and what becomes of it; `normalise` as of `notes`."""
        return list(described(self, normalise))
