"""The queue between `remember` and replay: steps of any number of streams, as rows that wait on the host.

A stream is the steps of one robot: they follow each other until the episode ends. Rows are numbered from 0
in the order in which they come; row r goes to slot r mod R of a ring of R rows. Only the last R rows can
matter, so at most R wait. `take` is short, as a control loop may wait for it. The rows that it takes are
written in blocks while the control loop continues.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import numpy as np

from qhat.agent.stream_names import Stream
from qhat.agent.waiting_rows import LARGE, SMALL, Block, BlockLayout, Chunk, Statistics, Taken, parts
from qhat.axes.actions import Actions
from qhat.engine.replay.nstep import CONTINUES, NOTHING, TERMINATED, TRUNCATED
from qhat.environments.observations import Observations
from qhat.system.errors import require

NEWEST = 32
"""Number of streams whose newest step is learned from before the next one comes."""
CHUNK_BYTES = 2**22
"""Approximate size of the chunks in which rows wait, so that no row is copied to make room."""
NO_LINKS = np.zeros((0, 4), np.int32)
"""New links of older rows, where there are none."""


@dataclasses.dataclass(slots=True)
class Track:
    """The newest step of a stream whose episode continues."""

    row: int
    after: np.ndarray
    """Its successor."""
    legal: np.ndarray | None
    trace: float
    """Σ_j γʲ r_{t−j} over the running episode."""
    in_replay: bool = False
    """Whether replay has its successor, in a row that later steps write over."""
    score: float = math.nan
    """Undiscounted return of the running episode; NaN where its first steps are unknown."""
    length: int = 0
    """Its steps."""


def _same(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    return one is other or (one is not None and other is not None and bool((one == other).all()))


class Streams:
    """Rows that wait for replay, and the newest step of every open stream. The caller has to lock it.

    Args:
        rows: R, the size of the ring.
        gamma: discount of the returns, whose range is recorded.
        at: number of rows that the ring got already.
        packed: layout of packed observations; statistics are of the numbers in them.
        units: numbers of a state of the network's memory; 0 without one.
    """

    def __init__(
        self,
        rows: int,
        shape: tuple[int, ...],
        dtype: str,
        actions: Actions,
        masked: bool,
        gamma: float,
        normalised: bool,
        at: int = 0,
        packed: Observations | None = None,
        units: int = 0,
    ):
        self.rows, self.at, self._packed, self._units = rows, at, packed, units
        self.open: dict[Stream, Track] = {}
        """The open streams, in the order of their last steps."""
        self.layout = (shape, dtype, actions, masked)
        self.blocks = BlockLayout(self.layout, units)
        row = np.dtype(dtype).itemsize * int(np.prod(shape, dtype=np.int64))
        self._size = int(min(max(CHUNK_BYTES // max(row, 1), SMALL), LARGE))
        self._chunks: dict[int, Chunk] = {}
        self._taken = at
        self.added, self.taken_steps = 0, 0
        """Steps so far, and how many of them were taken."""
        self._older: list[tuple[int, int, int, int]] = []
        self._gamma = gamma
        self._returns, self._rewards = (0.0, 0.0), (0.0, 0.0)
        self._lost = self._no_statistics() if normalised else None
        self._forget_above = 1_024

    def __len__(self) -> int:
        """Number of rows that wait."""
        return min(self.at - self._taken, self.rows)

    def add(
        self,
        stream: Stream,
        before: np.ndarray,
        choice: np.ndarray,
        reward: float,
        after: np.ndarray,
        terminated: bool,
        truncated: bool,
        legal: np.ndarray | None = None,
        legal_next: np.ndarray | None = None,
        memory: np.ndarray | None = None,
    ) -> tuple[float, int] | None:
        """Append the rows of one step; it continues the episode of its stream, if one is open.

        Args:
            memory: the state of the network's memory that `before` met.

        Returns:
            score and length of the episode, if it ended.

        Raises:
            UsageError: an episode, of which a memory learns, is longer than replay. Nothing is stored.
        """
        if self._units:
            self._require_end(stream)
        track, back, trace, score, length = self._pop(stream), 0, 0.0, reward, 1
        self.added += 1
        if track is not None:
            trace, score, length = track.trace, track.score + reward, track.length + 1
            between = self.at
            if not (_same(track.after, before) and _same(track.legal, legal)):
                between = self._put(track.after, track.legal)
            self._link(track.row, CONTINUES, between, self.at)
            back = track.row
        trace = reward + self._gamma * trace
        low, high = self._returns
        if not low <= trace <= high:
            self._returns = (min(low, trace), max(high, trace))
        low, high = self._rewards
        if not low <= reward <= high:
            self._rewards = (min(low, reward), max(high, reward))
        kind = TERMINATED if terminated else TRUNCATED if truncated else CONTINUES
        row = self._put(before, legal, kind, choice, reward, memory)
        if memory is not None:
            self._chunks[row // self._size].before[row % self._size] = 0 if track is None else row - back
        if kind == CONTINUES:
            self.open[stream] = Track(row, after, legal_next, trace, score=score, length=length)
            if len(self.open) > self._forget_above:
                self._forget()
            return None
        self._link(row, kind, self._put(after, legal_next), row)
        return score, length

    def cut(self, stream: Stream) -> tuple[float, int] | None:
        """End the episode of a stream as truncated, if one is open, and return its score and length."""
        track = self._pop(stream)
        if track is None:
            return None
        self._link(track.row, TRUNCATED, self._put(track.after, track.legal), track.row)
        return track.score, track.length

    def take(self) -> Taken | None:
        """Take all rows that wait, if any, and the links that rows taken before got since."""
        begin, end = self._taken, self.at
        if begin == end:
            return None
        self._forget()
        newest = list(self.open.values())[-max(1, min(NEWEST, self.rows // 8)) :]
        # The others have their successor in a new row; rows that left replay cannot change.
        stop = end + len(newest)
        first = max(begin, stop - self.rows)
        if begin < first:
            for chunk, _, part in parts(self._chunks, self._size, begin, first):
                self._count_lost(chunk.observation[part])
        links = np.zeros((stop - first, 3), np.int32)
        for chunk, where, part in parts(self._chunks, self._size, first, end):
            links[where] = chunk.links[part]
        older = self._older
        for track in self.open.values():
            if track.in_replay:
                older.append((track.row, CONTINUES, 0, 0))
                track.in_replay = False
        for row, track in enumerate(newest, end):
            track.in_replay = True
            if track.row >= first:
                links[track.row - first, 1] = row - track.row
            else:
                older.append((track.row, CONTINUES, row - track.row, 0))
        # The last links of a row count.
        known = {entry[0]: entry for entry in older if stop - self.rows <= entry[0] < first}
        linked = [(row % self.rows, *rest) for row, *rest in known.values()]
        lost, self._lost = self._lost, None if self._lost is None else self._no_statistics()
        taken = Taken(
            self.rows, first, end, stop, first, self._size, dict(self._chunks), links,
            np.array(linked, np.int32) if linked else NO_LINKS,
            [(track.after, track.legal) for track in newest], (self._returns, self._rewards), lost,
            self.blocks,
        )  # fmt: skip
        self._taken, self._older, self.taken_steps = end, [], self.added
        if len(self._chunks) > 1:
            self._chunks = {
                number: chunk for number, chunk in self._chunks.items() if number >= end // self._size
            }
        return taken

    def open_steps(self) -> tuple[list[Stream], dict[str, np.ndarray]]:
        """Return the open streams, and their newest steps as arrays, after `take`."""
        self._forget()
        tracks = list(self.open.values())
        every = np.asarray(self.layout[2].all_legal)
        columns = {
            "observation": [track.after for track in tracks],
            "legal": [every if track.legal is None else track.legal for track in tracks],
            "age": [self.at - track.row for track in tracks],
            "trace": [track.trace for track in tracks],
            "shown": [track.in_replay for track in tracks],
        }
        shapes = self.shapes(len(tracks))
        return list(self.open), {
            name: np.array(column, shapes[name].dtype).reshape(shapes[name].shape)
            for name, column in columns.items()
        }

    def shapes(self, count: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Return shapes and dtypes of the arrays of `open_steps` for `count` streams."""
        shape, dtype, actions, _ = self.layout
        return {
            "observation": jax.ShapeDtypeStruct((count, *shape), np.dtype(dtype)),
            "legal": jax.ShapeDtypeStruct((count, actions.factors, actions.width), np.dtype(bool)),
            "age": jax.ShapeDtypeStruct((count,), np.dtype(np.int32)),
            "trace": jax.ShapeDtypeStruct((count,), np.dtype(np.float64)),
            "shown": jax.ShapeDtypeStruct((count,), np.dtype(bool)),
        }

    def reopen(self, names: list[Stream], steps: dict[str, np.ndarray]) -> None:
        """Open streams again, from the result of `open_steps`."""
        columns = (
            np.clip(steps["age"], 1, self.rows),
            steps["observation"],
            steps["legal"],
            steps["trace"],
        )
        for name, age, after, legal, trace, shown in zip(names, *columns, steps["shown"], strict=True):
            known = legal if self.layout[3] else None
            self.open[name] = Track(self.at - int(age), after, known, float(trace), bool(shown))

    def padding(self, size: int) -> Block:
        """Return a block of `size` rows of which none gets into replay, after what was taken."""
        taken = self._taken
        links, newest = np.zeros((0, 3), np.int32), []
        empty = Taken(
            self.rows, taken, taken, taken, taken, self._size, {}, links, NO_LINKS, newest,
            ((0.0, 0.0), (0.0, 0.0)), None, self.blocks,
        )  # fmt: skip
        return empty.block(size)

    def _pop(self, stream: Stream) -> Track | None:
        """Remove and return the newest step of an open stream, if replay still has it."""
        track = self.open.pop(stream, None)
        return track if track is not None and track.row > self.at - self.rows else None

    def _require_end(self, stream: Stream) -> None:
        track = self.open.get(stream)
        length = 0 if track is None else track.length
        require(
            length + 2 < self.rows,
            f"The episode of stream {stream!r} has {length:,} steps and did not end, and replay has"
            f" {self.rows:,} rows: a memory learns from episodes with a start. Expected truncated=True or"
            " cut() where a robot begins anew, or a larger replay_capacity. Nothing was stored.",
        )

    def _forget(self) -> None:
        """Forget streams whose rows were all written over."""
        self.open = {name: track for name, track in self.open.items() if track.row > self.at - self.rows}
        self._forget_above = max(1_024, 2 * len(self.open))

    def _put(
        self,
        observation: np.ndarray,
        legal: np.ndarray | None,
        kind: int = NOTHING,
        choice: np.ndarray | int = 0,
        reward: float = 0.0,
        memory: np.ndarray | None = None,
    ) -> int:
        """Append a row and return its number."""
        row = self.at
        number, place = divmod(row, self._size)
        chunk = self._chunks.get(number)
        if chunk is None:
            self._drop(number)
            chunk = self._chunks[number] = Chunk(self._size, *self.layout, self._units)
        chunk.observation[place] = observation
        chunk.action[place] = choice
        chunk.reward[place] = reward
        chunk.links[place, 0] = kind
        if chunk.legal is not None:
            chunk.legal[place] = legal
        if memory is not None:
            chunk.memory[place] = memory
        self.at += 1
        return row

    def _link(self, row: int, kind: int, after: int, following: int) -> None:
        """Set the links of a row. A row that is its own successor has none."""
        if row < self._taken:
            self._older.append((row, kind, after - row, following - row))
        elif (chunk := self._chunks.get(row // self._size)) is not None:
            chunk.links[row % self._size] = (kind, after - row, following - row)

    def _drop(self, number: int) -> None:
        """Drop the chunks whose rows replay will have written over when chunk `number` starts."""
        last = number * self._size - self.rows - NEWEST
        for old in [old for old in self._chunks if (old + 1) * self._size <= last]:
            low = max(self._taken - old * self._size, 0)
            self._count_lost(self._chunks.pop(old).observation[low:])

    def _count_lost(self, rows: np.ndarray) -> None:
        if self._lost is not None and len(rows):
            self._lost.include(rows if self._packed is None else self._packed.shown(rows)[1])

    def _no_statistics(self) -> Statistics:
        shape = self.layout[0] if self._packed is None else self._packed.numbers_shape or ()
        return Statistics(0, np.zeros(shape), np.zeros(shape))
