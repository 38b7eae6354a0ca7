"""Real runs with actors on a local cluster of two nodes, for comparison with the model."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
WARMUP, SECONDS = 4.0, 11.0
"""Of a run, from its first steps on: what does not count, and what does."""
RUNS: tuple[tuple[int, float, int], ...] = (
    (1, 0.005, 0), (2, 0.005, 0), (4, 0.005, 0), (8, 0.005, 0), (16, 0.005, 0),
)  # fmt: skip
"""Actors, seconds of a step, and `STEPS_UNDERWAY` where it is another than the code's."""


def checked() -> Iterator[dict[str, Any]]:
    """Do every run in a process; yield what `one` says of each."""
    for run in RUNS:
        words = [sys.executable, __file__, *map(str, run)]
        done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
        yield json.loads(done.stdout.splitlines()[-1])


class EnoughError(Exception):
    """Ends a run that was measured."""


def one(actors: int, seconds: float, underway: int) -> dict[str, Any]:
    """Do a run; return its steps per second, the staleness of its blocks, and what a step took an actor."""
    paths = [str(HERE), str(HERE.parent / "src"), os.environ.get("PYTHONPATH", "")]
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    os.environ.update(quiet, PYTHONPATH=os.pathsep.join(paths))
    warnings.simplefilter("ignore")
    import ray
    from ray.cluster_utils import Cluster

    import qhat
    from qhat.cluster import crew
    from qhat.cluster.environment import ActorEnvironment

    if underway:
        crew.STEPS_UNDERWAY = underway
    moments: list[tuple[float, int]] = []
    first: list[float] = []
    stale: list[int] = []
    steps: list[float] = []

    def records(self: ActorEnvironment, step: int) -> list[dict[str, Any]]:
        """Note the time; stop after `SECONDS`."""
        now = time.monotonic()
        first[:] = first or [now]
        if now < first[0] + WARMUP:
            return []
        rows = self.crew.records(1.0)
        if moments:
            stale.append(max(row["staleness"] for row in rows))
            steps.extend(1 / slot.rows_per_second for slot in self.crew.slots if slot.rows_per_second)
        moments.append((now, step))
        if now > moments[0][0] + SECONDS:
            raise EnoughError
        return []

    ActorEnvironment.records = records
    node = {"num_cpus": 8}
    cluster: Any = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        cluster.add_node(**node)
        ray.init(address=cluster.address, log_to_driver=False, configure_logging=False)
        with tempfile.TemporaryDirectory() as folder, contextlib.suppress(EnoughError):
            many = 2_000_000
            qhat.train(
                "gym:cluster_env:Waiting-v0", "qhat", steps=many, eval_every=many, save_every=many,
                eval_episodes=1, run_dir=Path(folder) / "run", actors=actors, cluster="auto",
                env_kwargs={"seconds": seconds}, learning_starts=100,
            )  # fmt: skip
    finally:
        ray.shutdown()
        cluster.shutdown()
    (start, before), (end, after) = moments[0], moments[-1]
    return {
        "actors": actors, "seconds": seconds, "underway": underway,
        "rate": (after - before) / (end - start), "staleness": max(stale),
        "step": statistics.median(steps),
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(one(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))))
