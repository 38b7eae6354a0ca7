"""`Agent` in a loop of one's own, beside Stable-Baselines3: `python benchmarks/agent_loop.py`.

Runs both in turn, then a control loop of 50 Hz while another thread learns; writes
docs/results/agent-loop.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

import qhat

ROOT = Path(__file__).resolve().parent.parent
STEPS, FIRST = 6_000, 1_500
PERIOD = 0.02
"""Seconds of a control loop's tick."""


def main() -> None:
    """Measure in processes of their own; write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", choices=("loop", "control"))
    parser.add_argument("--hidden", type=int, nargs="*", default=[64, 64])
    parser.add_argument("--updates", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer", type=Path, help="Python with stable-baselines3; default: make bench's")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "agent-loop.md")
    options = parser.parse_args()
    if options.measure == "loop":
        print(json.dumps(agent_loop(options.updates)))
    elif options.measure == "control":
        print(json.dumps(control_loop(options.hidden, options.seconds)))
    else:
        options.out.write_text(_page(options), encoding="utf-8")
        print(options.out)


def agent_loop(updates: int) -> dict[str, Any]:
    """Step CartPole with one update per step; return steps per second and what each call took in µs."""
    agent = qhat.Agent(4, 2, "dqn", hidden=[64, 64], batch_size=32, learning_starts=1_000)
    agent.warmup()
    env = gymnasium.make("CartPole-v1")
    observation, _ = env.reset(seed=0)
    took: dict[str, list[float]] = {"act": [], "remember": [], "replay": []}
    began, clock = 0.0, time.perf_counter
    for step in range(FIRST + STEPS):
        if step == FIRST:
            began = clock()
            took = {name: [] for name in took}
        at = clock()
        action = agent.act(observation)
        took["act"].append(clock() - at)
        after, reward, terminated, truncated, _ = env.step(action)
        at = clock()
        agent.remember(observation, action, float(reward), after, terminated, truncated)
        took["remember"].append(clock() - at)
        if step % updates == updates - 1:
            at = clock()
            agent.replay(updates)
            took["replay"].append(clock() - at)
        observation = env.reset()[0] if terminated or truncated else after
    agent.q_values(observation)
    seconds = clock() - began
    p50 = {name: round(1e6 * float(np.median(values)), 1) for name, values in took.items()}
    return {"steps_per_second": STEPS / seconds, **p50}


def control_loop(hidden: list[int], seconds: float) -> dict[str, Any]:
    """Act at 50 Hz while another thread learns; return what `act` took in µs, and late ticks."""
    agent = qhat.Agent(8, 4, hidden=hidden, learning_starts=100)
    agent.warmup()
    rng, over = np.random.default_rng(0), threading.Event()
    for _ in range(500):
        agent.remember(rng.normal(size=8), int(rng.integers(4)), 1.0, rng.normal(size=8), False)

    def learn() -> None:
        while not over.is_set():
            agent.replay()

    learner = threading.Thread(target=learn)
    learner.start()
    took, late, observation = [], 0, rng.normal(size=8)
    due = time.perf_counter()
    for _ in range(round(seconds / PERIOD)):
        due += PERIOD
        at = time.perf_counter()
        action = agent.act(observation)
        took.append(time.perf_counter() - at)
        after = rng.normal(size=8)
        agent.remember(observation, action, 1.0, after, False)
        observation = after
        late += time.perf_counter() > due
        time.sleep(max(0.0, due - time.perf_counter()))
    over.set()
    learner.join()
    numbers = 1e6 * np.asarray(took)
    quantiles = {f"p{q:g}": round(float(np.percentile(numbers, q)), 1) for q in (50, 99, 99.9)}
    return {**quantiles, "max": round(float(numbers.max()), 1), "late": late, "updates": agent.updates}


def _page(options: argparse.Namespace) -> str:
    peer = options.peer
    if peer is None:
        from peers_environment import ensure

        peer = ensure("peers")
    lines, ratios = [], []
    for number in range(options.rounds):
        theirs = _run(str(peer), "peers/sb3_throughput.py", "--threads", "1")
        ours = _run(sys.executable, "agent_loop.py", "--measure", "loop")
        sb3, speed = theirs["steps"] / theirs["seconds"], ours["steps_per_second"]
        ratios.append(speed / sb3)
        calls = " | ".join(f"{ours[name]:.0f}" for name in ("act", "remember", "replay"))
        lines.append(f"| {number + 1} | {sb3:,.0f} | {speed:,.0f} | {speed / sb3:.1f}× | {calls} |")
        print(lines[-1], flush=True)
    several = _run(sys.executable, "agent_loop.py", "--measure", "loop", "--updates", "4")
    control = []
    for hidden in ([64, 64], [256, 256]):
        words = ["--measure", "control", "--seconds", str(options.seconds), "--hidden", *map(str, hidden)]
        found = _run(sys.executable, "agent_loop.py", *words)
        cells = " | ".join(f"{found[name]:,}" for name in ("p50", "p99", "p99.9", "max", "late", "updates"))
        control.append(f"| {'×'.join(map(str, hidden))} | {cells} |")
        print(control[-1], flush=True)
    return "\n".join(
        [
            "# A loop of one's own",
            "",
            f"{datetime.date.today().isoformat()}, CartPole-v1 of Gymnasium, 64×64, batches of 32, one",
            "update per step, two cores; Stable-Baselines3's DQN with one thread, and `Agent` in the",
            "README's loop, in turn.",
            "",
            "    python benchmarks/agent_loop.py",
            "",
            "| round | SB3, steps/s | Agent, steps/s | ratio | act, µs | remember, µs | replay, µs |",
            "|---:|---:|---:|---:|---:|---:|---:|",
            *lines,
            "",
            f"The median ratio is {np.median(ratios):.1f}×. With four updates in one call of `replay` per"
            f" four steps: {several['steps_per_second']:,.0f} steps/s.",
            "",
            f"A control loop of 50 Hz over {options.seconds:g} s, with the default recipe, while another"
            " thread calls `replay` without a pause; `act` in µs:",
            "",
            "| network | p50 | p99 | p99.9 | max | late ticks | updates |",
            "|---|---:|---:|---:|---:|---:|---:|",
            *control,
            "",
        ]
    )


def _run(python: str, script: str, *words: str) -> dict[str, Any]:
    command = [python, str(ROOT / "benchmarks" / script), *words]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
