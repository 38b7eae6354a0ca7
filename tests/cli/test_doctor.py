"""`qhat doctor`: what it says of a machine and of environments on every backend, for people and programs.

Protects against a run begun on an environment that cannot be learned from, and a report that guesses.
"""

import json
from pathlib import Path
from typing import Any

import jax
import pytest

from command_line import Done, qhat
from probes import Probes
from qhat.axes.actions import Actions
from qhat.cli import checkup
from qhat.environments.base import Spec, Timestep
from qhat.environments.catalogue import Entry

BROKEN = """
import gymnasium, numpy as np
class Broken(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    def reset(self, *, seed=None, options=None):
        return np.zeros(2, np.float32), {}
    def step(self, action):
        return np.full(2, np.nan, np.float32), 1.0, False, False, {}
gymnasium.register("Broken-v0", Broken, disable_env_checker=True)
"""


def doctor(*words: str, cwd: Path | None = None) -> Done:
    return qhat("doctor", *words, cwd=cwd)


def test_the_machine_is_described():
    done = doctor("--json")
    assert done.returncode == 0, done.stderr
    about = json.loads(done.stdout)
    assert about["packages"]["jax"] == jax.__version__
    assert about["cores"] >= 1
    assert about["extras"]["envpool"] == "installed"
    assert about["envpool_xla"] == "works"


@pytest.mark.parametrize(
    ("env_id", "backend", "mode", "limit", "actions"),
    [
        ("CartPole-v1", "gymnax", "SameStep", 500, [2]),
        ("envpool:CartPole-v1", "envpool", "NextStep", 500, [2]),
        ("gym:CartPole-v1", "gym", "SameStep", 500, [2]),
    ],
)
def test_every_backend_is_described(env_id: str, backend: str, mode: str, limit: int, actions: list):
    done = doctor(env_id, "--seconds", "0.5", "--json")
    assert done.returncode == 0, done.stderr
    about = json.loads(done.stdout, parse_constant=lambda word: pytest.fail(word))
    assert (about["backend"], about["found"], about["limit"]) == (backend, mode, limit)
    assert about["actions"] == actions
    assert about["usable"]
    assert about["final_observation"]
    assert about["rewards"] == [1.0, 1.0]
    assert 8 <= about["lengths"]["shortest"] <= about["lengths"]["median"] <= 40
    assert about["steps_per_second"] > 50
    assert 2**20 < about["replay_bytes"] < 2**23


def test_options_reach_the_environment():
    done = doctor("gym:CartPole-v1", "--env-kwargs", "max_episode_steps=3", "--seconds", "0.2", "--json")
    assert json.loads(done.stdout)["lengths"]["longest"] == 3


def test_a_table_and_the_next_command_are_printed():
    done = doctor("gym:CartPole-v1", "--seconds", "0.2")
    assert done.returncode == 0, done.stderr
    for words in ("autoreset, observed", "SameStep", "1 in every step", "qhat train gym:CartPole-v1"):
        assert words in done.stdout


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("CartPol-v1",), "Did you mean 'CartPole-v1'?"),
        (("CartPole-v1", "--seconds", "0"), "--seconds is 0"),
        (("gym:broken:Broken-v0",), "observations that are not finite; expected numbers"),
    ],
)
def test_an_unusable_environment_is_one_sentence_and_exit_2(words: tuple, sentence: str, tmp_path: Path):
    (tmp_path / "broken.py").write_text(BROKEN)
    done = doctor(*words, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert sentence in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


class Overwritten(Probes):
    """Returns the next episode's first observation as the successor."""

    def __init__(self):
        super().__init__()
        self.spec = Spec("overwritten", "test", self.spec.shape, "float32", Actions((2,)))

    def step(self, state: Any, action: Any, key: Any) -> tuple[Any, Timestep]:
        state, now = super().step(state, action, key)
        return state, Timestep(
            now.observation, now.reward, now.terminated, now.truncated, now.observation, now.real
        )


def test_a_compiled_environment_that_overwrites_its_successors_is_refused():
    entry = Entry("probes", "(7,) float32", "2 discrete", None)
    sound = checkup._play(Probes(), entry, 0.1)
    assert (sound.faults, sound.limit) == ((), None)
    assert set(sound.lengths) == {1, 2, 3}
    assert sound.rewards == (-1.0, 1.0)
    broken = checkup._play(Overwritten(), entry, 0.1)
    assert "next episode's first observation" in broken.faults[0]
