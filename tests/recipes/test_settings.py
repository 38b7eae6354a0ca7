"""The same words in `train`, `TrainConfig.of` and `Agent`."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

import qhat
from qhat.axes.explore import EpsilonGreedy
from qhat.axes.policy import Double
from qhat.axes.sampler import Prioritised
from qhat.environments.wrappers import FrameStack
from qhat.recipes.config import TrainConfig
from qhat.recipes.recipe import AXES, Recipe
from qhat.recipes.settings import RecipeSettings, RunSettings
from qhat.system.errors import UsageError


def test_the_names_for_editors_are_the_fields_of_a_recipe_and_of_a_run():
    recipe = [field.name for field in dataclasses.fields(Recipe)]
    run = [field.name for field in dataclasses.fields(TrainConfig)]
    assert list(RecipeSettings.__annotations__) == recipe
    inherited = set(RunSettings.__annotations__) - set(recipe)
    assert inherited == set(run) - {"env", "recipe"}
    assert not set(recipe) & set(run)


def test_fields_of_the_recipe_and_of_the_run_are_set_by_name():
    config = TrainConfig.of("CartPole-v1", "rainbow", gamma=0.98, seeds=8, policy="greedy", hidden=[32])
    assert (config.seeds, config.recipe.gamma, config.recipe.hidden) == (8, 0.98, (32,))
    assert config.recipe == dataclasses.replace(
        qhat.recipes.get("rainbow"), gamma=0.98, policy=qhat.recipes.get("dqn").policy, hidden=(32,)
    )
    assert config.recipe_name == "rainbow + policy greedy, hidden 32, gamma 0.98"


def test_parts_are_values_or_the_text_of_the_shell():
    by_text = TrainConfig.of("CartPole-v1", sampler="prioritised:alpha=0.3", explore="epsilon:end=0.01")
    by_value = TrainConfig.of(
        "CartPole-v1", sampler=Prioritised(alpha=0.3), explore=EpsilonGreedy(end=0.01)
    )
    assert by_text == by_value
    wrapped = TrainConfig.of("CartPole-v1", wrap="frame_stack:count=2")
    assert wrapped.wrap == TrainConfig.of("CartPole-v1", wrap=[FrameStack(2)]).wrap == (FrameStack(2),)


@pytest.mark.parametrize("axis", AXES)
def test_every_value_of_an_axis_can_be_text(axis: str):
    for kind in AXES[axis]:
        part: dict[str, Any] = {axis: kind.name}
        config = TrainConfig.of("CartPole-v1", **part)
        assert type(getattr(config.recipe, axis)) is kind


def test_a_preset_is_changed_by_settings_of_its_recipe():
    preset = TrainConfig.of("CartPole-v1")
    config = TrainConfig.of("CartPole-v1", gamma=0.9)
    assert config.recipe == dataclasses.replace(preset.recipe, gamma=0.9)
    assert (config.steps, config.eval_every) == (preset.steps, preset.eval_every)


def test_train_takes_a_recipe_or_a_configuration_in_its_second_place(tmp_path):
    words: dict[str, Any] = {"steps": 64, "eval_every": 64, "eval_episodes": 1}
    named = qhat.train("CartPole-v1", "double_dqn", run_dir=tmp_path / "a", hidden=8, **words)
    assert isinstance(named.program.recipe.policy, Double)
    assert named.program.recipe.hidden == (8,)
    config = TrainConfig.of("CartPole-v1", "double_dqn", hidden=8, **words)
    given = qhat.train("CartPole-v1", config, run_dir=tmp_path / "b")
    assert given.weights_sha256() == named.weights_sha256()
    changed = qhat.train("CartPole-v1", config, run_dir=tmp_path / "c", gamma=0.5)
    assert changed.program.recipe.gamma == 0.5


def test_agent_takes_the_same_words():
    agent = qhat.Agent(4, 2, "rainbow", gamma=0.98, hidden=[16, 16], explore="epsilon:end=0.01", steps=900)
    config = TrainConfig.of(
        "CartPole-v1", "rainbow", gamma=0.98, hidden=[16, 16], explore="epsilon:end=0.01", steps=900
    )
    assert agent.recipe == config.recipe.scheduled(900).fitted((4,))


def test_an_unknown_setting_names_its_neighbour_or_all():
    with pytest.raises(UsageError, match=r"train has no setting 'gama'\. Did you mean 'gamma'\?"):
        qhat.train("CartPole-v1", gama=0.9)  # pyright: ignore[reportCallIssue]
    with pytest.raises(UsageError, match=r"Agent has no setting 'seeds'"):
        qhat.Agent(4, 2, seeds=2)  # pyright: ignore[reportCallIssue]
