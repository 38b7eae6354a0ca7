"""`qhat recipes`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

import tyro

from qhat.axis import spell
from qhat.cli.parsing import read
from qhat.recipes import DEFAULT, RECIPES

SHOWN = ("head", "policy", "merge", "dense", "sampler", "target")


@dataclasses.dataclass(frozen=True)
class Recipes:
    """List the named algorithms, each as its values on the axes."""

    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one JSON object on stdout: every setting of every recipe."""


def run(words: Sequence[str]) -> int:
    """Parse and print."""
    told = read(Recipes, words, "recipes")
    if told.json:
        print(json.dumps({name: recipe.to_json() for name, recipe in RECIPES.items()}))
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("recipe", *SHOWN, "n", "paper"):
        table.add_column(column, overflow="fold")
    for name, recipe in RECIPES.items():
        values = [spell(getattr(recipe, axis)) for axis in SHOWN]
        mark = f"{name} *" if name == DEFAULT else name
        table.add_row(mark, *values, str(recipe.n_step), recipe.paper.removeprefix("https://"))
    console = Console()
    console.print(table)
    console.print("\n* the default.  next: qhat train CartPole-v1 --recipe NAME", highlight=False)
    return 0
