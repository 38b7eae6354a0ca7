"""Compares the two orders of an iteration: `python benchmarks/order.py [--seeds 20] [--steps 50000]`.

Learning before the next action is chosen, as compiled environments do, or after it, as those do that step
beside the program. Prints the mean greedy score of the last five evaluations, over seeds, with intervals.
"""

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import jax.numpy as jnp
import numpy as np

import qhat
from qhat.engine.iteration import Program
from qhat.evaluation.statistics import iqm, stratified_bootstrap_ci
from qhat.runs.curves import read_evaluations

TASKS = ("CartPole-v1", "Acrobot-v1", "MountainCar-v0")
LAST = 5
"""Evaluations at the end of a run that count."""


@contextmanager
def choosing_first() -> Iterator[None]:
    """Let compiled environments choose before the update too."""
    iterate = Program.iterate

    def iterate_late(self: Program, *arguments: Any) -> Any:
        clock, seed, timestep, keys = arguments[:4]
        # Nothing runs beside the program: the token is there at once.
        return iterate(self, clock, seed, timestep, keys, lambda seed: (seed, jnp.int32(0)))

    with mock.patch.object(Program, "iterate", iterate_late):
        yield


def scores(task: str, seeds: int, steps: int) -> np.ndarray:
    """Train; return each seed's mean score of the last evaluations."""
    with tempfile.TemporaryDirectory() as place:
        run = qhat.train(
            task, recipe="qhat", seeds=seeds, seed=600, steps=steps, eval_every=steps // 20,
            run_dir=Path(place) / "run",
        )  # fmt: skip
        return read_evaluations(run.folder.path).score[:, -LAST:].mean(axis=1)


def main() -> None:
    """Train every task in both orders and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=50_000)
    options = parser.parse_args()
    print("| task | learn → choose | choose → learn | difference |\n|---|---|---|---|")
    for task in TASKS:
        before = scores(task, options.seeds, options.steps)
        with choosing_first():
            after = scores(task, options.seeds, options.steps)
        cells = []
        for sample in (before, after):
            low, high = stratified_bootstrap_ci(sample[:, None], iqm)
            cells.append(f"{iqm(sample[:, None]):.1f} [{low:.1f}, {high:.1f}]")
        print(f"| {task} | {cells[0]} | {cells[1]} | {after.mean() - before.mean():+.1f} |", flush=True)


if __name__ == "__main__":
    main()
