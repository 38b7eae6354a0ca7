"""From a run to an `Agent`, and from an `Agent` to a run: its weights, curve, comparison and export."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import qhat
from qhat.runs import checkpoint
from qhat.runs.callback import require_callback
from qhat.runs.folder import path_of
from qhat.runtime import Policy
from qhat.system.errors import UsageError
from tiny import TINY

SETTINGS: dict[str, Any] = {"hidden": (16,), "learning_starts": 50, "replay_capacity": 500, "batch_size": 8}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> qhat.Run:
    """Two seeds in CartPole."""
    folder = tmp_path_factory.mktemp("runs") / "cartpole"
    more: dict[str, Any] = {"steps": 600, "eval_every": 300, "eval_episodes": 3, "seeds": 2, "keep": 2}
    return qhat.train("CartPole-v1", "dqn", run_dir=folder, save_every=300, **more, **SETTINGS)


def drive(agent: qhat.Agent, steps: int, env_id: str = "CartPole-v1") -> None:
    """Let an agent learn in a loop of one's own."""
    env = gymnasium.make(env_id)
    observation, _ = env.reset(seed=1)
    for _ in range(steps):
        action = agent.act(observation)
        after, reward, terminated, truncated, _ = env.step(action)
        agent.remember(observation, action, float(reward), after, terminated, truncated)
        agent.replay()
        observation = env.reset()[0] if terminated or truncated else after
    env.close()


def rows_of(table: Path) -> list[dict[str, str]]:
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("which", ["best", "last", "300"])
@pytest.mark.parametrize("seed", [None, 0, 1])
def test_a_run_goes_on_as_an_agent(trained: qhat.Run, which: str, seed: int | None):
    agent = qhat.Agent.load(trained.folder.path, checkpoint=which, seed_index=seed)
    at = trained.seed_index(seed)
    states = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    policy = trained.policy(which, at)
    assert [agent.act(state, explore=False) for state in states] == [policy(state) for state in states]
    reached = {"last": 600, "300": 300, "best": trained.summary()["best_step"][at]}[which]
    assert (agent.steps, agent.updates, agent.seed) == (reached, 0, at)
    assert agent.epsilon == pytest.approx(float(agent.recipe.explore.epsilon(jnp.int32(reached))))


@pytest.mark.parametrize(
    "settings",
    [
        {"recipe": "pqn", "training": "rollout:steps=4", "replay_ratio": 3 / 16},
        {"recipe": "dqn", "replay_ratio": 3 / 4},
    ],
)
def test_a_run_of_several_environments_goes_on_as_one_robot(settings: Any, tmp_path: Path):
    """Updates that are a whole number for four environments need not be so for one."""
    common: dict[str, Any] = {"num_envs": 4, "steps": 64, "eval_every": 64, "eval_episodes": 1}
    given = {**settings, "batch_size": 16, "hidden": (8,)}
    qhat.train("CartPole-v1", run_dir=tmp_path / "run", **given, **common)
    agent = qhat.Agent.load(tmp_path / "run")
    drive(agent, 20)
    assert agent.steps == 84


def test_it_learns_after_as_many_new_steps_as_a_fresh_one(trained: qhat.Run):
    agent = qhat.Agent.load(trained.folder.path)
    drive(agent, 49)
    assert agent.updates == 0
    drive(agent, 60)
    assert agent.updates > 0
    assert agent.steps == trained.summary()["best_step"][trained.seed_index()] + 109


def test_settings_of_a_run_may_change_but_for_its_network(trained: qhat.Run):
    path = trained.folder.path
    changed: dict[str, Any] = {"replay_capacity": 64, "gamma": 0.9, "n_step": 2}
    agent = qhat.Agent.load(path, explore="epsilon:start=0.3,end=0.3", **changed)
    assert agent.epsilon == pytest.approx(0.3)
    assert (agent.recipe.replay_capacity, agent.recipe.gamma, agent.recipe.n_step) == (64, 0.9, 2)
    drive(agent, 120)
    assert agent.updates > 0
    wrong: tuple[tuple[dict[str, Any], list[str]], ...] = (
        ({"hidden": (32,)}, ["hidden is (32,)", "learned with (16,)", "A new Agent"]),
        ({"head": "quantile"}, ["head is", "learned with"]),
        ({"lr": 0.1}, ["Agent.load has no setting 'lr'", "learning_rate"]),
        ({"gamma": 2.0}, ["gamma is 2.0"]),
    )
    for settings, words in wrong:
        with pytest.raises(UsageError) as refused:
            qhat.Agent.load(path, **settings)
        assert all(word in str(refused.value) for word in words), refused.value


def test_of_wrapped_environments_the_wrappers_are_named(tmp_path: Path):
    more: dict[str, Any] = {
        "steps": 100,
        "eval_every": 100,
        "eval_episodes": 2,
        "run_dir": tmp_path / "run",
    }
    run = qhat.train(
        "gym:CartPole-v1", TINY, wrap=("frame_stack:count=2", "reward_scale:factor=0.1"), **more
    )
    with pytest.warns(
        UserWarning, match=r"frame_stack:count=2.*reward_scale:factor=0.1.*observations and rew"
    ):
        agent = qhat.Agent.load(run.folder.path)
    stacked = np.zeros((2, 4), np.float32)
    assert agent.act(stacked, explore=False) == run.policy()(stacked)


def test_a_saved_agent_takes_other_settings_and_keeps_its_replay(tmp_path: Path):
    agent = qhat.Agent(4, 2, seed=3, **SETTINGS)
    drive(agent, 120)
    agent.save(tmp_path / "agent")
    other = qhat.Agent.load(tmp_path / "agent", explore="epsilon:start=0.2,end=0.2", learning_rate=1e-5)
    assert (other.steps, other.updates, other.seed) == (agent.steps, agent.updates, 3)
    assert other.epsilon == pytest.approx(0.2)
    other.replay()
    assert other.updates == agent.updates + 1, "replay was kept"
    wrong: tuple[tuple[dict[str, Any], list[str]], ...] = (
        ({"replay_capacity": 100}, ["The replay that", "new replay_capacity", "replay=False"]),
        ({"sampler": "prioritised"}, ["The replay that", "new sampler"]),
        ({"optimiser": "rmsprop"}, ["The optimiser that", "new optimiser"]),
        ({"dense": "noisy"}, ["dense is", "learned with"]),
    )
    for settings, words in wrong:
        with pytest.raises(UsageError) as refused:
            qhat.Agent.load(tmp_path / "agent", **settings)
        assert all(word in str(refused.value) for word in words), refused.value
    agent.save(tmp_path / "small", replay=False)
    small = qhat.Agent.load(tmp_path / "small", replay_capacity=100, sampler="prioritised")
    drive(small, 60)
    assert small.updates > agent.updates


def test_its_bits_do_not_depend_on_settings_that_did_not_change(tmp_path: Path):
    agent = qhat.Agent(4, 2, **SETTINGS)
    drive(agent, 100)
    agent.save(tmp_path / "agent")
    pair = [
        qhat.Agent.load(tmp_path / "agent"),
        qhat.Agent.load(tmp_path / "agent", gamma=agent.recipe.gamma),
    ]
    for each in pair:
        drive(each, 40)
        each.save(tmp_path / "again")
    again = [checkpoint.flatten(each._situation().online) for each in pair]
    jax.tree.map(np.testing.assert_array_equal, *again)


def test_calls_of_to_run_make_one_curve(trained: qhat.Run, tmp_path: Path):
    agent = qhat.Agent(4, 2, seed=5, **SETTINGS)
    scores: list[float] = []

    def grown() -> qhat.Run:
        drive(agent, 120)
        agent.to_run("CartPole-v1", run_dir=tmp_path / "own", episodes=4)
        run = agent.to_run("CartPole-v1", run_dir=tmp_path / "own", episodes=4)
        scores.append(float(rows_of(run.folder.evaluations)[-1]["mean_return"]))
        return run

    _, _, run = (grown() for _ in range(3))
    rows = rows_of(run.folder.evaluations)
    assert [int(row["step"]) for row in rows] == [120, 240, 360]
    assert [float(row["mean_return"]) for row in rows] == scores
    about = run.summary()
    latest = max(at for at, score in enumerate(scores) if score == max(scores))
    assert (about["best_score"], about["best_step"]) == ([max(scores)], [120 * (latest + 1)])
    episodes = rows_of(run.folder.metrics)
    ends = [int(row["step"]) for row in episodes]
    assert ends == sorted(set(ends))
    assert sum(int(row["length"]) for row in episodes) <= 360
    assert all(float(row["score"]) == int(row["length"]) for row in episodes), "1 for each step of CartPole"
    assert qhat.plot(run).is_file()
    compared = qhat.compare([trained, run])
    assert "CartPole-v1" in repr(compared)
    assert (
        qhat.evaluate(run, episodes=3, checkpoint="last").to_json()
        == qhat.evaluate(agent, "CartPole-v1", episodes=3).to_json()
    )
    page = qhat.report(run.folder.path, tmp_path / "page.html").path.read_text()
    assert "CartPole-v1" in page


def test_an_agent_is_exported(tmp_path: Path):
    agent = qhat.Agent(4, 2, **SETTINGS)
    drive(agent, 80)
    run = agent.to_run("CartPole-v1", run_dir=tmp_path / "own", episodes=2)
    made = qhat.export(run, tmp_path / "export", observations=200)
    assert made.parity["passed"]
    policy = Policy.load(tmp_path / "export")
    states = 0.1 * np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    assert [policy.act(state) for state in states] == [agent.act(state, explore=False) for state in states]


def test_what_is_no_run_is_refused_in_one_sentence(trained: qhat.Run, tmp_path: Path):
    agent = qhat.Agent(4, 2, **SETTINGS)
    agent.save(tmp_path / "agent")
    mine = agent.to_run("CartPole-v1", run_dir=tmp_path / "mine", episodes=2).folder.path
    before = sorted((path.name, path.read_bytes()) for path in mine.rglob("*") if path.is_file())
    needs = "expected a run: agent.to_run(env) writes one"
    other = qhat.Agent(4, 2, gamma=0.5, **SETTINGS)
    again: dict[str, Any] = {
        **SETTINGS, "run_dir": trained.folder.path, "resume": True, "seeds": 2, "gamma": 0.5
    }  # fmt: skip
    refusals = {
        needs: [lambda: path_of(agent)],
        "5 is no run": [lambda: path_of(5)],
        "no run and no saved agent": [
            lambda: qhat.Agent.load(tmp_path / "none"), lambda: qhat.Agent.load(""),
        ],
        "leave it out": [
            lambda: qhat.Agent.load(tmp_path / "agent", checkpoint="last"),
            lambda: qhat.Agent.load(tmp_path / "agent", seed_index=0),
        ],
        "num_envs is no setting": [lambda: qhat.Agent.load(trained.folder.path, num_envs=2)],
        "progress is 3": [lambda: require_callback(None, 3)],
        "should_stop is 'x'": [lambda: require_callback(None, None, "x")],
        "is a saved Agent; expected a run": [
            lambda: qhat.export(tmp_path / "agent"), lambda: qhat.evaluate(tmp_path / "agent"),
        ],
        "An agent knows no environment": [lambda: qhat.export(agent), lambda: qhat.evaluate(agent)],
        "expected no other id": [lambda: qhat.export(trained, env="Acrobot-v1")],
        "the policy takes (4,)": [lambda: agent.to_run("Acrobot-v1", run_dir=tmp_path / "new")],
        "was written by qhat.train": [lambda: agent.to_run("CartPole-v1", run_dir=trained.folder.path)],
        "another recipe": [lambda: other.to_run("CartPole-v1", run_dir=mine)],
        "was written by an Agent": [lambda: qhat.train("CartPole-v1", run_dir=mine, resume=True)],
        "init_from=": [lambda: qhat.train("CartPole-v1", "dqn", **again)],
    }  # fmt: skip
    for words, calls in refusals.items():
        for call in calls:
            with pytest.raises(UsageError) as refused:
                call()
            assert words in str(refused.value)
            assert str(refused.value).endswith(".")
    assert not (tmp_path / "new").exists()
    after = sorted((path.name, path.read_bytes()) for path in mine.rglob("*") if path.is_file())
    assert after == before
