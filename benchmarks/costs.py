"""What each value of an axis costs: `python benchmarks/costs.py` writes docs/results/costs.md.

CartPole-v1, one environment, one update per step, batch 32, two layers of 64: the compiled loop of
plain DQN with one value changed. What CartPole has not, goals and joints, a point in the plane has. All
rows take turns in short calls, so that the machine's drift falls on all of them; the figure is the median.
"""

from __future__ import annotations

import argparse
import datetime
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from qhat.axes.bonus import Munchausen
from qhat.axes.dense import Noisy
from qhat.axes.explore import NoExploration
from qhat.axes.heads import Categorical, HLGauss, Implicit, Quantile
from qhat.axes.horizon import Receding
from qhat.axes.joints import Pairs, Regularised
from qhat.axes.merge import Dueling
from qhat.axes.optimiser import AdamW
from qhat.axes.policy import Double, Softmax
from qhat.axes.relabel import Hindsight
from qhat.axes.reset import Periodic
from qhat.axes.resolution import CoarseToFine, Growing
from qhat.axes.sampler import Prioritised
from qhat.axes.target import NoTarget, Soft
from qhat.axes.torso import BroNet, SimBa, SimBaV2
from qhat.axes.training import Rollout
from qhat.engine.iteration import Program
from qhat.engine.loop import Loop
from qhat.environments.base import Environment
from qhat.environments.catalogue import find
from qhat.environments.jax.batch import JaxBatch
from qhat.environments.jax.gymnax import GymnaxEnvironment
from qhat.environments.jax.single import JaxEnvironment
from qhat.recipes.recipe import Recipe
from qhat.system import devices
from qhat_throughput import BASE, VARIANTS

ROOT = Path(__file__).resolve().parent.parent
CALL = 1_000
BASES = ("plain DQN", "point, plain DQN")
"""The rows that the others are compared with: on CartPole, and on the point."""


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
        "target none": replace(BASE, target=NoTarget()),
        "training rollout, an update per step": replace(BASE, target=NoTarget(), training=Rollout()),
        "optimiser adamw": replace(BASE, optimiser=AdamW()),
        "reset periodic": replace(BASE, reset=Periodic()),
        "horizon receding": replace(BASE, horizon=Receding()),
        "torso bronet:width=64, no hidden layer": replace(BASE, torso=BroNet(width=64), hidden=()),
        "torso simba:width=64, no hidden layer": replace(BASE, torso=SimBa(width=64), hidden=()),
        "torso simba2:width=64, no hidden layer": replace(BASE, torso=SimBaV2(width=64), hidden=()),
        "Rainbow": rainbow,
        "Rainbow, support calibrated": replace(rainbow, head=Categorical()),
        "Rainbow with implicit quantiles": replace(rainbow, head=Implicit()),
    }


def rows_of_points() -> dict[str, Recipe]:
    """Decoupled DQN of two joints with nine commands each, and one change each."""
    base = replace(BASE, bins=(9,))
    return {
        "point, plain DQN": base,
        "point, relabel hindsight": replace(base, relabel=Hindsight()),
        "point, joints pairs": replace(base, joints=Pairs()),
        "point, joints regularised": replace(base, joints=Regularised()),
        "point, resolution growing": replace(base, resolution=Growing(last=10_000)),
        "point, resolution coarse_to_fine": replace(base, resolution=CoarseToFine()),
    }


PLANE = gymnasium.spaces.Box(-2.0, 2.0, (2,), np.float32)


class Point(JaxEnvironment):
    """A point that moves to a goal in the plane, rewarded as Gymnasium-Robotics' Fetch."""

    observation_space = gymnasium.spaces.Dict({"achieved_goal": PLANE, "desired_goal": PLANE})
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    max_episode_steps = 50

    def reset(self, key: Any) -> Any:
        """Begin in the middle, with a goal anywhere."""
        state = {"at": jnp.zeros(2), "goal": jax.random.uniform(key, (2,), minval=-1.0)}
        return state, self._shown(state)

    def step(self, state: Any, action: Any, key: Any) -> Any:
        """Move by a tenth of the command."""
        state = {**state, "at": jnp.clip(state["at"] + 0.1 * action, -2.0, 2.0)}
        missed = jnp.linalg.norm(state["at"] - state["goal"]) >= 0.05
        return state, self._shown(state), jnp.where(missed, -1.0, 0.0), False

    def _shown(self, state: Any) -> dict[str, Any]:
        return {"achieved_goal": state["at"], "desired_goal": state["goal"]}


class Runner:
    """One row's compiled loop."""

    def __init__(self, recipe: Recipe, environment: Environment):
        spec = environment.spec
        program = Program.of(recipe.validate(), spec.shape, spec.dtype, spec.actions, layout=spec.layout)
        loop = Loop(program, environment)
        self.state: Any = loop.init(jax.random.split(jax.random.key(0), 1))
        self.advance = loop.compile(CALL)
        for _ in range(2):
            self.call()

    def call(self) -> float:
        """Return the microseconds of one iteration."""
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
    cart_pole, point = GymnaxEnvironment(find("CartPole-v1"), 1), JaxBatch(Point(), 1, bins=(9,))
    runners = {
        name: Runner(recipe, environment)
        for environment, recipes in ((cart_pole, rows()), (point, rows_of_points()))
        for name, recipe in recipes.items()
        if options.only in name or name in BASES
    }
    times: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(options.rounds):
        for name, runner in runners.items():
            times[name].append(runner.call())
    lines = []
    for name, values in times.items():
        middle = statistics.median(values)
        plain = statistics.median(times[BASES[name.startswith("point")]])
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
            "the ratio to plain DQN. The last rows are of a point in the plane: goals, and two joints of",
            "nine commands.",
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
