"""What the two peers on a Ray cluster share: the command line, the cluster, the rules of both measurements.

`cartpole`: train until the mean return of 20 greedy episodes is at least 475. It is evaluated after every
2,500 environment steps, in the learner's process, in 20 environments at the same time: at most 500 calls
of the network for an evaluation, where one episode after another would need 10,000. The clock starts
with the first environment step and runs during the evaluations too; to start the cluster and its runners
is `setup_seconds`.

`slow`: train on a task that waits 5 ms per step, and count steps after the warm-up, while learning goes on.
"""

import argparse
import json
import logging
import os
import time
from collections.abc import Callable
from typing import Protocol

import gymnasium
import numpy as np

# Ray reads it when it is imported.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import ray  # pyright: ignore[reportMissingImports]
import torch  # pyright: ignore[reportMissingImports]

GOAL = 475.0
EVALUATE_EVERY = 2_500
EPISODES = 20
LEARNING_STARTS = 1_000
CPUS_PER_RUNNER = 0.1
"""Less than one, so that 16 runners fit on 2 cores: Ray counts it, and limits nothing."""


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
        "CartPole-v1", EPISODES, vectorization_mode=gymnasium.VectorizeMode.VECTOR_ENTRY_POINT
    )
    observations, _ = environments.reset(seed=seed)
    running, returns = np.ones(EPISODES, bool), np.zeros(EPISODES)
    while running.any():
        with torch.no_grad():
            actions = peer.greedy(torch.from_numpy(observations)).numpy()
        observations, rewards, terminated, truncated, _ = environments.step(actions)
        returns += rewards * running
        running &= ~(terminated | truncated)
    environments.close()
    return float(returns.mean())


def train_to_score(peer: Peer, seed: int, max_seconds: float) -> dict[str, float]:
    """Train until the goal or the time limit."""
    best, due, start = 0.0, EVALUATE_EVERY, time.perf_counter()
    while best < GOAL and time.perf_counter() - start < max_seconds:
        peer.advance()
        if peer.steps >= due:
            best = max(best, evaluate(peer, 10_000 * (seed + 1) + due))
            due += EVALUATE_EVERY
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "steps": peer.steps,
        "updates": peer.updates,
        "reached": best >= GOAL,
        "score": best,
    }


def measure_throughput(peer: Peer, warmup: int, steps: int) -> dict[str, float]:
    """Time the steps after the warm-up."""
    while peer.steps < warmup:
        peer.advance()
    start, first, updates = time.perf_counter(), peer.steps, peer.updates
    while peer.steps < first + steps:
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
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", choices=("cartpole", "slow"), required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runners", type=int, default=2)
    parser.add_argument("--max-seconds", type=float, default=600.0, help="of cartpole")
    parser.add_argument("--warmup", type=int, default=1_500, help="steps of slow before the clock starts")
    parser.add_argument("--steps", type=int, default=3_000, help="steps of slow that are timed")
    parser.add_argument("--updates-per-step", type=float, help="gradient updates per environment step")
    options = parser.parse_args()
    if options.updates_per_step is None:
        options.updates_per_step = updates_per_step[options.task]
    # One thread: networks this small give a second one nothing to do.
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    start = time.perf_counter()
    # "local": without it Ray joins a cluster that happens to run on the machine.
    ray.init(
        address="local",
        num_cpus=os.cpu_count(),
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    peer = build(options)
    setup = time.perf_counter() - start
    if options.task == "cartpole":
        measured = train_to_score(peer, options.seed, options.max_seconds)
    else:
        measured = measure_throughput(peer, options.warmup, options.steps)
    peer.close()
    ray.shutdown()
    print(json.dumps({**measured, "setup_seconds": setup}), flush=True)
