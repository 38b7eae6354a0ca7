"""What a run shows while it goes on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where it is, and how it does."""

    step: int
    steps: int
    seconds: float
    score: float
    """Mean return of the latest training episodes, over all seeds; NaN before the first."""
    evaluation: float
    """Mean over seeds of the run's own latest evaluation; NaN before the first."""
    epsilon: float
    loss: float
    clipped: float
    """Share of the targets' mass that lay beyond the head's support lately; the worst seed's."""
    broken: int
    """Episodes of this call that were given up: numbers that were not finite, a process that was lost."""
    faults: tuple[str, ...]
    """A sentence for each seed that met a number that was not finite: its first."""
    steps_per_second: float
    """Environment steps of all seeds together."""
    torso: str
    """The recipe's, as it was fitted to the observations."""
    playing: str = ""
    """How far an evaluation is that goes on; empty while training does."""
    cut: int = 0
    """Episodes of the latest evaluation, of all seeds, that were not over when it ended them."""


class Reporter:
    """Shows where a run is: the latest numbers, whoever measured them."""

    def __init__(self, show: Callable[[Progress], None], now: Progress):
        self._show = show
        self.now = now

    def update(self, **fields: Any) -> None:
        """Take in numbers, by the names of `Progress`."""
        self.now = dataclasses.replace(self.now, **fields)

    def show(self, **fields: Any) -> None:
        """Show the latest numbers, with some changed for this time alone."""
        self._show(dataclasses.replace(self.now, **fields))

    def playing(self, words: str) -> None:
        """Show how far an evaluation is."""
        self.show(playing=words)
