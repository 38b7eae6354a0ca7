"""What each value of an axis costs: `python benchmarks/costs.py` writes docs/results/costs.md.

CartPole-v1, one environment, one update per step, batch 32, two layers of 64: the compiled loop of
plain DQN with one value changed. All rows take turns in short calls, so that the machine's drift
falls on all of them; the figure is the median.
"""

from __future__ import annotations

import argparse
import datetime
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from qhat.axes.bonus import Munchausen
from qhat.axes.dense import Noisy
from qhat.axes.explore import NoExploration
from qhat.axes.heads import Categorical, HLGauss, Implicit, Quantile
from qhat.axes.merge import Dueling
from qhat.axes.optimiser import AdamW
from qhat.axes.policy import Double, Softmax
from qhat.axes.reset import Periodic
from qhat.axes.sampler import Prioritised
from qhat.axes.target import Soft
from qhat.axes.torso import BroNet, SimBa
from qhat.recipes.recipe import Recipe
from qhat.system import devices
from qhat_throughput import BASE, VARIANTS

ROOT = Path(__file__).resolve().parent.parent
CALL = 1_000


def rows() -> dict[str, Recipe]:
    """Plain DQN, and one change each; then the whole Rainbow."""
    rainbow = VARIANTS["rainbow"]
    return {
        "plain DQN": BASE,
        "head categorical (51 atoms)": replace(BASE, head=Categorical()),
        "head categorical, fixed support": replace(BASE, head=Categorical(v_min=0.0, v_max=100.0)),
        "head quantile (51)": replace(BASE, head=Quantile()),
        "head implicit (8, 8, 32)": replace(BASE, head=Implicit()),
        "head hl_gauss (51 atoms)": replace(BASE, head=HLGauss()),
        "policy double": replace(BASE, policy=Double()),
        "policy softmax": replace(BASE, policy=Softmax()),
        "bonus munchausen": replace(BASE, bonus=Munchausen()),
        "munchausen and softmax (M-DQN)": replace(BASE, bonus=Munchausen(), policy=Softmax()),
        "merge dueling": replace(BASE, merge=Dueling()),
        "dense noisy": replace(BASE, dense=Noisy(), explore=NoExploration()),
        "n_step 3": replace(BASE, n_step=3),
        "n_step 20": replace(BASE, n_step=20),
        "sampler prioritised": replace(BASE, sampler=Prioritised()),
        "target soft": replace(BASE, target=Soft()),
        "optimiser adamw": replace(BASE, optimiser=AdamW()),
        "reset periodic": replace(BASE, reset=Periodic()),
        "torso bronet:width=64, no hidden layer": replace(BASE, torso=BroNet(width=64), hidden=()),
        "torso simba:width=64, no hidden layer": replace(BASE, torso=SimBa(width=64), hidden=()),
        "Rainbow": rainbow,
        "Rainbow, support calibrated": replace(rainbow, head=Categorical()),
        "Rainbow with implicit quantiles": replace(rainbow, head=Implicit()),
    }


class Runner:
    """One row's compiled loop."""

    def __init__(self, recipe: Recipe):
        import jax

        from qhat.engine.iteration import Program
        from qhat.engine.loop import Loop
        from qhat.environments.catalogue import find
        from qhat.environments.jax.gymnax import GymnaxEnvironment

        environment = GymnaxEnvironment(find("CartPole-v1"), 1)
        spec = environment.spec
        program = Program.of(recipe.validate(), spec.shape, spec.dtype, spec.actions)
        loop = Loop(program, environment)
        self.state: Any = loop.init(jax.random.split(jax.random.key(0), 1))
        self.advance = loop.compile(CALL)
        for _ in range(2):
            self.call()

    def call(self) -> float:
        """Return the microseconds of one iteration."""
        import jax

        start = time.perf_counter()
        self.state, _ = self.advance(self.state, CALL)
        jax.block_until_ready(self.state)
        return (time.perf_counter() - start) / CALL * 1e6


def main() -> None:
    """Compile all, take turns, write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="", help="rows whose name contains this (and plain DQN)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "costs.md")
    options = parser.parse_args()
    devices.prepare(1, threads=1)
    chosen = {name: recipe for name, recipe in rows().items() if options.only in name or recipe is BASE}
    runners = {name: Runner(recipe) for name, recipe in chosen.items()}
    times: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(options.rounds):
        for name, runner in runners.items():
            times[name].append(runner.call())
    plain = statistics.median(times["plain DQN"])
    lines = []
    for name, values in times.items():
        middle = statistics.median(values)
        lines.append(
            f"| {name} | {middle:.0f} ({min(values):.0f}–{max(values):.0f}) | {middle / plain:.2f} |"
        )
        print(lines[-1])
    if not options.only:
        options.out.write_text(_page(lines), encoding="utf-8")


def _page(lines: list[str]) -> str:
    return "\n".join(
        [
            "# What each value of an axis costs",
            "",
            f"CPU, one thread, {datetime.date.today()}. Microseconds of one iteration of the compiled",
            "loop (environment step, store, one update, choice of an action) on CartPole-v1, batch 32,",
            "hidden layers 64 and 64: median (lowest–highest) of calls of 1,000 iterations in turn, and",
            "the ratio to plain DQN.",
            "",
            "    python benchmarks/costs.py",
            "",
            "| composition | µs | × plain DQN |",
            "|---|---:|---:|",
            *lines,
            "",
        ]
    )


if __name__ == "__main__":
    main()
