"""When a memory pays: `python benchmarks/memory_tasks.py` trains where not all is observed; writes a page.

Rows of a task differ in nothing but the memory, or the stack of frames in its place, and train the same
seeds; each seed's last weights play fresh greedy episodes. Rows that are done are kept beside the page.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import qhat
from qhat.axes.axis import spell
from qhat.environments.wrappers import Flicker, FrameStack, RewardScale, Wrapper
from qhat.evaluation.statistics import iqm, stratified_bootstrap_ci

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "support"))

from memory_tasks import PositionOnlyCartPole, RepeatPrevious  # noqa: E402

PAGE = ROOT / "docs" / "results" / "memory_tasks.md"
FIRST, BEAMS = 400, 24


@dataclasses.dataclass(frozen=True)
class Task:
    """A task, and the settings that all of its rows have in common."""

    title: str
    rules: str
    env: Any
    steps: int
    settings: dict[str, Any]
    wrap: tuple[Wrapper, ...] = ()
    published: str = ""
    counts_goals: bool = False
    """Whether its score is the share of goals that were reached."""
    episodes: int = 100
    """Greedy episodes of each seed."""


def robot(lost: float, rules: str) -> Task:
    """Return the mobile robot with a lidar that loses some of its scans."""
    return Task(
        f"TurtleBot3, {lost:.0%} of the lidar's scans lost",
        f"`--wrap flicker:probability={lost:g},count={BEAMS}`. {rules}",
        "TurtleBot3-v0",
        120_000,
        {"batch_size": 256, "replay_ratio": 1 / 8, "learning_rate_steps": 120_000},
        (Flicker(lost, count=BEAMS),),
        counts_goals=True,
        # A share of 0.93 of 100 has a standard error of 0.025, more than the seeds differ by.
        episodes=1_000,
    )


CARTPOLE = {"recipe": "drqn", "n_step": 1, "normalise": True}
TASKS = {
    "repeat": Task(
        "RepeatPrevious, easy",
        "One deck of cards; name the suit of the card three before the one shown. Guessing: −0.5.",
        RepeatPrevious(),
        160_000,
        {"recipe": "drqn", "n_step": 1, "learning_rate": 2e-3},
        (RewardScale(48.0),),
        "GRU 1.000, the best of 13 models 1.000",
    ),
    "cartpole": Task(
        "CartPole without velocities, easy",
        "200 steps, each of them brings 1/200.",
        PositionOnlyCartPole(),
        120_000,
        CARTPOLE,
        (RewardScale(200.0),),
        "GRU 1.000, the best of 13 models 1.000",
    ),
    "noisy": Task(
        "CartPole without velocities, with noise, easy",
        "The same; position and angle have Gaussian noise of 0.1, and an angle of 0.21 ends the episode.",
        PositionOnlyCartPole(0.1),
        120_000,
        CARTPOLE,
        (RewardScale(200.0),),
        "GRU 0.995, the best of 13 models 0.995",
    ),
    "lidar-30": robot(0.3, "All four last scans are lost in 0.8% of the steps."),
    "lidar-70": robot(0.7, "All four last scans are lost in 24% of the steps."),
}
ROWS: dict[str, dict[str, Any]] = {
    "`memory min_gru`": {"memory": "min_gru"},
    "`wrap frame_stack:count=4`": {"memory": "none", "stack": 4},
    "neither": {"memory": "none"},
    "`memory gru`": {"memory": "gru"},
}


def main() -> None:
    """Train the rows that are missing, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=list(TASKS), nargs="*", help="tasks")
    parser.add_argument("--rows", choices=list(ROWS), nargs="*", help="rows of each task")
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    kept = PAGE.with_suffix(".json")
    rows = json.loads(kept.read_text()) if kept.exists() else {}
    for name, task in TASKS.items():
        done = rows.setdefault(name, {})
        for row, part in ROWS.items():
            if row not in done and name in (args.only or TASKS) and row in (args.rows or ROWS):
                done[row] = measured(task, args.seeds, **part)
                kept.write_text(json.dumps(rows, indent=1) + "\n")
                PAGE.write_text(page(rows))
    PAGE.write_text(page(rows))
    print(PAGE.read_text())


def measured(task: Task, seeds: int, memory: str, stack: int = 1) -> dict[str, Any]:
    """Train and judge one row."""
    wrap = (*task.wrap[:1], *([FrameStack(stack)] if stack > 1 else []), *task.wrap[1:])
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        run = qhat.train(
            task.env, steps=task.steps, seeds=seeds, seed=FIRST, run_dir=Path(folder) / "run", wrap=wrap,
            eval_every=task.steps // 12, eval_episodes=20, memory=memory, **task.settings,
        )  # fmt: skip
        seconds = time.process_time() - began
        env = None if task.counts_goals else task.env
        found = {
            which: run.evaluate(task.episodes, checkpoint=which, env=env) for which in ("last", "best")
        }
    scores = {
        which: [
            float(each) for each in (score.success_per_seed if task.counts_goals else score.per_seed) or ()
        ]
        for which, score in found.items()
    }
    return {"scores": scores["last"], "best": scores["best"], "seconds": round(seconds)}


def page(rows: dict[str, Any]) -> str:
    """Return the page."""
    lines = [
        "# When a memory pays", "", "Written by `benchmarks/memory_tasks.py`; do not edit.", "",
        "Rows of a task differ in nothing but the memory. 100 greedy episodes of each seed's last weights",
        f"(TurtleBot3: 1,000), seeds from {FIRST} on: mean return (TurtleBot3: share of goals reached) and",
        "its interquartile mean over seeds with the bootstrap's 95% interval. Best: the same of the",
        "weights that did best in the run's 12 evaluations of 20 episodes, in fresh episodes too. Settings",
        "of the first 3 tasks were chosen for `min_gru`, with seeds 900 and 901; TurtleBot3 has its preset",
        "but for these.", "",
        "    python benchmarks/memory_tasks.py", "",
    ]  # fmt: skip
    for name, task in TASKS.items():
        settings = ", ".join(f"`{key}={value}`" for key, value in task.settings.items())
        settings += "".join(f", `{spell(part)}`" for part in task.wrap if isinstance(part, RewardScale))
        lines += [
            f"## {task.title}", "", f"{task.rules} {task.steps:,} steps; {settings}.", "",
            "| | last | seeds | best | s of a core, all seeds |", "|---|---:|---|---:|---:|",
        ]  # fmt: skip
        lines += [line(row, rows.get(name, {}).get(row)) for row in ROWS]
        if task.published:
            lines.append(f"| published, PPO, 15 million steps | {task.published} | | | |")
        lines.append("")
    return "\n".join(lines + REFERENCES) + "\n"


def line(row: str, result: dict[str, Any] | None) -> str:
    """Return one line of a table."""
    if result is None:
        return f"| {row} | not run yet | | | |"
    seeds = " ".join(f"{score:.3f}" for score in result["scores"])
    best = interval(result["best"]) if "best" in result else "not kept"
    return f"| {row} | {interval(result['scores'])} | {seeds} | {best} | {result['seconds']:,} |"


def interval(scores: list[float]) -> str:
    """Return the interquartile mean, and its interval."""
    low, high = stratified_bootstrap_ci([[each] for each in scores], iqm).ravel()
    return f"{iqm(scores):.3f} [{low:.3f}, {high:.3f}]"


REFERENCES = """\
## Published figures

POPGym (Morad et al. 2023, [2303.01859](https://arxiv.org/abs/2303.01859)) has PPO with 13 memories: the
largest mean return of training, mean of 3 trials of 15 million steps (its appendix B), to which best
is nearer than last. We read the figures in
[bryjudy/fly-critic](https://github.com/bryjudy/fly-critic), which copies them, and not in the paper.
There, PPO with a GRU and 3 million steps has 0.890, 1.000 and 1.000 in the three tasks above. The rules
are those of [POPGym's source](https://github.com/proroklab/popgym),
which also shows the action before.

Recurrent double DQN on the same tasks: Morad et al. 2024, [2402.09900](https://arxiv.org/abs/2402.09900).
The results of it that we found are curves in pictures, without numbers. R2D2 (Kapturowski et al. 2019)
has figures of Atari and DMLab, DRQN (Hausknecht & Stone 2015,
[1507.06527](https://arxiv.org/abs/1507.06527)) of Atari, and none of these tasks. What can be compared is
what DRQN's abstract says of flickering screens: recurrency is a viable alternative to a stack of frames,
and has no systematic advantage in learning to play.

## What a lost scan is

All 24 beams read 0.0; the goal's angle and distance stay. 0.0 is what the robot's LDS-01 says where it
measured nothing ([turtlebot3#404](https://github.com/ROBOTIS-GIT/turtlebot3/issues/404)). The simulated
lidar reads 0.12 m or more, so that a policy can see that a scan is missing.""".splitlines()


if __name__ == "__main__":
    main()
