"""What checkpoints cost at the default interval, with a replay of 1,000,000 transitions.

    python benchmarks/checkpoints.py

Trains one seed of each task and adds up what its checkpoints took: writing, flushing to disk, hashing.
Prints a table; `--json` prints one object.
"""

import argparse
import dataclasses
import json
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

from qhat.system.devices import prepare

CAPACITY = 1_000_000
TASKS = (("CartPole-v1", 1_200_000), ("Breakout-MinAtar", 400_000))
"""Steps: CartPole's replay is full before the end."""


def measure(env: str, steps: int) -> dict[str, Any]:
    """Train, and return the seconds of all and of the checkpoints."""
    from qhat.recipes.config import TrainConfig
    from qhat.runs.checkpoints import Checkpoints
    from qhat.runs.train import train

    spent: list[float] = []
    save = Checkpoints.save

    def timed(*arguments: Any) -> None:
        began = time.perf_counter()
        save(*arguments)
        spent.append(time.perf_counter() - began)

    within = tempfile.TemporaryDirectory(dir=Path.cwd())
    with within as folder, mock.patch.object(Checkpoints, "save", timed):
        config = TrainConfig.of(env, steps=steps, seeds=1, seed=100, run_dir=Path(folder) / "run")
        recipe = dataclasses.replace(config.recipe, replay_capacity=CAPACITY)
        began = time.perf_counter()
        run = train(env, dataclasses.replace(config, recipe=recipe))
        seconds = time.perf_counter() - began
        size = sum(path.stat().st_size for path in run.folder.last().rglob("*") if path.is_file())
    return {
        "env": env,
        "steps": steps,
        "seconds": seconds,
        "checkpoints": len(spent),
        "checkpoint_seconds": sum(spent),
        "longest": max(spent),
        "share": sum(spent) / seconds,
        "bytes": size,
    }


def main() -> None:
    """Measure every task and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    prepare(1)
    rows = [measure(*task) for task in TASKS]
    if options.json:
        print(json.dumps(rows))
        return
    print("| run | steps | wall time | checkpoints | share of it | longest | size of the last |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        print(
            f"| {row['env']} | {row['steps']:,} | {row['seconds']:.1f} s | {row['checkpoints']}:"
            f" {row['checkpoint_seconds']:.2f} s | {row['share']:.1%} | {row['longest']:.2f} s |"
            f" {row['bytes'] / 1e6:.0f} MB |"
        )


if __name__ == "__main__":
    main()
