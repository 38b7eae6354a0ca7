"""The compiled loop and the run: determinism, separate seeds, resume, and a policy that works.

Protects against seeds that share weights or keys, results that depend on how a run is split, a
target network that is never updated, ε that follows updates, and a resume that starts over.
"""

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tiny
from everything import everything
from full import FULL
from probes import Probes
from qhat import recipes
from qhat.axes.dense import Noisy
from qhat.axes.explore import EpsilonGreedy, NoExploration
from qhat.axes.heads import Categorical
from qhat.axes.sampler import Prioritised
from qhat.axes.target import Hard
from qhat.engine.iteration import Program
from qhat.engine.loop import Loop
from qhat.environments.make import make
from qhat.recipes.config import TrainConfig
from qhat.recipes.recipe import Recipe
from qhat.runs.run import Run, evaluate
from qhat.runs.train import Interrupted, train
from qhat.system.errors import UsageError

TINY = replace(
    recipes.get("chapter_rainbow_per"),
    hidden=(16, 16),
    replay_capacity=600,
    learning_starts=50,
    batch_size=32,
    n_step=3,
    explore=EpsilonGreedy(1.0, 0.1, 400),
    target=Hard(every=7),
).scheduled()

# Noise, and a support that has to be found.
RAINBOW = replace(TINY, head=Categorical(), dense=Noisy(), explore=NoExploration())


def tiny_loop(devices: int = 1, **settings) -> Loop:
    recipe = replace(TINY, **settings)
    environment = make("CartPole-v1", recipe.num_envs)
    spec = environment.spec
    return Loop(Program.of(recipe, spec.shape, spec.dtype, spec.actions), environment, devices)


def keys(*numbers: int) -> jax.Array:
    return jax.vmap(jax.random.key)(np.array(numbers))


LONGEST = 300
"""Iterations of one call in all tests of `tiny_loop`: so they share what is compiled."""


def weights(state) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state.seeds.learner.online)]


def test_how_a_run_is_cut_does_not_change_it() -> None:
    loop = tiny_loop()
    run = loop.compile(LONGEST)
    whole, _ = run(loop.init(keys(0)), 300)
    parts = loop.init(keys(0))
    for count in (1, 99, 120, 80):
        parts, _ = run(parts, count)
    for one, other in zip(weights(whole), weights(parts), strict=True):
        np.testing.assert_array_equal(one, other)


def test_seeds_differ_in_weights_keys_and_episodes() -> None:
    loop = tiny_loop()
    state = loop.init(keys(0, 1, 2, 3))
    for leaf in weights(state):
        assert not np.array_equal(leaf[0], leaf[1])
        assert not np.array_equal(leaf[1], leaf[2])
    state, log = loop.compile(LONGEST)(state, 200)
    actions = np.asarray(state.seeds.ring.action)[:, :150, 0]
    assert not np.array_equal(actions[0], actions[1])
    assert not np.array_equal(np.asarray(log.ended[0]), np.asarray(log.ended[1]))


def test_a_seed_is_the_same_whatever_runs_beside_it() -> None:
    """Two layouts of one seed agree to rounding (docs/determinism.md promises no more)."""
    loop = tiny_loop()
    run = loop.compile(LONGEST)
    alone, _ = run(loop.init(keys(1)), 120)
    beside, _ = run(loop.init(keys(0, 1, 2, 3)), 120)
    for one, other in zip(weights(alone), weights(beside), strict=True):
        np.testing.assert_allclose(one[0], other[1], rtol=1e-3, atol=1e-4)


def test_seeds_over_two_devices_equal_seeds_on_one() -> None:
    if len(jax.local_devices()) < 2:
        pytest.skip("this machine has one core, so JAX was given one device")
    spread, single = tiny_loop(devices=2), tiny_loop()
    two, _ = spread.compile(LONGEST)(spread.init(keys(0, 1, 2, 3)), 100)
    one, _ = single.compile(LONGEST)(single.init(keys(0, 1, 2, 3)), 100)
    for left, right in zip(weights(two), weights(one), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("recipe", [TINY, RAINBOW], ids=lambda recipe: recipe.head.name)
def test_a_fresh_state_has_the_types_that_the_loop_gives_back(recipe: Recipe) -> None:
    loop = tiny_loop(**{field: getattr(recipe, field) for field in ("head", "dense", "explore")})
    fresh = jax.eval_shape(loop.init, keys(0))
    assert not [leaf for leaf in jax.tree.leaves(fresh) if leaf.weak_type]


def test_clock_counts_updates_and_target_follows_updates_not_episodes() -> None:
    loop = tiny_loop(replay_ratio=0.5)
    state, _ = loop.compile(LONGEST)(loop.init(keys(0)), 150)
    assert int(state.clock.iterations) == 150
    assert int(state.clock.updates) == 51  # every second step from step 50 on
    gap = [
        np.abs(online - target).max()
        for online, target in zip(weights(state), jax.tree.leaves(state.seeds.learner.target), strict=True)
    ]
    assert 0 < max(gap) < 0.1


@pytest.mark.parametrize(
    ("num_envs", "ratio", "updates"), [(4, 1.0, 104), (4, 0.125, 13), *([(4, 0.25, 26)] if FULL else [])]
)
def test_updates_per_environment_step_are_the_replay_ratio(
    num_envs: int, ratio: float, updates: int
) -> None:
    loop = tiny_loop(num_envs=num_envs, replay_ratio=ratio, learning_starts=100)
    state, _ = loop.compile(LONGEST)(loop.init(keys(0)), 50)
    assert int(state.clock.updates) == updates


def test_processes_with_one_seed_make_the_same_bits(tmp_path: Path) -> None:
    """For any hash order of Python; two seeds, on two devices if there are two cores.

    The processes compile with full optimisation, as users do.
    """
    left = []
    plain = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    for hash_seed in ("0", "1"):
        folder = tmp_path / hash_seed
        words = ["train", "CartPole-v1", "--steps", "600", "--seed", "3", "--seeds", "2", "--hidden", "16",
                 "--recipe", "rainbow", "--learning-starts", "100", "--save-every", "300",
                 "--eval-every", "200", "--eval-episodes", "2", "--json",
                 "--run-dir", str(folder)]  # fmt: skip
        environment = {**plain, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-m", "qhat", *words], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["step"] == 600
        left.append(everything(folder))
    assert left[0] == left[1]


def _config(folder: Path, **settings) -> TrainConfig:
    base = {"env": "CartPole-v1", "recipe": tiny.TINY, "run_dir": folder,
            "steps": 600, "seeds": 2, "eval_every": 200, "eval_episodes": 2, "save_every": 300}  # fmt: skip
    return TrainConfig(**{**base, **settings})


@pytest.mark.parametrize(
    "recipe", [TINY, RAINBOW] if FULL else [RAINBOW], ids=lambda recipe: recipe.head.name
)
def test_a_resumed_run_equals_one_that_never_stopped(recipe: Recipe, tmp_path: Path) -> None:
    whole = train("CartPole-v1", _config(tmp_path / "whole", recipe=recipe))
    calls = iter([False, True, True, True])
    with pytest.raises(Interrupted):
        train("CartPole-v1", _config(tmp_path / "parts", recipe=recipe), should_stop=lambda: next(calls))
    parts = train("CartPole-v1", _config(tmp_path / "parts", recipe=recipe, resume=True))
    assert whole.weights_sha256() == parts.weights_sha256()
    assert whole.weights_sha256("best") == parts.weights_sha256("best")
    for table in ("eval.csv", "metrics.csv"):
        one, other = (_table(run.folder.path / table) for run in (whole, parts))
        assert one == other


def _table(path: Path) -> list[tuple]:
    """Return rows without columns that depend on time or on the length of calls."""
    with path.open() as file:
        rows = [row for row in csv.DictReader(file) if row.get("kind") != "progress"]
    return [tuple(value for key, value in row.items() if key != "steps_per_second") for row in rows]


def test_resuming_with_more_steps_goes_on_and_with_other_settings_is_refused(
    tmp_path: Path,
) -> None:
    train("CartPole-v1", _config(tmp_path / "run", steps=300))
    more = train("CartPole-v1", _config(tmp_path / "run", steps=500, resume=True))
    assert more.summary()["step"] == 500
    other = replace(tiny.TINY, gamma=0.5)
    with pytest.raises(UsageError, match=r"trained with gamma 0\.995 and not 0\.5"):
        train("CartPole-v1", _config(tmp_path / "run", steps=700, resume=True, recipe=other))


def test_epsilon_follows_environment_steps() -> None:
    explore = EpsilonGreedy(1.0, 0.1, 1_000)
    assert [round(float(explore.epsilon(jnp.int32(at))), 3) for at in (0, 500, 1_000, 9_999)] == [
        1.0, 0.55, 0.1, 0.1,
    ]  # fmt: skip


def test_a_run_starts_from_anothers_weights(trained_cartpole: Run, tmp_path: Path) -> None:
    config = _config(tmp_path / "run", steps=1, init_from=trained_cartpole.folder.path, seeds=1)
    second = train("CartPole-v1", config)
    best = jax.tree.leaves(trained_cartpole.weights("best"))
    for one, other in zip(best, jax.tree.leaves(second.weights("last")), strict=True):
        np.testing.assert_array_equal(one[:1], other)


def test_a_warm_start_keeps_the_support_that_its_weights_mean(tmp_path: Path) -> None:
    first = train("CartPole-v1", _config(tmp_path / "first", recipe=RAINBOW))
    still = replace(RAINBOW, learning_rate=1e-12, gamma=0.5)
    config = _config(tmp_path / "second", recipe=still, init_from=tmp_path / "first")
    second = train("CartPole-v1", config)
    for name in ("origin", "spacing"):
        one, other = (
            run.weights(which)["support"][name] for run, which in ((first, "best"), (second, "last"))
        )
        np.testing.assert_array_equal(one, other)
    other = replace(RAINBOW, head=Categorical(v_min=0.0, v_max=500.0))
    with pytest.raises(UsageError, match="head categorical; expected categorical:v_min=0"):
        train("CartPole-v1", _config(tmp_path / "third", recipe=other, init_from=tmp_path / "first"))


def test_a_users_environment_trains(tmp_path: Path) -> None:
    config = TrainConfig(
        "probes",
        recipe=replace(TINY, num_envs=5, replay_ratio=0.2, learning_starts=50),
        run_dir=tmp_path / "run",
        steps=500,
        eval_every=250,
        eval_episodes=5,
    )
    run = train(Probes(5), config)
    assert run.summary()["step"] == 500


def test_cartpole_is_learned_and_judged_by_gymnasium(tmp_path: Path) -> None:
    """The default recipe, five seeds: the bar is low enough for noise and far above chance (22)."""
    config = TrainConfig("CartPole-v1", steps=30_000, seeds=6, run_dir=tmp_path / "run")
    run = train("CartPole-v1", config)
    score = evaluate(run.folder.path, episodes=20)
    assert score.iqm > 350
    assert score.ci95 is not None
    assert score.ci95[0] > 200
    assert len(score.per_seed) == 6


@pytest.mark.parametrize(
    "env_id", ["Breakout-MinAtar", *(["Catch-bsuite", "Acrobot-v1", "MountainCar-v0"] if FULL else [])]
)
def test_other_environments_run(env_id: str, tmp_path: Path) -> None:
    settings = {"learning_starts": 40, "batch_size": 16, "sampler": Prioritised(), "hidden": (16,)}
    if env_id.endswith("MinAtar"):
        from qhat.axes.torso import MinAtar

        settings["torso"] = MinAtar(filters=4)
    config = TrainConfig(
        env_id,
        recipe=replace(TINY, **settings),
        run_dir=tmp_path / "run",
        steps=60,
        eval_every=60,
        eval_episodes=2,
    )
    run = train(env_id, config)
    dtype = "bool" if env_id.endswith("MinAtar") else "float32"
    assert run.spec.dtype == dtype
