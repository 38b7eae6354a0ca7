"""An agent with a memory: one state for each stream, in acting, in replay, and when it is saved.

Protects against a state that leaks into another robot or the next episode, a look that moves it, and an
agent that is loaded with an empty head.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qhat import Agent
from qhat.engine import recurrent
from qhat.engine.replay import sequences
from qhat.system.errors import UsageError

SETTINGS: dict[str, Any] = {
    "recipe": "dqn", "memory": "min_gru:units=6,length=4,burn_in=3", "hidden": (8, 8), "batch_size": 16,
    "replay_capacity": 200, "learning_starts": 20, "seed": 5,
}  # fmt: skip


def agent_of(**changes: Any) -> Agent:
    return Agent(3, 2, **{**SETTINGS, **changes})


def drive(agent: Agent, steps: int, streams: int = 2, seed: int = 0, learn: bool = False) -> None:
    """Let robots take turns; their episodes have different lengths, and one sensor is read twice."""
    draw = np.random.default_rng(seed)
    now = draw.normal(size=(streams, 3)).astype(np.float32)
    for number in range(steps):
        robot = number % streams
        action = agent.act(now[robot], stream=robot)
        after = draw.normal(size=3).astype(np.float32)
        ended = draw.random() < (0.2, 0.1)[robot]
        agent.remember(now[robot], action, 1.0, after, ended, stream=robot)
        again = ended or draw.random() < 0.2
        now[robot] = draw.normal(size=3).astype(np.float32) if again else after
        if learn:
            agent.replay()


def test_replay_has_the_states_that_each_robot_met() -> None:
    agent = agent_of(learning_starts=10_000)
    drive(agent, 90)
    agent._writer.drain()
    (ring, _), learner = agent._learning.replay, agent.program.learner
    online = agent._learning.learner.online
    assert ring.links is not None
    before, memory = (np.asarray(leaf) for leaf in (ring.links.before, ring.memory))
    kinds, checked = np.asarray(ring.kind), 0
    for slot in np.flatnonzero(kinds != 0):
        chain = [int(slot)]
        while before[chain[0]]:
            chain.insert(0, chain[0] - int(before[chain[0]]))
        recall = recurrent.fresh(learner, 1)
        for row in chain:
            one = ring.observation[row][None]
            _, recall = recurrent.look(learner, learner.q_values, online, one, None, recall)
        assert recall is not None
        np.testing.assert_allclose(memory[slot], recall.before[0], atol=1e-6)
        checked += len(chain) > 2
    assert checked > 20
    slots, found = sequences.around(ring, jnp.asarray([40]), 3, 5)
    assert slots.shape == found.shape == (1, 8)


def test_a_look_moves_nothing_and_an_end_empties_the_memory() -> None:
    agent, row = agent_of(), np.ones(3, np.float32)
    fresh = agent.q_values(row)
    np.testing.assert_array_equal(agent.q_values(row), fresh)
    action = agent.act(row)
    moved = agent.q_values(row)
    assert np.abs(moved - fresh).max() > 0
    np.testing.assert_array_equal(agent.q_values(row, stream="other"), fresh)
    agent.remember(row, action, 0.0, row.copy(), True)
    np.testing.assert_array_equal(agent.q_values(row), fresh)
    agent.act(row)
    agent.cut()
    np.testing.assert_array_equal(agent.q_values(row), fresh)


def test_a_step_that_a_person_drove_moves_the_memory_too() -> None:
    driven, acted, row = agent_of(), agent_of(), np.ones(3, np.float32)
    driven.remember(row, 0, 0.0, row.copy(), False)
    acted.act(row)
    acted.remember(row, 0, 0.0, row.copy(), False)
    np.testing.assert_array_equal(driven.q_values(row), acted.q_values(row))


@pytest.mark.parametrize("replay", [True, False])
def test_an_agent_that_is_loaded_goes_on_with_its_states(tmp_path: Path, replay: bool) -> None:
    agent = agent_of()
    drive(agent, 60, learn=True)
    agent.act(np.ones(3), stream=1)
    agent.save(tmp_path / "agent", replay=replay)
    loaded = Agent.load(tmp_path / "agent")
    for robot in (0, 1):
        kept, found = (each.q_values(np.ones(3), stream=robot) for each in (agent, loaded))
        np.testing.assert_array_equal(kept, found)
    if replay:
        for each in (agent, loaded):
            each.remember(np.ones(3), 0, 1.0, np.zeros(3), False, stream=1)
            drive(each, 20, seed=3, learn=True)
        state, other = (each._learning.learner.online for each in (agent, loaded))
        for one, two in zip(jax.tree.leaves(state), jax.tree.leaves(other), strict=True):
            np.testing.assert_array_equal(one, two)


def test_what_a_memory_cannot_learn_from_is_refused() -> None:
    agent, row = agent_of(replay_capacity=20), np.ones(3, np.float32)
    agent.act(row)
    agent.act(row)
    with pytest.raises(UsageError, match="act was called 2 times for stream 0 since the last remember"):
        agent.remember(row, 0, 0.0, row.copy(), False)
    agent.cut()
    for _ in range(18):
        agent.remember(row, 0, 0.0, row.copy(), False)
    with pytest.raises(UsageError, match="did not end, and replay has 20 rows"):
        agent.remember(row, 0, 0.0, row.copy(), False)
    agent.cut()
    agent.remember(row, 0, 0.0, row.copy(), False)
    with pytest.raises(UsageError, match="expected a multiple, such as"):
        agent_of(batch_size=18)


def test_a_batch_of_robots_has_a_state_each() -> None:
    several, single = agent_of(), agent_of()
    rows = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    several.warmup(2)
    several.act(rows, explore=False)
    for robot in (0, 1):
        single.act(rows[robot], explore=False, stream=robot)
        np.testing.assert_allclose(
            several.q_values(rows[0], stream=robot), single.q_values(rows[0], stream=robot), atol=1e-6
        )
