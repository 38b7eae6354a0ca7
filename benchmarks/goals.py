"""Goals: decoupled Q-learning with hindsight against SAC with it, in EnvPool's Fetch.

`python benchmarks/goals.py`. Stable-Baselines3's SAC trains for the given minutes, counted from the start
of its process. qhat trains by its preset, `qhat train TASK --seed K`, or by the recipe `her` where it has
none, in a separate process with an empty compilation cache, and stops when that time is over. Both then
play greedy episodes. One after the other on the idle machine; `--keep FILE` goes on from seeds that are
done.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import os
import platform
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
from qhat.recipes.presets import preset_of

HERE = Path(__file__).resolve().parent
TASKS = ("FetchReach-v4", "FetchPush-v4", "FetchPickAndPlace-v4")
EPISODES = 100


def main() -> None:
    """Train both on each task; write the table."""
    parser = beside_peer.flags(__doc__, TASKS, 5, "goals")
    parser.add_argument("--minutes", type=float, default=10)
    args = parser.parse_args()
    peers = peers_environment.ensure("peers")
    systems = {
        "qhat": lambda task, seed: ours(task, seed, args),
        "SAC": lambda task, seed: sac(task, seed, peers, args),
    }
    done = beside_peer.trained(args, TASKS, systems)
    args.out.write_text(_page(args, done), encoding="utf-8")


def ours(task: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Train a seed by the preset and judge it; also return its evaluations while it trained."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "qhat", "train", task, "--seed", str(seed), "--run-dir", str(run)]
        command += ["--max-seconds", str(60 * args.minutes)]
        command += [] if preset_of(task) else ["--recipe", "her", "--steps", "1000000"]
        environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(Path(folder) / "cache")}
        began = time.perf_counter()
        subprocess.run(command, check=True, env=environment, capture_output=True)
        seconds = time.perf_counter() - began
        trained = qhat.Run.open(run)
        with (run / "eval.csv").open(encoding="utf-8") as file:
            curve = [(int(row["step"]), float(row["success_rate"])) for row in csv.DictReader(file)]
        success = trained.evaluate(EPISODES, "best").success_rate
        return {"seconds": seconds, "steps": trained.summary()["step"], "success": success, "curve": curve}


def sac(task: str, seed: int, peers: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Train the peer for the same time and judge it."""
    command = [str(peers), str(HERE / "peers" / "sb3_her.py"), task, "--seed", str(seed)]
    command += ["--seconds", str(60 * args.minutes), "--threads", str(args.threads)]
    command += ["--episodes", str(EPISODES)]
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(out.strip().splitlines()[-1])


def rows(done: Keep) -> list[str]:
    """Return the table's lines: both after the same time, and qhat after as many steps as SAC did."""
    lines = []
    for task in TASKS:
        peer = list(done.get(f"{task} SAC", {}).values())
        mine = list(done.get(f"{task} qhat", {}).values())
        if not peer or not mine:
            lines.append(f"| {task} | not run yet | | | | |")
            continue
        steps = max(result["steps"] for result in peer)
        early = [_at(result["curve"], steps) for result in mine]
        for system, results, values in (
            ("SAC with HER", peer, [result["success"] for result in peer]),
            ("qhat", mine, [result["success"] for result in mine]),
            ("qhat, after SAC's steps", None, early),
        ):
            low, high = stratified_bootstrap_ci([[value] for value in values], iqm).ravel()
            score = f"{iqm(values):.0%} [{low:.0%}, {high:.0%}]"
            each = " ".join(f"{value:.0%}" for value in values)
            taken = [steps] if results is None else sorted({result["steps"] for result in results})
            spread = "–".join(f"{value:,}" for value in dict.fromkeys((taken[0], taken[-1])))
            seconds = "" if results is None else f"{max(result['seconds'] for result in results):.0f}"
            lines.append(f"| {task} | {system} | {score} | {each} | {spread} | {seconds} |")
    return lines


def _at(curve: list[tuple[int, float]], steps: int) -> float:
    """Return the success rate of the last evaluation within so many steps."""
    return next((success for step, success in reversed(curve) if step <= steps), 0.0)


def _page(args: argparse.Namespace, done: Keep) -> str:
    only = f" --only {' '.join(args.only)}" if args.only else ""
    return "\n".join(
        [
            "# Goals: Q-learning and SAC with hindsight, the same minutes",
            "",
            f"{datetime.date.today()}, {os.cpu_count()} cores, {platform.machine()}, one process at once.",
            f"SAC is Stable-Baselines3's with its HerReplayBuffer ({args.threads} threads of PyTorch,",
            "rl-zoo's settings of FetchReach), one copy of EnvPool's environment, stopped when the minutes",
            f"({args.minutes:g}) since its process began are over. qhat is `qhat train TASK --seed K`, its",
            "preset, or the recipe `her` where it has none, with an empty compilation cache, stopped",
            "likewise or at the preset's steps. Both then play",
            f"{EPISODES} greedy episodes in EnvPool; the share that ends at the goal is shown: of SAC's",
            "last weights, of qhat's `best` checkpoint. The third row is qhat's evaluation during",
            "training, after as many steps as SAC did.",
            "",
            f"    python benchmarks/goals.py --minutes {args.minutes:g} --seeds {args.seeds}{only}",
            "",
            "| task | system | IQM [95% interval] | every seed | steps | seconds, at most |",
            "|---|---|---:|---|---:|---:|",
            *rows(done),
            "",
        ]
    )


if __name__ == "__main__":
    main()
