"""Writes a run's config.json as a `qhat train` command that reproduces it.

Used for runs started from Python, a notebook or a suite, whose command does not contain the settings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from qhat.axes.axis import AxisValue, spell
from qhat.environments import wrappers
from qhat.environments.catalogue import is_from_python
from qhat.environments.options import write_words
from qhat.environments.wrappers import Wrapper
from qhat.recipes import DEFAULT, get
from qhat.recipes.config import TrainConfig
from qhat.recipes.presets import NAME as PRESET
from qhat.recipes.presets import preset_of
from qhat.recipes.recipe import Recipe
from qhat.reports.reading import Facts
from qhat.system.errors import UsageError

OF_A_RUN = (
    "steps", "seeds", "seed", "eval_every", "eval_episodes", "save_every", "keep", "max_seconds", "stop_at",
    "stop_below", "env_kwargs", "wrap", "demos", "init_from", "vector", "env_timeout", "env_restarts",
    "on_nan", "log", "cluster", "actors", "actor_cpus", "learners",
)  # fmt: skip
"""Settings of a run that are not part of its recipe."""
IN_PRESETS = ("steps", "eval_every", "eval_episodes")
"""The settings among them that a preset has too."""
ALWAYS = ("steps", "seeds")
"""Settings that a command names even if they are the defaults."""


def words_of(facts: Facts) -> list[str]:
    """Return the words; empty if flags cannot express a setting, or a part could not be read."""
    try:
        wrap = wrappers.listed(facts.config.get("wrap", []))
    except UsageError:
        return []
    if facts.recipe is None or is_from_python(facts.env):
        return []
    words = ["qhat", "train", facts.env, "--steps", str(facts.steps), "--seeds", str(facts.seeds)]
    if facts.baseline is None:
        words += ["--recipe", DEFAULT]
    elif facts.base != PRESET:
        words += ["--recipe", facts.base]
    for name, value in (*_of_the_recipe(facts.recipe, facts.baseline), *_of_the_run(facts, wrap)):
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", *_spelled(value)]
    return [*words, *facts.parts]


def default_of(facts: Facts, name: str) -> Any:
    """Return the default of a setting in `OF_A_RUN`."""
    preset = preset_of(facts.env)
    if preset and name in IN_PRESETS:
        return getattr(preset, name)
    fields = {field.name: field.default for field in dataclasses.fields(TrainConfig)}
    return {} if name == "env_kwargs" else fields[name]


def _of_the_recipe(recipe: Recipe, baseline: Recipe | None) -> Iterator[tuple[str, Any]]:
    reference = get(DEFAULT) if baseline is None else baseline
    for field in dataclasses.fields(recipe):
        value = getattr(recipe, field.name)
        if field.name != "paper" and value != getattr(reference, field.name):
            yield field.name, value


def _of_the_run(facts: Facts, wrap: tuple[Wrapper, ...]) -> Iterator[tuple[str, Any]]:
    for name in OF_A_RUN:
        value, default = facts.config.get(name), default_of(facts, name)
        value = wrap if name == "wrap" else tuple(value) if isinstance(value, list) else value
        if name in facts.config and name not in ALWAYS and value != default:
            yield name, value


def _spelled(value: Any) -> list[str]:
    if isinstance(value, AxisValue):
        return [spell(value)]
    if isinstance(value, Mapping):
        return write_words(value)
    if isinstance(value, tuple):
        return [word for part in value for word in _spelled(part)] or ["none"]
    # All digits of a number: a rounded step size would be another one.
    return ["none" if value is None else str(value)]
