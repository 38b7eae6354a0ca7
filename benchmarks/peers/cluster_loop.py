"""What the two peers on a Ray cluster share: the cluster, and both measurements of `cluster_rules`.

CartPole is evaluated in the learner's process, in 20 environments at the same time: at most 500 calls of
the network for an evaluation, where one episode after another would need 10,000.
"""

import argparse
import json
import logging
import os
import time
from collections.abc import Callable
from typing import Any, Protocol

# First, as it notes when the process began.
import cluster_rules
import gymnasium
import numpy as np

# Ray reads it when it is imported.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import ray  # pyright: ignore[reportMissingImports]
import torch  # pyright: ignore[reportMissingImports]

CPUS_PER_RUNNER = cluster_rules.CPUS_PER_RUNNER
LEARNING_STARTS = 1_000


class Peer(Protocol):
    """A library's DQN with its runners, ready to take the first environment step."""

    steps: int
    """Environment steps that the learner has received."""
    updates: int

    def advance(self) -> None:
        """Receive some steps, and learn from them."""
        ...

    def greedy(self, observations: torch.Tensor) -> torch.Tensor:
        """Return the learner's greedy actions, `[B]`."""
        ...

    def close(self) -> None:
        """Stop the runners."""
        ...


def evaluate(peer: Peer, seed: int) -> float:
    """Return the mean return of 20 greedy episodes in CartPole-v1."""
    environments = gymnasium.make_vec(
        "CartPole-v1",
        cluster_rules.EPISODES,
        vectorization_mode=gymnasium.VectorizeMode.VECTOR_ENTRY_POINT,
    )
    observations, _ = environments.reset(seed=seed)
    running, returns = np.ones(len(observations), bool), np.zeros(len(observations))
    while running.any():
        with torch.no_grad():
            actions = peer.greedy(torch.from_numpy(observations)).numpy()
        observations, rewards, terminated, truncated, _ = environments.step(actions)
        returns += rewards * running
        running &= ~(terminated | truncated)
    environments.close()
    return float(returns.mean())


def train_to_score(
    build: Callable[[argparse.Namespace], Peer], options: argparse.Namespace
) -> tuple[Peer, dict[str, Any]]:
    """Build the peer, and train it until the goal or the time limit."""
    curve, reached, due = cluster_rules.Curve(), False, cluster_rules.EVALUATE_EVERY
    peer = build(options)
    while not reached and curve.seconds < options.max_seconds:
        peer.advance()
        if peer.steps:
            curve.note_steps()
        if peer.steps >= due:
            score = evaluate(peer, 10_000 * (options.seed + 1) + due)
            reached = curve.add(peer.steps, score)
            due += cluster_rules.EVALUATE_EVERY
    return peer, curve.result(peer.steps, peer.updates)


def measure_throughput(peer: Peer, warmup: int, steps: int, most: float) -> dict[str, float]:
    """Time the steps after the warm-up, for at most `most` seconds."""
    while peer.steps < warmup:
        peer.advance()
    start, first, updates = time.perf_counter(), peer.steps, peer.updates
    while peer.steps < first + steps and time.perf_counter() - start < most:
        peer.advance()
    seconds = time.perf_counter() - start
    done = peer.steps - first
    return {
        "steps_per_second": done / seconds,
        "steps": done,
        "updates": peer.updates - updates,
        "seconds": seconds,
    }


def main(
    description: str | None,
    build: Callable[[argparse.Namespace], Peer],
    updates_per_step: dict[str, float],
) -> None:
    """Read the command line, start Ray, build the peer, measure, and print one JSON object.

    Args:
        updates_per_step: of each task, where the command line does not say it.
    """
    parser = cluster_rules.parser(description)
    parser.add_argument("--updates-per-step", type=float, help="gradient updates per environment step")
    options = parser.parse_args()
    if options.updates_per_step is None:
        options.updates_per_step = updates_per_step[options.task]
    # One thread: networks this small give a second one nothing to do.
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    # "local": without it Ray joins a cluster that happens to run on the machine.
    ray.init(
        address="local",
        num_cpus=os.cpu_count(),
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    if options.task == "cartpole":
        peer, measured = train_to_score(build, options)
    else:
        peer = build(options)
        measured = measure_throughput(peer, options.warmup, options.steps, options.timed_seconds)
    peer.close()
    ray.shutdown()
    print(json.dumps(measured), flush=True)
