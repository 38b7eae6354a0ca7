"""The chapter's names run its scripts, and are right where the chapter is wrong."""

import inspect
from pathlib import Path
from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import qhat
from inside import state_of
from qhat import chapter
from qhat.chapter import (
    DQN,
    DoubleDQN,
    DQNAgent,
    DuelingDQN,
    PERDQNAgent,
    PERMemory,
    RainbowDQN,
    SumTree,
    evaluate_agent,
    plot_training_progress,
    train_dqn_robot_example,
)
from qhat.chapter.agents import ChapterAgent
from qhat.system.errors import UsageError

AGENTS: tuple[type[ChapterAgent], ...] = (DQNAgent, DoubleDQN, RainbowDQN, PERDQNAgent)
STATE = np.array([0.1, -0.2, 0.3, 0.4], np.float32)


def fed(agent: ChapterAgent, steps: int = 40) -> ChapterAgent:
    """Remember the same transition, which does not end the task, many times."""
    for step in range(steps):
        agent.remember(STATE, 1, 2.0, STATE + 1, done=False, truncated=step % 5 == 4)
    return agent


def small(kind: type[ChapterAgent], **settings) -> ChapterAgent:
    room = "per_capacity" if kind is PERDQNAgent else "buffer_size"
    return kind(4, 2, **{room: 200, "hidden_dims": (8, 8), **settings})


def test_a_loop_as_the_chapter_writes_it_runs(tmp_path: Path, monkeypatch, capsys) -> None:
    """Its loop: positional `remember`, one `done`, a target network by episodes, `save_model`."""
    monkeypatch.chdir(tmp_path)
    env: Any = gym.make("CartPole-v1")
    agent = RainbowDQN(env.observation_space.shape[0], env.action_space.n, use_dueling=True)
    scores = []
    for episode in range(4):
        state = env.reset(seed=episode)
        if isinstance(state, tuple):
            state = state[0]
        total_reward = 0
        for _ in range(200):
            action = agent.act(state, training=True)
            next_state, reward, terminated, truncated, _ = env.step(action)
            done = terminated or truncated
            agent.remember(state, action, reward, next_state, done)
            agent.replay()
            state = next_state
            total_reward += reward
            if done:
                break
        scores.append(total_reward)
        if episode % agent.target_update_freq == 0:
            agent.update_target_network()
    agent.save_model("dqn_model.pth")
    agent.load_model("dqn_model.pth")
    assert agent.step_count == sum(scores) == len(agent.memory)
    assert np.isclose(agent.epsilon, 0.995 ** (agent.step_count - 31))
    assert len(evaluate_agent(agent, "CartPole-v1", num_episodes=2)) == 2
    figure = plot_training_progress(scores)
    assert "training_progress.png" in capsys.readouterr().out
    assert (tmp_path / "training_progress.png").read_bytes().startswith(b"\x89PNG")
    assert figure.axes[0].get_xlabel() == "Episode"


def test_the_example_trains_and_stops_when_it_is_solved(capsys) -> None:
    agent, scores = train_dqn_robot_example(episodes=120, max_steps=9, solved_threshold=8.0, seed=3)
    assert len(scores) == 100
    assert "Solved in 100 episodes" in capsys.readouterr().out
    assert max(scores) == 9.0
    assert agent.step_count == sum(scores)
    first, again = (evaluate_agent(agent, "CartPole-v1", 2, seed=5) for _ in range(2))
    assert first == again


@pytest.mark.parametrize("kind", AGENTS)
def test_every_agent_has_the_chapters_arguments_attributes_and_methods(kind: type[ChapterAgent]) -> None:
    names = list(inspect.signature(kind).parameters)
    assert names[:9] == [
        "state_dim", "action_dim", "learning_rate", "gamma", "epsilon", "epsilon_decay", "epsilon_min",
        "target_update_freq", "batch_size",
    ]  # fmt: skip
    assert names[9] == ("per_capacity" if kind is PERDQNAgent else "buffer_size")
    agent = fed(small(kind))
    assert agent.replay() is not None
    assert agent.step_count == len(agent.memory) == agent.memory.tree.n_entries == 40
    assert agent.memory.maxlen == 200
    assert type(agent.act(STATE)) is int
    assert agent.q_network(STATE).shape == (2,)
    assert agent.q_network.forward([STATE, STATE]).shape == (2, 2)
    assert repr(agent).startswith(f"{kind.__name__}(4, 2, epsilon=0.995")


@pytest.mark.parametrize("kind", [DQNAgent, DoubleDQN])
def test_an_update_is_adams_step_on_the_mean_squared_error(kind: type[ChapterAgent]) -> None:
    """The chapter's `mse_loss` with PyTorch's Adam, and a gradient of norm 1 where it clips."""
    agent = fed(small(kind, batch_size=8), 20)
    before, learner = state_of(agent.agent).learner.online, agent.agent.program.learner
    goal = 2.0 + 0.99 * float(agent.q_network(STATE + 1).max())

    def loss(weights):
        return (learner.q_values(weights, jnp.asarray(STATE))[0, 1] - goal) ** 2

    gradient = jax.grad(loss)(before)
    norm = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradient)))
    scale = min(1.0, 1.0 / float(norm)) if kind is DoubleDQN else 1.0
    assert float(norm) > 1.0  # so that clipping matters
    step = jax.tree.map(lambda leaf: leaf * scale / (abs(leaf * scale) + 1e-8), gradient)
    expected = jax.tree.map(lambda leaf, change: leaf - 1e-3 * change, before, step)
    agent.replay()
    for one, other in zip(
        jax.tree.leaves(state_of(agent.agent).learner.online), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=2e-6)


def test_only_the_caller_updates_the_target_network() -> None:
    agent = fed(small(DQNAgent, target_update_freq=1))
    first = state_of(agent.agent).learner.target
    for _ in range(3):
        agent.replay()
    same = jax.tree.map(np.array_equal, state_of(agent.agent).learner.target, first)
    assert all(jax.tree.leaves(same))
    agent.update_target_network()
    learner = state_of(agent.agent).learner
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, learner.target, learner.online)))


def test_epsilon_decays_with_updates_and_ends_at_its_minimum() -> None:
    agent = small(DQNAgent, epsilon_decay=0.5, epsilon_min=0.2)
    assert agent.replay() is None
    assert agent.epsilon == 1.0
    fed(agent)
    found = [agent.epsilon for _ in range(4) if agent.replay() is not None]
    assert found == [0.5, 0.25, 0.2, 0.2]
    agent.epsilon = 0.0
    agent.replay()
    assert agent.epsilon == 0.0
    assert len({agent.act(STATE) for _ in range(20)}) == 1
    agent.epsilon = 1.0
    assert {agent.act(STATE) for _ in range(40)} == {0, 1}
    assert len({agent.act(STATE, training=False) for _ in range(20)}) == 1


@pytest.mark.parametrize(("done", "value"), [(True, 2.0), (False, 2.0 + 0.5 * 2.0)])
def test_a_time_limit_keeps_its_value_when_it_is_passed(done: bool, value: float) -> None:
    """Reward 2 and γ = ½: a terminal state is worth 2; a truncated one also has its successor's value."""
    agent = small(DQNAgent, gamma=0.5, learning_rate=0.02, buffer_size=64)
    for _ in range(60):
        agent.remember(STATE, 1, 2.0, STATE + 1, done, truncated=not done)
        agent.remember(STATE + 1, 1, 2.0, STATE, True)
        agent.remember(STATE + 1, 0, 2.0, STATE, True)
    for update in range(300):
        agent.replay()
        if update % 20 == 0:
            agent.update_target_network()
    assert abs(float(agent.q_network(STATE)[1]) - value) < 0.2


def test_a_saved_agent_continues(tmp_path: Path) -> None:
    agent = fed(small(PERDQNAgent))
    for _ in range(3):
        agent.replay()
    agent.save_model(tmp_path / "model.pth")
    loaded = small(PERDQNAgent)
    loaded.load_model(tmp_path / "model.pth")
    assert loaded.epsilon == agent.epsilon
    assert agent.replay() == loaded.replay()
    np.testing.assert_array_equal(agent.q_network(STATE), loaded.q_network(STATE))
    other = small(RainbowDQN)
    with pytest.raises(UsageError, match="was saved by an agent with other arguments"):
        other.load_model(tmp_path / "model.pth")
    with pytest.raises(UsageError, match="is no agent that save_model wrote"):
        other.load_model(tmp_path / "nothing")
    (tmp_path / "model.pth" / "chapter.json").write_text('{"epsilon": "high"}')
    with pytest.raises(UsageError, match="is damaged"):
        other.load_model(tmp_path / "model.pth")
    (tmp_path / "mine").mkdir()
    with pytest.raises(UsageError, match="exists and is no saved agent"):
        other.save_model(tmp_path / "mine")


MISTAKES = [
    ({"epsilon": 2.0}, "epsilon is 2.0; expected a number from 0 to 1"),
    ({"epsilon_decay": -1.0}, "epsilon_decay is -1.0"),
    ({"target_update_freq": 0}, "target_update_freq is 0; expected a whole number of 1 or more"),
    ({"batch_size": 64, "buffer_size": 32}, "room for 32 transitions; expected 64 or more"),
    ({"state_dim": 0}, "state_dim is 0"),
]


@pytest.mark.parametrize(("settings", "sentence"), MISTAKES)
def test_a_bad_argument_is_named_as_the_chapter_names_it(settings: dict, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        DQNAgent(**{"state_dim": 4, "action_dim": 2, **settings})


def test_networks_stand_for_themselves() -> None:
    states = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    for kind in (DQN, DuelingDQN):
        network = kind(4, 3, hidden_dims=[16], seed=1)
        values = network(states)
        assert values.shape == (5, 3)
        np.testing.assert_allclose(values[2], network(states[2]), rtol=1e-5)
        assert not np.array_equal(values, kind(4, 3, hidden_dims=[16], seed=2)(states))
        with pytest.raises(UsageError, match=r"A state has the shape \(3,\)"):
            network(np.zeros(3))


class NaiveTree:
    """Priorities in a list, searched one by one."""

    def __init__(self, capacity: int):
        self.priorities, self.write = [0.0] * capacity, 0
        self.data: list[object] = [None] * capacity

    def add(self, p: float, data: object) -> None:
        self.priorities[self.write], self.data[self.write] = p, data
        self.write = (self.write + 1) % len(self.data)

    def get_leaf(self, s: float) -> int:
        sums = np.cumsum(self.priorities)
        return int(np.argmax(sums > s))


@pytest.mark.parametrize("capacity", [1, 3, 16, 37])
def test_a_sum_tree_agrees_with_a_naive_search(capacity: int) -> None:
    random = np.random.default_rng(capacity)
    tree, naive = SumTree(capacity), NaiveTree(capacity)
    for item in range(2 * capacity + 1):
        p = float(random.integers(1, 9))
        assert tree.add(p, item) == item % capacity
        naive.add(p, item)
    slot = int(random.integers(capacity))
    tree.update(slot, 0.0)
    naive.priorities[slot] = 0.0
    if capacity == 1:
        assert tree.total() == 0
        with pytest.raises(UsageError, match="No slot has a priority above 0"):
            tree.get_leaf(0.0)
        return
    assert (tree.total(), tree.n_entries, len(tree)) == (sum(naive.priorities), capacity, capacity)
    for s in random.uniform(0, tree.total(), 50):
        at = naive.get_leaf(s)
        assert tree.get_leaf(s) == (at, naive.priorities[at], naive.data[at])
    # The edges, where the chapter may return a slot that is empty.
    assert tree.get_leaf(0.0)[1] > 0
    assert tree.get_leaf(tree.total())[1] > 0


def test_a_prioritised_memory_is_the_papers() -> None:
    memory = PERMemory(8, alpha=0.5, beta_start=0.4, beta_steps=10, seed=1)
    for item in range(5):
        memory.add(item)
    memory.update(np.arange(5), [0.0, 1.0, 4.0, 9.0, 100.0])
    # Errors of 100 count in full: priorities have no upper bound.
    priorities = (np.array([0.0, 1.0, 4.0, 9.0, 100.0]) + 1e-6) ** 0.5
    assert np.isclose(memory.tree.total(), priorities.sum())
    assert np.isclose(memory.beta, 0.4 + 0.5 * 0.6)
    counts = np.zeros(5)
    for _ in range(200):
        batch, slots, weights = memory.sample(16)
        assert batch == list(slots)
        expected = (5 * priorities[slots] / priorities.sum()) ** -memory.beta
        np.testing.assert_allclose(weights, expected / expected.max(), rtol=1e-4)
        counts += np.bincount(slots, minlength=5)
    np.testing.assert_allclose(counts / counts.sum(), priorities / priorities.sum(), atol=0.02)
    memory.add("new")
    assert np.isclose(memory.tree.total(), priorities.sum() + priorities[-1])  # the largest so far
    memory.add("known", error=1.0)
    assert np.isclose(memory.tree.total(), priorities.sum() + priorities[-1] + 1.0)


REFUSED = [
    (lambda: SumTree(0), "capacity is 0"),
    (lambda: SumTree(3).add(-1.0, "x"), r"The priority is -1.0; expected a finite number of 0 or more"),
    (lambda: SumTree(3).update(0, 1.0), "idx is 0; expected a slot that add or sample returned, of 0"),
    (lambda: PERMemory(3).sample(2), "The memory is empty"),
    (lambda: PERMemory(3).add("x", float("nan")), "The TD error is nan"),
    (lambda: PERMemory(3, alpha=2.0), "alpha is 2.0"),
    (lambda: plot_training_progress([]), "scores is empty"),
    (lambda: evaluate_agent(DQNAgent(4, 2), "CartPole-v1", 0), "num_episodes is 0"),
    (lambda: train_dqn_robot_example(episodes=0), "episodes is 0"),
]


@pytest.mark.parametrize(("call", "sentence"), REFUSED)
def test_what_has_no_meaning_is_a_sentence(call, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        call()


def test_the_names_are_those_of_the_chapter() -> None:
    assert set(chapter.__all__) == {
        "DQN", "DQNAgent", "DoubleDQN", "DuelingDQN", "PERDQNAgent", "PERMemory", "RainbowDQN", "SumTree",
        "evaluate_agent", "plot_training_progress", "train_dqn_robot_example",
    }  # fmt: skip
    for kind in AGENTS:
        assert issubclass(kind, ChapterAgent)
        assert isinstance(small(kind).agent, qhat.Agent)
