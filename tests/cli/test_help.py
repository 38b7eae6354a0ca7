"""Help pages, and what `qhat recipes` and `qhat envs` show of one thing."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest

from command_line import qhat
from qhat import recipes
from qhat.cli import train_help
from qhat.cli.train import Train
from qhat.recipes.presets import preset_of
from qhat.recipes.recipe import AXES, Recipe

PARTS = [kind for kinds in AXES.values() for kind in kinds]


def test_every_setting_is_in_one_group() -> None:
    listed = [name for names in train_help.GROUPS.values() for name in names]
    fields = {field.name for kind in (Train, Recipe) for field in dataclasses.fields(kind)}
    assert sorted(listed) == sorted(fields - {"env", "recipe", "paper"})


def test_the_help_names_every_key_of_every_part() -> None:
    page = qhat("train", "--help").stdout
    text = " ".join(page.split())
    for kind in PARTS:
        assert kind.name in text
        if keys := train_help.keys_of(kind):
            assert f"{kind.name}: {keys}" in text
    for group in train_help.GROUPS:
        assert f"\n{group}:\n" in page
    for name in recipes.RECIPES:
        assert qhat("train", "--recipe", name, "--help").stdout.count("--") == page.count("--")


@pytest.mark.parametrize(
    "words", [("MountainCar-v0", "--help"), ("--seeds", "2", "MountainCar-v0", "--help")]
)
def test_the_help_of_an_environment_has_its_presets_values(words: tuple[str, ...]) -> None:
    preset = preset_of("MountainCar-v0")
    assert preset is not None
    text = " ".join(qhat("train", *words).stdout.split())
    assert "MountainCar-v0's preset" in text
    assert f"--steps N Environment steps per seed. [{preset.steps}]" in text
    assert f"[{preset.recipe.gamma}] --target" in text
    general = " ".join(qhat("train", "--help").stdout.split())
    assert f"[{recipes.get(recipes.DEFAULT).gamma}] --target" in general


def test_the_help_refuses_what_training_refuses() -> None:
    assert "Did you mean 'CartPole-v1'" in qhat("train", "CartPole-v", "--help").stderr
    assert "Did you mean 'rainbow'" in qhat("train", "--recipe", "ranbow", "--help").stderr


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_a_recipe_is_shown_in_full(name: str) -> None:
    done = qhat("recipes", name)
    assert done.returncode == 0
    for field in dataclasses.fields(Recipe):
        assert field.name == "paper" or re.search(rf"^{field.name.replace('_', '-')}\b", done.stdout, re.M)
    for axis in AXES:
        assert train_help.in_full(getattr(recipes.get(name), axis)) in done.stdout
    assert recipes.get(name).paper in done.stdout
    others = {"her": "FetchReach-v4", "decqn_growing": "WalkerRun-v1", "decqn_coarse": "WalkerRun-v1"}
    env = others.get(name, "CartPole-v1")
    command = f"train {env}" if recipes.get(name).training.acts else f"learn DATA --env {env}"
    command += " --demos DATA" if recipes.get(name).demo_share else ""
    assert f"qhat {command} --recipe {name}" in done.stdout
    assert json.loads(qhat("recipes", name, "--json").stdout) == recipes.get(name).to_json()


def test_an_unknown_recipe_is_refused_with_the_near_miss() -> None:
    assert qhat("recipes", "ranbow").returncode == 2
    assert "Did you mean 'rainbow'?" in qhat("recipes", "ranbow").stderr


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("CartPole-v1", ("pole_angle rad", "push left", "500 steps", "500 is the largest", "recipe qhat")),
        ("MountainCar-v0", ("a preset", "--num-envs 8", "200 steps", "qhat train MountainCar-v0")),
        ("gym:CartPole-v1", ("gymnasium CartPole-v1", "500 steps", "qhat train gym:CartPole-v1")),
        ("Asterix-MinAtar", ("5 discrete", "MinAtar/Asterix-v1")),
    ],
)
def test_an_environment_is_shown_in_full(name: str, shown: tuple[str, ...]) -> None:
    done = qhat("envs", name)
    assert done.returncode == 0
    for text in shown:
        assert text in done.stdout


def test_piped_tables_lose_no_column() -> None:
    # These outputs are no terminals, and narrow ones cut or wrapped cells.
    lines = qhat("envs", "Lunar").stdout.splitlines()
    assert any("LunarLander-v3" in line and "gymnasium LunarLander-v3" in line for line in lines)
    table = qhat("recipes").stdout.partition("\n\n")[0].splitlines()
    assert len(table) == 1 + len(recipes.RECIPES)
    assert "…" not in qhat("envs").stdout
