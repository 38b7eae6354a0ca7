"""The named algorithms, each one value. Adding one is adding a value here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from qhat.errors import UsageError, near_miss
from qhat.networks.merge import Dueling
from qhat.policies import Double
from qhat.recipe import Recipe
from qhat.replay.samplers import Prioritised
from qhat.targets import Soft

dqn = Recipe(paper="https://doi.org/10.1038/nature14236")

double_dqn = replace(dqn, policy=Double(), paper="https://arxiv.org/abs/1509.06461")

DEFAULT = "double_dqn"
"""The recipe of `qhat train` unless another is named: what we would recommend to a friend."""

RECIPES: Mapping[str, Recipe] = MappingProxyType({"dqn": dqn, "double_dqn": double_dqn})


def get(name: str) -> Recipe:
    """Return a recipe by name. Raises `UsageError` with the near miss."""
    if name not in RECIPES:
        raise UsageError(
            f"Recipe '{name}' is not known; expected one of {', '.join(RECIPES)}."
            + near_miss(name, RECIPES)
        )
    return RECIPES[name]
