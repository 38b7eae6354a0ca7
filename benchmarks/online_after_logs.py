"""From logs to online without a dip: writes docs/results/online_after_logs.md.

    python benchmarks/online_after_logs.py

Policies learn from the medium logs of benchmarks/offline_data.py, and go on in the world for 20,000 steps.
The lowest evaluation of each seed is compared with the return of the policy that it began with.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

import qhat
from offline_data import TASKS, made, path_of

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "results" / "online_after_logs.md"
RUNS = ROOT / "runs" / "online_after_logs"
SEEDS, UPDATES, STEPS, EVERY, BAR = 5, 20_000, 20_000, 1_000, 0.9
EPISODES = {"TurtleBot3-v0": 1_000, "LunarLander-v3": 500}
"""Of each evaluation and seed: so many that the lowest of twenty is not low by chance alone."""
SAME: dict[str, Any] = {"hidden": (128, 128), "batch_size": 64, "seeds": SEEDS, "seed": 500}
ONLINE: dict[str, Any] = {
    "recipe": "cql", "training": "replay", "explore": "epsilon:start=0.05,end=0.02", "demo_share": 0.5,
}  # fmt: skip
VARIANTS: dict[str, dict[str, Any]] = {
    "share 0.9, steps of 1e-5": {"demo_share": 0.9, "learning_rate": 1e-5, "learning_rate_end": 1e-5},
    "share 0.5, steps of 1e-5": {"learning_rate": 1e-5, "learning_rate_end": 1e-5},
    "share 0.5, steps of 1e-4": {"learning_rate": 1e-4, "learning_rate_end": 1e-4},
    "share 0.5, steps of 1e-3 to 1e-4": {},
    "no logs, steps of 1e-5": {"learning_rate": 1e-5, "learning_rate_end": 1e-5, "demo_share": 0.0},
}  # fmt: skip
"""What differs from `ONLINE`, which has the loss of the recipe `cql`. Learning from logs ends with 1e-4."""


HEADING = f"""\
# From logs to online

Written by `python benchmarks/online_after_logs.py`; do not edit.

Policies of the recipe `cql` learn from the medium logs ([their data](offline.md)), by {UPDATES:,} updates
of the seeds 500 to {499 + SEEDS}. They go on for {STEPS:,} steps with `--init-from`, a share of the logs in
every batch (`--demo-share`), CQL's term on that share, and `--explore epsilon:start=0.05,end=0.02`. *Kept*
counts the seeds of which no evaluation (every {EVERY:,} steps; {EPISODES["TurtleBot3-v0"]:,} episodes of
TurtleBot3, {EPISODES["LunarLander-v3"]} of LunarLander) is below {BAR:.0%} of what their policy had reached
from the logs.

| task | online | from the logs, by seed | lowest evaluation, by seed | last evaluation, by seed | kept |
|---|---|---|---|---|---:|"""


def evaluated(folder: Path) -> list[list[float]]:
    """Return the evaluations of each seed, in order."""
    with (folder / "eval.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if int(row["step"]) > 0]
    seeds = sorted({int(row["seed_index"]) for row in rows})
    return [[float(row["mean_return"]) for row in rows if int(row["seed_index"]) == one] for one in seeds]


def measured(env: str, name: str) -> dict[str, Any]:
    """Train one variant in a task, after the logs."""
    episodes, data = EPISODES[env], str(path_of(env, "medium"))
    offline, online = RUNS / env / "offline", RUNS / env / name.replace(" ", "_").replace(",", "")
    if not (offline / "best").exists():
        qhat.learn(data, env, "cql", steps=UPDATES, eval_every=UPDATES, eval_episodes=episodes,
                   run_dir=offline, **SAME)  # fmt: skip
    before = qhat.evaluate(offline, episodes=episodes)
    settings: dict[str, Any] = {**SAME, **ONLINE, **VARIANTS[name]}
    if settings["demo_share"] > 0:
        settings["demos"] = [data]
    qhat.train(
        env, run_dir=online, init_from=offline, steps=STEPS, eval_every=EVERY, eval_episodes=episodes,
        **settings,
    )  # fmt: skip
    scores = evaluated(online)
    return {
        "before": [float(one) for one in before.per_seed],
        "lowest": [min(each) for each in scores],
        "last": [each[-1] for each in scores],
    }


def page(rows: dict[str, dict[str, Any]]) -> str:
    """Return the page."""
    lines = [HEADING]
    for key, row in rows.items():
        env, name = key.split(": ")
        before, low = np.array(row["before"]), np.array(row["lowest"])
        each = [", ".join(f"{one:.1f}" for one in values) for values in (before, low, row["last"])]
        kept = int((low >= BAR * before).sum())
        lines.append(f"| {env} | {name} | {each[0]} | {each[1]} | {each[2]} | {kept} of {len(low)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Train the rows that are missing, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="*", default=list(EPISODES), choices=list(EPISODES))
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=list(VARIANTS))
    args = parser.parse_args()
    keep = PAGE.with_suffix(".json")
    rows: dict[str, Any] = json.loads(keep.read_text()) if keep.exists() else {}
    for env in args.only:
        made(TASKS[env])
        for name in args.variants:
            key = f"{env}: {name}"
            if key not in rows:
                rows[key] = measured(env, name)
                print(key, rows[key], flush=True)
                keep.write_text(json.dumps(rows, indent=1) + "\n")
                PAGE.write_text(page(rows))


if __name__ == "__main__":
    main()
