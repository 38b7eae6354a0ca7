"""Compares Ape-X's constant ε of actors with one that falls to it: `python benchmarks/cluster_ladder.py`.

CartPole in one compiled process, where each environment has the ε of an actor, without a cluster's delays.
Prints, for each kind and number of actors, how many seeds reached 475 and when.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import warnings
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

import qhat
from qhat.axes.explore import EpsilonGreedy
from qhat.axes.explore.base import LADDER, STEEPNESS
from qhat.runs.curves import read_evaluations

GOAL = 475.0
KINDS = ("recipe", "constant", "falling")


@dataclasses.dataclass(frozen=True)
class Ladder(EpsilonGreedy):
    """Each environment has an actor's ε."""

    name: ClassVar[str] = "ladder"

    falls: bool = True
    """Whether it falls to that from `start`, in `steps`."""

    def choose(
        self, state: Any, greedy: Any, key: Any, step: Any, actions: Any, legal: Any = None
    ) -> tuple[Any, Any]:
        E = greedy.shape[0]
        end = LADDER ** (1 + STEEPNESS * jnp.arange(E) / max(E - 1, 1))
        done = jnp.clip(step / (self.steps or 1), 0.0, 1.0) if self.falls else 1.0
        epsilon = (self.start + done * (end - self.start))[:, None]
        when, what = jax.random.split(key)
        drawn = jax.random.randint(what, greedy.shape, 0, actions.width)
        return state, jnp.where(jax.random.uniform(when, (E, 1)) < epsilon, drawn, greedy)


def measure(kind: str, actors: int, seeds: int) -> str:
    """Train, and return a line of the table."""
    explore = EpsilonGreedy() if kind == "recipe" else Ladder(falls=kind == "falling")
    every: dict[str, Any] = {"eval_every": 2_500, "eval_episodes": 20, "steps": 50_000}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = qhat.train(
            "CartPole-v1", "qhat", explore=explore, num_envs=actors, seeds=seeds,
            run_dir=Path(folder) / "run", **every,
        )  # fmt: skip
        curve = read_evaluations(run.folder.path)
    reached = curve.score >= GOAL
    first = np.where(reached.any(axis=1), curve.step[reached.argmax(axis=1)], np.inf)
    return (
        f"{kind:9} {actors:3} actors: {reached.any(axis=1).sum()} of {seeds} seeds reached {GOAL:g},"
        f" median after {np.median(first):,.0f} steps; mean at the end {curve.score[:, -1].mean():.0f}"
    )


def main() -> None:
    """Print all lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--actors", type=int, nargs="*", default=[2, 4, 16])
    options = parser.parse_args()
    for actors in options.actors:
        for kind in KINDS:
            print(measure(kind, actors, options.seeds), flush=True)


if __name__ == "__main__":
    main()
