"""An `Agent` that learns from every step when it is remembered.

Protects against an agent that learns otherwise than the training loop, from a step twice or from several
robots' steps as if they were one's, and against a saved agent that continues with other bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import qhat
from qhat.axes.actions import Actions
from qhat.engine.iteration import Program
from qhat.engine.replay import ring as replay
from qhat.engine.streaming import streamed
from qhat.system.errors import UsageError

SETTINGS: Any = {"recipe": "stream_q", "hidden": (8,), "steps": 500}


def steps_of(count: int, seed: int = 0) -> Iterator[tuple]:
    """Yield steps of episodes that terminate, or that a time limit ends."""
    draw = np.random.default_rng(seed)
    now = draw.normal(size=3).astype(np.float32)
    for _ in range(count):
        after = (now + draw.normal(size=3) / 4).astype(np.float32)
        terminated = bool(draw.random() < 0.1)
        truncated = bool(draw.random() < 0.1) and not terminated
        yield now, int(draw.integers(2)), float(draw.normal()), after, terminated, truncated
        now = draw.normal(size=3).astype(np.float32) if terminated or truncated else after


def weights(agent: qhat.Agent) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(agent._learning.learner)]


def test_it_learns_what_the_training_loop_learns() -> None:
    agent = qhat.Agent(3, 2, seed=4, **SETTINGS)
    program: Program = agent.program
    seed = program.init(agent._made.key, jnp.zeros((1, 3)), None)
    learner = agent._learning.learner
    ring, store = seed.ring, jax.jit(replay.store)
    learn = jax.jit(lambda learner, ring: streamed(program.learner, learner, ring, jnp.int32(0)))
    for step in steps_of(120):
        agent.remember(*step)
        numbers = agent.replay()
        before, action, reward, after, terminated, truncated = step
        row = (before, np.array([action], np.int32), np.float32(reward), after, terminated, truncated, True)
        ring, *_ = store(ring, replay.Step(*(jnp.asarray(part)[None] for part in row)))
        learner, metrics, _ = learn(learner, ring)
        assert numbers is not None
        assert numbers["loss"] == pytest.approx(float(metrics.loss), rel=2e-3, abs=1e-5)
    for one, other in zip(weights(agent), jax.tree.leaves(learner), strict=True):
        # An agent counts the last observation of an open episode when its step comes, as the loop does.
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=1e-4)
    assert agent.updates == agent.steps == 120
    assert agent.replay() is None


@pytest.mark.parametrize("pause", [40, 41])
def test_a_saved_agent_continues_with_the_same_bits(tmp_path: Path, pause: int) -> None:
    whole, part = (qhat.Agent(3, 2, seed=1, **SETTINGS) for _ in range(2))
    for at, step in enumerate(steps_of(80)):
        for agent in (whole, part):
            assert isinstance(agent.act(step[0]), int)
            agent.remember(*step)
        if at == pause:
            part.save(tmp_path / "agent")
            part = qhat.Agent.load(tmp_path / "agent")
        for agent in (whole, part):
            assert agent.replay() is not None
        if at == pause - 1:
            part.save(tmp_path / "agent")
            part = qhat.Agent.load(tmp_path / "agent")
            assert part.replay() is None
    for one, other in zip(weights(whole), weights(part), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_trace_does_not_continue_without_its_steps(tmp_path: Path) -> None:
    agent = qhat.Agent(3, 2, n_step_cut=None, **SETTINGS)
    for step in list(steps_of(5, seed=3)):
        agent.remember(*step)
        agent.replay()
    agent.save(tmp_path / "agent", replay=False)
    loaded = qhat.Agent.load(tmp_path / "agent")
    assert loaded.replay() is None
    now = np.zeros(3, np.float32)
    loaded.remember(now, 0, 1.0, now.copy(), False)
    assert loaded.replay() is not None
    old, new = (jax.tree.leaves(each._learning.learner.optimiser["trace"]) for each in (agent, loaded))
    assert all(np.isfinite(leaf).all() for leaf in new)
    assert any((np.asarray(a) != np.asarray(b)).any() for a, b in zip(old, new, strict=True))


def test_steps_between_two_calls_are_not_learned_from() -> None:
    agent = qhat.Agent(3, 2, **SETTINGS)
    for count in (1, 2, 30, 300, 1):
        for step in steps_of(count, seed=count):
            agent.remember(*step)
        numbers = agent.replay()
        assert numbers is not None
        assert np.isfinite(numbers["loss"])
    agent.cut()
    assert agent.replay() is None


def test_what_a_stream_cannot_do_is_refused() -> None:
    agent = qhat.Agent(3, 2, **SETTINGS)
    step = next(steps_of(1))
    with pytest.raises(UsageError, match=r"stream is 'left', .*one robot.*; expected stream=0"):
        agent.remember(*step, stream="left")
    agent.remember(*step)
    with pytest.raises(UsageError, match=r"updates is 5, .*learns once .*; expected 1"):
        agent.replay(updates=5)
    with pytest.raises(UsageError, match="has no target network"):
        agent.update_target_network()
    with pytest.raises(UsageError, match="there is no batch"):
        qhat.Agent(3, 2, recipe="stream_q", batch_size=8)


def test_an_agent_continues_a_run_as_a_stream(tmp_path: Path) -> None:
    run = qhat.train(
        "CartPole-v1", "stream_q", steps=600, eval_every=300, eval_episodes=2, run_dir=tmp_path / "run"
    )
    agent = qhat.Agent.load(run.folder.path)
    assert agent.recipe.training.streams
    assert agent.program.actions == Actions((2,))
    now = np.array([0.1, 0.2, -0.1, 0.0], np.float32)
    agent.remember(now, 1, 1.0, now.copy(), False)
    numbers = agent.replay()
    assert numbers is not None
    assert np.isfinite(numbers["loss"])
