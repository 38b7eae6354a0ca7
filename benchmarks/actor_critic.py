"""Q-learning against SAC for the same wall-clock time: `python benchmarks/actor_critic.py`.

Stable-Baselines3's SAC trains on Gymnasium's environment for ten minutes, counted from the start of its
process. qhat trains by its preset, `qhat train TASK --seed K`, in a separate process with an empty
compilation cache, which must be over in that time. Both then play greedy episodes of Gymnasium's
environment. One after the other on the idle machine; `--keep FILE` goes on from seeds that are done.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import beside_peer
import peers_environment
import qhat
from beside_peer import Keep
from qhat.evaluation.statistics import iqm, stratified_bootstrap_ci

HERE = Path(__file__).resolve().parent
TASKS = ("HalfCheetah-v5", "Hopper-v5")
MINUTES = 10
EPISODES = 10


def main() -> None:
    """Train both on each task; write the table."""
    parser = beside_peer.flags(__doc__, TASKS, 3, "actor_critic")
    args = parser.parse_args()
    peers = peers_environment.ensure("peers")
    systems = {"qhat": ours, "SAC": lambda task, seed: sac(task, seed, peers, args)}
    done = beside_peer.trained(args, TASKS, systems)
    args.out.write_text(_page(args, done), encoding="utf-8")


def ours(task: str, seed: int) -> dict[str, Any]:
    """Train a seed by the preset and judge it, here, in Gymnasium's environment."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "qhat", "train", task, "--seed", str(seed), "--run-dir", str(run)]
        environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(Path(folder) / "cache")}
        began = time.perf_counter()
        subprocess.run(command, check=True, env=environment, capture_output=True)
        seconds = time.perf_counter() - began
        trained = qhat.Run.open(run)
        result = {"seconds": seconds, "steps": trained.summary()["step"]}
        for which in ("best", "last"):
            result[which] = trained.evaluate(EPISODES, which, env=f"gym:{task}").mean_return
    return result


def sac(task: str, seed: int, peers: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Train the peer for the same time and judge it."""
    command = [str(peers), str(HERE / "peers" / "sb3_sac.py"), task, "--seed", str(seed)]
    command += [
        "--seconds",
        str(MINUTES * 60),
        "--threads",
        str(args.threads),
        "--episodes",
        str(EPISODES),
    ]
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    measured = json.loads(out.strip().splitlines()[-1])
    returns = measured.pop("returns")
    return {**measured, "last": sum(returns) / len(returns)}


def rows(done: Keep) -> list[str]:
    """Return the table's lines: of qhat its chosen and its last checkpoint, of SAC its last weights."""
    lines = []
    for task in TASKS:
        for system, which in (("qhat", "best"), ("qhat", "last"), ("SAC", "last")):
            if not (seeds := list(done.get(f"{task} {system}", {}).values())):
                lines.append(f"| {task} | {system}, {which} | not run yet | | | |")
                continue
            values = [result[which] for result in seeds]
            low, high = stratified_bootstrap_ci([[value] for value in values], iqm).ravel()
            score = f"{iqm(values):,.0f} [{low:,.0f}, {high:,.0f}]"
            each = " ".join(f"{value:.0f}" for value in values)
            steps = "–".join(f"{bound([result['steps'] for result in seeds]):,}" for bound in (min, max))
            seconds = max(result["seconds"] for result in seeds)
            lines.append(f"| {task} | {system}, {which} | {score} | {each} | {steps} | {seconds:.0f} |")
    return lines


def _page(args: argparse.Namespace, done: Keep) -> str:
    threads = f"{args.threads} threads of PyTorch"
    return "\n".join(
        [
            "# Q-learning and SAC, the same ten minutes",
            "",
            f"{datetime.date.today()}, two cores of an AMD EPYC, one process at a time. SAC is",
            f"Stable-Baselines3's ({threads}, rl-zoo's settings) on Gymnasium's environment, stopped",
            f"{MINUTES} minutes after its process began. qhat is `qhat train TASK --seed K`: decoupled",
            "Q-learning by the preset, on EnvPool's copies of the environment, with an empty compilation",
            f"cache. Both play {EPISODES} greedy episodes of Gymnasium's environment per seed. `best` is",
            "the checkpoint that the evaluations during training chose, `last` the one at the end.",
            "",
            "    python benchmarks/actor_critic.py",
            "",
            "| task | system | IQM [95% interval] | every seed | steps | seconds, at most |",
            "|---|---|---:|---|---:|---:|",
            *rows(done),
            "",
        ]
    )


if __name__ == "__main__":
    main()
