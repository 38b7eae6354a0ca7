"""What a memory is worth: `python benchmarks/memory.py` trains in a T-maze, and writes a page of results.

The first observation shows which way to turn at the end of a corridor. Rows train the same seeds; each
seed's last weights play fresh greedy episodes. Rows that are done are kept beside the page.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import qhat
from qhat.evaluation.statistics import iqm, stratified_bootstrap_ci

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "support"))

from memory_tasks import TMaze  # noqa: E402

PAGE = ROOT / "docs" / "results" / "memory.md"
DELAY, STEPS, EPISODES, FIRST = 30, 160_000, 100, 300
WON = 4.0
ROWS: dict[str, dict[str, Any]] = {
    "`drqn`": {},
    "`drqn`, `memory none`": {"memory": "none"},
    "`drqn`, `memory gru`": {"memory": "gru"},
    "`drqn`, `sampler prioritised`, `merge dueling`": {"sampler": "prioritised", "merge": "dueling"},
}


def main() -> None:
    """Train the rows that are missing, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=list(ROWS), help="one row")
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    kept = PAGE.with_suffix(".json")
    rows = json.loads(kept.read_text()) if kept.exists() else {}
    for name, settings in ROWS.items():
        if name not in rows and args.only in (None, name):
            rows[name] = measured(settings, args.seeds)
            kept.write_text(json.dumps(rows, indent=1) + "\n")
            PAGE.write_text(page(rows))
    PAGE.write_text(page(rows))
    print(PAGE.read_text())


def measured(settings: dict[str, Any], seeds: int) -> dict[str, Any]:
    """Train and judge one row."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        run = qhat.train(
            TMaze(DELAY), recipe="drqn", steps=STEPS, seeds=seeds, seed=FIRST, run_dir=Path(folder) / "run",
            eval_every=STEPS // 10, eval_episodes=20, **settings,
        )  # fmt: skip
        seconds = time.process_time() - began
        score = run.evaluate(EPISODES, checkpoint="last", env=TMaze(DELAY))
    return {"scores": [float(each) for each in score.per_seed], "seconds": round(seconds)}


def page(rows: dict[str, Any]) -> str:
    """Return the page."""
    lines = [
        "# A memory in a T-maze", "", "Written by `benchmarks/memory.py`; do not edit.", "",
        f"The first observation shows which way to turn {DELAY} steps later (Bakker 2001). The right arm",
        f"brings {WON:g}, the wrong one and a step against a wall −0.1: chance is 1.95 at best.",
        f"{STEPS:,} steps; {EPISODES} greedy episodes of each seed's last weights, from seed {FIRST} on:",
        "mean return, and its interquartile mean over seeds with the bootstrap's 95% interval.", "",
        "    python benchmarks/memory.py", "",
        "| recipe | mean return | seeds | s of a core, all seeds |", "|---|---:|---|---:|",
    ]  # fmt: skip
    for name in ROWS:
        if name not in rows:
            lines.append(f"| {name} | not run yet | | |")
            continue
        scores = rows[name]["scores"]
        low, high = stratified_bootstrap_ci([[each] for each in scores], iqm).ravel()
        seeds = " ".join(f"{score:.2f}" for score in scores)
        lines.append(
            f"| {name} | {iqm(scores):.2f} [{low:.2f}, {high:.2f}] | {seeds} | {rows[name]['seconds']:,} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
