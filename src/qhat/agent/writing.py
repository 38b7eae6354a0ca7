"""Moves the rows that wait to replay, while a control loop may call `remember`."""

from __future__ import annotations

import threading
from collections import deque

from qhat.agent.learning import Learning
from qhat.agent.streams import Streams
from qhat.agent.waiting_rows import SMALL, TINY, Block, Taken
from qhat.engine.replay import linked


class Writer:
    """Takes rows from the queue under its lock, and writes them without. The caller locks `learning`."""

    def __init__(self, queue: Streams, learning: Learning, queue_lock: threading.Lock):
        self._queue, self._learning, self._lock = queue, learning, queue_lock
        self._taken: deque[Taken] = deque()

    def take(self) -> None:
        """Take the rows that wait, to write them next. The caller has the queue's lock."""
        if (taken := self._queue.take()) is not None:
            self._taken.append(taken)

    def drain(self, keep: bool = False) -> Block | None:
        """Take the rows that wait, and `write` them."""
        with self._lock:
            self.take()
        return self.write(keep)

    def write(self, keep: bool = False) -> Block | None:
        """Write the rows that were taken; with `keep`, return the last few instead, as one block."""
        while self._taken:
            taken = self._taken[0]
            if taken.lost is not None and taken.lost.count:
                lost, taken.lost = taken.lost, None
                ring, sampler = self._learning.replay
                ring = linked.merged(ring, lost.count, lost.mean, lost.m2)
                self._learning.set_replay((ring, sampler))
            while size := taken.block_size():
                if keep and size == TINY and len(self._taken) == 1:
                    self._taken.popleft()
                    return taken.block(TINY)
                size = max(size, SMALL)
                self._learning.write(taken.block(size))
                taken.advance(size)
            self._taken.popleft()
        return None
