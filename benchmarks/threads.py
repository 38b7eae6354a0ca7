"""A step of the compiled loop on one thread and on two: `python benchmarks/threads.py`.

Writes docs/results/threads.md: the figures behind `GAIN` in src/qhat/runs/threads.py. CartPole-v1 (and
Breakout-MinAtar), one seed, an update per step. Each figure is measured in separate processes.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from qhat.axes.heads import Implicit
from qhat.recipes.recipe import Recipe
from qhat.runs.threads import threads_for
from qhat.system.devices import prepare
from qhat.system.machine import machine
from qhat_throughput import BASE, VARIANTS

OUT = Path(__file__).resolve().parent.parent / "docs" / "results" / "threads.md"
SECONDS, TURNS, ROUNDS = 4.0, 100, 2
WARMUP = 12
"""Calls before the clock runs: the first ten only fill the replay."""
MINATAR = "gymnax:Breakout-MinAtar"


def wide(width: int, batch: int) -> Recipe:
    """Return plain DQN with two layers of `width`."""
    return replace(BASE, hidden=(width, width), batch_size=batch)


ROWS: dict[str, Recipe] = {
    "DQN, 64×64, batch 32": BASE,
    "DQN, 128×128, batch 64": wide(128, 64),
    "DQN, 256×256, batch 32": wide(256, 32),
    "DQN, 256×256, batch 128": wide(256, 128),
    "DQN, 256×256, batch 256": wide(256, 256),
    "DQN, 512×512, batch 128": wide(512, 128),
    "DQN, 512×512, batch 256": wide(512, 256),
    "DQN, 1024×1024, batch 256": wide(1024, 256),
    "prioritised, 64×64, batch 32": VARIANTS["per"],
    "Rainbow, 64×64, batch 32": VARIANTS["rainbow"],
    "IQN, 64×64, batch 32": replace(BASE, head=Implicit()),
    "IQN, 128×128, batch 64": replace(wide(128, 64), head=Implicit()),
    "MinAtar, 128, batch 32": replace(VARIANTS["minatar"], replay_ratio=1.0),
}


def main() -> None:
    """Measure every row with one thread and with two; write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--row", choices=tuple(ROWS), help="measure this row alone, and print a number")
    options = parser.parse_args()
    if options.row:
        print(json.dumps(measured(options.row)))
        return
    lines = []
    for row, recipe in ROWS.items():
        fewest = [min(_alone(row, threads) for _ in range(ROUNDS)) for threads in (1, 2)]
        chosen = "all" if threads_for(recipe, pictures=False) is None else "1"
        ratio = fewest[1] / fewest[0]
        lines.append(f"| {row} | {fewest[0]:,.0f} | {fewest[1]:,.0f} | {ratio:.2f} | {chosen} |")
        print(lines[-1], flush=True)
    OUT.write_text(_page(lines), encoding="utf-8")
    print(f"Written: {OUT.name}")


def _alone(row: str, threads: int) -> float:
    command = [sys.executable, __file__, "--row", row]
    environment = os.environ | {"PJRT_NPROC": str(threads)}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def measured(row: str) -> float:
    """Return the fewest microseconds of a step."""
    prepare(1)
    import jax

    from qhat.engine.iteration import Program
    from qhat.engine.loop import Loop
    from qhat.environments.make import make_any

    recipe = ROWS[row]
    environment: Any = make_any(MINATAR if row.startswith("MinAtar") else "CartPole-v1", 1, range(1), 1)
    spec = environment.spec
    loop = Loop(Program.of(recipe, spec.shape, spec.dtype, spec.actions), environment, 1)
    state = loop.init(jax.random.split(jax.random.key(0), 1))
    run = loop.compile(TURNS)
    for _ in range(WARMUP):
        state, _ = run(state, TURNS)
    # Calls return before they are done.
    jax.block_until_ready(state)
    times, begun = [], time.perf_counter()
    while time.perf_counter() - begun < SECONDS:
        start = time.perf_counter()
        state, _ = run(state, TURNS)
        jax.block_until_ready(state)
        times.append(time.perf_counter() - start)
    return 1e6 * min(times) / TURNS


def _page(lines: list[str]) -> str:
    return "\n".join(
        [
            "# One thread or two",
            "",
            "Written by `python benchmarks/threads.py`; do not edit.",
            f"{datetime.date.today()}, {machine()}.",
            "",
            f"Microseconds of a step with one update: the fastest {TURNS} steps in a row, of {ROUNDS}"
            f" processes of {SECONDS:.0f} seconds. XLA gives its threads small operations too, and each",
            "then waits for the other's memory. So a seed has one thread, unless an update has a product",
            "of 2²⁴ multiplications or more, or convolutions over pictures (`src/qhat/runs/threads.py`).",
            "`--threads` sets another number.",
            "Images: [updates](updates.md) and [convolutions](convolutions.md).",
            "",
            "| | 1 thread | 2 threads | ratio | qhat takes |",
            "|---|---:|---:|---:|---|",
            *lines,
            "",
        ]
    )


if __name__ == "__main__":
    main()
