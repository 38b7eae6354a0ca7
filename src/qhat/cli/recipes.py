"""`qhat recipes [NAME]`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

import tyro

from qhat.axes.axis import AxisValue
from qhat.cli.parsing import read
from qhat.cli.tables import console, print_rows
from qhat.recipes import DEFAULT, RECIPES, get
from qhat.recipes.recipe import Recipe

REFERENCE = "dqn"
"""Recipe that others are compared with."""
SHOWN = (
    "head", "policy", "bonus", "behaviour", "joints", "resolution", "merge", "dense", "torso", "memory",
    "training", "sampler", "relabel", "optimiser",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Recipes:
    """List the named algorithms and their values on the axes, or show one in full."""

    name: tyro.conf.Positional[str] = ""
    """Recipe to show in full: every axis value and number, its paper, the command that trains it."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one JSON object on stdout: every setting of every recipe, or of one."""


def run(words: Sequence[str]) -> int:
    """Parse and print."""
    args = read(Recipes, words, "recipes")
    if args.name:
        recipe = get(args.name)
        if args.json:
            print(json.dumps(recipe.to_json()))
        else:
            _show(args.name, recipe)
        return 0
    if args.json:
        print(json.dumps({name: recipe.to_json() for name, recipe in RECIPES.items()}))
        return 0
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("recipe", "differs from plain DQN in", "paper"):
        table.add_column(column)
    for name, recipe in RECIPES.items():
        mark = f"{name} *" if name == DEFAULT else name
        table.add_row(mark, _differences(recipe), _short(recipe.paper))
    console().print(table)
    print(
        "\n* the default.\nnext:\n  qhat recipes NAME    # in full\n  qhat train CartPole-v1 --recipe NAME"
    )
    return 0


def _show(name: str, recipe: Recipe) -> None:
    """Print a recipe in full."""
    from qhat.cli.train_help import in_full, shown

    reference = get(REFERENCE)
    rows = []
    for field in dataclasses.fields(recipe):
        value = getattr(recipe, field.name)
        mark = " *" if value != getattr(reference, field.name) else ""
        written = in_full(value) if isinstance(value, AxisValue) else shown(value)
        if field.name != "paper":
            empty = "off" if value is False else "none"
            rows.append((field.name.replace("_", "-") + mark, written or empty))
    print(name + (", the default" if name == DEFAULT else ""))
    print(f"{recipe.paper or 'no paper: qhat composed it'}\n")
    print_rows(rows)
    if name != REFERENCE:
        print(f"\n* differs from {REFERENCE}")
    env = "CartPole-v1" if recipe.resolution.name == "full" else "WalkerRun-v1"
    env = "FetchReach-v4" if recipe.relabel.happens else env
    how = f"train {env}" if recipe.training.acts else f"learn DATA --env {env}"
    how += " --demos DATA" if recipe.demo_share else ""
    print(f"\nnext:\n  qhat {how} --recipe {name}\n  qhat train --recipe {name} --help")


def _differences(recipe: Recipe) -> str:
    """Name the axis values that differ from plain DQN's, in the order of the data flow."""
    plain = Recipe()
    words = [getattr(recipe, axis).name for axis in SHOWN if _name(recipe, axis) != _name(plain, axis)]
    words += [f"n={recipe.n_step}"] if recipe.n_step != plain.n_step else []
    words += [f"demos={recipe.demo_share:.0%}"] if recipe.demo_share else []
    words += [] if recipe.n_step_cut is None else [f"cut={recipe.n_step_cut:g}"]
    return " · ".join(words)


def _name(recipe: Recipe, axis: str) -> str:
    return getattr(recipe, axis).name


def _short(paper: str) -> str:
    return paper.rpartition("/")[2]
