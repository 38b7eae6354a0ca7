"""Learning from recorded steps alone: `--training logs`, and `qhat learn`.

Protects against a run that acts all the same, replay that does not hold all of the data, values that are
not those of the recorded steps, a stop that changes the run, and mistakes that are seen too late.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import qhat
from qhat.cli import main
from qhat.cli.learn import as_training
from qhat.runs.train import Interrupted

A, GAMMA = 2, 0.9
SETTINGS: dict[str, Any] = {
    "recipe": "cql", "hidden": (16,), "batch_size": 16, "steps": 400, "eval_every": 200, "eval_episodes": 2,
    "learning_rate_end": None,
}  # fmt: skip


def episodes(path: Path, count: int = 40, seed: int = 0, unseen: int | None = None) -> str:
    """Write CartPole-shaped episodes of 10 steps in which action 1 earns 1 and action 0 nothing.

    Args:
        unseen: an action that nobody took.
    """
    rng = np.random.default_rng(seed)
    T = 10 * count
    observation = rng.normal(size=(T + 1, 4)).astype(np.float32)
    action = rng.integers(A, size=T) if unseen is None else np.full(T, 1 - unseen)
    ends = np.arange(1, T + 1) % 10 == 0
    # A last observation is its episode's own, and not the first of the next one.
    after = np.where(ends[:, None], np.float32(0.25), observation[1:])
    np.savez(
        path, observation=observation[:-1], action=action, reward=action.astype(np.float32),
        next_observation=after, terminated=ends,
    )  # fmt: skip
    return str(path)


def test_replay_holds_all_of_the_data_and_nothing_is_added(tmp_path: Path) -> None:
    data = episodes(tmp_path / "data.npz")
    run = qhat.train("CartPole-v1", run_dir=tmp_path / "run", demos=[data], seeds=2, **SETTINGS)
    assert run.program.recipe.replay_capacity == 40 * 11
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert not any(row.startswith("episode") for row in rows)
    assert run.summary()["step"] == 400


def test_python_learns_as_the_command_does(tmp_path: Path) -> None:
    data = episodes(tmp_path / "data.npz")
    run = qhat.learn(Path(data), "CartPole-v1", run_dir=tmp_path / "run", **SETTINGS)
    written = json.loads((tmp_path / "run" / "config.json").read_text())
    assert written["recipe_name"].startswith("cql + ")
    assert written["demos"] == [data]
    assert run.program.recipe.training.name == "logs"
    other: dict[str, Any] = {**SETTINGS, "recipe": "dqn", "steps": 40}
    plain = qhat.learn([data], "CartPole-v1", run_dir=tmp_path / "plain", **other)
    assert (plain.program.recipe.training.name, plain.program.recipe.behaviour.name) == ("logs", "none")
    cases: dict[str, Any] = {
        "does not name its environment; expected qhat.learn": ((data,), {}),
        "demos has no meaning in qhat.learn: it has its data": ((data, "CartPole-v1"), {"demos": [data]}),
        "qhat.learn has no data": (([], "CartPole-v1"), {}),
        "are not there": (("no.npz", "CartPole-v1"), {}),
    }
    for sentence, (arguments, settings) in cases.items():
        with pytest.raises(qhat.UsageError, match=sentence):
            qhat.learn(*arguments, **settings)


def test_data_without_a_single_end_are_refused(tmp_path: Path) -> None:
    data = episodes(tmp_path / "data.npz")
    with np.load(data) as whole:
        columns: dict[str, Any] = {**whole, "terminated": np.zeros(400, bool)}
    np.savez(tmp_path / "endless.npz", **columns)
    sources = [str(tmp_path / "endless.npz")]
    message = r"endless\.npz' have no end of an episode: none of 400 rows .* the last row .* as truncated"
    with pytest.warns(UserWarning, match="break off"), pytest.raises(qhat.UsageError, match=message):
        qhat.learn(sources, "CartPole-v1", run_dir=tmp_path / "run", **SETTINGS)
    assert not (tmp_path / "run").exists()
    columns["truncated"] = np.arange(400) == 399
    np.savez(tmp_path / "endless.npz", **columns)
    with pytest.warns(UserWarning, match="break off"):
        qhat.learn(sources, "CartPole-v1", run_dir=tmp_path / "run", **SETTINGS)


@pytest.mark.parametrize("n", [1, 3])
def test_values_are_those_of_the_recorded_steps(n: int, tmp_path: Path) -> None:
    """The rewards depend on the action alone: with γ = 0 so does Q. A plain recipe fits both actions."""
    data = episodes(tmp_path / "data.npz", 200)
    settings: Any = {**SETTINGS, "recipe": "dqn", "training": "logs", "steps": 2_000, "eval_every": 2_000}
    run = qhat.train(
        "CartPole-v1", run_dir=tmp_path / "run", demos=[data], gamma=1e-6, n_step=n, **settings
    )
    policy = run.policy("last")
    rng = np.random.default_rng(1)
    q = np.stack([policy.q_values(rng.normal(size=4).astype(np.float32)) for _ in range(100)])
    np.testing.assert_allclose(q.mean(axis=0).ravel(), [0, 1], atol=0.05)


def test_cql_presses_an_unseen_action_down_and_plain_learning_does_not(tmp_path: Path) -> None:
    data, margins = episodes(tmp_path / "data.npz", unseen=0), {}
    rows = np.random.default_rng(2).normal(size=(100, 4)).astype(np.float32)
    for name, behaviour in (("plain", "none"), ("cql", "cql")):
        run = qhat.train(
            "CartPole-v1",
            run_dir=tmp_path / name,
            demos=[data],
            behaviour=behaviour,
            gamma=GAMMA,
            **SETTINGS,
        )
        q = np.stack([run.policy("last").q_values(row) for row in rows]).reshape(-1, A)
        margins[name] = float(np.mean(q[:, 1] - q[:, 0]))
    assert margins["cql"] > margins["plain"] + 1


def test_a_stop_changes_nothing(tmp_path: Path) -> None:
    data = [episodes(tmp_path / "one.npz"), episodes(tmp_path / "other.npz", seed=1)]
    settings: Any = {**SETTINGS, "recipe": "cql", "sampler": "prioritised", "seeds": 2}
    cut: Any = {**settings, "steps": 200}
    whole = qhat.train("CartPole-v1", run_dir=tmp_path / "whole", demos=data, **settings)
    qhat.train("CartPole-v1", run_dir=tmp_path / "cut", demos=data, **cut)
    # What it has read is in the checkpoint.
    for source in data:
        Path(source).unlink()
    run = qhat.train("CartPole-v1", run_dir=tmp_path / "cut", resume=True, steps=400)
    assert run.weights_sha256() == whole.weights_sha256()
    again = qhat.train("CartPole-v1", run_dir=tmp_path / "cut", resume=True, steps=400)
    assert again.weights_sha256() == whole.weights_sha256()


def test_it_stops_and_continues(tmp_path: Path) -> None:
    data = [episodes(tmp_path / "data.npz")]
    with pytest.raises(Interrupted):
        qhat.train(
            "CartPole-v1", run_dir=tmp_path / "run", demos=data, should_stop=lambda: True, **SETTINGS
        )
    run = qhat.train("CartPole-v1", run_dir=tmp_path / "run", resume=True)
    assert run.summary()["step"] == 400


def test_a_seed_does_not_depend_on_those_beside_it(tmp_path: Path) -> None:
    data = [episodes(tmp_path / "data.npz")]
    both = qhat.train("CartPole-v1", run_dir=tmp_path / "both", demos=data, seeds=2, **SETTINGS)
    alone = qhat.train("CartPole-v1", run_dir=tmp_path / "alone", demos=data, seed=1, **SETTINGS)
    one, two = (jax.tree.leaves(run.weights("last")) for run in (both, alone))
    for each, other in zip(one, two, strict=True):
        np.testing.assert_allclose(jnp.asarray(each)[1], jnp.asarray(other)[0], rtol=1e-3, atol=1e-4)


def test_a_gymnasium_environment_plays_the_evaluations(tmp_path: Path) -> None:
    data = [episodes(tmp_path / "data.npz")]
    run = qhat.train("gym:CartPole-v1", run_dir=tmp_path / "run", demos=data, **SETTINGS)
    assert (tmp_path / "run" / "eval.csv").read_text().count("\n") == 3
    assert run.spec.backend == "gym"
    # No episode was played in training: the curve is that of the evaluations.
    assert qhat.plot(run, out=tmp_path / "curve.png").stat().st_size > 0


def test_the_command_is_that_of_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, folder = episodes(tmp_path / "data.npz"), str(tmp_path / "run")
    words = [data, "--env", "CartPole-v1", "--steps", "100", "--eval-every", "100", "--run-dir", folder]
    with pytest.raises(SystemExit) as done:
        main.main(["learn", *words, "--json"])
    assert done.value.code == 0
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["run"] == folder
    written = json.loads((Path(folder) / "config.json").read_text())
    assert (written["recipe_name"], written["demos"]) == ("cql", [data])


def test_words_become_those_of_training(tmp_path: Path) -> None:
    data = episodes(tmp_path / "data.npz")
    assert as_training([data, "--env", "CartPole-v1"]) == [
        "CartPole-v1",
        "--demos",
        data,
        "--recipe",
        "cql",
    ]
    assert as_training([data, "--env=CartPole-v1", "--recipe", "bc"]) == [
        "CartPole-v1", "--demos", data, "--recipe", "bc",
    ]  # fmt: skip
    words = as_training([data, data, "--recipe", "decqn", "--num-envs", "2", "--env", "CartPole-v1"])
    assert words[:4] == ["CartPole-v1", "--demos", data, data]
    assert words[-4:] == ["--training", "logs", "--replay-ratio", "1"]


WRONG = {
    "no data; expected qhat learn DATA": lambda data: ["--env", "CartPole-v1"],
    "does not name its environment; expected qhat learn": lambda data: [data],
    "are not there; expected an .npz": lambda data: ["missing.npz", "--env", "CartPole-v1"],
    "Recipe 'cqll' is not known": lambda data: [data, "--env", "CartPole-v1", "--recipe", "cqll"],
    "--resume --run-dir FOLDER": lambda data: [data, "--env", "CartPole-v1", "--resume"],
    "steps no environment; leave --actors out": lambda data: [
        data, "--env", "CartPole-v1", "--actors", "1", "--log", "info.x",
    ],
    "replay is as large as the data": lambda data: [
        data, "--env", "CartPole-v1", "--replay-capacity", "500",
    ],
    "nothing acts while it learns. Leave it out": lambda data: [
        data, "--env", "CartPole-v1", "--training", "replay",
    ],
    "expected --num-envs 1, and it is 4": lambda data: [data, "--env", "CartPole-v1", "--num-envs", "4"],
    "Environment 'CartPol-v1' is not known": lambda data: [data, "--env", "CartPol-v1"],
}  # fmt: skip


@pytest.mark.parametrize("sentence", WRONG)
def test_mistakes_are_said_before_anything_is_learned(
    sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        main.main(["learn", *WRONG[sentence](episodes(tmp_path / "data.npz"))])
    assert refused.value.code == 2
    assert sentence in capsys.readouterr().err


def test_an_agent_acts_and_takes_no_logs() -> None:
    with pytest.raises(qhat.UsageError, match="training is logs, and an Agent learns from replay"):
        qhat.Agent(4, 2, recipe="cql")


def test_a_run_that_neither_acts_nor_has_data_is_refused() -> None:
    with pytest.raises(qhat.UsageError, match=r"learns from recorded steps alone, and there are none"):
        qhat.train("CartPole-v1", **SETTINGS)
