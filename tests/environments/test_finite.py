"""Physics that fails in EnvPool's tasks: never stored, never joined, counted; and the run goes on.

Real tasks fail too rarely to wait for, so the rows that a pool would bring are written here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Int

import qhat
from qhat.axes.actions import Actions
from qhat.engine.iteration import Program
from qhat.engine.loop import Loop
from qhat.engine.replay import ring as replay
from qhat.environments.base import Environment, Spec, Timestep
from qhat.environments.catalogue import find
from qhat.environments.envpool.task import Past, PoolTask
from qhat.evaluation.play import play_of

NAN = float("nan")
RECIPE = replace(
    qhat.recipes.get("nstep_dqn"), hidden=(8,), num_envs=4, replay_ratio=0.5, replay_capacity=800,
    learning_starts=64, batch_size=16,
)  # fmt: skip


def rows_of(story: list[tuple[float, float, bool]], xp: Any = np) -> list[tuple[Any, Any]]:
    """What a pool's rows are taken for: observation, reward, and whether the row ends the episode."""
    task, past = PoolTask.of(find("WalkerWalk-v1")), Past.nothing((1,), np)
    found = []
    for observation, reward, ends in story:
        row, paid = xp.asarray([[observation]], "float32"), xp.asarray([reward], "float32")
        ended = np.array([ends])
        observation, rows, past = task.rows(past, row, paid, ended & False, ended, {}, xp=xp)
        found.append((observation, rows))
    return found


@pytest.mark.parametrize("xp", [np, jnp], ids=["numpy", "jax"])
def test_rows_that_are_not_finite_are_no_transitions(xp: Any):
    story = [
        (1, 0.5, False), (NAN, 0.5, False), (NAN, NAN, False), (3, 0.1, False), (4, 0.2, False),
        (5, float("inf"), False), (6, 0.3, True), (7, 9.0, False), (8, 0.4, False), (NAN, 0.0, True),
        (9, 0.0, False),
    ]  # fmt: skip
    found = rows_of(story, xp)
    assert all(np.isfinite(np.asarray(observation)).all() for observation, _ in found)
    assert all(np.isfinite(np.asarray(rows.reward)).all() for _, rows in found)
    # 3 is what a step from an unknown place led to; 7 and 9 are resets after an episode's end.
    real = [bool(rows.real[0]) for _, rows in found]
    assert real == [True, False, False, False, True, False, True, False, True, False, False]
    broken = [bool(rows.broken[0]) for _, rows in found]
    assert broken == [False, True, True, True, False, True, False, False, False, True, False]
    assert [bool(rows.truncated[0]) for _, rows in found].index(True) == 6


class Failing(Environment):
    """Counts its steps; every seventh one fails, and the next goes on somewhere else."""

    num_envs = 4

    def __init__(self):
        self.spec = Spec("failing", "own", (1,), "float32", Actions((2,)))

    def reset(self, key: Array) -> tuple[Array, Array]:
        return jnp.arange(1, 5), jnp.zeros((4, 1))

    def step(self, state: Array, action: Int[Array, "E F"], key: Array) -> tuple[Array, Timestep]:
        state = state + 1
        fails, after = state % 7 == 0, state % 7 == 1
        observation = jnp.where(fails, 0.0, state.astype(jnp.float32))[:, None]
        no = jnp.zeros(4, bool)
        broken = fails | after
        return state, Timestep(observation, jnp.ones(4), no, no, observation, ~broken, broken=broken)


def test_replay_never_joins_what_a_failure_parts():
    """An observation is the number of its step, so a transition over n steps must be n apart."""
    environment = Failing()
    program = Program.of(RECIPE, (1,), "float32", environment.spec.actions)
    loop = Loop(program, environment)
    state, log = loop.compile(200)(loop.init(jax.random.split(jax.random.key(0), 1)), 200)
    seed = jax.tree.map(lambda leaf: leaf[0], state.seeds)
    slots = jnp.flatnonzero(seed.ring.kind != 0)
    assert len(slots) > 400
    window = replay.view(seed.ring, slots, 3, 0.9)
    batch = replay.look_up(seed.ring, slots, window)
    whole = np.asarray(window.complete)
    assert batch.successor is not None
    distance = np.asarray(batch.successor - batch.observation)[whole, 0]
    length = np.asarray(window.length)[whole]
    at_start = np.asarray(batch.observation)[whole, 0] == 0
    np.testing.assert_array_equal(distance[~at_start], length[~at_start])
    assert {1, 2, 3} == set(length.tolist()), "starts near a failure sum fewer rewards"
    np.testing.assert_allclose(np.asarray(batch.discount)[whole], 0.9**length, rtol=1e-6)
    # Episodes that are given up are counted once, and are no scores.
    assert not np.asarray(log.ended).any()
    assert int(np.asarray(log.broken).sum()) == sum((start + 200) // 7 for start in range(1, 5))


def test_an_episode_that_breaks_off_ends_its_evaluation():
    environment = Failing()
    program = Program.of(RECIPE, (1,), "float32", environment.spec.actions)
    parameters = jax.jit(jax.vmap(program.learner.init_parameters))(jax.random.split(jax.random.key(0), 1))
    played = play_of(program.learner, environment)(parameters, jax.random.key(1))
    assert played.lengths.tolist() == [[5, 4, 3, 2]]
    assert played.returns.tolist() == [[5.0, 4.0, 3.0, 2.0]]
