"""What the command line does, Python does: `qhat.plot`, `report`, `envs`, `doctor`, `tune`, `benchmark`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import qhat
from qhat.cli.calls import _words
from qhat.cli.tune import Tune
from qhat.deploy.targets import TARGETS, targets_of


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("calls") / "run"
    words = {"steps": 600, "eval_every": 300, "eval_episodes": 2, "hidden": 8, "seeds": 2}
    return qhat.train("CartPole-v1", "dqn", run_dir=folder, **words)  # pyright: ignore[reportArgumentType]


def test_a_run_is_plotted(run, tmp_path):
    assert qhat.plot(run) == run.folder.figure
    there = qhat.plot(run.folder.path, tmp_path / "not" / "there" / "x.svg", axis="seconds")
    assert there.read_text().lstrip().startswith("<?xml")
    with pytest.raises(qhat.UsageError, match=r"x\.jpeg'.*\.png, \.svg"):
        qhat.plot(run, tmp_path / "x.jpeg")


def test_a_report_is_written(run, tmp_path):
    written = qhat.report(run, tmp_path / "page.html", episodes=2, video=False)
    assert written.path.read_text().startswith("<!doctype html>")
    score = written.runs[0].measured.score
    assert score is not None
    assert len(score.per_seed) == 2
    with pytest.raises(qhat.UsageError, match="is named twice"):
        qhat.report([run, run.folder.path], tmp_path / "page.html")
    with pytest.raises(qhat.UsageError, match=r"out is .*; expected a file that ends in"):
        qhat.report(run, tmp_path / "page.pdf")


def test_environments_are_listed():
    assert qhat.envs("cartpole-v1")[0].id == "CartPole-v1"
    assert all("cartpole-v1" in entry.id.lower() for entry in qhat.envs("cartpole-v1"))
    assert len(qhat.envs()) > 500


def test_an_environment_and_the_machine_are_checked():
    found = qhat.doctor("CartPole-v1", seconds=0.2)
    assert found.env == "CartPole-v1"
    assert qhat.doctor()["cores"] >= 1
    with pytest.raises(qhat.UsageError, match="CartPole-v2"):
        qhat.doctor("CartPole-v2")
    with pytest.raises(qhat.UsageError, match="seconds is 0; expected more than 0"):
        qhat.doctor("CartPole-v1", seconds=0)


def test_recorded_steps_are_checked_too(tmp_path: Path):
    path, T = tmp_path / "data.npz", 40
    columns: dict[str, Any] = {
        "observation": np.zeros((T, 3)), "action": np.zeros(T, int), "reward": np.ones(T),
        "next_observation": np.zeros((T, 3)), "terminated": np.arange(T) % 10 == 9,
    }  # fmt: skip
    np.savez(path, **columns)
    found = qhat.doctor(data=path)
    assert (found.rows, found.episodes, found.terminated) == (T, 4, 4)
    assert found.troubles, "nothing ever moves"
    with pytest.raises(qhat.UsageError, match=r"is recorded data; expected qhat.doctor\(data="):
        qhat.doctor(str(path))
    with pytest.raises(qhat.UsageError, match="is recorded data"):
        qhat.doctor(path)  # pyright: ignore[reportCallIssue, reportArgumentType]
    with pytest.raises(qhat.UsageError, match="no meaning with an environment"):
        qhat.doctor("CartPole-v1", data=path)  # pyright: ignore[reportCallIssue]
    with pytest.raises(qhat.UsageError, match="are not there"):
        qhat.doctor(data="no.npz")


def test_tune_and_benchmark_refuse_in_the_words_of_python():
    with pytest.raises(qhat.UsageError, match=r"tune has no setting 'trails'. Did you mean 'trials'"):
        qhat.tune("CartPole-v1", trails=3)
    with pytest.raises(qhat.UsageError, match=r"^trials is 0; expected 1 or more"):
        qhat.tune("CartPole-v1", trials=0)
    with pytest.raises(qhat.UsageError, match="clasic"):
        qhat.benchmark("clasic")
    with pytest.raises(qhat.UsageError, match=r"^episodes is 0; expected 1 or more"):
        qhat.benchmark("smoke", episodes=0)


def test_a_study_from_python_has_the_command_that_continues_it():
    args = Tune("CartPole-v1", trials=3, only=("gamma",), env_kwargs={"max_episode_steps": 50})
    assert _words(args) == [
        "CartPole-v1", "--trials", "3", "--only", "gamma", "--env-kwargs", "max_episode_steps=50",
    ]  # fmt: skip


def test_export_targets_have_names():
    assert targets_of(("onnx", "ros2", TARGETS[1])) == (TARGETS[0], TARGETS[1])
    assert targets_of("web") == (TARGETS[1],)
    with pytest.raises(qhat.UsageError, match=r"targets has 'wev'; expected onnx, .* Did you mean 'web'"):
        targets_of(["wev"])


def test_an_agent_is_scored_as_a_run_is(run):
    env = gymnasium.make("CartPole-v1")
    agent = qhat.Agent(env.observation_space, env.action_space, hidden=8)
    score = qhat.evaluate(agent, "CartPole-v1", episodes=5)
    assert len(score.per_seed) == 1
    observation, _ = env.reset(seed=1_000_000)
    total, over = 0.0, False
    while not over:
        observation, reward, terminated, truncated, _ = env.step(agent.act(observation, explore=False))
        total, over = total + float(reward), terminated or truncated
    assert qhat.evaluate(agent, "CartPole-v1", episodes=1).mean_return == total
    assert np.isfinite(qhat.evaluate(agent, lambda: gymnasium.make("CartPole-v1"), episodes=2).mean_return)
    with pytest.raises(qhat.UsageError, match="knows no environment; expected one"):
        qhat.evaluate(agent)
    with pytest.raises(qhat.UsageError, match="'Acrobot-v1' has observations"):
        qhat.evaluate(agent, "Acrobot-v1")


def test_habits_are_answered_in_python():
    with pytest.raises(qhat.UsageError, match=r"train has no setting 'lr'.*learning_rate"):
        qhat.train("CartPole-v1", lr=1e-3)  # pyright: ignore[reportCallIssue]
    with pytest.raises(qhat.UsageError, match=r"Agent has no setting 'buffer_size'.*replay_capacity"):
        qhat.Agent(4, 2, buffer_size=100)  # pyright: ignore[reportCallIssue]
