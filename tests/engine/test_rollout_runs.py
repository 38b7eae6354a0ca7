"""Rollouts from their beginnings to their values: environments in Python, masks, heads, seeds, stops.

Protects against a reset row that is learned from, an action that the mask forbids, a head whose support
stays where it was, seeds that share something, and a stop in the middle of a rollout that changes the run.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

import qhat
from learned import learned_q
from probes import KINDS, Probes, expected_q
from qhat.axes import Categorical, EpsilonGreedy, Expected, HLGauss, NoTarget, Quantile, Rollout
from qhat.engine.host import HostLoop
from qhat.engine.iteration import Program
from qhat.engine.loop import Loop
from qhat.engine.replay.returns import latest
from qhat.environments.gymnasium.environment import GymnasiumEnvironment
from qhat.recipes.recipe import Recipe
from qhat.runs.train import Interrupted

T = 8
RECIPE = Recipe(
    head=Expected(delta=None), training=Rollout(steps=T), target=NoTarget(), hidden=(16,), layer_norm=True,
    gamma=0.9, num_envs=2, batch_size=8, replay_ratio=2 / 8, learning_starts=0, learning_rate=2e-3,
    explore=EpsilonGreedy(1.0, 0.5, 1_000),
).scheduled(4_000)  # fmt: skip


class Noted(gymnasium.Env):
    """Allows one of three actions, which changes at every step; each reward is the number of the step."""

    observation_space = gymnasium.spaces.Box(0, 3, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(3)
    made: list[Noted]

    def __init__(self) -> None:
        self.made.append(self)
        self.steps, self.time = 0, 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
        super().reset(seed=seed)
        self.time = 0
        return self._say()

    def _say(self) -> Any:
        self.allowed = int(self.np_random.integers(3))
        return np.array([self.allowed], np.float32), {"action_mask": np.eye(3, dtype=np.int8)[self.allowed]}

    def step(self, action: int) -> Any:
        assert action == self.allowed, "an action that the mask forbids"
        self.steps, self.time = self.steps + 1, self.time + 1
        terminated, truncated = self.time == 7, self.time == 5 and self.np_random.random() < 0.5
        observation, info = self._say()
        return observation, float(self.steps), terminated, truncated, info


def noted(mode: AutoresetMode) -> GymnasiumEnvironment:
    Noted.made = []
    return GymnasiumEnvironment(
        "noted", gymnasium.vector.SyncVectorEnv([Noted] * 2, autoreset_mode=mode), (1, 2)
    )


@pytest.mark.parametrize("mode", AutoresetMode, ids=str)
@pytest.mark.parametrize("counts", [(3 * T,), (5, 2 * T, T - 5)], ids=["whole", "parts"])
def test_a_rollout_in_python_has_every_step_and_no_reset(mode: AutoresetMode, counts: Any) -> None:
    """The environments forbid all actions but one, so that learning and acting obey the masks too."""
    environment = noted(mode)
    spec = environment.spec
    assert spec.masked
    program = Program.of(RECIPE, spec.shape, spec.dtype, spec.actions, spec.masked)
    loop = HostLoop(program, environment)
    run, state = loop.compile(3 * T), loop.init(jax.random.split(jax.random.key(0), 1))
    for count in counts:
        state, _ = run(state, count)
    ring = jax.tree.map(lambda leaf: leaf[0], state.seeds.ring)
    slots, kinds = latest(ring, T)
    steps = np.array([env.steps for env in Noted.made[-2:]])
    np.testing.assert_array_equal(ring.reward[slots], steps - np.arange(T)[:, None])
    assert (np.asarray(kinds) > 0).all()
    shown = np.asarray(ring.observation[slots, 0]).astype(int)
    np.testing.assert_array_equal(np.asarray(ring.action[slots, 0]), shown)
    assert int(state.clock.updates) == 3 * RECIPE.updates_per_iteration
    assert not np.asarray(state.seeds.guard.what).any()
    environment.close()


def test_how_a_run_in_python_is_split_does_not_change_its_bits() -> None:
    weights = []
    for counts, vector in (((100,), "sync"), ((3, 50, 47), "sync"), ((100,), "async")):
        make = (lambda: gymnasium.make("CartPole-v1"), 2, (0, 5))
        environment = GymnasiumEnvironment.of("CartPole-v1", *make, vector=vector)
        spec = environment.spec
        loop = HostLoop(Program.of(RECIPE, spec.shape, spec.dtype, spec.actions), environment)
        run, state = loop.compile(100), loop.init(jax.random.split(jax.random.key(0), 2))
        for count in counts:
            state, _ = run(state, count)
        environment.close()
        weights.append([np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state.seeds.learner)])
    assert weights[0] == weights[1] == weights[2]


@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize(
    "head", [Categorical(atoms=31), Quantile(quantiles=8), HLGauss(atoms=31)], ids=lambda head: head.name
)
def test_a_distributional_head_finds_known_values(head: Any) -> None:
    """Rewards, discounts and time limits of the probes; a support that places itself has to follow them."""
    recipe = dataclasses.replace(
        RECIPE, head=head, training=Rollout(steps=32), num_envs=KINDS, batch_size=4 * KINDS,
        replay_ratio=1 / KINDS, hidden=(32, 32), learning_starts=100,
    )  # fmt: skip
    environment = Probes()
    spec = environment.spec
    program = Program.of(recipe, spec.shape, spec.dtype, spec.actions)
    observations, wanted = expected_q(recipe.gamma)
    q = learned_q(program, environment, 4_000, observations)
    np.testing.assert_allclose(q, wanted, rtol=0.03, atol=0.08)


def test_seeds_beside_each_other_learn_what_each_learns_alone() -> None:
    recipe = dataclasses.replace(RECIPE, num_envs=KINDS, batch_size=10, replay_ratio=0.2)
    environment = Probes()
    spec = environment.spec
    loop = Loop(Program.of(recipe, spec.shape, spec.dtype, spec.actions), environment)
    advance, keys = loop.compile(4 * T), jax.random.split(jax.random.key(0), 3)
    together, _ = advance(loop.init(keys), 4 * T)
    leaves = jax.tree.leaves(together.seeds.learner.online)
    for seed in range(3):
        alone, _ = advance(loop.init(keys[seed : seed + 1]), 4 * T)
        for one, all_ in zip(jax.tree.leaves(alone.seeds.learner.online), leaves, strict=True):
            np.testing.assert_allclose(one[0], all_[seed], rtol=1e-3, atol=1e-4)
    assert not all(jnp.allclose(leaf[0], leaf[1]) for leaf in leaves)


@pytest.mark.parametrize("env", ["CartPole-v1", "gym:CartPole-v1"])
def test_a_stop_in_the_middle_of_a_rollout_changes_nothing(env: str, tmp_path: Path) -> None:
    """In Python, environments begin anew after a stop: there, two runs with the same stop are equal."""
    settings: Any = {
        "recipe": "pqn", "num_envs": 8, "steps": 1_600, "eval_every": 800, "eval_episodes": 1, "seeds": 2,
        "learning_rate_end": None, "explore": "epsilon:steps=1000", "learning_starts": 100,
    }  # fmt: skip
    first: Any = {**settings, "steps": 1_000}
    hashes = []
    for name, stops in (("one", env.startswith("gym:")), ("other", True)):
        # 125 iterations are not a whole number of rollouts of 32.
        if stops:
            qhat.train(env, run_dir=tmp_path / name, **first)
        run = qhat.train(env, run_dir=tmp_path / name, resume=stops, **settings)
        hashes.append(run.weights_sha256())
    assert hashes[0] == hashes[1]
    with pytest.raises(Interrupted):
        qhat.train(env, run_dir=tmp_path / "stopped", should_stop=lambda: True, **settings)
    run = qhat.train(env, run_dir=tmp_path / "stopped", resume=True, **settings)
    assert run.summary()["step"] == 1_600


def test_a_run_shorter_than_its_first_rollout_is_refused() -> None:
    short = dataclasses.replace(RECIPE, num_envs=16, batch_size=16, training=Rollout(steps=32))
    sentence = r"learns from 512 steps at a time, and the run has 511; expected .*512"
    with pytest.raises(qhat.UsageError, match=sentence):
        qhat.TrainConfig(env="CartPole-v1", recipe=short, steps=511).validate()
    qhat.TrainConfig(env="CartPole-v1", recipe=short, steps=512).validate()
