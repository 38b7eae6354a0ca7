"""`qhat recipes`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

import tyro

from qhat.cli.parsing import read
from qhat.recipes import DEFAULT, RECIPES
from qhat.recipes.recipe import Recipe

SHOWN = ("head", "policy", "bonus", "merge", "dense", "sampler", "optimiser")


@dataclasses.dataclass(frozen=True)
class Recipes:
    """List the named algorithms and their values on the axes."""

    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one JSON object on stdout: every setting of every recipe."""


def run(words: Sequence[str]) -> int:
    """Parse and print."""
    args = read(Recipes, words, "recipes")
    if args.json:
        print(json.dumps({name: recipe.to_json() for name, recipe in RECIPES.items()}))
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("recipe", "differs from plain DQN in", "paper"):
        table.add_column(column)
    for name, recipe in RECIPES.items():
        mark = f"{name} *" if name == DEFAULT else name
        table.add_row(mark, _differences(recipe), _short(recipe.paper))
    console = Console()
    console.print(table)
    console.print(
        "\n* the default.  Every axis and setting: qhat recipes --json, or qhat train --recipe NAME --help"
        "\nnext: qhat train CartPole-v1 --recipe NAME",
        highlight=False,
    )
    return 0


def _differences(recipe: Recipe) -> str:
    """Name the axis values that differ from plain DQN's, in the order of the data flow."""
    plain = Recipe()
    words = [getattr(recipe, axis).name for axis in SHOWN if _name(recipe, axis) != _name(plain, axis)]
    cut = "" if recipe.n_step_cut is None else f", cut at {recipe.n_step_cut:g}"
    words += [f"n = {recipe.n_step}{cut}"] if recipe.n_step != plain.n_step else []
    return " · ".join(words)


def _name(recipe: Recipe, axis: str) -> str:
    return getattr(recipe, axis).name


def _short(paper: str) -> str:
    return paper.removeprefix("https://").removeprefix("arxiv.org/abs/").removeprefix("doi.org/")
