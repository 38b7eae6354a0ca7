"""Every preset on its environment: `python benchmarks/presets.py` writes docs/results/presets.md.

Ten seeds (MinAtar six), trained as `qhat train ENV --seeds 10` trains them. `--keep FILE` goes on from
rows that are done.
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
from qhat.presets import PRESETS

OPTIONS = {"Breakout-MinAtar": {"use_minimal_action_set": False}}
"""Conditions of the papers whose scores a row is compared with."""
SEEDS = {"Breakout-MinAtar": 6}
"""Fewer of what takes minutes per seed."""
CLASSIC = ("Acrobot-v1", "MountainCar-v0", "LunarLander-v3", "Breakout-MinAtar")
"""The robots have tables of their own: benchmarks/robots.py and actor_critic.py."""
ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Train and judge every preset; write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="number of the first seed")
    parser.add_argument("--only", nargs="*", default=[], help="environments; all unless given")
    parser.add_argument("--keep", type=Path, help="file of rows that are done: go on from it")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "presets.md")
    told = parser.parse_args()
    done = json.loads(told.keep.read_text()) if told.keep and told.keep.exists() else {}
    for name in told.only or CLASSIC:
        if name in done:
            continue
        done[name] = row(name, min(told.seeds, SEEDS.get(name, told.seeds)), told.seed)
        print(done[name], flush=True)
        if told.keep:
            told.keep.write_text(json.dumps(done, indent=0, ensure_ascii=False) + "\n", encoding="utf-8")
    if told.keep or not told.only:
        rows = [done.get(name, f"| {name} | | | not run yet | | | | | |") for name in CLASSIC]
        told.out.write_text(_page(told, rows), encoding="utf-8")


def row(name: str, seeds: int, first: int) -> str:
    """Return an environment's line of the table."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        told: dict[str, Any] = {"seeds": seeds, "seed": first, "run_dir": Path(folder) / "run"}
        told["env_kwargs"] = OPTIONS.get(name, {})
        run = qhat.train(name, qhat.TrainConfig.of(name, **told))
        seconds = time.perf_counter() - began
        cells = []
        for which in ("best", "last"):
            score = qhat.evaluate(run, 100, which=which)
            low, high = score.ci95 or (float("nan"), float("nan"))
            cells.append(f"{score.mean_return:.1f} | {score.iqm:.1f} [{low:.1f}, {high:.1f}]")
            if which == "best":
                cells.append(", ".join(f"{value:.0f}" for value in sorted(score.per_seed)[:3]))
    shown = ", ".join([name, *(f"{key}={value}" for key, value in OPTIONS.get(name, {}).items())])
    return f"| {shown} | {seeds} | {PRESETS[name].steps:,} | {' | '.join(cells)} | {seconds:.0f} |"


def _page(told: argparse.Namespace, lines: list[str]) -> str:
    return "\n".join(
        [
            "# Environments by their presets",
            "",
            f"Seeds from {told.seed} on, {datetime.date.today()}. Every policy",
            "plays 100 fresh greedy episodes of Gymnasium's environment. `best` is the checkpoint that the",
            "seed's own evaluations chose, `last` the one at the end.",
            "",
            f"    python benchmarks/presets.py --seeds {told.seeds} --seed {told.seed}",
            "",
            "| environment | seeds | steps | best: mean | IQM [95% interval] | lowest three | last: mean |"
            " IQM [95% interval] | seconds, all seeds |",
            "|---|---:|---:|---:|---|---|---:|---|---:|",
            *lines,
            "",
        ]
    )


if __name__ == "__main__":
    main()
