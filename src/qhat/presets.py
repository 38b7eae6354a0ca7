"""Settings that were searched for one task each. `docs/presets.md` tells how, and what they reach."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

from qhat.recipe import Recipe

NAME = "preset"
"""What a run says in place of a recipe's name."""


@dataclasses.dataclass(frozen=True)
class Preset:
    """A recipe, and how long to train with it."""

    recipe: Recipe
    steps: int
    eval_every: int


PRESETS: Mapping[str, Preset] = MappingProxyType({})
"""By the environment's name, whatever backend plays it."""


def preset_of(env_id: str) -> Preset | None:
    """Return the preset of an environment, if it has one."""
    return PRESETS.get(env_id.removeprefix("gymnax:").removeprefix("envpool:").removeprefix("gym:"))
