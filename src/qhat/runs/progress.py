"""What a run tells while it goes on."""

from __future__ import annotations

import dataclasses


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
