"""Rows that wait on the host for replay, and the blocks in which compiled calls write them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from qhat.axes.actions import Actions

SMALL, LARGE, MANY = 32, 1_024, 256
"""Rows that one compiled call writes: `LARGE` if more than `MANY` wait, else `SMALL`."""

Layout = tuple[tuple[int, ...], str, Actions, bool]
"""Shape and dtype of observations, the actions, and whether there are masks of legal actions."""
Block = tuple[np.ndarray | None, ...]
"""Fields of `qhat.engine.replay.links.Rows`."""


class Chunk:
    """Consecutive rows on the host."""

    def __init__(self, size: int, shape: tuple[int, ...], dtype: str, actions: Actions, masked: bool):
        self.observation = np.zeros((size, *shape), dtype)
        self.action = np.zeros((size, actions.factors), np.int32)
        self.reward = np.zeros(size, np.float32)
        self.links = np.zeros((size, 3), np.int32)
        both = (size, actions.factors, actions.width)
        self.legal = np.ones(both, bool) if masked else None


@dataclasses.dataclass
class Statistics:
    """Mean and squared deviations of the rows that never get into replay."""

    count: int
    mean: np.ndarray
    m2: np.ndarray

    def include(self, rows: np.ndarray) -> None:
        """Include observations `[T, ...]` (Chan, Golub & LeVeque 1979)."""
        rows = rows.astype(np.float64)
        mean, count = rows.mean(axis=0), len(rows)
        delta, total = mean - self.mean, self.count + count
        self.m2 += np.square(rows - mean).sum(axis=0) + np.square(delta) * self.count * count / total
        self.mean += delta * count / total
        self.count = total


@dataclasses.dataclass
class Taken:
    """Rows that were taken from the queue, to be written to replay."""

    rows: int
    first: int
    """Number of the first row that still fits into replay."""
    end: int
    """Number after the last row that stays."""
    stop: int
    """As `end`, plus a row for the successor of each newest step; later rows write over these."""
    done: int
    """Number of the first row that is not in replay yet."""
    size: int
    chunks: dict[int, Chunk]
    links: np.ndarray
    """Copies for the rows from `first` to `stop`; the links in the chunks may change meanwhile."""
    older: np.ndarray
    """New links of rows that were taken before."""
    newest: list[tuple[np.ndarray, np.ndarray | None]]
    ranges: np.ndarray
    lost: Statistics | None
    layout: Layout

    def block_size(self) -> int:
        """Return the size of the next block; 0 when everything is written."""
        waiting = max(self.stop - self.done, len(self.older))
        return 0 if waiting <= 0 else LARGE if waiting > MANY else SMALL

    def block(self, size: int) -> Block:
        """Return the next `size` rows, or fewer with padding. Call `advance` after they are written."""
        begin, stop = self.done, min(self.done + size, self.stop)
        end = min(stop, self.end)
        block = Chunk(size, *self.layout)
        for chunk, where, part in parts(self.chunks, self.size, begin, end):
            block.observation[where] = chunk.observation[part]
            block.action[where] = chunk.action[part]
            block.reward[where] = chunk.reward[part]
            if block.legal is not None and chunk.legal is not None:
                block.legal[where] = chunk.legal[part]
        for row in range(max(begin, self.end), stop):
            block.observation[row - begin], legal = self.newest[row - self.end]
            if block.legal is not None:
                block.legal[row - begin] = legal
        block.links[: stop - begin] = self.links[begin - self.first : stop - self.first]
        older = np.full((size, 4), self.rows, np.int32)
        known = self.older[:size]
        older[: len(known)] = known
        place = (begin % self.rows, stop - begin, max(end - begin, 0), end % self.rows, min(end, self.rows))
        fields = (block.observation, block.action, block.reward, block.links, older)
        return (*fields, np.array(place, np.int32), self.ranges, block.legal)

    def advance(self, size: int) -> None:
        """Continue after a block of `size` rows."""
        self.done, self.older = min(self.done + size, self.stop), self.older[size:]


def parts(
    chunks: dict[int, Chunk], size: int, begin: int, stop: int
) -> Iterator[tuple[Chunk, slice, slice]]:
    """Yield the chunks of rows `begin` to `stop`, each with its slice of these rows and of the chunk."""
    for number in range(begin // size, -(-stop // size)):
        low, high = max(begin, number * size), min(stop, (number + 1) * size)
        if number in chunks and low < high:
            yield (
                chunks[number],
                slice(low - begin, high - begin),
                slice(low - number * size, high - number * size),
            )
