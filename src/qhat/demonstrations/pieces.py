"""Recorded steps that are read piece by piece, where all of them have no room in memory.

A piece has some thousand rows, and ends where an episode does if one does in time. Rows of
NumPy's arrays are read where they lie, unless they are compressed; datasets of Minari and of LeRobot are
read by their episodes and files; a bag is one piece.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from qhat.demonstrations import archives, bags, lerobot
from qhat.demonstrations.reading import Demonstrations, checked, episodes_of, joined, of_minari, read
from qhat.demonstrations.sources import MINARI, require_readable
from qhat.environments.base import Spec
from qhat.system.errors import UsageError

PIECE = 8_192
"""Rows of a piece, about."""

Member = TypeVar("Member")


@dataclasses.dataclass(frozen=True)
class Piece:
    """Some rows of a source, which are read and checked when they are asked for."""

    source: str
    read: Callable[[], Demonstrations]
    """Raises `UsageError` for rows that do not fit the environment."""
    is_cut: bool = False
    """Whether the episode of its last row goes on in the next piece."""


def rows_in(source: str, rewards: bool = True) -> int | None:
    """Return how many rows a source has, by what it says of itself; `None` of a bag, which says nothing."""
    require_readable(source, rewards)
    if source.startswith(MINARI):
        return sum(of_minari(source, lengths_of, whole=False))
    if lerobot.names_dataset(source):
        return sum(lerobot.opened(source, rewards).counts)
    return None if bags.names_bag(source) else archives.rows_in(source)


def pieces_of(source: str, spec: Spec, rewards: bool = True) -> list[Piece]:
    """Return the pieces of a source, in its order.

    Args:
        rewards: whether it needs them; without, a missing reward is 0.

    Raises:
        UsageError: no such source, one that is damaged, or one that has no room in memory and has to be
            read as a whole.
    """
    require_readable(source, rewards)
    if source.startswith(MINARI):
        return _of_minari(source, spec)
    if lerobot.names_dataset(source):
        return _of_files(source, spec, rewards)
    if bags.names_bag(source):
        return [Piece(source, lambda: read(source, spec, rewards))]
    return _of_arrays(source, spec)


def _of_arrays(source: str, spec: Spec) -> list[Piece]:
    if archives.is_compressed(source):
        columns = archives.arrays_of(source)
        shapes = {name: column.shape for name, column in columns.items()}
        rows_of: Any = {name: _slicing(column) for name, column in columns.items()}
    else:
        places = archives.places_of(source)
        shapes = {name: place.shape for name, place in places.items()}
        rows_of = {name: place.rows for name, place in places.items()}
    sizes = sorted({shape[0] if shape else 0 for shape in shapes.values()})
    if len(sizes) > 1 or sizes[0] == 0:
        raise UsageError(
            f"Demonstrations '{source}' have arrays of {' and '.join(f'{size:,}' for size in sizes)} rows;"
            " expected as many in each, one or more. Nothing was stored."
        )
    rows, ended = sizes[0], np.zeros(sizes[0], bool)
    for name in ("terminated", "truncated"):
        flags = rows_of[name](0, rows) if name in rows_of else np.zeros(0)
        # Others are refused when their piece is read.
        if flags.dtype.kind in "biuf" and flags.size == rows:
            ended |= flags.ravel() != 0

    def part(begin: int, end: int) -> Piece:
        def taken() -> Demonstrations:
            some = {name: take(begin, end) for name, take in rows_of.items()}
            return checked(source, {"row": np.arange(begin, end), **some}, spec)

        return Piece(source, taken, end < rows and not ended[end - 1])

    return [part(begin, end) for begin, end in _spans(np.flatnonzero(ended) + 1, rows)]


def _slicing(column: np.ndarray) -> Callable[[int, int], np.ndarray]:
    return lambda begin, end: column[begin:end]


def _spans(ends: np.ndarray, rows: int) -> list[tuple[int, int]]:
    """Cut rows at the first end of an episode after `PIECE` rows, or at twice as many if none is near."""
    spans, begin = [], 0
    while begin < rows:
        later = ends[np.searchsorted(ends, begin + PIECE) :]
        end = min(int(later[0]) if len(later) else rows, begin + 2 * PIECE, rows)
        spans.append((begin, end))
        begin = end
    return spans


def _of_files(source: str, spec: Spec, rewards: bool) -> list[Piece]:
    dataset = lerobot.opened(source, rewards)

    def part(files: Sequence[Any]) -> Piece:
        return Piece(source, lambda: checked(source, lerobot.transitions_of(dataset, files), spec))

    return [part(files) for files in grouped(dataset.files, dataset.counts)]


def _of_minari(source: str, spec: Spec) -> list[Piece]:
    def part(numbers: Sequence[int]) -> Piece:
        def taken() -> Demonstrations:
            few = lambda dataset: list(episodes_of(dataset, source, spec, numbers))  # noqa: E731
            return joined(of_minari(source, few, whole=False))

        return Piece(source, taken)

    lengths = of_minari(source, lengths_of, whole=False)
    return [part(numbers) for numbers in grouped(range(len(lengths)), lengths)]


def lengths_of(dataset: Any) -> list[int]:
    """Return the steps of each episode of a dataset of Minari's."""
    found = dataset.storage.get_episode_metadata(dataset.episode_indices)
    return [int(each["total_steps"]) for each in found]


def grouped(members: Sequence[Member], rows: Sequence[int]) -> list[list[Member]]:
    """Put so many neighbours together that they have `PIECE` rows, or more."""
    groups: list[list[Member]] = [[]]
    count = 0
    for member, size in zip(members, rows, strict=True):
        if count >= PIECE:
            groups.append([])
            count = 0
        groups[-1].append(member)
        count += size
    return groups
