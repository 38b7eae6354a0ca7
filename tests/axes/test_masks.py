"""Protects action masks (Gymnasium's `info["action_mask"]`) and factored actions.

If a mask applies to acting but not to the backup, targets come from actions that cannot be taken.
"""

from dataclasses import replace
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Int

from inside import state_of
from qhat.agent.agent import Agent
from qhat.axes.actions import Actions
from qhat.axes.bonus import Munchausen
from qhat.axes.explore import EpsilonGreedy
from qhat.axes.policy import Double, Greedy, Policy, Softmax
from qhat.engine.iteration import Program
from qhat.engine.learner import Learner
from qhat.engine.loop import Loop
from qhat.engine.replay.ring import Transition
from qhat.environments.base import Environment, Spec, Timestep
from qhat.evaluation.play import play_of
from qhat.recipes.recipe import Recipe
from qhat.system.errors import UsageError

SMALL: dict[str, Any] = {
    "hidden": (8,),
    "replay_capacity": 200,
    "learning_starts": 8,
    "batch_size": 8,
}


class Doors(Environment):
    """Three doors: at every step the mask allows two; the third would pay 100.

    Reward: 1 for the lower open door, 0 for the upper. The observation says which door is shut.
    A walk ends, terminated or cut, after four steps.
    """

    def __init__(self, num_envs: int = 4):
        self.num_envs = num_envs
        self.spec = Spec("doors", "test", (3,), "float32", Actions((3,)), masked=True)

    def reset(self, key: Array) -> tuple[Any, Array]:
        shut = jax.random.randint(key, (self.num_envs,), 0, 3)
        return (shut, jnp.zeros(self.num_envs, jnp.int32)), jax.nn.one_hot(shut, 3)

    def legal(self, state: Any) -> Array:
        return (jnp.arange(3) != state[0][:, None])[:, None]

    def step(self, state: Any, action: Int[Array, "E F"], key: Array) -> tuple[Any, Timestep]:
        shut, time = state
        chosen = action[:, 0]
        lower = jnp.where(shut == 0, 1, 0)
        reward = jnp.where(chosen == shut, 100.0, (chosen == lower) * 1.0)
        over = time == 3
        cut = over & (jnp.arange(self.num_envs) % 2 == 0)
        after = jax.random.randint(key, (self.num_envs,), 0, 3)
        begun = jax.random.randint(jax.random.fold_in(key, 1), (self.num_envs,), 0, 3)
        new = (jnp.where(over, begun, after), jnp.where(over, 0, time + 1))
        return new, Timestep(
            observation=jax.nn.one_hot(new[0], 3),
            reward=reward,
            terminated=over & ~cut,
            truncated=cut,
            successor=jax.nn.one_hot(after, 3),
            real=jnp.ones(self.num_envs, bool),
            legal=self.legal(new),
            legal_successor=self.legal((after, time)),
        )


@pytest.mark.parametrize("hold", [1, 3])
def test_a_training_run_takes_and_believes_in_legal_actions_alone(hold: int):
    recipe = Recipe(
        hidden=(32, 32), gamma=0.5, num_envs=4, replay_ratio=0.25, replay_capacity=4_000,
        explore=EpsilonGreedy(1.0, 0.3, 1_000, hold=hold), learning_starts=64,
    )  # fmt: skip
    environment = Doors()
    spec = environment.spec
    program = Program.of(recipe.validate(), spec.shape, spec.dtype, spec.actions, spec.masked)
    loop = Loop(program, environment)
    state = loop.init(jax.random.split(jax.random.key(0), 1))
    state, _ = loop.compile(3_000)(state, 3_000)
    ring = state.seeds.ring
    assert float(ring.reward.max()) == 1.0, "the shut door was never taken"
    online = jax.tree.map(lambda leaf: leaf[0], state.seeds.learner.online)
    q = jax.jit(jax.vmap(program.learner.q_values, in_axes=(None, 0)))(online, jnp.eye(3))[:, 0]
    # Every state is worth the same: half of them end, so V = Σ (½)^k of 1, over 1 to 4 steps left.
    for shut in range(3):
        low, high = (door for door in range(3) if door != shut)
        assert float(q[shut, low] - q[shut, high]) == pytest.approx(1.0, abs=0.1)
        assert 1.0 < float(q[shut, low]) < 2.1
    returns = play_of(program.learner, environment)(state.seeds.learner.online, jax.random.key(1))
    np.testing.assert_array_equal(returns.returns, 4.0)


@pytest.mark.parametrize("policy", [Greedy(), Double(), Softmax(tau=0.5)], ids=lambda p: p.name)
def test_the_backup_uses_only_legal_actions(policy: Policy):
    learner = Learner.of(Recipe(policy=policy, hidden=(8,)), (3,), Actions((4,)))
    state = jax.jit(learner.init)(jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), 2)
    legal = jnp.array([[[True, False, True, False]], [[False, True, False, False]]])
    batch = Transition(
        observation=jax.random.normal(keys[0], (2, 3)),
        action=jnp.zeros((2, 1), jnp.int32),
        reward=jnp.zeros(2),
        discount=jnp.ones(2),
        successor=jax.random.normal(keys[1], (2, 3)),
        legal=jnp.ones((2, 1, 4), bool),
        legal_next=legal,
    )
    update = jax.jit(lambda *arguments: learner.update(*arguments)[1].errors)
    errors = update(state, batch, jnp.ones(2), jax.random.key(2), jnp.int32(1))
    q = jax.jit(jax.vmap(learner.q_values, in_axes=(None, 0)))
    now = q(state.online, batch.observation)[:, 0, 0]
    after = np.asarray(q(state.target, batch.successor)[:, 0])
    for row in range(2):
        allowed = after[row][np.asarray(legal[row, 0])]
        value = (
            0.5 * np.log(np.sum(np.exp(allowed / 0.5))) if isinstance(policy, Softmax) else allowed.max()
        )
        assert float(now[row] - errors[row]) == pytest.approx(float(value), abs=1e-4)


def test_a_bonus_uses_only_legal_actions():
    learner = Learner.of(
        Recipe(bonus=Munchausen(tau=0.5), policy=Softmax(tau=0.5), hidden=(8,)), (3,), Actions((3,))
    )
    state = jax.jit(learner.init)(jax.random.key(0))
    batch = Transition(
        observation=jnp.ones((1, 3)), action=jnp.zeros((1, 1), jnp.int32), reward=jnp.zeros(1),
        discount=jnp.zeros(1), successor=jnp.ones((1, 3)),
        legal=jnp.array([[[True, False, False]]]), legal_next=jnp.ones((1, 1, 3), bool),
    )  # fmt: skip
    update = jax.jit(lambda *arguments: learner.update(*arguments)[1].errors)
    errors = update(state, batch, jnp.ones(1), jax.random.key(2), jnp.int32(1))
    # The only legal action has probability 1, so its log-probability is 0.
    now = learner.q_values(state.online, batch.observation[0])[0, 0]
    assert float(errors[0]) == pytest.approx(float(now), abs=1e-5)


@pytest.mark.parametrize("recipe", ["dqn", "qhat"])
def test_an_agent_acts_within_its_mask(recipe: str):
    agent = Agent(3, 4, recipe, masked=True, **SMALL)
    mask = np.array([0, 1, 0, 1], np.int8)
    draw = np.random.default_rng(0)
    taken = {agent.act(draw.normal(size=3), mask=mask) for _ in range(60)}
    assert taken == {1, 3}
    assert agent.act(np.ones(3), explore=False, mask=np.array([0, 0, 1, 0])) == 2
    for _ in range(20):
        agent.remember(np.ones(3), 1, 1.0, np.ones(3), False, True, mask, mask)
    metrics = agent.replay()
    assert metrics is not None
    assert np.isfinite(metrics["loss"])


def test_masks_come_back_with_a_saved_agent(tmp_path):
    agent = Agent(3, 4, "dqn", masked=True, **SMALL)
    mask = np.array([0, 1, 0, 1], np.int8)
    agent.remember(np.ones(3), 1, 1.0, np.ones(3), False, True, mask, mask[::-1])
    agent.save(tmp_path / "agent")
    again = Agent.load(tmp_path / "agent")
    ring = state_of(again).ring
    assert ring.legal is not None
    np.testing.assert_array_equal(ring.legal[:2, 0], [mask, mask[::-1]])


def test_agents_of_several_factors():
    space = gymnasium.spaces.MultiDiscrete([2, 4])
    agent = Agent(3, space, "qhat", masked=True, **SMALL)
    mask = (np.array([1, 1]), np.array([0, 0, 1, 1]))
    actions = np.stack([agent.act(np.ones(3), mask=mask) for _ in range(80)])
    assert set(actions[:, 0]) == {0, 1}
    assert set(actions[:, 1]) == {2, 3}
    free = np.stack([agent.act(np.ones(3)) for _ in range(80)])
    assert [set(column) for column in free.T] == [{0, 1}, {0, 1, 2, 3}], "no mask is every choice there is"
    assert agent.q_values(np.ones(3)).shape == (2, 4)
    assert space.contains(np.asarray(agent.act(np.ones(3), explore=False)))
    for _ in range(20):
        agent.remember(np.ones(3), [1, 3], 1.0, np.ones(3), False, True, mask, mask)
    assert agent.replay() is not None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mask": np.zeros(4)}, "mask allows no action"),
        ({"mask": np.ones(3)}, r"mask has \[3\] entries; expected \[4\]"),
        ({"mask": None}, "mask is missing"),
        ({"next_mask": None}, "next_mask is missing"),
        ({"next_mask": np.zeros(4)}, "next_mask allows no action"),
        ({"mask": [float("nan")] * 4}, "expected one 0 or 1 per action"),
        ({"mask": [-1, 0, 0, 1]}, "expected one 0 or 1 per action"),
        ({"mask": ["x"] * 4}, "expected one 0 or 1 per action"),
        ({"mask": np.ones((2, 2))}, "expected one 0 or 1 per action"),
        ({"mask": [1, 0, 1, 1]}, r"action is \[1\], which `mask` forbids"),
    ],
)
def test_bad_masks_are_refused_and_nothing_is_stored(change: dict, words: str):
    agent = Agent(3, 4, "dqn", masked=True, **SMALL)
    fine = {"mask": np.ones(4), "next_mask": np.ones(4)}
    with pytest.raises(UsageError, match=words):
        agent.remember(np.ones(3), 1, 1.0, np.ones(3), False, False, **{**fine, **change})
    assert agent.steps == 0
    agent.remember(np.ones(3), 1, 1.0, np.ones(3), True, False, mask=np.ones(4))
    assert agent.steps == 1, "after a terminal state no mask is needed"


def test_a_state_with_no_legal_action_is_refused():
    agent = Agent(3, 4, "dqn", **SMALL)
    with pytest.raises(UsageError, match="mask allows no action"):
        agent.act(np.ones(3), mask=np.zeros(4))
    with pytest.raises(UsageError, match="masked=True"):
        agent.remember(np.ones(3), 1, 1.0, np.ones(3), False, False, mask=np.ones(4))


def test_choices_of_unequal_factors_are_centred_over_those_that_exist():
    from qhat.axes.merge import Dueling

    recipe = replace(Recipe(merge=Dueling(), hidden=(8,)))
    learner = Learner.of(recipe, (3,), Actions((2, 4)))
    parameters = learner.init_parameters(jax.random.key(0))
    # An advantage of the choice that factor 0 lacks must not move its values.
    changed = jax.tree.map(jnp.copy, parameters)
    changed["advantage"]["bias"] = changed["advantage"]["bias"].at[2:4].add(100.0)
    before, after = (learner.q_values(p, jnp.ones(3)) for p in (parameters, changed))
    np.testing.assert_array_equal(before[0, :2], after[0, :2])
    assert bool(jnp.all(before[0, 2:] == -jnp.inf))
