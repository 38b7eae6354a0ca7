"""A quadruped that follows a joystick, tried by Q-learning: `python benchmarks/go1.py`.

MuJoCo Playground's Go1 on flat ground, by EnvPool: velocities are commanded, and followed with twelve
joints. Every seed's last policy, one that holds the standing pose, and one that draws its commands play
fresh episodes. The settings are here and no preset: nobody should get them unasked.
`--keep FILE` goes on from seeds that are done.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import envpool
import jax
import jax.numpy as jnp
import numpy as np

import qhat
from qhat.axes.explore import EpsilonGreedy
from qhat.axes.policy import Double
from qhat.axes.sampler import Prioritised
from qhat.environments.spaces import Observations
from qhat.environments.wrappers import RewardScale
from qhat.evaluation.statistics import iqm, stratified_bootstrap_ci

ROOT = Path(__file__).resolve().parent.parent
TASK = "Go1JoystickFlatTerrain-v1"
EPISODES, LIMIT, JOINTS = 50, 1_000, 12
STEPS = 1_500_000
RECIPE = dataclasses.replace(
    qhat.recipes.get("decqn"), policy=Double(), bins=(3,), gamma=0.97, hidden=(128, 128), normalise=True,
    sampler=Prioritised(), replay_ratio=0.5, learning_starts=5_000, learning_rate_steps=STEPS - 50_000,
    explore=EpsilonGreedy(1.0, 0.05, 50_000, per_factor=True),
)  # fmt: skip
MEASURES = {
    "return": "reward",
    "speed": "reward_tracking_lin_vel",
    "turning": "reward_tracking_ang_vel",
}
"""What is summed of the episodes: in the table, and in the pool's rows."""
Choose = Callable[[np.ndarray], np.ndarray]


def main() -> None:
    """Train and judge; write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--keep", type=Path, default=ROOT / "docs" / "results" / "go1.json")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "go1.md")
    options = parser.parse_args()
    done: dict[str, Any] = json.loads(options.keep.read_text()) if options.keep.exists() else {}
    rng = np.random.default_rng(0)
    todo: dict[str, Callable[[], dict[str, float]]] = {
        "stands": lambda: judged(lambda observations: np.zeros((len(observations), JOINTS))),
        "draws": lambda: judged(lambda observations: rng.uniform(-1, 1, (len(observations), JOINTS))),
        **{f"seed {seed}": lambda seed=seed: trained(seed) for seed in range(options.seeds)},
    }
    for name, measure in todo.items():
        if name not in done:
            done[name] = measure()
            print(name, done[name], flush=True)
            options.keep.write_text(json.dumps(done, indent=1) + "\n", encoding="utf-8")
    options.out.write_text(_page(done), encoding="utf-8")


def trained(seed: int) -> dict[str, float]:
    """Train a seed and judge its last policy."""
    with tempfile.TemporaryDirectory() as folder:
        # A step pays some hundredths.
        config = qhat.TrainConfig(
            TASK, recipe=RECIPE, steps=STEPS, eval_every=STEPS // 5, eval_episodes=10, seed=seed,
            save_every=STEPS, wrap=(RewardScale(30.0),), run_dir=Path(folder) / "run",
        )  # fmt: skip
        began = time.perf_counter()
        policy = qhat.train(TASK, config).policy(checkpoint="last")
        seconds = time.perf_counter() - began
    values = jax.jit(jax.vmap(policy.learner.q_values, (None, 0)))
    table = policy.spec.actions.table

    def choose(observations: np.ndarray) -> np.ndarray:
        choice = np.asarray(values(policy.parameters, jnp.asarray(observations))).argmax(-1)
        return table[np.arange(JOINTS), choice].astype(np.float64)

    return {**judged(choose), "seconds": seconds}


def judged(choose: Choose) -> dict[str, float]:
    """Return means over one episode of each copy; of what is followed, per step of a whole episode."""
    pool = envpool.make(TASK, env_type="gymnasium", num_envs=EPISODES, seed=list(range(9_000, 9_050)))
    read = Observations.of(pool.observation_space, TASK).read
    observations, _ = pool.reset()
    alive = np.ones(EPISODES, bool)
    sums = {name: np.zeros(EPISODES) for name in (*MEASURES, "length")}
    for _ in range(LIMIT):
        observations, reward, terminated, truncated, info = pool.step(choose(read(observations)))
        for name, key in MEASURES.items():
            sums[name] += alive * (reward if key == "reward" else info[key])
        sums["length"] += alive
        alive &= ~(terminated | truncated)
    pool.close()
    return {name: float(total.mean()) / (LIMIT if name in ("speed", "turning") else 1)
            for name, total in sums.items()}  # fmt: skip


def _page(done: dict[str, Any]) -> str:
    seeds = [result for name, result in done.items() if name.startswith("seed")]
    named = {
        "one that keeps the standing pose": done["stands"],
        "one that draws its commands": done["draws"],
    }
    lines = [_row(name, result) for name, result in named.items()]
    lines += [_row(f"qhat, {name}", result) for name, result in done.items() if name.startswith("seed")]
    middle = iqm([result["return"] for result in seeds])
    low, high = stratified_bootstrap_ci([[result["return"]] for result in seeds], iqm).ravel()
    seconds = max(result["seconds"] for result in seeds)
    return "\n".join(
        [
            "# Go1 follows a joystick: an attempt",
            "",
            f"{datetime.date.today()}. MuJoCo Playground's Go1 on flat ground, by EnvPool with its own",
            f"options; decoupled Q-learning, {STEPS:,} steps in at most {seconds:.0f} s on two cores of an",
            f"AMD EPYC. Every policy plays {EPISODES} fresh episodes",
            f"of at most {LIMIT:,} steps (20 s), with noisy sensors and commands that change; a fall ends",
            "one. Speed and turning are the task's own terms exp(−error²/0.25), 1 where the command is",
            "followed exactly, per step of a whole episode.",
            "",
            "    python benchmarks/go1.py",
            "",
            "| policy | return | steps until a fall | speed followed | turning followed |",
            "|---|---:|---:|---:|---:|",
            *lines,
            "",
            f"IQM of the seeds' returns: {middle:.1f} [{low:.1f}, {high:.1f}].",
            "",
        ]
    )


def _row(name: str, result: dict[str, float]) -> str:
    return (
        f"| {name} | {result['return']:.1f} | {result['length']:.0f} |"
        f" {result['speed']:.2f} | {result['turning']:.2f} |"
    )


if __name__ == "__main__":
    main()
