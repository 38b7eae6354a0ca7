"""The progress that a run shows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class GroupProgress:
    """The state of one group of seeds on a cluster."""

    seeds: str
    """Its seeds, as `seeds 0 to 15`."""
    node: str
    """Host name of the machine; empty while the group waits for a core."""
    step: int
    score: float
    evaluation: float
    state: str
    """What the group does other than to train; empty while it trains."""


@dataclasses.dataclass(frozen=True)
class Progress:
    """The state of a run in numbers."""

    step: int
    steps: int
    seconds: float
    score: float
    """Mean return of the latest training episodes, over all seeds; NaN before the first."""
    evaluation: float
    """Mean over seeds of the latest evaluation; NaN before the first."""
    epsilon: float
    loss: float
    clipped: float
    """Recent share of the targets' mass beyond the head's support, for the worst seed."""
    broken: int
    """Episodes of this call that were given up: numbers were not finite, or a process died."""
    faults: tuple[str, ...]
    """A sentence for each seed with a number that was not finite, about its first."""
    steps_per_second: float
    """Environment steps of all seeds together."""
    torso: str
    """The recipe's torso, fitted to the observations."""
    playing: str = ""
    """What it does beside training, and how far that is: an evaluation, or reading; empty in training."""
    cut: int = 0
    """Episodes of the latest evaluation, of all seeds, that it ended before they were over."""
    groups: tuple[GroupProgress, ...] = ()
    """Of a run on a cluster."""


class Reporter:
    """Shows the latest numbers of a run, from every part that measures some."""

    def __init__(self, show: Callable[[Progress], None], now: Progress):
        self._show = show
        self.now = now

    def update(self, **fields: Any) -> None:
        """Update numbers, by the names of `Progress`."""
        self.now = dataclasses.replace(self.now, **fields)

    def show(self, **fields: Any) -> None:
        """Show the latest numbers, with `fields` changed this time only."""
        self._show(dataclasses.replace(self.now, **fields))

    def playing(self, words: str) -> None:
        """Show the progress of an evaluation."""
        self.show(playing=f"evaluating: {words}")

    def reading(self, words: str) -> None:
        """Show how far the data are read."""
        self.show(playing=words)
