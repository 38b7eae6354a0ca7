"""Values of pairs of joints: joint actions, their values, and what learns with them.

Protects against pairs that are mixed up, a greedy action that is not the best joint action, and a task
that only a value per pair can solve.
"""

from __future__ import annotations

import itertools
import re

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qhat.agent.agent import Agent
from qhat.axes.actions import Actions
from qhat.axes.axis import parse, spell
from qhat.axes.greedy import best
from qhat.axes.joint_actions import JointActions
from qhat.axes.joints import JOINTS, Pairs, Together
from qhat.system.errors import UsageError

CHOICES = (2, 4, 3)


def test_joint_actions_are_all_there_are_in_order() -> None:
    joint = JointActions(CHOICES)
    every = list(itertools.product(*map(range, CHOICES)))
    assert joint.table.tolist() == [list(each) for each in every]
    for xp in (np, jnp):
        index = joint.index(xp.asarray(every), xp)
        assert index[:, 0].tolist() == list(range(24))
        assert joint.choice(index, xp).tolist() == joint.table.tolist()


def test_a_value_is_the_mean_of_its_pairs() -> None:
    joint, rng = JointActions(CHOICES), np.random.default_rng(0)
    tables = [rng.normal(size=(CHOICES[i], CHOICES[j], 5)) for i, j in joint.pairs]
    z = np.concatenate([table.reshape(-1, 5) for table in tables])[None]
    assert (z.shape[1],) == joint.outputs == (2 * 4 + 2 * 3 + 4 * 3,)
    found = np.asarray(joint.mix(jnp.asarray(z, jnp.float32)))[0]
    for place, action in enumerate(itertools.product(*map(range, CHOICES))):
        parts = [table[action[i], action[j]] for (i, j), table in zip(joint.pairs, tables, strict=True)]
        np.testing.assert_allclose(found[place], np.mean(parts, axis=0), atol=1e-6)


@pytest.mark.parametrize("xp", [np, jnp], ids=["numpy", "jax"])
def test_the_best_is_a_legal_joint_action(xp: object) -> None:
    joint, rng = JointActions(CHOICES), np.random.default_rng(1)
    q = rng.normal(size=(20, 1, 24)).astype(np.float32)
    legal = rng.random((20, 3, 4)) < 0.7
    legal[:, :, 0] = True
    found = np.asarray(best(q, legal, joint, xp))
    for row, mask, choice in zip(q[:, 0], legal, found, strict=True):
        allowed = [
            (value, action)
            for value, action in zip(row, itertools.product(*map(range, CHOICES)), strict=True)
            if all(mask[factor, each] for factor, each in enumerate(action))
        ]
        assert tuple(choice) == max(allowed)[1]


def test_one_factor_is_as_with_together() -> None:
    assert Pairs().joint(Actions((7,))) is None
    assert Together().joint(Actions((7, 2))) is None
    assert Pairs().joint(Actions((7, 2))) == JointActions((7, 2))


def test_too_many_joint_actions_are_refused() -> None:
    says = "3×3×3×3×3×3 choices are 729 of them; expected at most 256"
    with pytest.raises(UsageError, match=re.escape(says)):
        Pairs().joint(Actions((3,) * 6))
    assert Pairs(most=729).joint(Actions((3,) * 6)) is not None
    with pytest.raises(UsageError, match="pairs:most is 3; expected 4 to 10,000"):
        parse("pairs:most=3", JOINTS)
    assert spell(parse("pairs:most=512", JOINTS)) == "pairs:most=512"


REWARDS = {"an equal choice": np.eye(3), "a table": np.random.default_rng(4).normal(size=(3, 3))}


@pytest.mark.parametrize("name", REWARDS)
def test_joints_that_depend_on_each_other_are_learned(name: str) -> None:
    """A reward for equal choices is no sum of one value per joint; of pairs it is."""
    rewards, space = REWARDS[name], gymnasium.spaces.MultiDiscrete([3, 3])
    agent = Agent(
        (1,), space, joints="pairs", gamma=0.0, hidden=(16,), batch_size=18, replay_capacity=64, seed=0,
        learning_rate=1e-2, learning_starts=0,
    )  # fmt: skip
    s = np.ones(1, np.float32)
    for action in itertools.product(range(3), range(3)):
        agent.remember(s, np.array(action), float(rewards[action]), s.copy(), True)
        agent.remember(s, np.array(action), float(rewards[action]), s.copy(), True)
    agent.replay(updates=500)
    np.testing.assert_allclose(agent.q_values(s).reshape(3, 3), rewards, atol=0.05)
    greedy = agent.act(s, explore=False)
    assert rewards[tuple(greedy)] == rewards.max()


def test_jax_and_numpy_choose_alike() -> None:
    space = gymnasium.spaces.Box(-1.0, 1.0, (3,))
    agent = Agent((4,), space, bins=(2, 4, 3), joints="pairs", hidden=(8,), seed=3)
    learner, rng = agent.program.learner, np.random.default_rng(0)
    parameters = learner.init(jax.random.key(3)).online
    observations = rng.normal(size=(9, 4)).astype(np.float32)
    chosen, _ = learner.greedy(parameters, jnp.asarray(observations))
    q = jax.vmap(learner.q_values, (None, 0))(parameters, jnp.asarray(observations))
    assert q.shape == (9, 1, 24)
    np.testing.assert_array_equal(chosen, best(np.asarray(q), None, learner.network.joint))
    for row in observations:
        values = agent.q_values(row)
        expected = agent.program.actions.to_env(best(values, None, learner.network.joint))
        np.testing.assert_array_equal(agent.act(row, explore=False), expected)


def test_only_remedies_that_work_are_named() -> None:
    joints = Actions.binned([-1.0] * 8, [1.0] * 8, [3], "x")
    with pytest.raises(UsageError) as few:
        Pairs().joint(joints)
    assert "6,561 of them" in str(few.value)
    assert "bins=2" in str(few.value)
    assert "pairs:most=6561" in str(few.value)
    with pytest.raises(UsageError) as many:
        Pairs().joint(Actions((3,) * 40))
    assert "those of 40 factors" in str(many.value)
    assert not re.search(r"bins|most=", str(many.value))
    assert "together" in str(many.value)
