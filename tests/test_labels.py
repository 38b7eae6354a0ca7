"""Protects that a run's name and what was trained can never disagree, however a recipe is named.

A name that was stored beside the settings was free to be another recipe's, and a comparison printed it.
"""

import dataclasses
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qhat import recipes
from qhat.config import TrainConfig
from qhat.errors import UsageError
from qhat.labels import base_of, folder_of, label_of, label_of_run
from qhat.presets import PRESETS
from qhat.recipe import Recipe
from qhat.stage import configured

NAMES = st.sampled_from(sorted(recipes.RECIPES))
CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "gamma": st.sampled_from((0.9, 0.97)),
        "n_step": st.integers(1, 5),
        "hidden": st.sampled_from(((8,), (64, 64), (128, 128))),
        "batch_size": st.sampled_from((16, 32, 64)),
    },
)


@settings(max_examples=25, deadline=None)
@given(NAMES, CHANGES, st.sampled_from(("CartPole-v1", "Acrobot-v1")))
def test_every_way_of_naming_a_recipe_gives_its_value_one_label(name: str, changes: dict, env: str) -> None:
    recipe = dataclasses.replace(recipes.get(name), **changes)
    label = label_of(recipe, env)
    ways = [
        TrainConfig(env, recipe=recipe),
        TrainConfig.of(env, recipe=recipe),
        configured(env, env, None, {"recipe": recipe}),
        configured(env, env, TrainConfig(env, name), {"recipe": recipe}),
    ]
    if not changes:
        ways += [
            TrainConfig(env, name),
            TrainConfig.of(env, recipe_name=name),
            TrainConfig.of(env, recipe=name),
            configured(env, env, None, {"recipe_name": name}),
        ]
    for config in ways:
        assert (config.recipe_name, config.recipe) == (label, recipe)
    # In its folder it has the torso and the schedules that its observations and steps made.
    trained = recipe.scheduled(3_000).fitted((4,))
    written = {"env": env, "steps": 3_000, "recipe": trained.to_json(), "spec": {"shape": [4]}}
    for stored in (label, "nonsense", "rainbow"):
        assert label_of_run({**written, "recipe_name": stored}) == label
    assert folder_of(label) == folder_of(label).strip("./")


@settings(max_examples=50, deadline=None)
@given(NAMES, CHANGES, NAMES, CHANGES)
def test_two_compositions_never_share_a_label(one: str, change: dict, other: str, another: dict) -> None:
    pair = [
        dataclasses.replace(recipes.get(name), **changes, paper="")
        for name, changes in ((one, change), (other, another))
    ]
    assert (label_of(pair[0]) == label_of(pair[1])) == (pair[0] == pair[1])


def test_the_command_line_says_the_same() -> None:
    """In a process of its own: here the shape checks of the tests would speak first."""
    code = """
from qhat.cli.train import _read
every = "--recipe rainbow|--recipe rainbow --gamma 0.98|--n-step 5 --hidden 8|--recipe dqn --n-step 3"
for words in every.split("|"):
    print(_read(["CartPole-v1", *words.split()]).recipe_name)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    three = dataclasses.replace(recipes.dqn, n_step=3)
    expected = ["rainbow", "rainbow + gamma 0.98", "qhat + hidden 8, n_step 5", label_of(three)]
    assert done.stdout.splitlines() == expected, done.stderr
    assert label_of(three) == "nstep_dqn"


def test_a_preset_is_one_where_it_is_the_environments() -> None:
    preset = PRESETS["Acrobot-v1"].recipe
    assert TrainConfig.of("Acrobot-v1").recipe_name == "preset"
    assert label_of(dataclasses.replace(preset, gamma=0.9), "Acrobot-v1") == "preset + gamma 0.9"
    assert base_of(label_of(preset, "CartPole-v1")) in recipes.RECIPES


@pytest.mark.parametrize(
    "settings_",
    [
        {"recipe_name": "nonsense"}, {"recipe": "nonsense"},
        {"recipe_name": "nonsense", "recipe": Recipe()},
        {"recipe_name": "dqn", "recipe": recipes.rainbow},
    ],
)  # fmt: skip
def test_a_name_that_is_no_recipe_or_another_one_is_refused(settings_: dict) -> None:
    with pytest.raises(UsageError, match="expected one of"):
        configured("CartPole-v1", "CartPole-v1", None, settings_)
