"""The compiled loop against the host loop, the same agent: `python benchmarks/loops.py`.

Writes docs/results/loops.md. Speeds are the median over the compiled calls of a run after its first two.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import statistics
import tempfile
from pathlib import Path
from typing import Any

import qhat
from qhat.recipes.presets import PRESETS
from qhat.recipes.recipe import Recipe

ROOT = Path(__file__).resolve().parent.parent
SMALL = dataclasses.replace(qhat.recipes.get("dqn"), hidden=(64, 64), batch_size=32, max_gradient_norm=None)
"""One environment, one update per step, batches of 32, 64×64: the work of docs/results/benchmarks.md."""


def main() -> None:
    """Run both loops on both tasks; write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "loops.md")
    options = parser.parse_args()
    walker = PRESETS["WalkerWalk-v1"].recipe
    lines = []
    for shown, recipe, steps, compiled, hosted, asked in (
        ("CartPole-v1", SMALL, 30_000, ("CartPole-v1", {}), ("gym:CartPole-v1", {}), 4.0),
        ("WalkerWalk-v1", walker, 60_000, ("WalkerWalk-v1", {}), ("WalkerWalk-v1", {"host": True}), 1.3),
    ):
        fast, slow = (speed(env, options, recipe, steps) for env, options in (compiled, hosted))
        lines.append(f"| {shown} | {fast:,.0f} | {slow:,.0f} | {fast / slow:.1f}× | {asked}× |")
        print(lines[-1], flush=True)
    options.out.write_text(_page(lines), encoding="utf-8")


def speed(env: str, options: dict[str, Any], recipe: Recipe, steps: int) -> float:
    """Return environment steps per second while learning."""
    rates = []
    with tempfile.TemporaryDirectory() as folder:
        config = qhat.TrainConfig(
            env, recipe=recipe, steps=steps, eval_every=steps, save_every=steps, eval_episodes=1,
            env_kwargs=options, run_dir=Path(folder) / "run",
        )  # fmt: skip
        qhat.train(env, config, progress=lambda now: rates.append(now.steps_per_second))
    return statistics.median(rates[2:])


def _page(lines: list[str]) -> str:
    return "\n".join(
        [
            "# The compiled loop and the host loop",
            "",
            f"{datetime.date.today()}, one seed, two cores of an AMD EPYC; environment steps per second",
            "with learning, the same agent on both. CartPole: one environment, one update of 64×64 with",
            "a batch of 32 per step; gymnax against Gymnasium. Walker: its preset, EnvPool's compiled",
            "step against its host interface.",
            "",
            "    python benchmarks/loops.py",
            "",
            "| task | compiled | host | ratio | asked |",
            "|---|---:|---:|---:|---:|",
            *lines,
            "",
        ]
    )


if __name__ == "__main__":
    main()
