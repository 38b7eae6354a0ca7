"""Recorded steps that take turns in replay, where all of them have no room in memory.

Replay is a window over the data: every so many updates one more block of rows is stored, and overwrites
the oldest. Pieces of the data come in an order that is drawn for each pass, as from a buffer that shuffles.
Which block comes when follows from the seed and the number of updates, so that a run resumes exactly.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import final

import numpy as np

from qhat.demonstrations.pieces import Piece
from qhat.engine.iteration import Program
from qhat.engine.prefill import BLOCK, blocks, storing_one
from qhat.engine.state import TrainState
from qhat.system.errors import UsageError

DRAWS = 8
"""How often a row is drawn, on average, while replay has it."""


@final
class Feed:
    """Stores block after block of the data in every seed's replay."""

    def __init__(self, program: Program, pieces: Sequence[Piece], rows: Sequence[int], seed: int) -> None:
        """Prepare the order.

        Args:
            program: of a recipe that learns from logs; its replay is the window.
            pieces: all of the data.
            rows: of each piece.
            seed: of the order.
        """
        self.every = max(1, DRAWS * BLOCK // program.recipe.batch_size)
        """Updates from one block to the next."""
        self.rows = tuple(rows)
        """Of each piece."""
        self._pieces, self._seed = pieces, seed
        self._first = max(1, program.recipe.replay_capacity // BLOCK)
        counts = np.array([-(-each // BLOCK) for each in rows])
        self._counts, self._pass = counts, int(counts.sum())
        self._store = storing_one(program)
        self._order = functools.lru_cache(2)(self._ordered)
        self._blocks = functools.lru_cache(2)(self._read)

    def until(self, at: int) -> int:
        """Return the updates from update `at` to the next block."""
        return self.every - at % self.every

    def fill(self, state: TrainState) -> TrainState:
        """Fill replay before the first update. The state is donated."""
        for index in range(self._first):
            state = self._stored(state, index)
        return state

    def feed(self, state: TrainState, at: int) -> TrainState:
        """Store the block that is due after update `at`, if one is. The state is then donated."""
        return state if at % self.every else self._stored(state, self._first - 1 + at // self.every)

    def passes(self, updates: int) -> float:
        """Return how often a run of so many updates has stored the data."""
        return (self._first + updates // self.every) / self._pass

    def _stored(self, state: TrainState, index: int) -> TrainState:
        """Store block number `index`, counted from 0 over all passes."""
        number, within = divmod(index, self._pass)
        order, ends = self._order(number)
        place = int(np.searchsorted(ends, within, side="right"))
        before = int(ends[place - 1]) if place else 0
        return self._store(state, self._blocks(int(order[place]))[within - before])

    def _ordered(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the pieces in the order of a pass, and the number of blocks up to the end of each."""
        rng = np.random.default_rng((self._seed, number))
        order = rng.permutation(len(self._pieces))
        return order, np.cumsum(self._counts[order])

    def _read(self, piece: int) -> list[tuple]:
        data, expected = self._pieces[piece].read(), self.rows[piece]
        if len(data) != expected:
            raise UsageError(
                f"Demonstrations '{self._pieces[piece].source}' changed while they were learned from: a"
                f" piece has {len(data):,} rows, and had {expected:,}. Expected the data that the run began"
                " with."
            )
        return list(blocks(data, 1))
