"""The small recipe with which tests train, and its DQN.

A test takes one of them as it is, so that XLA compiles one program for several tests, and replaces a
field where the test is about that field.
"""

import dataclasses

import pytest

import qhat
from qhat import recipes
from qhat.axes.explore import EpsilonGreedy
from qhat.recipes.config import TrainConfig

TINY = dataclasses.replace(
    recipes.get("qhat"), hidden=(16,), num_envs=2, replay_ratio=0.5, replay_capacity=2_000, n_step=3,
    learning_starts=100, batch_size=16, explore=EpsilonGreedy(1.0, 0.1, 400),
).scheduled()  # fmt: skip
"""Of the default recipe, with schedules that no run's length changes."""

TINY_DQN = dataclasses.replace(
    recipes.get("dqn"), hidden=(8,), num_envs=1, replay_capacity=500, learning_starts=50, batch_size=16
).scheduled()
"""The least that learns."""


@pytest.fixture(scope="session")
def trained_cartpole(tmp_path_factory: pytest.TempPathFactory) -> qhat.Run:
    """A run of two seeds, for tests that need any run; a test that writes into its folder copies it."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    config = TrainConfig(
        "CartPole-v1", recipe=TINY, steps=400, seeds=2, eval_every=200, eval_episodes=2, save_every=400,
        run_dir=folder,
    )  # fmt: skip
    return qhat.train("CartPole-v1", config)
