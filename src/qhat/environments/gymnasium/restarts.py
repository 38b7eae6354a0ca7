"""How often an environment is restarted after its processes are lost."""

from __future__ import annotations

import time

FIRST, LONGEST = 0.1, 2.0
"""Seconds of the pause before a restart: the first one's, which doubles, and the longest."""
QUIET = 60.0
"""Seconds without a restart after which the pauses are short again."""


class Restarts:
    """A number of restarts, each after a pause that is twice the one before."""

    def __init__(self, most: int):
        self.most, self.done = most, 0
        self._row, self._last = 0, 0.0

    def take(self) -> bool:
        """Wait, and take one; false, at once, where none is left."""
        if self.done >= self.most:
            return False
        if time.monotonic() - self._last > QUIET:
            self._row = 0
        time.sleep(min(FIRST * 2**self._row, LONGEST))
        self._last = time.monotonic()
        self._row, self.done = min(self._row + 1, 30), self.done + 1
        return True

    def __str__(self) -> str:
        return f"restart {self.done:,} of {self.most:,}"
