"""Protects that a run's name and what was trained can never disagree, however a recipe is named.

A name that was stored beside the settings could be that of another recipe, and a comparison printed it.
"""

import dataclasses
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import qhat
from qhat import recipes
from qhat.axes.explore import EpsilonGreedy
from qhat.cli.train import read_train
from qhat.recipes.config import TrainConfig
from qhat.recipes.labels import base_of, folder_of, label_of, label_of_run
from qhat.recipes.presets import PRESETS, Preset, PresetFile
from qhat.recipes.recipe import Recipe
from qhat.runs.worlds import configured
from qhat.system.errors import UsageError

NAMES = st.sampled_from(sorted(recipes.RECIPES))
CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "gamma": st.sampled_from((0.9, 0.97)),
        "n_step": st.integers(1, 5),
        "hidden": st.sampled_from(((8,), (64, 64), (128, 128))),
        "batch_size": st.sampled_from((16, 32, 64)),
        # 3,000 is the run's length, too: a schedule of that length by hand is the same composition.
        "learning_rate_steps": st.sampled_from((700, 3_000)),
        "learning_starts": st.sampled_from((60, 64)),
        "explore": st.sampled_from((EpsilonGreedy(1.0, 0.1, 300), EpsilonGreedy(steps=70))),
    },
)


@settings(max_examples=25, deadline=None)
@given(NAMES, CHANGES, st.sampled_from(("CartPole-v1", "Acrobot-v1")))
def test_every_way_of_naming_a_recipe_gives_its_value_one_label(name: str, changes: dict, env: str) -> None:
    recipe = dataclasses.replace(recipes.get(name), **changes)
    # A recipe without replay refuses some of these.
    assume(name != "drqn" or not changes.keys() & {"n_step_cut", "random_shift", "training", "relabel"})
    without_replay = {"gamma", "hidden", "learning_rate_steps", "explore"}
    assume(recipe.training.replays or changes.keys() <= without_replay)
    label = label_of(recipe, env, spans=(3_000,))
    ways = [
        TrainConfig(env, recipe=recipe, steps=3_000),
        TrainConfig.of(env, recipe=recipe, steps=3_000),
        configured(env, env, recipe, None, {"steps": 3_000}),
        configured(env, env, recipe, TrainConfig(env, name), {"steps": 3_000}),
    ]
    if not changes:
        ways += [
            TrainConfig(env, name, steps=3_000),
            TrainConfig.of(env, recipe_name=name, steps=3_000),
            TrainConfig.of(env, recipe=name, steps=3_000),
            configured(env, env, None, None, {"recipe_name": name, "steps": 3_000}),
        ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "preset.json"
        path.write_text(PresetFile(env, Preset(recipe, 3_000, 1_000, 2)).text())
        ways.append(TrainConfig.of(env, preset_file=path))
    for config in ways:
        assert (config.recipe_name, config.recipe) == (label, recipe)
    # In its folder it has the torso and the schedules that its observations and steps made.
    trained = recipe.scheduled(3_000).fitted((4,))
    written = {"env": env, "recipe": trained.to_json(), "spec": {"shape": [4]}}
    # Resumed, it has more steps, and the schedules of its beginning.
    written |= {"steps": 9_000, "schedule_steps": 3_000}
    for stored in (label, "nonsense", "rainbow"):
        assert label_of_run({**written, "recipe_name": stored}) == label
    assert folder_of(label) == folder_of(label).strip("./")


def test_a_run_keeps_its_label_when_it_goes_on(tmp_path: Path) -> None:
    """Schedules were made for its first length; the user chose the one of 150 steps explicitly."""
    recipe = dataclasses.replace(recipes.dqn, hidden=(8,), learning_rate_steps=150, learning_starts=32)
    label = "dqn + hidden 8, learning_rate_steps 150, learning_starts 32"
    for steps, resume in ((100, False), (150, True)):
        run = qhat.train(
            "CartPole-v1",
            recipe=recipe,
            run_dir=tmp_path / "run",
            steps=steps,
            eval_episodes=1,
            resume=resume,
        )
        written = run.folder.read_config()
        assert (written["steps"], written["schedule_steps"]) == (steps, 100)
        assert (written["recipe_name"], label_of_run(written)) == (label, label)


@settings(max_examples=50, deadline=None)
@given(NAMES, CHANGES, NAMES, CHANGES)
def test_two_compositions_never_share_a_label(one: str, change: dict, other: str, another: dict) -> None:
    pair = [
        dataclasses.replace(recipes.get(name), **changes, paper="")
        for name, changes in ((one, change), (other, another))
    ]
    assert (label_of(pair[0]) == label_of(pair[1])) == (pair[0] == pair[1])


def test_the_command_line_says_the_same() -> None:
    every = "--recipe rainbow|--recipe rainbow --gamma 0.98|--n-step 5 --hidden 8|--recipe dqn --n-step 3"
    three = dataclasses.replace(recipes.dqn, n_step=3)
    expected = ["rainbow", "rainbow + gamma 0.98", "qhat + hidden 8, n_step 5", label_of(three)]
    assert [
        read_train(["CartPole-v1", *words.split()]).recipe_name for words in every.split("|")
    ] == expected
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
        {"recipe_name": "nonsense", "recipe": "dqn"}, {"recipe_name": "rainbow", "recipe": "dqn"},
        {"recipe_name": "dqn", "recipe": recipes.rainbow},
    ],
)  # fmt: skip
def test_a_name_that_is_no_recipe_or_another_one_is_refused(settings_: dict) -> None:
    recipe = settings_.get("recipe")
    names = {name: value for name, value in settings_.items() if name != "recipe"}
    with pytest.raises(UsageError, match="expected one of"):
        configured("CartPole-v1", "CartPole-v1", recipe, None, names)


def test_what_is_no_config_and_no_environment_is_a_sentence() -> None:
    """In a separate process: here the shape checks of the tests would raise first."""
    calls = {
        "qhat.TrainConfig('CartPole-v1', 'rainbow', recipe='dqn')": "recipe is 'dqn' and recipe_name",
        "qhat.TrainConfig.of(3)": "env is 3; expected an id",
        "qhat.train(3)": "env is 3; expected an id",
        "qhat.train(None)": "env is None; expected an id",
        "qhat.train('CartPole-v1', {'steps': 10})": "recipe is {'steps': 10}; expected a name",
        "qhat.train('CartPole-v1', config=3)": "config is 3; expected a TrainConfig",
    }
    tries = [f"try: {call}\nexcept qhat.system.errors.UsageError as error: print(error)" for call in calls]
    code = "\n".join(["import qhat", *tries])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    said = done.stdout.splitlines()
    assert len(said) == len(calls), done.stderr
    assert all(words in line for words, line in zip(calls.values(), said, strict=True)), said
