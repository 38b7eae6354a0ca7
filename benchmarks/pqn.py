"""PQN in MinAtar's five games, ten million frames each: `python benchmarks/pqn.py`.

The games are those of the authors' program (github.com/mttga/purejaxql): actions do not stick, only actions
that do something can be chosen, and episodes are cut at 1,000 steps. What is done is kept in
docs/results/pqn.json, so that a second call continues with what is missing; `--only Breakout` and
`--seeds 2` do less. A game's rows are written as soon as its first seed is done.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import qhat

ROOT = Path(__file__).resolve().parent.parent
GAMES = ("Breakout", "SpaceInvaders", "Freeway", "Asterix", "Seaquest")
STEPS, EVAL_EVERY, EPISODES = 10_000_000, 500_000, 100
OPTIONS = {"sticky_action_prob": 0.0, "max_episode_steps": 1_000}
"""purejaxql's games, by gymnax 0.0.6."""


def main() -> None:
    """Train what is missing; write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", choices=GAMES, action="append", help="games to train")
    parser.add_argument("--keep", type=Path, default=ROOT / "docs" / "results" / "pqn.json")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "pqn.md")
    options = parser.parse_args()
    done: dict[str, Any] = json.loads(options.keep.read_text()) if options.keep.exists() else {}
    rows = done.setdefault("runs", {})
    for game in options.only or GAMES:
        for seed in range(options.seeds):
            if f"{game} {seed}" not in rows:
                rows[f"{game} {seed}"] = trained(game, seed)
                options.keep.write_text(json.dumps(done, indent=1) + "\n", encoding="utf-8")
                print(game, seed, rows[f"{game} {seed}"], flush=True)


def trained(game: str, seed: int) -> dict[str, Any]:
    """Train a seed; return its learning curve and the score of its last weights."""
    with tempfile.TemporaryDirectory() as folder:
        began, used = time.perf_counter(), time.process_time()
        run = qhat.train(
            f"{game}-MinAtar", recipe="pqn_minatar", steps=STEPS, seed=seed, env_kwargs=OPTIONS,
            eval_every=EVAL_EVERY, eval_episodes=EPISODES, save_every=STEPS, run_dir=Path(folder) / "run",
        )  # fmt: skip
        seconds, cpu = time.perf_counter() - began, time.process_time() - used
        with run.folder.evaluations.open(encoding="utf-8") as file:
            curve = {row["step"]: round(float(row["mean_return"]), 3) for row in csv.DictReader(file)}
        score = qhat.evaluate(run, episodes=EPISODES, checkpoint="last")
    return {
        "curve": curve, "last": score.mean_return, "seconds": round(seconds), "cpu_seconds": round(cpu),
        "date": str(datetime.date.today()),
    }  # fmt: skip


if __name__ == "__main__":
    main()
