"""A run that is split at a checkpoint equals one that is not: every saved bit, every row.

Protects what other projects lose: the optimiser, replay, priorities, keys, schedules and open episodes.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Int

from everything import everything
from full import FULL
from goal_envs import Line
from qhat import recipes
from qhat.axes.actions import Actions
from qhat.axes.explore import EpsilonGreedy
from qhat.axes.memory import MinGRU
from qhat.axes.relabel import Hindsight
from qhat.axes.sampler import Prioritised
from qhat.axes.target import Hard
from qhat.engine.loop import Loop
from qhat.environments.base import Environment, Spec, Timestep
from qhat.environments.user_envs import EnvLike
from qhat.recipes.config import TrainConfig
from qhat.recipes.recipe import Recipe
from qhat.runs import job
from qhat.runs.train import train

EVERY = 24
"""Environment steps between checkpoints: whole iterations of 1 and of 8 environments."""
STEPS = 21 * EVERY
SPLITS = range(EVERY, STEPS, EVERY) if FULL else (2 * EVERY, 13 * EVERY)
"""Before the first update, and when replay has begun to be written over."""
# Between them a part of every axis: priorities, noise, atoms, fractions, a bonus, several factors, goals,
# a memory, demonstrations that stay.
SOME = ("rainbow", "m_iqn", "bdq", "her", "qhat", "drqn", "dqfd")


class Arm(Environment):
    """Two joints, of 3 and 2 commands, that move to a target, which is random in every episode."""

    def __init__(self, num_envs: int):
        self.num_envs = num_envs
        self.spec = Spec("arm", "test", (4,), "float32", Actions((3, 2)))

    def reset(self, key: Array) -> tuple[Any, Array]:
        drawn = jax.random.uniform(key, (self.num_envs, 4), minval=-1.0)
        return (drawn, jnp.zeros(self.num_envs, jnp.int32)), drawn

    def step(self, state: Any, action: Int[Array, "E F"], key: Array) -> tuple[Any, Timestep]:
        position, time = state
        move = 0.2 * (action - jnp.array([1.0, 0.5]))
        successor = position.at[:, :2].add(move)
        gap = jnp.abs(successor[:, :2] - successor[:, 2:]).sum(axis=1)
        terminated, truncated = gap < 0.3, (time == 12) & (gap >= 0.3)
        ended = terminated | truncated
        (fresh, _), _ = self.reset(key)
        position = jnp.where(ended[:, None], fresh, successor)
        real = jnp.ones(self.num_envs, bool)
        step = Timestep(position, -gap, terminated, truncated, successor=successor, real=real)
        return (position, jnp.where(ended, 0, time + 1)), step


def small(recipe: Recipe) -> Recipe:
    """Return the recipe with moving schedules, and with a replay so small that it is overwritten."""
    parts: dict[str, Any] = {}
    if isinstance(recipe.explore, EpsilonGreedy):
        parts["explore"] = dataclasses.replace(recipe.explore, steps=400)
    if isinstance(recipe.sampler, Prioritised):
        parts["sampler"] = dataclasses.replace(recipe.sampler, steps=400)
    if isinstance(recipe.target, Hard):
        parts["target"] = Hard(every=7)
    if recipe.memory.remembers:
        parts |= {"memory": MinGRU(units=8, length=4, burn_in=2), "num_envs": 8}
    return dataclasses.replace(
        recipe, hidden=(8, 8), batch_size=8, learning_starts=60, replay_capacity=240,
        learning_rate_end=1e-4, learning_rate_steps=400, **parts,
    )  # fmt: skip


def recorded(path: Path) -> str:
    """Write 300 random steps in the shapes of CartPole, in episodes of 30."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(2, 300, 4)).astype(np.float32)
    columns = {"observation": rows[0], "next_observation": rows[1], "action": rng.integers(2, size=300)}
    rows[1, :-1] = rows[0, 1:]
    ends = np.arange(1, 301) % 30 == 0
    np.savez(path, reward=np.ones(300), terminated=ends, **columns)
    return str(path)


def begun(name: str, folder: Path) -> tuple[EnvLike | str, TrainConfig]:
    """Return the test's environment: two joints for robots' recipes, CartPole for the others."""
    recipe = small(recipes.get(name))
    env = Arm(recipe.num_envs) if recipe.num_envs > 1 else "CartPole-v1"
    if recipe.resolution.name != "full":
        env = "Pendulum-v1"
    if recipe.relabel.happens:
        recipe, env = dataclasses.replace(recipe, relabel=Hindsight(distance=0.5)), Line()
    data = () if recipe.training.acts and not recipe.demo_share else (recorded(folder.parent / "log.npz"),)
    return env, TrainConfig(
        env if isinstance(env, str) else "arm" if isinstance(env, Arm) else "own:Line", name, recipe, steps=STEPS, save_every=EVERY,
        eval_every=5 * EVERY, eval_episodes=recipe.num_envs, keep=STEPS // EVERY, run_dir=folder,
        demos=data,
    )  # fmt: skip


def part(whole: Path, step: int, folder: Path) -> Path:
    """Copy a run in its state right after the checkpoint of `step`."""
    shutil.copytree(whole, folder, ignore=shutil.ignore_patterns("checkpoints", "lock"))
    shutil.copytree(whole / "checkpoints" / str(step), folder / "checkpoints" / str(step))
    (folder / "last").write_text(f"{step}\n")
    return folder


def first_result(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that calls `function` the first time, and always returns that result."""
    made: list[Any] = []

    def shared(*args: Any, **options: Any) -> Any:
        if not made:
            made.append(function(*args, **options))
        return made[0]

    return shared


@pytest.mark.parametrize("name", recipes.RECIPES if FULL else SOME)
def test_a_run_is_the_same_wherever_it_is_split(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # All these runs are of one program, which a process of its own would load from the cache.
    monkeypatch.setattr(Loop, "compile", first_result(Loop.compile))
    monkeypatch.setattr(job, "play_of", first_result(job.play_of))
    env, config = begun(name, tmp_path / "whole")
    train(env, config)
    whole = everything(tmp_path / "whole")
    for step in SPLITS:
        folder = part(tmp_path / "whole", step, tmp_path / str(step))
        train(env, dataclasses.replace(config, run_dir=folder, resume=True, demos=()))
        assert everything(folder) == whole, f"{name}, split at step {step}"
        shutil.rmtree(folder)


@pytest.mark.filterwarnings("ignore:.*precision lowered by casting")
@pytest.mark.parametrize("env", ["gym:CartPole-v1", "envpool:CartPole-v1"])
def test_where_episodes_cannot_be_saved_others_begin_and_always_the_same(env: str, tmp_path: Path):
    recipe = dataclasses.replace(small(recipes.get("per_dqn")), num_envs=2, replay_ratio=0.5)
    config = TrainConfig(
        env, "per_dqn", recipe, steps=300, save_every=100, eval_every=300, eval_episodes=2, keep=3,
        run_dir=tmp_path / "whole",
    )  # fmt: skip
    train(env, config)
    left = []
    for name in ("one", "two"):
        folder = part(tmp_path / "whole", 100, tmp_path / name)
        train(env, dataclasses.replace(config, run_dir=folder, resume=True))
        left.append(everything(folder))
    assert left[0] == left[1]
    assert "Resuming begins new episodes" in (tmp_path / "one" / "README.md").read_text()


def test_fewer_steps_than_a_run_has_do_not_shorten_it(tmp_path: Path):
    more = {"run_dir": tmp_path / "run", "eval_every": 200, "eval_episodes": 1}
    config = TrainConfig("CartPole-v1", recipe=recipes.get("dqn"), steps=400, **more)
    run = train("CartPole-v1", config)
    before = run.folder.read_config()
    again = train("CartPole-v1", dataclasses.replace(config, steps=100, recipe=run.program.recipe, resume=True))
    assert again.summary()["step"] == 400
    assert again.folder.read_config()["steps"] == before["steps"] == 400
