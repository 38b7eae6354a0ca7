"""Words of other libraries are answered with ours, in the reader's dialect."""

from __future__ import annotations

import dataclasses

import pytest

from command_line import qhat
from qhat.axes.axis import parse
from qhat.cli.train import Train
from qhat.environments.wrappers import WRAPPERS
from qhat.recipes.habits import HABITS, our_word, ours_of
from qhat.recipes.recipe import AXES, Recipe

FIELDS = {field.name for kind in (Train, Recipe) for field in dataclasses.fields(kind)}


def test_every_habit_names_a_setting_that_there_is() -> None:
    names = [name for habit in HABITS for name in habit.names]
    assert len(names) == len(set(names))
    for habit in HABITS:
        assert habit.ours in FIELDS | {""}
        assert habit.ours or habit.note
        if habit.ours in AXES:
            assert parse(habit.value, AXES[habit.ours])
        if habit.ours == "wrap":
            assert parse(habit.value, WRAPPERS)
    # A word of ours is not answered, except where the flag is another one.
    assert FIELDS & set(names) <= {"env"}


@pytest.mark.parametrize("name", sorted(name for habit in HABITS for name in habit.names))
def test_the_command_line_answers_every_habit(name: str) -> None:
    flag = "--" + name.replace("_", "-")
    done = qhat("train", "CartPole-v1", flag, "7")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert flag in done.stderr
    if ours := ours_of(name):
        assert ours == "env" or f"--{ours.replace('_', '-')}" in done.stderr
    assert "is not an option" not in done.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ("--lr", "0.0003"),
            "qhat's word for --lr is --learning-rate: qhat train ... --learning-rate 0.0003.",
        ),
        (
            ("--lr=0.0003",),
            "qhat's word for --lr is --learning-rate: qhat train ... --learning-rate 0.0003.",
        ),
        (("--buffer_size", "9000"), "qhat's word for --buffer-size is --replay-capacity: qhat train ..."),
        (("--tau", "0.01"), "qhat's word for --tau is --target: qhat train ... --target soft:tau=0.01."),
        (("--use-dueling",), "qhat's word for --use-dueling is --merge: qhat train ... --merge dueling."),
        (("--epsilon-decay", "0.99"), "--explore epsilon:steps=10000."),
        (("--policy", "MlpPolicy"), "leave 'MlpPolicy' out (--hidden 64 64 sets its widths)"),
        (("--cuda",), "qhat's word for --cuda is --device: qhat train ... --device cuda."),
        (("--env-id", "Acrobot-v1"), "qhat takes the environment without --env-id: qhat train Acrobot-v1."),
    ],
)
def test_sentences_of_the_command_line(words: tuple[str, ...], sentence: str) -> None:
    done = qhat("train", "CartPole-v1", *words)
    assert done.returncode == 2
    assert sentence in done.stderr


def test_sentences_of_python_speak_of_no_flag() -> None:
    assert our_word("lr", 3e-4) == "qhat's word for lr is learning_rate: learning_rate=0.0003."
    assert our_word("use_dueling", True) == 'qhat\'s word for use_dueling is merge: merge="dueling".'
    assert (
        our_word("bufferSize", 500) == "qhat's word for bufferSize is replay_capacity: replay_capacity=500."
    )
    assert our_word("learning_rate") == our_word("nothing_of_the_kind") == ""
    for habit in HABITS:
        for name in habit.names:
            assert "--" not in our_word(name, 7)


@pytest.mark.parametrize("words", [("dqn", "CartPole-v1"), ("CartPole-v1", "DQN"), ("dqn",)])
def test_a_recipe_in_the_place_of_the_environment_is_named(words: tuple[str, ...]) -> None:
    done = qhat("train", *words)
    assert done.returncode == 2
    assert "expected: qhat train CartPole-v1 --recipe dqn" in done.stderr


def test_other_commands_name_only_settings_that_they_have() -> None:
    assert "qhat tune ... --steps 500" in qhat("tune", "CartPole-v1", "--total-timesteps", "500").stderr
    assert "is not an option of this command" in qhat("plot", "run", "--lr", "1").stderr
