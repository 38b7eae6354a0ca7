"""Simulators of robots, and libraries in JAX: writes docs/results/simulators.md and its curves.

    python benchmarks/simulators.py

Tasks of mjlab are trained in its own venv: `.venv-mjlab/bin/python benchmarks/simulators.py --only
cart-pole`. Tasks that are in the page's JSON file are not trained anew.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

import qhat
from qhat.evaluation.statistics import iqm, stratified_bootstrap_ci

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "results" / "simulators.md"
CURVES = ROOT / "docs" / "images" / "simulators.png"
RUNS = ROOT / "runs" / "simulators"


@dataclasses.dataclass(frozen=True)
class Task:
    """What is trained, and what is asked of it."""

    env: str
    steps: int
    settings: dict[str, Any]
    asked: str = ""
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    seeds: int = 5
    seed: int = 0
    episodes: int = 20
    evaluations: int = 10


TASKS = {
    "walker": Task("playground:WalkerWalk", 250_000, {}, "900", seed=100),
    "balance": Task(
        "playground:CartpoleBalance", 60_000, {"recipe": "decqn", "bins": 3}, "900", seed=100
    ),
    "snake": Task(
        "jumanji:Snake-v1", 1_000_000, {"recipe": "pqn_minatar"}, "learned (fruits eaten)", evaluations=5
    ),
    "cart-pole": Task(
        "mjlab:Mjlab-Cartpole-Balance", 60_000, {"recipe": "decqn", "num_envs": 16},
        "an attempt (50 is most)", evaluations=6,
    ),
    "empty": Task("navix:Navix-Empty-8x8-v0", 60_000, {}, "learned (1 is the goal)"),
}  # fmt: skip
"""dm_control's tasks begin with seed 100: the preset was chosen by smaller ones."""


def trained(name: str, task: Task) -> dict[str, Any]:
    """Train all seeds of a task; return their scores."""
    folder = RUNS / name / time.strftime("%Y-%m-%d_%H-%M-%S")
    began = time.perf_counter()
    qhat.train(
        task.env, run_dir=folder, steps=task.steps, seeds=task.seeds, seed=task.seed,
        eval_every=task.steps // task.evaluations, eval_episodes=task.episodes, env_kwargs=task.options,
        **task.settings,
    )  # fmt: skip
    seconds = time.perf_counter() - began
    steps, scores = evaluated(folder)
    return {
        "seconds": seconds,
        "step": steps,
        "score": scores,
        "training": training_return(folder, task),
    }


def evaluated(folder: Path) -> tuple[list[int], list[list[float]]]:
    """Return the steps of the evaluations, and the mean returns of each seed."""
    with (folder / "eval.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if int(row["step"]) > 0]
    steps = sorted({int(row["step"]) for row in rows})
    seeds = sorted({int(row["seed_index"]) for row in rows})
    table = {(int(row["seed_index"]), int(row["step"])): float(row["mean_return"]) for row in rows}
    return steps, [[table[seed, step] for step in steps] for seed in seeds]


def training_return(folder: Path, task: Task) -> list[float]:
    """Return each seed's mean return of the episodes of training in the last tenth of the steps."""
    scores: dict[int, list[float]] = {}
    with (folder / "metrics.csv").open() as file:
        for row in csv.DictReader(file):
            if row["kind"] == "episode" and int(row["step"]) >= 0.9 * task.steps:
                scores.setdefault(int(row["seed_index"]), []).append(float(row["score"]))
    return [float(np.mean(scores[seed])) for seed in sorted(scores)]


HEADING = """\
# Simulators of robots, and libraries in JAX

Written by `python benchmarks/simulators.py`; do not edit.

Scores are mean returns of {episodes} greedy episodes for each seed and evaluation. *Last* is the last
evaluation's interquartile mean over seeds, with the stratified bootstrap's 95% interval; *training* is
the mean return of the episodes in the last tenth of training, with exploration. Minutes are those of
the whole call for all seeds of a task, on one core.

| task | settings | seeds | steps | asked | last | each seed | training | minutes |
|---|---|---|---:|---|---:|---|---:|---:|"""


def page(done: dict[str, Any]) -> str:
    """Return the page."""
    lines = [HEADING.format(episodes=20)]
    for name, task in TASKS.items():
        if name not in done:
            continue
        row = done[name]
        last = [scores[-1] for scores in row["score"]]
        low, high = stratified_bootstrap_ci([[one] for one in last], iqm).ravel()
        each = ", ".join(f"{one:.4g}" for one in last)
        training = f"{np.mean(row['training']):.4g}" if row["training"] else ""
        seeds = f"{task.seed}–{task.seed + len(last) - 1}"
        lines.append(
            f"| `{task.env}` | {settings(task)} | {seeds} | {task.steps:,} | {task.asked} |"
            f" {iqm(last):.4g} [{low:.4g}, {high:.4g}] | {each} | {training} | {row['seconds'] / 60:.1f} |"
        )
    lines += ["", f"![Mean returns of every seed, by steps](../images/{CURVES.name})", ""]
    return "\n".join(lines)


def settings(task: Task) -> str:
    """Return how a task's settings are typed."""
    words = [f"--{name.replace('_', '-')} {_typed(value)}" for name, value in task.settings.items()]
    words += [f"--env-kwargs {name}={value}" for name, value in task.options.items()]
    return f"`{' '.join(words)}`" if words else "as they are"


def _typed(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def draw(done: dict[str, Any]) -> None:
    """Draw the curves of every task, seed by seed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = [name for name in TASKS if name in done]
    rows = -(-len(names) // 3)
    figure, axes = pyplot.subplots(rows, 3, figsize=(12, 3 * rows), squeeze=False, layout="constrained")
    for axis in axes.flat[len(names) :]:
        axis.axis("off")
    for axis, name in zip(axes.flat, names, strict=False):
        thousands = np.array(done[name]["step"]) / 1_000
        for scores in done[name]["score"]:
            axis.plot(thousands, scores, linewidth=1, color="tab:blue", alpha=0.6)
        axis.plot(thousands, np.mean(done[name]["score"], axis=0), linewidth=2, color="black")
        axis.set_title(TASKS[name].env, fontsize=9)
        axis.set_xlabel("thousands of steps")
    figure.savefig(CURVES, dpi=110)


def main() -> None:
    """Train the tasks that are missing, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="*", default=list(TASKS), choices=list(TASKS))
    args = parser.parse_args()
    keep = PAGE.with_suffix(".json")
    for name in args.only:
        done: dict[str, Any] = json.loads(keep.read_text()) if keep.exists() else {}
        if name not in done:
            row = trained(name, TASKS[name])
            # Another process may have written in the meantime.
            done = json.loads(keep.read_text()) if keep.exists() else {}
            done[name] = row
            print(name, row, flush=True)
            keep.write_text(json.dumps(done, indent=1) + "\n")
    done = json.loads(keep.read_text())
    PAGE.write_text(page(done))
    draw(done)


if __name__ == "__main__":
    main()
