"""An environment is trained with its preset, unless a recipe is named."""

import dataclasses
import json
from pathlib import Path

import pytest

from command_line import qhat
from qhat.cli.train import read_train
from qhat.environments.catalogue import find
from qhat.recipes import DEFAULT
from qhat.recipes.config import TrainConfig
from qhat.recipes.presets import NAME, PRESETS, chosen_on, preset_of


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_complete_and_named_after_what_there_is(name: str):
    entry = find(name, {})
    assert entry.name == name
    config = TrainConfig.of(name, seeds=3).validate()
    assert (config.recipe_name, config.seeds) == ("preset", 3)
    assert config.recipe == PRESETS[name].recipe
    assert config.steps % config.eval_every == 0
    assert preset_of(f"{entry.backend}:{name}") is PRESETS[name]


def test_other_environments_have_the_general_recipe():
    assert TrainConfig.of("CartPole-v1", seeds=2) == TrainConfig("CartPole-v1", seeds=2)


def test_the_command_line_takes_it_and_what_is_said_beside_it(tmp_path: Path):
    short = ["--steps", "200", "--eval-every", "200", "--eval-episodes", "1", "--hidden", "8", "--json"]
    done = qhat("train", "Acrobot-v1", *short, "--run-dir", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    config, said = json.loads((tmp_path / "run" / "config.json").read_text()), done.stderr
    assert config["recipe_name"] == "preset + hidden 8"
    assert config["recipe"]["hidden"] == [8]
    assert config["recipe"]["n_step"] == PRESETS["Acrobot-v1"].recipe.n_step
    assert "docs/presets.md" in said


def test_a_named_recipe_is_taken_as_it_is():
    args = read_train(["Acrobot-v1", "--recipe", "dqn", "--seeds", "2"])
    assert (args.recipe_name, args.recipe.n_step, args.seeds) == ("dqn", 1, 2)
    assert args.steps == TrainConfig.of("Acrobot-v1").steps


@pytest.mark.parametrize("recipe", [None, "dqn", "qhat"])
@pytest.mark.parametrize("env", ["CartPole-v1", "LunarLander-v3", "Asterix-MinAtar", "WalkerWalk-v1"])
def test_the_same_words_mean_the_same_in_the_shell_and_in_python(env: str, recipe: str | None):
    words = [env, *(["--recipe", recipe] if recipe else []), "--gamma", "0.9"]
    args, config = read_train(words), TrainConfig.of(env, recipe, gamma=0.9)
    assert {field.name: getattr(args, field.name) for field in dataclasses.fields(config)} == {
        field.name: getattr(config, field.name) for field in dataclasses.fields(config)
    }


def test_what_a_preset_has_on_can_be_turned_off():
    assert PRESETS["Acrobot-v1"].recipe.layer_norm
    args = read_train(["Acrobot-v1", "--no-layer-norm", "--normalise"])
    assert not args.recipe.layer_norm
    assert args.recipe.normalise


@pytest.mark.parametrize("env", [*PRESETS, "CartPole-v1", "envpool:WalkerWalk-v1"])
def test_the_first_seed_is_none_by_which_the_recipe_was_chosen(env: str):
    config = TrainConfig.of(env)
    chosen = chosen_on(NAME if preset_of(env) else DEFAULT, env.rpartition(":")[2])
    assert not any(config.seed + index in seeds for seeds in chosen for index in range(20))
