"""The rules of the measurements on a Ray cluster, for qhat and for both peers: only the standard library.

`cartpole`: train until the mean return of 20 greedy episodes is at least 475. It is evaluated after every
2,500 environment steps. There are two clocks: `seconds` begins when the libraries are imported and Ray
runs, `total_seconds` with the process. Both include the start of the runners, compilation and evaluations.

`slow`: train on a task that waits 5 ms per step, and count steps after the warm-up, while learning goes on,
for at most 30 s.
"""

import argparse
import time
from typing import Any

PROCESS_START = time.perf_counter()
GOAL = 475.0
EVALUATE_EVERY = 2_500
EPISODES = 20
CPUS_PER_RUNNER = 0.1
"""Less than one, so that 16 runners fit on 2 cores: Ray counts it, and limits nothing."""


class Curve:
    """The evaluations of one training run, and when they were."""

    def __init__(self) -> None:
        """Start the clock of the training."""
        self.start = time.perf_counter()
        self.first_steps: float | None = None
        self.evaluations: list[tuple[int, float, float]] = []
        """Environment steps, mean return, and seconds since the start."""

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.start

    def note_steps(self) -> None:
        """Note when the learner had its first steps."""
        if self.first_steps is None:
            self.first_steps = self.seconds

    def add(self, steps: int, score: float) -> bool:
        """Add an evaluation; return whether it reached the goal."""
        self.evaluations.append((steps, score, self.seconds))
        return score >= GOAL

    def result(self, steps: int, updates: int) -> dict[str, Any]:
        """Return the measurement; a run that reached the goal ended with its last evaluation."""
        best = max((score for _, score, _ in self.evaluations), default=0.0)
        reached = best >= GOAL
        seconds = self.evaluations[-1][2] if reached else self.seconds
        return {
            "seconds": seconds,
            "total_seconds": self.start - PROCESS_START + seconds,
            "first_steps": self.first_steps,
            "steps": steps,
            "updates": updates,
            "reached": reached,
            "score": best,
            "evaluations": self.evaluations,
        }


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return the command line that all three scripts have."""
    parsed = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parsed.add_argument("--task", choices=("cartpole", "slow"), required=True)
    parsed.add_argument("--seed", type=int, default=0)
    parsed.add_argument("--runners", type=int, default=2)
    parsed.add_argument("--max-seconds", type=float, default=600.0, help="of cartpole")
    parsed.add_argument("--warmup", type=int, default=2_000, help="steps of slow before the clock starts")
    parsed.add_argument("--steps", type=int, default=3_000, help="steps of slow that are timed, at most")
    parsed.add_argument("--timed-seconds", type=float, default=30.0, help="of slow, at most")
    return parsed
