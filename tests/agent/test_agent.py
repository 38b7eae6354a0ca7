"""`Agent` has the methods of the chapter's agent, without its mistakes.

Protects against state lost on load, a NaN in replay, an update that differs from the compiled
loop's, and a control thread that learning can disturb.
"""

import dataclasses
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from full import FULL
from inside import acting_weights, state_of
from qhat.agent.agent import Agent
from qhat.agent.arguments import read_outcome
from qhat.agent.saved import about
from qhat.axes.explore import EpsilonGreedy
from qhat.axes.heads import Expected
from qhat.axes.optimiser import rate_at
from qhat.axes.target import Hard
from qhat.engine.replay import ring as replay
from qhat.recipes import RECIPES
from qhat.runs import checkpoint
from qhat.system.errors import QhatError, UsageError


def small(recipe: str = "double_dqn", seed: int = 0, **settings) -> Agent:
    defaults = {"hidden": (16,), "replay_capacity": 500, "learning_starts": 40, "batch_size": 16}
    return Agent(4, 2, recipe, seed=seed, **{**defaults, **settings})


def feed(agent: Agent, steps: int, seed: int = 0) -> None:
    """Random episodes with terminations and truncations."""
    rng = np.random.default_rng(seed)
    observation = rng.normal(size=4).astype(np.float32)
    for _ in range(steps):
        after = rng.normal(size=4).astype(np.float32)
        ends = rng.random()
        agent.remember(observation, int(rng.integers(2)), rng.normal(), after, ends < 0.1, ends > 0.9)
        observation = rng.normal(size=4).astype(np.float32) if not 0.1 <= ends <= 0.9 else after


def test_replay_waits_for_a_batch_and_then_learns() -> None:
    agent = small()
    feed(agent, 39)
    assert agent.replay() is None
    feed(agent, 1)
    metrics = agent.replay()
    assert metrics is not None
    assert set(metrics) == {"loss", "q", "gradient_norm", "clipped"}
    assert agent.updates == 1


@pytest.mark.parametrize("recipe", ["qhat", "chapter_rainbow_per"])
def test_a_loaded_agent_continues_bit_for_bit(tmp_path: Path, recipe: str) -> None:
    """Optimiser, target, ε, β, replay, priorities and randomness all come back."""
    agent = small(recipe, explore=EpsilonGreedy(1.0, 0.1, 200, hold=3))
    feed(agent, 120)
    for _ in range(5):
        agent.replay()
    agent.act(np.zeros(4))
    agent.save(tmp_path / "agent")
    loaded = Agent.load(tmp_path / "agent")
    assert (loaded.steps, loaded.updates, loaded.epsilon) == (120, 5, agent.epsilon)
    for each in (agent, loaded):
        feed(each, 30, seed=7)
    for _ in range(4):
        assert agent.replay() == loaded.replay()
    observations = np.random.default_rng(1).normal(size=(20, 4))
    assert [agent.act(o) for o in observations] == [loaded.act(o) for o in observations]
    np.testing.assert_array_equal(agent.q_values(observations[0]), loaded.q_values(observations[0]))


def test_saving_without_replay_keeps_the_rest(tmp_path: Path) -> None:
    agent = small()
    feed(agent, 60)
    agent.replay()
    agent.save(tmp_path / "agent", replay=False)
    loaded = Agent.load(tmp_path / "agent")
    np.testing.assert_array_equal(agent.q_values(np.ones(4)), loaded.q_values(np.ones(4)))
    assert not (tmp_path / "agent" / "replay.safetensors").exists()
    # Its replay is empty: there is nothing to learn from until a batch came in.
    assert loaded.replay() is None
    feed(loaded, 10, seed=5)
    assert loaded.replay() is None
    np.testing.assert_array_equal(agent.q_values(np.ones(4)), loaded.q_values(np.ones(4)))
    feed(loaded, 10, seed=6)
    assert loaded.replay() is not None


def test_save_never_replaces_other_files(tmp_path: Path) -> None:
    agent = small()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="no qhat checkpoint"):
        agent.save(tmp_path / "thesis")
    for name in ("agent.old", "agent.new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").write_text("mine")
    agent.save(tmp_path / "agent")
    agent.save(tmp_path / "agent")
    Agent.load(tmp_path / "agent")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["agent", "agent.new", "agent.old", "thesis"]
    assert (tmp_path / "thesis" / "thesis.tex").read_text() == "years of work"
    assert (tmp_path / "agent.old" / "mine").exists()


def test_load_changes_no_file_while_another_process_saves(tmp_path: Path) -> None:
    agent = small()
    agent.save(tmp_path / "agent")
    swapped = tmp_path / ".agent.qhat-old"
    (tmp_path / "agent").rename(swapped)
    assert Agent.load(tmp_path / "agent").steps == 0
    assert swapped.exists()
    assert not (tmp_path / "agent").exists()


def test_a_save_replaces_the_older_one(tmp_path: Path) -> None:
    agent = small()
    agent.save(tmp_path / "agent")
    feed(agent, 50)
    agent.save(tmp_path / "agent")
    assert Agent.load(tmp_path / "agent").steps == 50
    assert [path.name for path in tmp_path.iterdir()] == ["agent"]


def test_agent_and_loop_make_the_same_update_from_the_same_batch() -> None:
    """`replay()` is the compiled loop's own function on the same state."""
    agent = small("per_dqn")
    feed(agent, 100)
    seed = jax.tree.map(jnp.copy, state_of(agent))
    key = jax.random.split(jax.random.fold_in(seed.key, 0), 3)[2]
    learner, _, _, metrics = jax.jit(agent.program.update)(
        seed.learner, seed.ring, seed.sampler, key, jnp.int32(100), jnp.int32(1)
    )
    reported = agent.replay()
    assert reported is not None
    assert reported["loss"] == pytest.approx(float(metrics.loss), rel=1e-5)
    for ours, theirs in zip(
        jax.tree.leaves(state_of(agent).learner.online), jax.tree.leaves(learner.online), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"observation": np.array([0, np.nan, 0, 0])}, "nan at index (1,)"),
        ({"next_observation": np.array([0, 0, np.inf, 0])}, "inf at index (2,)"),
        ({"reward": float("nan")}, "reward is nan"),
        ({"action": 2}, "expected a whole number from 0 to 1"),
        ({"observation": np.zeros(3)}, "shape (3,); expected (4,)"),
    ],
)
def test_bad_transitions_are_refused_and_not_stored(change: dict, words: str) -> None:
    agent = small()
    good = {
        "observation": np.zeros(4),
        "action": 0,
        "reward": 0.0,
        "next_observation": np.zeros(4),
        "terminated": False,
    }
    with pytest.raises(UsageError, match="expected") as refusal:
        agent.remember(**{**good, **change})
    assert words in str(refusal.value)
    assert agent.steps == 0
    assert int(state_of(agent).ring.filled[0]) == 0


@pytest.mark.parametrize("flag", ["False", None, np.array([False, True]), 0.5])
def test_terminated_and_truncated_are_true_or_false(flag: Any) -> None:
    """A text would be true, whatever it says."""
    assert read_outcome(1, np.bool_(True), np.array(False)) == (1.0, True, False)
    for flags in ((flag, False), (False, flag)):
        with pytest.raises(UsageError, match="expected True or False"):
            read_outcome(1.0, *flags)


@pytest.mark.parametrize("cut", [False, True])
def test_no_n_step_return_crosses_a_cut(cut: bool) -> None:
    """A robot that is carried back to its start: no n-step return crosses the jump."""
    agent = small("nstep_dqn")
    for index in range(5):
        agent.remember(np.full(4, index), 0, 1.0, np.full(4, index + 1), False)
    if cut:
        agent.cut()
    agent.remember(np.full(4, 50.0), 0, 1.0, np.full(4, 51.0), False)
    ring = state_of(agent).ring
    window = jax.jit(replay.view, static_argnums=(2, 3))(ring, jnp.array([4, 3]), 2, 0.99)
    assert window.length.tolist() == [1 if cut else 2, 2]
    assert bool(window.complete.all())
    # Either way the step led where it did, and not to where the robot is now.
    np.testing.assert_array_equal(ring.observation[5], np.full(4, 5.0))


def test_an_update_that_is_not_finite_is_not_applied_and_the_next_one_is() -> None:
    agent = small(head=Expected(delta=None))
    feed(agent, 60)
    agent.replay()
    weights = jax.tree.map(np.asarray, acting_weights(agent))
    before = agent.q_values(np.ones(4))
    for _ in range(60):
        agent.remember(np.ones(4), 0, 3e38, np.ones(4), True)
    numbers = agent.replay()
    assert numbers is not None
    assert not np.isfinite(numbers["loss"])
    with pytest.raises(QhatError, match=r"update 2 .*expected finite numbers\. It was not applied"):
        agent.replay()
    np.testing.assert_array_equal(agent.q_values(np.ones(4)), before)
    for old, new in zip(jax.tree.leaves(weights), jax.tree.leaves(acting_weights(agent)), strict=True):
        np.testing.assert_array_equal(old, new)
    feed(agent, 600)
    assert agent.replay() is not None
    assert np.isfinite(agent.q_values(np.ones(4))).all()


def test_target_network_is_updated_by_the_recipe_and_on_demand() -> None:
    agent = small(target=Hard(every=1000))
    feed(agent, 60)
    agent.replay()
    learner = state_of(agent).learner
    assert not _equal(learner.online, learner.target)
    agent.update_target_network()
    learner = state_of(agent).learner
    assert _equal(learner.online, learner.target)


def test_warmup_changes_nothing() -> None:
    warm, cold = small(), small()
    warm.warmup()
    for agent in (warm, cold):
        feed(agent, 60)
    assert warm.replay() == cold.replay()
    assert warm.act(np.ones(4)) == cold.act(np.ones(4))


def test_seed_decides_everything() -> None:
    first, again, other = small(seed=1), small(seed=1), small(seed=2)
    np.testing.assert_array_equal(first.q_values(np.ones(4)), again.q_values(np.ones(4)))
    assert not np.array_equal(first.q_values(np.ones(4)), other.q_values(np.ones(4)))


def test_act_and_remember_do_not_wait_for_learning() -> None:
    """Both return while another thread has the learning lock (an update, a save)."""
    agent = small()
    feed(agent, 60)
    agent.warmup()
    taken, done = threading.Event(), threading.Event()

    def hold() -> None:
        with agent._learning_lock:
            taken.set()
            done.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert taken.wait(10)
    control = threading.Thread(target=lambda: (agent.act(np.ones(4)), feed(agent, 3)), daemon=True)
    control.start()
    control.join(20)
    waited = control.is_alive()
    done.set()
    holder.join()
    assert not waited
    assert agent.steps == 63


def test_replay_runs_beside_the_control_thread() -> None:
    agent = small()
    feed(agent, 100)
    agent.warmup()
    failures: list[BaseException] = []

    def learn() -> None:
        try:
            for _ in range(100):
                agent.replay()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=learn)
    thread.start()
    feed(agent, 200, seed=3)
    actions = [agent.act(np.ones(4)) for _ in range(100)]
    thread.join()
    assert not failures
    assert agent.updates == 100
    assert set(actions) <= {0, 1}


FREE = gymnasium.spaces.Box(-np.inf, np.inf, (2,))


@pytest.mark.parametrize(
    "spaces",
    [
        ("x", 2), (4, 0), (4, 2.5), ((0,), 2),
        (gymnasium.spaces.Text(16), 2), (gymnasium.spaces.Sequence(gymnasium.spaces.Discrete(2)), 2),
        (4, "x"), (4, True), (4, gymnasium.spaces.Text(3)), (4, FREE),
    ],
    ids=str,
)  # fmt: skip
def test_unsupported_spaces_are_refused(spaces: tuple) -> None:
    with pytest.raises(UsageError, match="expected"):
        Agent(*spaces)


def test_unknown_settings_and_recipes_name_the_near_miss() -> None:
    with pytest.raises(UsageError, match="Did you mean 'gamma'"):
        small(gama=0.9)
    with pytest.raises(UsageError, match="Did you mean 'double_dqn'"):
        Agent(4, 2, "dubble_dqn")
    with pytest.raises(UsageError, match=r"Its settings are recipe, steps, seed, masked, head,"):
        small(zzz=1)
    with pytest.raises(UsageError, match="qhat's word for total_steps is steps: steps=5000"):
        small(total_steps=5_000)


def test_unbounded_joints_are_refused_in_words_that_an_agent_has() -> None:
    with pytest.raises(UsageError, match=r"expected finite ones, to cut into bins, as in Box\(") as refused:
        Agent(4, gymnasium.spaces.Box(-np.inf, np.inf, (2,)))
    assert "wrap" not in str(refused.value)


def test_more_replay_than_memory_is_refused_with_the_figure() -> None:
    with pytest.raises(UsageError, match=r"needs \d+\.\d GiB"):
        Agent((84, 84, 4), 4, replay_capacity=200_000_000)


@pytest.mark.skipif(not FULL, reason="half a minute of learning, which `make test-full` does")
def test_agent_learns_cartpole_in_a_user_loop() -> None:
    """The chapter's loop, in Gymnasium, with the chapter's verbs."""
    environment = gymnasium.make("CartPole-v1")
    agent = Agent(environment.observation_space, environment.action_space, RECIPES["qhat"], seed=1)
    scores = []
    while agent.steps < 12_000:
        observation, _ = environment.reset(seed=len(scores))
        score, over = 0.0, False
        while not over:
            action = agent.act(observation)
            after, reward, terminated, truncated, _ = environment.step(action)
            agent.remember(observation, action, float(reward), after, terminated, truncated)
            if agent.steps % 2 == 0:
                agent.replay()
            observation, score, over = after, score + float(reward), terminated or truncated
        scores.append(score)
    environment.close()
    assert np.mean(scores[-20:]) > 3 * np.mean(scores[:20])


def test_sampled_transitions_are_the_remembered_ones() -> None:
    agent = small("dqn", batch_size=8, learning_starts=8)
    rows = [(np.full(4, i, np.float32), i % 2, float(i)) for i in range(20)]
    for i, (observation, action, reward) in enumerate(rows):
        agent.remember(observation, action, reward, np.full(4, i + 1), i == 9, i == 19)
    seed, sampler = state_of(agent), agent.recipe.sampler
    sample = jax.jit(
        lambda ring, state, key: replay.sample(
            ring, sampler, state, key, jnp.int32(0), batch=64, n=1, gamma=0.99
        )
    )
    batch, _, weights = sample(seed.ring, seed.sampler, jax.random.key(0))
    number = np.asarray(batch.reward).astype(int)
    assert len(set(number)) > 10
    for place, i in enumerate(number):
        np.testing.assert_array_equal(batch.observation[place], rows[i][0])
        np.testing.assert_array_equal(batch.successor[place], np.full(4, i + 1))
        assert int(batch.action[place, 0]) == rows[i][1]
        assert float(batch.discount[place]) == pytest.approx(0.0 if i == 9 else 0.99)
    np.testing.assert_array_equal(weights, 1.0)


def _equal(left: object, right: object) -> bool:
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return all(np.array_equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("value", [np.nan, 300, -1, np.inf])
def test_an_integer_observation_that_does_not_fit_is_refused(value: float) -> None:
    with pytest.warns(UserWarning, match="in standard deviations"):
        agent = Agent(((2,), "uint8"), 2, "dqn", hidden=(4,), replay_capacity=50, batch_size=8)
    with pytest.raises(UsageError, match="that a uint8 can hold"):
        agent.act(np.array([1.0, value]))
    agent.act(np.array([0, 255]))


def test_settings_of_the_wrong_kind_are_refused() -> None:
    """In another process: here the shape checks of the tests would fail first."""
    code = """
import qhat
for settings in ({"seed": "a"}, {"sampler": 3}, {"recipe": None}):
    try:
        qhat.Agent(4, 2, **settings)
    except qhat.UsageError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert [line.split(" is ")[0] for line in lines] == ["seed", "sampler", "recipe"]
    assert all("expected" in line for line in lines)


def test_the_learning_rate_follows_environment_steps() -> None:
    """Not gradient updates: two calls of `replay` per step do not halve the schedule."""
    agent = small(
        "qhat", learning_rate=2e-3, learning_rate_steps=1_000, replay_ratio=0.5, learning_starts=40
    )
    learner = agent.program.learner
    assert float(rate_at(learner.recipe, jnp.int32(500))) == pytest.approx((2e-3 + 1e-4) / 2)
    feed(agent, 100)
    seed, key, number = state_of(agent), jax.random.key(0), jnp.int32(1)
    update, before = jax.jit(agent.program.update), seed.learner.online["q"]["bias"]
    learners = [
        update(seed.learner, seed.ring, seed.sampler, key, jnp.int32(at), number)[0] for at in (0, 1_000)
    ]
    moved = [np.abs(np.asarray(learner.online["q"]["bias"] - before)).max() for learner in learners]
    assert moved[0] / moved[1] == pytest.approx(20.0, rel=1e-2), "from 2e-3 to 1e-4"


def test_a_saved_agent_continues_with_all_robots(tmp_path: Path) -> None:
    """Named streams, sensors that are read twice, and repeated exploratory actions are all restored."""
    hold = EpsilonGreedy(1.0, 1.0, 1, hold=5)
    agent = small("nstep_dqn", explore=hold, learning_starts=16)
    robots = {name: np.random.default_rng(row) for row, name in enumerate(("left", "right", 7))}

    def go(agents: list[Agent], steps: int) -> None:
        for _ in range(steps):
            for name, rng in robots.items():
                before, after = rng.normal(size=(2, 4))
                ends = rng.random() < 0.1
                actions = {each.act(before, stream=name) for each in agents}
                assert len(actions) == 1
                for each in agents:
                    each.remember(before, actions.copy().pop(), 1.0, after, bool(ends), stream=name)

    go([agent], 20)
    agent.replay()
    go([agent], 3)
    agent.save(tmp_path / "agent")
    loaded = Agent.load(tmp_path / "agent")
    assert loaded._queue.open.keys() == agent._queue.open.keys()
    go([agent, loaded], 20)
    agent.cut("left")
    loaded.cut("left")
    assert agent.replay() == loaded.replay()
    jax.tree.map(np.testing.assert_array_equal, state_of(agent).ring, state_of(loaded).ring)


def test_robots_in_one_call_explore_independently() -> None:
    agent = small(explore=EpsilonGreedy(1.0, 1.0, 1, hold=4))
    observations = np.random.default_rng(0).normal(size=(6, 4))
    actions = np.array([agent.act(observations) for _ in range(8)])
    assert actions.shape == (8, 6)
    assert np.issubdtype(actions.dtype, np.integer)
    for robot in actions.T:
        # Each action is held for four steps.
        assert (robot.reshape(2, 4) == robot[::4, None]).all()
    assert len(set(map(tuple, actions.T))) > 1, "they do not explore as one"
    greedy = agent.act(observations, explore=False)
    assert greedy.tolist() == [agent.act(each, explore=False) for each in observations]
    only = agent.act(observations[:2], explore=True, mask=[[0, 1], [1, 0]], stream=["a", "b"])
    assert only.tolist() == [1, 0]
    bad: tuple[dict, ...] = (
        {"stream": 0},
        {"stream": [0, 0, 1, 2, 3, 4]},
        {"stream": [0]},
        {"mask": [[1, 1]]},
    )
    for words in bad:
        with pytest.raises(UsageError, match="expected"):
            agent.act(observations, **words)


def test_observations_are_stored_as_they_were_when_acted_on() -> None:
    """C++ bindings use one buffer for every observation."""
    agent = small("dqn")
    buffer, log = np.zeros((2, 4), np.float32), np.zeros((9, 4), np.float32)
    for number in range(4):
        for robot in range(2):
            buffer[robot] = 10 * robot + number
        agent.act(buffer)
        for robot in range(2):
            buffer[robot] += 1
            agent.remember(buffer[robot], 0, 0.0, buffer[robot], False, stream=robot)
    ring = state_of(agent).ring
    starts = np.asarray(ring.observation[ring.kind != 0])[:, 0]
    assert sorted(starts.tolist()) == [0, 1, 2, 3, 10, 11, 12, 13]
    # What the last step led to, and this one leads back to, is a row of a table.
    agent.remember(buffer[0], 0, 0.0, buffer[0], False)
    buffer[0] += 1
    # Nobody acted on it, so nobody knows what it was.
    with pytest.raises(UsageError, match=r"Call \.copy\(\)"):
        agent.remember(buffer[0], 0, 0.0, buffer[0], False)
    with pytest.raises(UsageError, match=r"Call \.copy\(\)"):
        agent.remember(log[0], 0, 0.0, log[0], False, stream="other")
    # Rows of one log, columns of one table, numbers and what cannot change are no such buffer.
    for number in range(8):
        agent.remember(log[number], 0, 0.0, log[number + 1], False)
    table = np.zeros((4, 2))
    agent.remember(table[:, 0], 0, 0.0, table[:, 1], False)
    constant = jnp.ones(4)
    agent.remember(constant, 0, 0.0, constant, False)
    table.flags.writeable = False
    agent.remember(table[:, 0], 0, 0.0, table[:, 0], False)


def test_waiting_rows_are_bounded_and_saving_keeps_the_newest(tmp_path: Path) -> None:
    """A person drives for an hour before the first `replay`."""
    agent, patient = small(), small()
    for each in (agent, patient):
        rng = np.random.default_rng(0)
        for number in range(1_500):
            before, after = rng.normal(size=(2, 4))
            each.remember(before, 0, float(number), after, number % 9 == 8)
            if each is patient and number % 40 == 0:
                state_of(each)
    assert len(agent._queue) == 500
    agent.save(tmp_path / "agent")
    rings = [state_of(each).ring for each in (agent, patient, Agent.load(tmp_path / "agent"))]
    for ring in rings[1:]:
        jax.tree.map(np.testing.assert_array_equal, rings[0], ring)


@pytest.mark.parametrize("ended", [False, True])
def test_an_agent_saved_before_streams_continues(tmp_path: Path, ended: bool) -> None:
    """Its ring has no links, its exploration has no name, and at most one episode is open."""
    agent = small("nstep_dqn", explore=EpsilonGreedy(1.0, 0.1, 200, hold=3))
    now = after = np.zeros(4)
    for number in range(60):
        agent.act(now)
        after = np.full(4, number + 1.0)
        agent.remember(now, 0, 1.0, after, number % 9 == 8, number == 59 and ended)
        now = after
    agent.save(tmp_path / "agent")
    seed = state_of(agent)
    ring = dataclasses.replace(seed.ring, links=None)
    trees: dict = {
        "learner": seed.learner, "replay": (ring, seed.sampler),
        "rest": {"key": seed.key, "exploration": agent._actor.states[0]},
    }  # fmt: skip
    manifest = {
        **about(agent.program, agent.steps, agent.updates, agent._actor.acts, agent._actor.drawn),
        "replay": True,
        "open": not ended,
    }
    if not ended:
        trees["open"] = {"observation": after.astype(np.float32)}
    checkpoint.write(tmp_path / "old", trees, manifest)
    old, new = Agent.load(tmp_path / "old"), Agent.load(tmp_path / "agent")
    for each in (old, new):
        each.remember(after, 0, 1.0, np.ones(4), False)
    assert old.replay() == new.replay()
    assert [old.act(now) for _ in range(9)] == [new.act(now) for _ in range(9)]
    views = [jax.jit(replay.view, static_argnums=(2, 3))(state_of(each).ring, jnp.arange(80), 3, 0.9)
             for each in (old, new)]  # fmt: skip
    for one, other in zip(*map(jax.tree.leaves, views), strict=True):
        np.testing.assert_array_equal(one[views[0].complete], other[views[1].complete])
