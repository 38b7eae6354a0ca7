"""Robots by their presets, from a cold start: writes docs/results/robots_cold.md.

Every seed is trained by `qhat train TASK --seed K` in a separate process, with an empty compilation
cache, one after the other on the idle machine; wall time is that process's, from start to end. Its best
policy (by its own evaluations) then plays fresh greedy episodes. `--keep FILE` goes on from seeds that are
done.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import qhat
from qhat.evaluation.statistics import iqm, stratified_bootstrap_ci
from qhat.recipes.presets import PRESETS

ROOT = Path(__file__).resolve().parent.parent


@dataclasses.dataclass(frozen=True)
class Task:
    """What is asked of a task, and what others have reached."""

    bar: float
    seeds: int = 3
    episodes: int = 10
    sac: str = ""
    """SAC's return at 100,000, 500,000 and a million environment steps, from tdmpc2's published files."""


SAC_STEPS = (100_000, 500_000, 1_000_000)
TASKS = {
    "WalkerWalk-v1": Task(930, seeds=5, sac="708 / 953 / 957"),
    "WalkerRun-v1": Task(600, sac="340 / 604 / 635"),
    "CheetahRun-v1": Task(600, sac="310 / 595 / 730"),
    "FingerSpin-v1": Task(870, sac="762 / 873 / 878"),
    "ReacherHard-v1": Task(850, sac="161 / 517 / 928"),
    "CartpoleSwingup-v1": Task(840, sac="835 / 835 / 839"),
    "QuadrupedWalk-v1": Task(850, sac="55 / 199 / 455"),
    "HopperStand-v1": Task(600, sac="2 / 1 / 302"),
    "TurtleBot3-v0": Task(0.95, seeds=5, episodes=200),
}
"""The bar of the mobile robot is its success rate."""


def main() -> None:
    """Train and judge; write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="number of the first seed")
    parser.add_argument("--only", nargs="*", default=[], choices=list(TASKS), help="all unless given")
    parser.add_argument("--keep", type=Path, default=ROOT / "docs" / "results" / "robots_cold.json")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "robots_cold.md")
    options = parser.parse_args()
    done = json.loads(options.keep.read_text()) if options.keep.exists() else {}
    for name in options.only or TASKS:
        for seed in range(options.seed, options.seed + TASKS[name].seeds):
            if str(seed) not in done.setdefault(name, {}):
                done[name][str(seed)] = trained(name, seed)
                print(name, seed, done[name][str(seed)], flush=True)
                options.keep.write_text(json.dumps(done, indent=1) + "\n", encoding="utf-8")
    lines = [row(name, done.get(name, {})) for name in TASKS]
    options.out.write_text(_page(options.seed, lines, behind(done)), encoding="utf-8")


def trained(name: str, seed: int) -> dict[str, Any]:
    """Train one seed in a separate process, and evaluate it in this one."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "qhat", "train", name, "--seed", str(seed), "--run-dir", str(run)]
        environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(Path(folder) / "cache")}
        began = time.perf_counter()
        subprocess.run(command, check=True, env=environment, capture_output=True)
        seconds = time.perf_counter() - began
        scores = {
            which: qhat.evaluate(run, episodes=TASKS[name].episodes, checkpoint=which)
            for which in ("best", "last")
        }
    result: dict[str, Any] = {"seconds": round(seconds, 1), "steps": PRESETS[name].steps}
    for which, score in scores.items():
        result[which] = round(score.mean_return, 2)
        if score.success_rate is not None:
            result[f"{which}_success"], result[f"{which}_attempts"] = score.success_rate, score.attempts
    return result


def row(name: str, seeds: dict[str, dict[str, Any]]) -> str:
    """Return a task's line of the table."""
    task, preset = TASKS[name], PRESETS.get(name)
    steps = "–" if preset is None else f"{preset.steps:,}"
    goal = f"{task.bar:.0%} success" if task.bar < 1 else f"{task.bar:.0f}"
    if not seeds:
        return f"| {name} | {steps} | {goal} | not run yet | | | | {task.sac} |"
    measure = "_success" if task.bar < 1 else ""
    cells = []
    for which in ("best", "last"):
        values = [result[which + measure] for result in seeds.values()]
        low, high = stratified_bootstrap_ci([[value] for value in values], iqm).ravel()
        if measure:
            cells.append(f"{iqm(values):.1%} [{low:.1%}, {high:.1%}]")
        else:
            cells.append(f"{iqm(values):.0f} [{low:.0f}, {high:.0f}]")
    shown = ", ".join(
        f"{result['best_success']:.1%} of {result['best_attempts']}" if measure else f"{result['best']:.0f}"
        for result in seeds.values()
    )
    times = [result["seconds"] for result in seeds.values()]
    spread = f"{min(times):.0f}–{max(times):.0f}"
    return f"| {name} | {steps} | {goal} | {cells[0]} | {shown} | {cells[1]} | {spread} | {task.sac} |"


def behind(done: dict[str, dict[str, Any]]) -> str:
    """Say where SAC has more, at the first of its counts of steps that is not below ours."""
    lost = []
    for name, task in TASKS.items():
        if not task.sac or not (seeds := done.get(name)):
            continue
        ours, steps = iqm([result["best"] for result in seeds.values()]), PRESETS[name].steps
        at = next(count for count in SAC_STEPS if count >= steps)
        theirs = float(task.sac.split(" / ")[SAC_STEPS.index(at)])
        if ours < theirs:
            lost.append(f"{name} ({ours:.0f} at {steps:,} steps; SAC {theirs:.0f} at {at:,})")
    return f"Where SAC has more: {'; '.join(lost) or 'nowhere'}."


def _page(first: int, lines: list[str], lost: str) -> str:
    return "\n".join(
        [
            "# Robots from a cold start",
            "",
            f"Seeds from {first} on, {datetime.date.today()}. Every one is trained by",
            "`qhat train TASK --seed K` in a separate process with an empty compilation cache, and",
            "judged by fresh greedy episodes: 10, of the mobile robot 200 (and the share of the goals",
            "that it reached). `best` is the checkpoint that the seed's own evaluations chose, `last`",
            "the one at the end. Seconds are from the process's start to its end, on two cores of an",
            "AMD EPYC. SAC's figures are at 100,000 / 500,000 / 1,000,000 steps, with three seeds, from",
            "tdmpc2's published results.",
            "",
            f"    python benchmarks/robots.py --seed {first}",
            "",
            "| task | steps | asked | best: IQM [95% interval] | every seed | last: IQM [95% interval] |"
            " seconds | SAC |",
            "|---|---:|---:|---|---|---|---:|---|",
            *lines,
            "",
            lost,
            "",
        ]
    )


if __name__ == "__main__":
    main()
