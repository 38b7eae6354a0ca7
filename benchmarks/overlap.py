"""What a step gains when EnvPool steps while the update runs: `python benchmarks/overlap.py`.

Writes docs/results/overlap.md. Each row has two loops in one process, one of which waits for the
environments before it updates; they take turns, and the ratio is the median over the turns.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from qhat.axes.torso import DataEfficient, Mnih2013
from qhat.recipes.recipe import Recipe
from qhat.runs.threads import threads_for
from qhat.system.devices import prepare
from qhat.system.machine import machine
from qhat_throughput import PONG, VARIANTS

OUT = Path(__file__).resolve().parent.parent / "docs" / "results" / "overlap.md"
SECONDS, TURNS, WARMUP = 3.0, 8, 1_500
LONGEST = 1_000
"""Iterations of a call, at most."""
PONG_ID = "envpool:Pong-v5"
SMALL = replace(PONG, hidden=(256,))
ENCODERS = {
    "nature": PONG,
    "mnih2013": replace(SMALL, torso=Mnih2013()),
    "data_efficient": replace(SMALL, torso=DataEfficient()),
}
ROWS: dict[str, tuple[str, Recipe]] = {
    **{
        f"Pong, {name}, {envs} environment{'s' * (envs > 1)}": (PONG_ID, replace(recipe, num_envs=envs))
        for name, recipe in ENCODERS.items()
        for envs in (1, 8)
    },
    "LunarLander, 256×256, 8 environments": ("envpool:LunarLander-v3", VARIANTS["lunarlander"]),
    "Ant, 256×256, 8 environments": ("envpool:Ant-v5", VARIANTS["lunarlander"]),
}


def main() -> None:
    """Measure every row in a process of its own; write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--row", choices=tuple(ROWS), help="measure this row alone, and print its figures")
    options = parser.parse_args()
    if options.row:
        print(json.dumps(measured(options.row)))
        return
    lines = []
    for row in ROWS:
        command = [sys.executable, __file__, "--row", row]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        after, during, ratio, low, high = json.loads(done.stdout.splitlines()[-1])
        lines.append(f"| {row} | {after:,.0f} | {during:,.0f} | {ratio:.2f} ({low:.2f}–{high:.2f}) |")
        print(lines[-1], flush=True)
    OUT.write_text(_page(lines), encoding="utf-8")
    print(f"Written: {OUT.name}")


def measured(row: str) -> tuple[float, float, float, float, float]:
    """Return steps per second without and with the overlap, and their ratio: median, lowest, highest."""
    env, recipe = ROWS[row]
    prepare(1, threads=threads_for(recipe, pictures=env == PONG_ID))
    loops = [_Run(env, recipe, overlaps) for overlaps in (False, True)]
    # Both do the same number of iterations, chosen by the slower.
    count = max(1, int(min(loop.speed for loop in loops) * SECONDS / recipe.num_envs))
    pairs = [tuple(loop.rate(count) for loop in loops) for _ in range(TURNS)]
    ratios = [during / after for after, during in pairs]
    after, during = (statistics.median(each) for each in zip(*pairs, strict=True))
    return after, during, statistics.median(ratios), min(ratios), max(ratios)


class _Run:
    """One loop, warm."""

    def __init__(self, env: str, recipe: Recipe, overlaps: bool):
        import jax

        from qhat.engine.iteration import Program
        from qhat.engine.loop import Loop
        from qhat.environments.make import make_any

        environment: Any = make_any(env, recipe.num_envs, range(1), 1)
        environment.is_async = overlaps
        spec = environment.spec
        program = Program.of(recipe, spec.shape, spec.dtype, spec.actions, stack=spec.stack)
        loop = Loop(program, environment, 1)
        self.envs = recipe.num_envs
        self.state: Any = loop.init(jax.random.split(jax.random.key(0), 1))
        self.run: Callable[[Any, int], Any] = loop.compile(LONGEST)
        self.rate(WARMUP // self.envs)
        self.speed = self.rate(200)

    def rate(self, count: int) -> float:
        """Do `count` iterations; return steps per second."""
        import jax

        start = time.perf_counter()
        for done in range(0, count, LONGEST):
            self.state, _ = self.run(self.state, min(LONGEST, count - done))
        jax.block_until_ready(self.state)
        return count * self.envs / (time.perf_counter() - start)


def _page(lines: list[str]) -> str:
    return "\n".join(
        [
            "# Environments that step while the update runs",
            "",
            "Written by `python benchmarks/overlap.py`; do not edit.",
            f"{datetime.date.today()}, {machine()}.",
            "",
            "Steps per second of plain DQN with an update per four steps, in the compiled loop with",
            "EnvPool. *After* waits for the environments, then updates; *during* is what qhat does: it",
            "chooses the next action first, and updates while the environments step.",
            f"{TURNS} turns of about {SECONDS:.0f} seconds each, one after the other; the ratio is the",
            "median over the turns, with the lowest and the highest.",
            "",
            "| | after | during | × |",
            "|---|---:|---:|---:|",
            *lines,
            "",
        ]
    )


if __name__ == "__main__":
    main()
