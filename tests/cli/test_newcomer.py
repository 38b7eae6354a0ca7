"""What a newcomer types: environments of one's own, no time limit, a policy in a loop of one's own.

Protects against first steps that end in a traceback, a hang, or somebody else's run.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

import qhat
from places import ROOT, python_path
from qhat.cli import parsing
from qhat.cli.numbers import plain
from qhat.cli.train import Train
from qhat.environments.scene import gymnasium_scene
from qhat.evaluation import play as evaluation
from qhat.recipes.config import TrainConfig
from qhat.runs.folder import RunFolder
from qhat.system.errors import UsageError
from tiny import TINY

QHAT = Path(sys.executable).parent / "qhat"
PAGE = ROOT / "docs" / "environments.md"


@pytest.fixture(autouse=True)
def compiled_as_for_users(monkeypatch: pytest.MonkeyPatch):
    """Processes started here do not get the tests' XLA settings; see conftest.py."""
    monkeypatch.delenv("XLA_FLAGS", raising=False)


class Endless(gymnasium.Env):
    """Never ends, takes no render_mode, returns the given reward."""

    observation_space = Box(-1, 1, (2,))
    action_space = Discrete(3)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        return self.observation_space.sample(), float(action), False, False, {}


def test_an_evaluation_of_an_endless_environment_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(evaluation, "LONGEST_EPISODE", 40)
    config = TrainConfig("own:Endless", recipe=TINY, steps=100, eval_episodes=2, run_dir=tmp_path / "run")
    run = qhat.train(Endless, config)
    score = qhat.evaluate(run, episodes=3, env=Endless)
    assert score.mean_length == 40
    assert score.mean_return <= 80


def test_a_stop_during_an_evaluation_saves_and_exits(tmp_path: Path):
    (tmp_path / "endless.py").write_text(
        "import gymnasium\nfrom test_newcomer import Endless\n"
        "gymnasium.register('Endless-v0', 'test_newcomer:Endless')\n"
    )
    words = [str(QHAT), "train", "gym:endless:Endless-v0", "--steps", "1000", "--eval-every", "60"]
    environment = {**os.environ, "PYTHONPATH": python_path(Path(__file__).parent)}
    folder = tmp_path / "run"
    began = subprocess.Popen(
        [*words, "--run-dir", str(folder)], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    )
    metrics = folder / "metrics.csv"
    deadline = time.monotonic() + 120
    # The first call of training is written down, and the evaluation that follows it never ends.
    while not (metrics.exists() and "progress" in metrics.read_text()) and time.monotonic() < deadline:
        time.sleep(0.2)
    began.send_signal(signal.SIGINT)
    _, said = began.communicate(timeout=60)
    assert began.returncode == 130, said
    assert (folder / "last").exists()
    assert "not evaluated" in (folder / "README.md").read_text()
    run = qhat.Run.open(folder)
    assert run.summary()["best_score"] == [None]
    assert run.policy()(np.zeros(2)) in (0, 1, 2)


def test_the_documented_robot_trains_from_its_folder(tmp_path: Path):
    (code,) = re.findall(r"```python\n(# my_module.py.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "my_module.py").write_text(code)
    words = ["train", "gym:my_module:MyRobot-v0", "--steps", "400", "--eval-episodes", "2"]
    done = subprocess.run(
        [str(QHAT), *words, "--run-dir", "run"], cwd=tmp_path, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "best").exists()


def test_a_missing_module_is_named_with_where_it_is_searched(tmp_path: Path):
    done = subprocess.run(
        [str(QHAT), "train", "gym:my_modul:MyRobot-v0"], cwd=tmp_path, capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert "Expected my_modul.py in this folder or on PYTHONPATH" in done.stderr


def test_a_policy_acts_as_the_evaluation_does(trained_cartpole: qhat.Run):
    run = trained_cartpole
    env, total = gymnasium.make("CartPole-v1"), 0.0
    policy = qhat.Run.open(run.folder.path).policy("last", seed_index=1)
    observation, _ = env.reset(seed=5)
    over = False
    while not over:
        observation, reward, terminated, truncated, _ = env.step(policy(observation))
        total, over = total + float(reward), terminated or truncated
    # Seed 1's one episode begins with the second seed number.
    assert run.evaluate(1, "last", seed=4).per_seed[1] == total
    assert policy.q_values(observation).shape == (2,)
    with pytest.raises(UsageError, match=r"observation has shape \(3,\); expected \(4,\)"):
        policy(np.zeros(3))
    with pytest.raises(UsageError, match="seed_index is 2; expected 0 to 1"):
        run.policy(seed_index=2)


@pytest.mark.parametrize("name", ["CartPole", "LunarLander", "gym:Acrobot"])
def test_an_id_without_its_version_is_refused(name: str):
    with pytest.raises(UsageError, match=r"has no version. Did you mean '\w+-v\d'"):
        qhat.train(name, steps=10)


def test_settings_are_fields_of_the_configuration():
    with pytest.raises(UsageError, match=r"train has no setting 'seed_s'. Did you mean 'seeds'"):
        qhat.train("CartPole-v1", seed_s=2)  # pyright: ignore[reportCallIssue]
    with pytest.raises(
        UsageError, match=r"env is 'Acrobot-v1' and config\.env 'CartPole-v1'; expected the same"
    ):
        qhat.train("Acrobot-v1", TrainConfig("CartPole-v1"))


def test_an_environment_that_cannot_be_drawn_says_what_it_needs():
    with pytest.raises(UsageError, match=r"cannot be made with render_mode='rgb_array' .*metadata="):
        gymnasium_scene(lambda: Endless(render_mode="rgb_array"), "it", (3,), 0)  # type: ignore[call-arg]
    with pytest.raises(UsageError, match=r"has render_mode None \(it knows none\).*metadata="):
        gymnasium_scene(Endless, "it", (3,), 0)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("CartPole-v1 --steps", "--steps has no value; expected a whole number."),
        ("CartPole-v1 --steps --json", "--steps has no value; expected a whole number."),
        ("CartPole-v1 --recipe", "--recipe has no value; expected one."),
        ("CartPole-v1 --layer-norm=yes", "--layer-norm is 'yes'; expected no value: leave out '=yes'."),
        ("CartPole-v1 --steps 10k", "--steps is '10k'; expected a whole number, such as 500 or 1e5."),
        ("CartPole-v1 --seeds=1.5", "--seeds is '1.5'; expected a whole number, such as 500 or 1e5."),
        ("CartPole-v1 --gamma 0,98", "--gamma is '0,98'; expected a number, such as 0.98."),
        ("CartPole-v1 --max-seconds x", "--max-seconds is 'x'; expected a number, such as 0.98."),
        (
            "CartPole-v1 --learnin-rate 0.1",
            "--learnin-rate is not an option of this command; --help lists them."
            " Did you mean '--learning-rate'?",
        ),
        (
            "CartPole-v1 --no-json",
            "--no-json is not an option of this command; --help lists them. Did you mean '--json'?",
        ),
        ("CartPole-v1 --hidden wide", "--hidden is 'wide'; expected a whole number, such as 500 or 1e5."),
    ],
)
def test_a_bad_number_gets_a_sentence(words: str, sentence: str):
    with pytest.raises(UsageError) as refused:
        plain(Train, words.split())
    assert str(refused.value) == sentence


def test_numbers_may_be_typed_as_1e5_or_100_000():
    words = "--steps 1e5 --hidden 64,32 CartPole-v1 --seed=1_000 --max-seconds none --learning-rate 1e-3"
    args = parsing.read(Train, words.split(), "train")
    assert (args.env, args.steps, args.seed, args.max_seconds) == ("CartPole-v1", 100_000, 1_000, None)
    assert (args.recipe.hidden, args.recipe.learning_rate) == ((64, 32), 1e-3)
    words = "CartPole-v1 --wrap reward_scale:factor=2 --json --demos a.npz b.npz --steps -5"
    assert plain(Train, words.split()) == words.split()


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ("runs/CartPole-v1/dqn/2026-11-22", "Did you mean '2026-11-23'?"),
        ("runs/CartPole-v1", "It holds runs; the newest is"),
        ("runs/CartPole-v1/dqn", "It holds runs; the newest is"),
    ],
)
def test_a_folder_that_is_not_a_run_suggests_the_nearest_run(
    asked: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    for day, age in (("2026-11-20", 9), ("2026-11-23", 0)):
        folder = Path("runs/CartPole-v1/dqn") / day
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        os.utime(folder / "config.json", (time.time() - age, time.time() - age))
    with pytest.raises(UsageError, match=re.escape(sentence)) as error:
        RunFolder.open(Path(asked))
    assert "2026-11-23'" in str(error.value)


@pytest.mark.parametrize("setting", ["JAX_ENABLE_X64", "JAX_DEBUG_NANS"])
def test_jax_settings_that_break_training_are_refused(setting: str, tmp_path: Path):
    words = [str(QHAT), "train", "CartPole-v1", "--steps", "500", "--run-dir", str(tmp_path / "run")]
    done = subprocess.run(
        words, env={**os.environ, setting: "1"}, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 2
    assert f"{setting.lower()} is on" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
