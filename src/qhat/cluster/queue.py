"""Steps that came from actors and wait to be stored, and how they are packed for one compiled call."""

from __future__ import annotations

import collections
import dataclasses
from typing import Any

import numpy as np

from qhat.cluster.blocks import Rows

BROKEN = 6
"""Place of the flag in a row's numbers."""


@dataclasses.dataclass
class Waiting:
    """Rows of one actor, or the place where its episodes were cut."""

    actor: int
    rows: Rows | None
    real: np.ndarray
    """`[T]`, transitions of every row."""
    at: int = 0
    """Rows that were taken already."""

    def __len__(self) -> int:
        return len(self.real) - self.at


@dataclasses.dataclass(frozen=True)
class Packed:
    """Rows for one call."""

    rows: Rows
    """Leaves `[D, E, ...]`, zeros where there is no row."""
    depth: int
    """Number of rows in use of the D."""
    steps: int
    """Transitions in them."""


class Queue:
    """First in, first out, for each actor.

    Args:
        copies: of the environment in every actor.
        depth: D, the most rows of one actor in one call.
        like: rows of one actor; the arrays of all others have the same shapes and types.
    """

    def __init__(self, actors: int, copies: int, depth: int, like: Rows):
        self._actors, self._copies, self._depth, self._like = actors, copies, depth, like
        self._waiting: collections.deque[Waiting] = collections.deque()
        self.steps = 0
        """Transitions that wait."""

    def add(self, actor: int, rows: Rows) -> None:
        """Append the rows of a block."""
        real = np.count_nonzero(rows.real, axis=1)
        self._waiting.append(Waiting(actor, rows, real))
        self.steps += int(real.sum())

    def cut(self, actor: int) -> None:
        """Append the end of an actor's open episodes."""
        self._waiting.append(Waiting(actor, None, np.zeros(1, np.int64)))

    def take(self, most: int) -> Packed | None:
        """Take rows with `most` transitions, or a few more, as a row is not divided.

        Returns:
            `None` if nothing waits.
        """
        if not self._waiting:
            return None
        packed = self._empty()
        filled = np.zeros(self._actors, np.int64)
        steps, later = 0, collections.deque[Waiting]()
        while self._waiting and steps < most:
            waiting = self._waiting.popleft()
            actor, first = waiting.actor, int(filled[waiting.actor])
            count = min(len(waiting), self._depth - first)
            real = np.cumsum(waiting.real[waiting.at : waiting.at + count])
            count = min(count, int(np.searchsorted(real, most - steps)) + 1)
            self._copy(packed, waiting, first, count)
            steps += int(real[count - 1]) if count else 0
            filled[actor] += count
            waiting.at += count
            if len(waiting):
                later.append(waiting)
                # No later row of this actor may pass.
                filled[actor] = self._depth
        self._waiting.extendleft(reversed(later))
        self.steps -= steps
        depth = int(min(filled.max(), self._depth))
        return Packed(packed, depth, steps)

    def _copy(self, packed: Rows, waiting: Waiting, first: int, count: int) -> None:
        lanes = slice(waiting.actor * self._copies, (waiting.actor + 1) * self._copies)
        if waiting.rows is None:
            packed.numbers[first : first + count, BROKEN, lanes] = 1
            return
        for name, value in waiting.rows.leaves():
            into, taken = getattr(packed, name), value[waiting.at : waiting.at + count]
            if name == "numbers":
                into[first : first + count, :, lanes] = taken
            else:
                into[first : first + count, lanes] = taken

    def _empty(self) -> Rows:
        return empty(self._like, self._depth, self._actors * self._copies)


def empty(like: Rows, depth: int, lanes: int) -> Rows:
    """Return rows of zeros, `[D, E, ...]`; masks allow everything."""
    arrays: dict[str, Any] = {}
    for name, value in like.leaves():
        shape = (depth, 7, lanes) if name == "numbers" else (depth, lanes, *value.shape[2:])
        arrays[name] = (np.ones if name.startswith("legal") else np.zeros)(shape, value.dtype)
    return Rows(**arrays)
