"""Thirty-two seeds over a Ray cluster, beside the same seeds in one process of this machine.

`python benchmarks/cluster_seeds.py` starts two nodes of one core each, trains CartPole-v1 on them and with
two threads without a cluster, and writes docs/results/cluster_seeds.md. Both times are of a whole call
of `qhat.train`, with compilation; the cluster runs already.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from qhat.system.machine import machine

OUT = Path(__file__).parents[1] / "docs" / "results" / "cluster_seeds.md"
ROUNDS = 3
NODES = """
import sys
from ray.cluster_utils import Cluster
say, sys.stdout = sys.stdout, sys.stderr
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
cluster.add_node(num_cpus=1)
print(cluster.address, file=say, flush=True)
sys.stdin.read()
cluster.shutdown()
"""
ONE = """
import json, sys, time
import qhat
from qhat.cluster.connection import connected
if __name__ == "__main__":
    place, steps, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    settings = dict(seeds=32, steps=steps, run_dir=folder)
    if place == "here":
        began = time.perf_counter()
        qhat.train("CartPole-v1", **settings, threads=2)
    else:
        with connected(place):
            began = time.perf_counter()
            qhat.train("CartPole-v1", **settings, cluster=place)
    print(json.dumps(time.perf_counter() - began))
"""


def main() -> None:
    """Measure both places in turn; print the ratio of the best times and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=50_000, help="environment steps of each seed")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--print", action="store_true", help="write no page")
    options = parser.parse_args()
    nodes = subprocess.Popen(
        [sys.executable, "-c", NODES], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert nodes.stdin is not None
    assert nodes.stdout is not None
    try:
        address = nodes.stdout.readline().strip()
        seconds: dict[str, list[float]] = {"here": [], address: []}
        for _ in range(options.rounds):
            for place, times in seconds.items():
                times.append(_seconds(place, options.steps))
                print(f"{place}: {times[-1]:.1f} s", flush=True)
    finally:
        nodes.stdin.close()
        nodes.wait()
    here, there = (min(times) for times in seconds.values())
    print(f"two nodes: {there / here:.2f} times the time of one process with two threads")
    if not options.print:
        OUT.write_text(_page(options.steps, here, there, options.rounds), encoding="utf-8")
        print(f"Written: {OUT.name}")


def _seconds(place: str, steps: int) -> float:
    """Train in a process of its kind; return the seconds of the call."""
    kept = {name: value for name, value in os.environ.items() if name != "PJRT_NPROC"}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", ONE, place, str(steps), str(Path(folder, "run"))]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=kept)
    return json.loads(done.stdout.splitlines()[-1])


def _page(steps: int, here: float, there: float, rounds: int) -> str:
    return "\n".join(
        [
            "# Seeds on a cluster",
            "",
            "Written by `python benchmarks/cluster_seeds.py`; do not edit.",
            f"{datetime.date.today()}, {machine()}.",
            "",
            f"32 seeds of CartPole-v1, {steps:,} steps each, with the default recipe: seconds of a whole"
            " call of `qhat.train`, with imports on the nodes and compilation; the best of"
            f" {rounds} calls in turn. Both have two cores of this machine. What the cluster takes more is",
            "the cost of its tasks and of sending checkpoints; on several machines the work is divided.",
            "",
            "| where | seconds | ratio |",
            "|---|---:|---:|",
            f"| one process, two threads | {here:.1f} | 1 |",
            f"| two Ray nodes of one core, 16 seeds on each | {there:.1f} | {there / here:.2f} |",
            "",
        ]
    )


if __name__ == "__main__":
    main()
