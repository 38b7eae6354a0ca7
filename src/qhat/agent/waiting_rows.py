"""Rows that wait on the host for replay, and the blocks in which compiled calls write them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from qhat.axes.actions import Actions
from qhat.engine.replay.links import Rows

TINY, SMALL, LARGE, MANY = 8, 32, 1_024, 256
"""Rows that one compiled call writes: `LARGE` if more than `MANY` wait, `SMALL` if more than `TINY` do.
The last block goes with the updates, and is a `TINY` one."""

Layout = tuple[tuple[int, ...], str, Actions, bool]
"""Shape and dtype of observations, the actions, and whether there are masks of legal actions."""
COUNTS = 3
"""Numbers beside the rows: steps and updates so far, and updates to do."""


class Field(NamedTuple):
    """An array in the bytes of a block."""

    shape: tuple[int, ...]
    dtype: str
    begin: int
    end: int


@dataclasses.dataclass(frozen=True)
class Block:
    """Rows to write, and counts: one array of bytes, as one argument costs a call less than nine."""

    size: int
    bytes: np.ndarray
    fields: Mapping[str, np.ndarray]
    """Views of it: the fields of `qhat.engine.replay.links.Rows`, and `counts`."""

    def count(self, steps: int, updates: int, due: int) -> Block:
        """Set the counts, and return the block."""
        self.fields["counts"][:] = (steps, updates, due)
        return self


class BlockLayout:
    """Where the fields of a block are."""

    def __init__(self, layout: Layout, units: int = 0):
        self._layout, self._units = layout, units
        self._fields: dict[int, dict[str, Field]] = {}
        self._pair: list[Block] = []

    def new(self, size: int) -> Block:
        """Return a block of `size` rows of zeros; all actions are legal."""
        fields = self._of(size)
        # A new array for each call, which may read it after it returned.
        data = np.zeros(max(field.end for field in fields.values()), np.uint8)
        views = {
            name: data[field.begin : field.end].view(field.dtype).reshape(field.shape)
            for name, field in fields.items()
        }
        if "legal" in views:
            views["legal"][:] = True
        return Block(size, data, views)

    def reused(self) -> Block:
        """Return a `TINY` block, of two in turn. Its rows are of any content: set what counts.

        The program that reads it must end before the second call from here.
        """
        if not self._pair:
            self._pair = [self.new(TINY), self.new(TINY)]
        self._pair.reverse()
        return self._pair[0]

    def read(self, data: Any, size: int) -> tuple[Rows, Any]:
        """Return the rows and the counts of a block's bytes; traceable."""
        values: dict[str, Any] = dict.fromkeys(Rows.__dataclass_fields__)
        for name, field in self._of(size).items():
            part = data[field.begin : field.end]
            if field.dtype == "bool":
                part = part != 0
            elif (wide := np.dtype(field.dtype).itemsize) > 1:
                part = part.reshape(-1, wide)
            if field.dtype not in ("bool", "uint8"):
                part = jax.lax.bitcast_convert_type(part, field.dtype)
            values[name] = part.reshape(field.shape)
        counts = values.pop("counts")
        return Rows(**values), counts

    def _of(self, size: int) -> dict[str, Field]:
        if size not in self._fields:
            shape, dtype, actions, masked = self._layout
            shapes = {
                "observation": ((size, *shape), dtype),
                "action": ((size, actions.factors), "int32"),
                "reward": ((size,), "float32"),
                "links": ((size, 3), "int32"),
                "older": ((size, 4), "int32"),
                "place": ((5,), "int32"),
                "ranges": ((2, 2), "float32"),
                "counts": ((COUNTS,), "int32"),
            }
            if self._units:
                shapes |= {"memory": ((size, self._units), "float32"), "before": ((size,), "int32")}
            if masked:
                shapes["legal"] = ((size, actions.factors, actions.width), "bool")
            fields, at = {}, 0
            for name, (shape, dtype) in shapes.items():
                length = math.prod(shape) * np.dtype(dtype).itemsize
                fields[name] = Field(shape, dtype, at, at + length)
                # Every field begins where any type may begin.
                at += -(-length // 8) * 8
            self._fields[size] = fields
        return self._fields[size]


class Chunk:
    """Consecutive rows on the host."""

    def __init__(
        self,
        size: int,
        shape: tuple[int, ...],
        dtype: str,
        actions: Actions,
        masked: bool,
        units: int = 0,
    ):
        self.observation = np.zeros((size, *shape), dtype)
        self.action = np.zeros((size, actions.factors), np.int32)
        self.reward = np.zeros(size, np.float32)
        self.links = np.zeros((size, 3), np.int32)
        both = (size, actions.factors, actions.width)
        self.legal = np.ones(both, bool) if masked else None
        self.memory = np.zeros((size if units else 0, units), np.float32)
        self.before = np.zeros(size if units else 0, np.int32)


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
    ranges: tuple[tuple[float, float], tuple[float, float]]
    lost: Statistics | None
    layout: BlockLayout

    def block_size(self) -> int:
        """Return the size of the next block; 0 when everything is written."""
        waiting = max(self.stop - self.done, len(self.older))
        return 0 if waiting <= 0 else LARGE if waiting > MANY else SMALL if waiting > TINY else TINY

    def block(self, size: int) -> Block:
        """Return the next `size` rows, or fewer with padding. Call `advance` after they are written."""
        begin, stop = self.done, min(self.done + size, self.stop)
        end = min(stop, self.end)
        block = self.layout.reused() if size == TINY else self.layout.new(size)
        fields = block.fields
        legal = fields.get("legal")
        for chunk, where, part in parts(self.chunks, self.size, begin, end):
            fields["observation"][where] = chunk.observation[part]
            fields["action"][where] = chunk.action[part]
            fields["reward"][where] = chunk.reward[part]
            if legal is not None and chunk.legal is not None:
                legal[where] = chunk.legal[part]
            if "memory" in fields:
                fields["memory"][where] = chunk.memory[part]
                fields["before"][where] = chunk.before[part]
        for row in range(max(begin, self.end), stop):
            fields["observation"][row - begin], known = self.newest[row - self.end]
            if legal is not None:
                legal[row - begin] = known
        fields["links"][: stop - begin] = self.links[begin - self.first : stop - self.first]
        older = self.older[:size]
        fields["older"][: len(older)] = older
        fields["older"][len(older) :] = self.rows
        fields["place"][:] = (
            begin % self.rows,
            stop - begin,
            max(end - begin, 0),
            end % self.rows,
            min(end, self.rows),
        )
        fields["ranges"][:] = self.ranges
        return block

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
