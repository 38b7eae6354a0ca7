"""What each part for robots is worth: `python benchmarks/robot_parts.py` writes a table in docs/results.

One base recipe, one change at a time, on two of dm_control's tasks in EnvPool. All rows train the same
seeds; each seed's `best` and `last` checkpoint plays fresh greedy episodes. `--keep FILE` goes on from rows
that are done.
"""

from __future__ import annotations

import argparse
import datetime
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import qhat
from qhat.evaluation.statistics import iqm, stratified_bootstrap_ci

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
TASKS = ("WalkerRun-v1", "FingerSpin-v1")
BASE: dict[str, Any] = {
    "policy": "double", "n_step": 3, "bins": 3, "gamma": 0.98, "hidden": (128, 128), "layer_norm": True,
    "target": "soft:tau=0.005", "batch_size": 64, "num_envs": 8, "replay_ratio": 0.75,
    "replay_capacity": 100_000, "learning_starts": 5_000, "learning_rate": 1e-3, "learning_rate_end": 1e-4,
    "optimiser": "adam:epsilon=1e-05", "max_gradient_norm": 40.0, "sampler": "prioritised",
    "explore": "epsilon:end=0.1,steps=10000",
}  # fmt: skip
BLOCKS: dict[str, Any] = {
    "hidden": (),
    "layer_norm": False,
    "optimiser": "adamw",
    "learning_rate": 5e-4,
    "learning_rate_end": 2e-5,
}
ROWS: dict[str, dict[str, Any]] = {
    "the base: 3 commands per joint": {},
    "`torso bronet:width=128`, `optimiser adamw`": {**BLOCKS, "torso": "bronet:width=128"},
    "`joints regularised`": {"joints": "regularised"},
    "2 commands per joint": {"bins": 2},
    "2 commands, `joints pairs`": {"bins": 2, "joints": "pairs"},
    "9 commands": {"bins": 9},
    "9 commands, `resolution growing`": {"bins": 9, "resolution": "growing"},
    "9 commands, `resolution coarse_to_fine`": {"bins": 9, "resolution": "coarse_to_fine"},
    "`explore pink`": {"explore": "pink:steps=10000"},
    "`torso simba2:width=64`": {
        **BLOCKS, "torso": "simba2:width=64", "normalise": True, "optimiser": "adam",
    },
    "`torso simba:width=64`, `optimiser adamw`": {**BLOCKS, "torso": "simba:width=64", "normalise": True},
    "`replay_ratio` 3": {"replay_ratio": 3.0},
    "`replay_ratio` 3, `reset periodic`": {"replay_ratio": 3.0, "reset": "periodic:every=75000"},
    "`replay_ratio` 3, `reset periodic`, `horizon receding`": {
        "replay_ratio": 3.0, "reset": "periodic:every=75000", "horizon": "receding",
    },
}  # fmt: skip


def main() -> None:
    """Train and judge every row on each task; write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--seed", type=int, default=300, help="number of the first seed")
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--only", nargs="*", default=[], help="words of rows; all unless given")
    parser.add_argument("--keep", type=Path, default=RESULTS / "robot_parts.json")
    parser.add_argument("--out", type=Path, default=RESULTS / "robot_parts.md")
    args = parser.parse_args()
    done: dict[str, dict[str, Any]] = json.loads(args.keep.read_text()) if args.keep.exists() else {}
    for task in TASKS:
        for name, changes in ROWS.items():
            wanted = not args.only or any(word in name for word in args.only)
            if wanted and task not in done.setdefault(name, {}):
                done[name][task] = trained(task, changes, args)
                print(name, task, done[name][task], flush=True)
                args.keep.write_text(
                    json.dumps(done, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
                )
    args.out.write_text(_page(args, done), encoding="utf-8")


def trained(task: str, changes: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """Train all seeds of a row; return their scores and the seconds of the training."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        run = qhat.train(
            task, "decqn", run_dir=Path(folder) / "run", steps=args.steps, seeds=args.seeds, seed=args.seed,
            eval_every=args.steps // 5, eval_episodes=10, **{**BASE, **changes},
        )  # fmt: skip
        seconds = time.perf_counter() - began
        scores = {which: list(run.evaluate(30, which).per_seed) for which in ("best", "last")}
    return {**scores, "seconds": seconds}


def _page(args: argparse.Namespace, done: dict[str, dict[str, Any]]) -> str:
    heads = " | ".join(f"{task}: best, IQM [95% interval] | last | seconds" for task in TASKS)
    return "\n".join(
        [
            "# Parts for robots, one change at a time",
            "",
            f"{args.steps:,} environment steps, seeds {args.seed} to {args.seed + args.seeds - 1},"
            f" {datetime.date.today()}. Every policy plays 30 fresh greedy",
            "episodes; `best` is the checkpoint that the seed's own evaluations (10 episodes, five times)",
            "chose. **Bold** is above, *italic* below the base's interval. Seconds are those of the whole",
            "call, with compilation; all seeds of a row share the cores.",
            "",
            "    python benchmarks/robot_parts.py",
            "",
            f"| change | {heads} |",
            "|---|" + "---:|" * (3 * len(TASKS)),
            *(f"| {name} | {_cells(done, name)} |" for name in ROWS),
            "",
        ]
    )


def _cells(done: dict[str, dict[str, Any]], name: str) -> str:
    cells = []
    for task in TASKS:
        row, base = done.get(name, {}).get(task), done.get(next(iter(ROWS)), {}).get(task)
        if row is None or base is None:
            cells.append("not run yet | | ")
            continue
        for which in ("best", "last"):
            low, high = _interval(row[which])
            least, most = _interval(base[which])
            mark = "**" if low > most else "*" if high < least else ""
            cells.append(f"{mark}{iqm(row[which]):.0f}{mark} [{low:.0f}, {high:.0f}]")
        cells.append(f"{row['seconds']:.0f}")
    return " | ".join(cells)


def _interval(values: list[float]) -> tuple[float, float]:
    low, high = stratified_bootstrap_ci([[value] for value in values], iqm).ravel()
    return float(low), float(high)


if __name__ == "__main__":
    main()
