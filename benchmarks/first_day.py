"""The first tasks of tutorials, by the default recipe and by plain DQN: `python benchmarks/first_day.py`.

Every task is trained with both recipes from the same seeds, with no preset and no settings of its own; each
seed's best checkpoint plays fresh greedy episodes of the reference environment. Rows go to
docs/results/first-day.csv as they come, and what is there already is not trained again. `--table` only
writes the page.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import datetime
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import qhat
from qhat.evaluation.statistics import (
    bootstrap_ci,
    iqm,
    probability_of_improvement,
    stratified_bootstrap_ci,
)

ROOT = Path(__file__).resolve().parent.parent
CSV, PAGE = (ROOT / "docs" / "results" / f"first-day.{kind}" for kind in ("csv", "md"))
FIELDS = ("task", "recipe", "steps", "seed", "score", "date", "seconds")
EPISODES = 50


@dataclasses.dataclass(frozen=True)
class Task:
    """An environment, and for how long it is trained."""

    env: str
    kind: str
    steps: int
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its id and its options."""
        return " ".join([self.env, *(f"{key}={value}" for key, value in self.options.items())])


TASKS = (
    Task("gym:FrozenLake-v1", "tabular, sparse, short", 20_000, {"is_slippery": False}),
    Task("gym:FrozenLake-v1", "tabular, sparse, noisy", 20_000),
    Task("gym:CliffWalking-v1", "tabular, dense, exploration is dear", 20_000, {"max_episode_steps": 200}),
    Task("gym:Taxi-v4", "tabular, masks", 40_000),
    Task("gym:Blackjack-v1", "noisy, two steps long", 20_000),
    Task("Catch-bsuite", "a small picture, short", 5_000),
    Task("CartPole-v1", "dense, long", 50_000),
    Task("Acrobot-v1", "a penalty per step, long", 40_000),
    Task("MountainCar-v0", "sparse, long", 40_000),
    Task("LunarLander-v3", "dense, long", 60_000),
    Task("Breakout-MinAtar", "pictures", 20_000),
    Task("MiniGrid-Empty-5x5-v0", "a dictionary with symbols and text, sparse", 15_000),
    Task("FetchReach-v4", "an arm with goals", 15_000),
    Task("TurtleBot3-v0", "a mobile robot", 40_000),
)


def main() -> None:
    """Train what is missing, write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--seed", type=int, default=7_000, help="number of the first seed")
    parser.add_argument("--only", nargs="*", default=[], help="ids of tasks")
    parser.add_argument("--recipes", nargs="*", default=[qhat.recipes.DEFAULT, "dqn"])
    parser.add_argument("--table", action="store_true", help="write the page of what is there")
    args = parser.parse_args()
    for task in () if args.table else TASKS:
        for recipe in args.recipes:
            done = any(row["task"] == task.name and row["recipe"] == recipe for row in _rows())
            if not done and (not args.only or task.env in args.only):
                _train(task, recipe, args.seeds, args.seed)
    PAGE.write_text(_page(_rows()))


def _train(task: Task, recipe: str, seeds: int, seed: int) -> None:
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        config = qhat.TrainConfig(
            task.env, recipe, qhat.recipes.get(recipe), env_kwargs=task.options, steps=task.steps,
            seeds=seeds, seed=seed, eval_every=task.steps // 4, run_dir=Path(folder) / "run",
        )  # fmt: skip
        score = qhat.evaluate(qhat.train(task.env, config), episodes=EPISODES)
    seconds = round(time.perf_counter() - began)
    print(f"{task.name}, {recipe}: {score.iqm:.2f} in {seconds} s", flush=True)
    new = not CSV.exists()
    with CSV.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(FIELDS)
        for at, value in enumerate(score.per_seed):
            row = (task.name, recipe, task.steps, seed + at, f"{value:.4f}", datetime.date.today(), seconds)
            writer.writerow(row)


def _rows() -> list[dict[str, str]]:
    if not CSV.exists():
        return []
    with CSV.open(newline="") as file:
        return list(csv.DictReader(file))


def _page(rows: list[dict[str, str]]) -> str:
    lines = []
    for task in TASKS:
        cells = {}
        for recipe in (qhat.recipes.DEFAULT, "dqn"):
            its = [row for row in rows if (row["task"], row["recipe"]) == (task.name, recipe)]
            if its:
                scores = np.array([[float(row["score"])] for row in its])
                low, high = np.ravel(stratified_bootstrap_ci(scores, iqm))
                cells[recipe] = (float(iqm(scores)), low, high)
        if len(cells) == 2:
            ours, dqn = cells[qhat.recipes.DEFAULT], cells["dqn"]
            verdict = "ahead" if ours[1] > dqn[2] else "behind" if ours[2] < dqn[1] else "level"
            shown = [f"{middle:.2f} [{low:.2f}, {high:.2f}]" for middle, low, high in (ours, dqn)]
            lines.append(
                f"| {task.name} | {task.kind} | {task.steps:,} | {' | '.join(shown)} | {verdict} |"
            )
    seeds = sorted({int(row["seed"]) for row in rows})
    pair = [_table(rows, recipe) for recipe in (qhat.recipes.DEFAULT, "dqn")]
    low, high = bootstrap_ci(pair, probability_of_improvement)
    better = f"{probability_of_improvement(*pair):.2f} [{low:.2f}, {high:.2f}]"
    return "\n".join(
        [
            "# The first day: the default recipe beside plain DQN",
            "",
            f"Seeds {seeds[0]} to {seeds[-1]}, {max(row['date'] for row in rows)}. Every score is the",
            f"mean return of {EPISODES} fresh greedy episodes by the seed's best checkpoint: IQM over",
            "seeds [95% interval]. Neither recipe has settings for a task. `ahead` and `behind` are said",
            "where the intervals do not meet.",
            "",
            "    python benchmarks/first_day.py",
            "",
            "| task | what it is | steps | `qhat` | `dqn` | `qhat` is |",
            "|---|---|---|---|---|---|",
            *lines,
            "",
            f"A seed of `{qhat.recipes.DEFAULT}` scores more than one of `dqn`, in a task drawn at random,",
            f"with probability {better} (ties count half).",
            "",
        ]
    )


def _table(rows: list[dict[str, str]], recipe: str) -> np.ndarray:
    """Return the scores `[seeds, tasks]` of the tasks that both recipes have."""
    names = [task.name for task in TASKS]
    both = [
        n for n in names if {r["recipe"] for r in rows if r["task"] == n} >= {qhat.recipes.DEFAULT, "dqn"}
    ]
    scores = [[r["score"] for r in rows if (r["task"], r["recipe"]) == (name, recipe)] for name in both]
    return np.array(scores, float).T


if __name__ == "__main__":
    main()
