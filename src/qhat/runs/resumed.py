"""Reads the settings of a run that is resumed: what a caller leaves out is the run's."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qhat.axes.axis import AxisValue
from qhat.environments import wrappers
from qhat.recipes import DEFAULT
from qhat.recipes.config import TrainConfig
from qhat.recipes.labels import base_of, require_label
from qhat.recipes.parts import require_known
from qhat.recipes.recipe import Recipe
from qhat.runs.folder import RunFolder
from qhat.system.errors import blaming

LEFT = ("init_from", "demos")
"""Settings of the beginning alone."""


def settings_of_run(folder: Path, parts: Sequence[type[AxisValue]] = ()) -> tuple[str, dict[str, Any]]:
    """Return the name of a run's recipe, and its other settings, as fields of `TrainConfig`.

    Args:
        parts: classes of the recipe's parts from outside the package.

    Raises:
        UsageError: there is no run, or it is damaged.
    """
    opened = RunFolder.open(folder)
    written = opened.read_config()
    names = {field.name for field in dataclasses.fields(TrainConfig)} - set(LEFT)
    kept = {key: value for key, value in written.items() if key in names and value is not None}
    called = kept.pop("recipe_name", DEFAULT)
    with blaming(f"'{opened.config}'"):
        require_label(called)
        require_known(written, parts)
        kept |= {"recipe": Recipe.from_json(written["recipe"], parts), "run_dir": opened.path}
        kept |= {"wrap": wrappers.listed(written["wrap"]), "resume": False}
        if isinstance(kept.get("log"), list):
            kept["log"] = tuple(kept["log"])
        TrainConfig(**kept).validate()
    return called, kept


def resumed(name: str, recipe: str | Recipe | None, settings: Mapping[str, Any]) -> TrainConfig:
    """Return what a run was trained with, changed by what a caller says.

    Args:
        name: what the environment is called.
        recipe: of the caller; the name of the run's own recipe leaves it as it is.
        settings: with `run_dir`.
    """
    begun = {key: settings[key] for key in ("run_dir", *LEFT) if key in settings}
    TrainConfig(name, resume=True, **begun).validate()
    kinds = tuple(type(value) for value in settings.values() if isinstance(value, AxisValue))
    called, kept = settings_of_run(Path(settings["run_dir"]), _kinds(recipe) + kinds)
    config = TrainConfig(**kept)
    same = isinstance(recipe, str) and recipe in (base_of(called), base_of(config.recipe_name))
    return config.changed(name, None if same else recipe, settings)


def _kinds(recipe: str | Recipe | None) -> tuple[type[AxisValue], ...]:
    """Return the classes of a recipe's parts, which may be from outside the package."""
    if not isinstance(recipe, Recipe):
        return ()
    values = (getattr(recipe, field.name) for field in dataclasses.fields(recipe))
    return tuple(type(value) for value in values if isinstance(value, AxisValue))
