"""Recorded steps that take turns in replay, where all of them have no room in memory.

Replay is a window over the data: every so many updates some more blocks of rows are stored, and overwrite
the oldest. Pieces of the data come in an order that is drawn for each pass, as from a buffer that shuffles.
Which block comes when follows from the seed and the number of updates, so that a run resumes exactly.
"""

from __future__ import annotations

import contextlib
import functools
import zlib
from collections.abc import Sequence
from typing import final

import numpy as np

from qhat.demonstrations.pieces import Piece, grouped
from qhat.demonstrations.reading import Demonstrations, joined
from qhat.engine.iteration import Program
from qhat.engine.prefill import BLOCK, blocks, storing_one
from qhat.engine.state import TrainState
from qhat.system.errors import UsageError

DRAWS = 8
"""How often a row is drawn, on average, while replay has it."""
TURN = 4
"""Blocks that are stored together: fewer interruptions of the compiled loop."""


@final
class Feed:
    """Stores block after block of the data in every seed's replay."""

    def __init__(
        self, program: Program, pieces: Sequence[Piece], marks: Sequence[tuple[int, int]], seed: int
    ) -> None:
        """Prepare the order.

        Args:
            program: of a recipe that learns from logs; its replay is the window.
            pieces: all of the data.
            marks: rows and digest of each piece.
            seed: of the order.
        """
        self.every = max(1, TURN * DRAWS * BLOCK // program.recipe.batch_size)
        """Updates from one turn to the next."""
        self.marks = tuple(marks)
        self._pieces, self._seed = pieces, seed
        self._first = max(1, program.recipe.replay_capacity // BLOCK)
        rows = [each for each, _ in marks]
        # Small pieces are read together: a block that is not full takes the turn of one that is.
        self._groups = grouped(range(len(pieces)), rows)
        counts = [-(-sum(rows[each] for each in group) // BLOCK) for group in self._groups]
        self._counts, self.blocks = np.array(counts), sum(counts)
        self._store = storing_one(program)
        self._order = functools.lru_cache(2)(self._ordered)
        self._read = functools.lru_cache(2)(self._blocks_of)

    def until(self, at: int) -> int:
        """Return the updates from update `at` to the next turn."""
        return self.every - at % self.every

    def fill(self, state: TrainState) -> TrainState:
        """Fill replay before the first update. The state is donated."""
        for index in range(self._first):
            state = self._store(state, self._block(index))
        return state

    def feed(self, state: TrainState, at: int) -> TrainState:
        """Store the blocks that are due after update `at`, if some are. The state is then donated."""
        if at % self.every:
            return state
        begin = self._first + TURN * (at // self.every - 1)
        # All are read before one is stored: a state is whole if a file is not.
        blocks_due = [self._block(index) for index in range(begin, begin + TURN)]
        for block in blocks_due:
            state = self._store(state, block)
        return state

    def _block(self, index: int) -> tuple:
        """Return block number `index`, counted from 0 over all passes."""
        number, within = divmod(index, self.blocks)
        order, ends = self._order(number)
        place = int(np.searchsorted(ends, within, side="right"))
        before = int(ends[place - 1]) if place else 0
        return self._read(int(order[place]))[within - before]

    def _ordered(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the groups in the order of a pass, and the number of blocks up to the end of each."""
        rng = np.random.default_rng((self._seed, number))
        order = rng.permutation(len(self._groups))
        return order, np.cumsum(self._counts[order])

    def _blocks_of(self, group: int) -> list[tuple]:
        parts = []
        for index in self._groups[group]:
            piece, data = self._pieces[index], None
            # All rows were good once: what cannot be read now has changed, too.
            with contextlib.suppress(UsageError):
                data = piece.read()
            if data is None or (len(data), digest(data)) != self.marks[index]:
                raise UsageError(
                    f"Demonstrations '{piece.source}' changed while they were learned from. Expected the"
                    " data that the run began with."
                )
            parts.append(data)
        return list(blocks(joined(parts), 1))


def digest(data: Demonstrations) -> int:
    """Return a sum of all that is learned from in some rows."""
    total = 0
    for column in (data.observation, data.action, data.reward, data.successor, data.terminated,
                   data.truncated, data.legal, data.legal_next):  # fmt: skip
        total = total if column is None else zlib.crc32(np.ascontiguousarray(column).data, total)
    return total
