"""Normalised observations: statistics equal NumPy's, are saved with the weights, and help learning.

Protects against reset rows and copies of an observation in the statistics, two networks that see one
observation differently, and a resumed or warm-started run whose network is shown other numbers.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from full import FULL
from inside import acting_weights
from learned import learned_q
from probes import KINDS, Probes, expected_q
from qhat import Agent, recipes
from qhat.axes.explore import EpsilonGreedy
from qhat.axes.target import Soft
from qhat.engine.calibration import STATISTICS
from qhat.engine.host import HostLoop
from qhat.engine.iteration import Program
from qhat.engine.loop import Loop
from qhat.engine.replay.moments import LIMIT, Moments
from qhat.environments.base import Timestep
from qhat.environments.make import make_any
from qhat.recipes.config import TrainConfig
from qhat.runs.train import Interrupted, train
from qhat.system.errors import UsageError
from tiny import TINY

NORMALISED = dataclasses.replace(TINY, normalise=True)


@pytest.mark.parametrize(
    "env_id", ["CartPole-v1", *(["envpool:CartPole-v1", "gym:CartPole-v1"] if FULL else [])]
)
def test_statistics_are_numpys_over_a_real_run(env_id: str):
    """EnvPool also returns rows of resets, which must not count."""
    environment: Any = make_any(env_id, 2, (0, 3))
    spec = environment.spec
    program = Program.of(NORMALISED, spec.shape, spec.dtype, spec.actions)
    loop: Any = (HostLoop if spec.backend == "gym" else Loop)(program, environment)
    state, log = loop.compile(300)(loop.init(jax.random.split(jax.random.key(0), 2)), 300)
    assert np.asarray(log.ended).sum() > 20
    for seed in range(2):
        ring = jax.tree.map(lambda leaf, seed=seed: np.asarray(leaf)[seed], state.seeds.ring)
        # Each ring's rows in use: every acted-on observation, and every true last one.
        rows = np.concatenate([
            ring.observation[copy * ring.rows :][: ring.filled[copy]] for copy in range(2)
        ]).astype(np.float64)  # fmt: skip
        assert ring.moments.count == len(rows) > 500
        np.testing.assert_allclose(ring.moments.mean, rows.mean(0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(ring.moments.m2 / len(rows), rows.var(0), rtol=1e-4)
    online, target = state.seeds.learner.online[STATISTICS], state.seeds.learner.target[STATISTICS]
    for one, other, whole in zip(
        *map(jax.tree.leaves, (online, target, state.seeds.ring.moments)), strict=True
    ):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_allclose(one, whole, rtol=0.05, atol=1e-2)


def test_a_small_spread_far_from_zero_is_kept():
    rows = 1e5 + np.random.default_rng(0).normal(size=(20_000, 3))
    moments = Moments.empty((3,))
    step = jax.jit(lambda moments, rows: moments.see(rows, jnp.array([True, False, True, True])))
    for at in range(0, len(rows), 4):
        moments = step(moments, jnp.asarray(rows[at : at + 4], jnp.float32))
    counted = rows.reshape(-1, 4, 3)[:, [0, 2, 3]].reshape(-1, 3)
    np.testing.assert_allclose(moments.mean, counted.mean(0), rtol=1e-6)
    np.testing.assert_allclose(moments.m2 / moments.count, counted.var(0), rtol=0.02)
    shown = np.asarray(jax.vmap(moments.standardise)(jnp.asarray(rows, jnp.float32)))
    np.testing.assert_allclose(shown.std(0), 1.0, rtol=0.02)


def test_without_data_nothing_changes_and_far_values_are_clipped():
    fresh = Moments.empty((2,))
    np.testing.assert_allclose(fresh.standardise(jnp.array([3.0, -0.5])), [3.0, -0.5])
    assert not np.isnan(fresh.see(jnp.zeros((2, 2)), jnp.zeros(2, bool)).mean).any()
    moments = fresh.see(jnp.array([[0.0, 7.0], [2.0, 7.0]]), jnp.ones(2, bool))
    np.testing.assert_allclose(moments.standardise(jnp.array([1e6, 7.0])), [LIMIT, 0.0])


class Scaled(Probes):
    """The probes, measured in odd units."""

    def _show(self, observation: Any) -> Any:
        return 50.0 + observation * 0.02

    def reset(self, key: Any) -> Any:
        state, observation = super().reset(key)
        return state, self._show(observation)

    def step(self, state: Any, action: Any, key: Any) -> tuple[Any, Timestep]:
        state, now = super().step(state, action, key)
        shown = {name: self._show(getattr(now, name)) for name in ("observation", "successor")}
        return state, now._replace(**shown)


@pytest.mark.skipif(not FULL, reason="half a minute of learning, which `make test-full` does")
def test_badly_scaled_observations_are_learned_from():
    errors = {}
    for normalise in (True, False):
        recipe = dataclasses.replace(
            recipes.get("dqn"), target=Soft(tau=0.05), explore=EpsilonGreedy(1.0, 0.5, 1_000),
            hidden=(32, 32), gamma=0.9, learning_rate=2e-3, learning_starts=100, replay_capacity=5_000,
            num_envs=KINDS,
            replay_ratio=1 / KINDS, normalise=normalise,
        )  # fmt: skip
        environment = Scaled()
        spec = environment.spec
        program = Program.of(recipe, spec.shape, spec.dtype, spec.actions)
        observations, expected = expected_q(0.9)
        q = learned_q(program, environment, 4_000, environment._show(observations))
        errors[normalise] = float(np.abs(np.asarray(q - expected)).max())
    assert errors[True] < 0.25
    assert errors[False] > 4 * errors[True]


def _config(folder: Path, **settings: Any) -> TrainConfig:
    base = {"env": "CartPole-v1", "recipe": NORMALISED, "run_dir": folder, "steps": 400, "seeds": 1,
            "eval_every": 200, "eval_episodes": 2, "save_every": 200}  # fmt: skip
    return TrainConfig(**{**base, **settings})


def test_a_resumed_run_equals_one_that_never_stopped_and_a_warm_start_goes_on(tmp_path: Path):
    whole = train("CartPole-v1", _config(tmp_path / "whole"))
    with pytest.raises(Interrupted):
        train("CartPole-v1", _config(tmp_path / "parts"), should_stop=lambda: True)
    parts = train("CartPole-v1", _config(tmp_path / "parts", resume=True))
    assert whole.weights_sha256() == parts.weights_sha256()
    assert whole.weights_sha256("best") == parts.weights_sha256("best")
    count = float(whole.weights("best")[STATISTICS].count[0])
    assert count > 100
    warm = train("CartPole-v1", _config(tmp_path / "warm", init_from=tmp_path / "whole", steps=200))
    assert float(warm.weights("last")[STATISTICS].count[0]) > count + 150
    plain = dataclasses.replace(NORMALISED, normalise=False)
    with pytest.raises(UsageError, match="normalise True; expected False"):
        train("CartPole-v1", _config(tmp_path / "other", init_from=tmp_path / "whole", recipe=plain))


@pytest.mark.parametrize("replay", [True, False])
def test_an_agent_goes_on_with_its_statistics(replay: bool, tmp_path: Path):
    agent = Agent(3, 2, NORMALISED, replay_ratio=1.0, learning_starts=20)
    draw = np.random.default_rng(0)

    def live(agent: Agent, steps: int) -> float:
        for _ in range(steps):
            before, after = 1e3 + draw.normal(size=(2, 3))
            agent.remember(before, int(draw.integers(2)), 1.0, after, terminated=True)
        agent.replay()
        return float(acting_weights(agent)[STATISTICS].count)

    assert live(agent, 100) == 200
    agent.save(tmp_path / "agent", replay=replay)
    loaded = Agent.load(tmp_path / "agent")
    observation = 1e3 + draw.normal(size=3)
    np.testing.assert_array_equal(agent.q_values(observation), loaded.q_values(observation))
    assert live(loaded, 30) == 260


def test_pixels_are_refused():
    with pytest.raises(UsageError, match=r"normalise has no meaning .* \(40, 40, 1\) of uint8"):
        Agent(((40, 40, 1), "uint8"), 2, NORMALISED, replay_ratio=1.0)
