"""What a composition is called: a name that follows from its value, so that the two cannot disagree.

A recipe that equals a named one has that name; any other is the nearest named one and what differs:
`rainbow + gamma 0.98, n_step 5`. An environment's preset is called `preset` there.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from qhat.axes.axis import AxisValue, from_json, spell, to_json
from qhat.axes.torso import Auto
from qhat.axes.training import Logs
from qhat.environments.observations import Observations
from qhat.recipes import RECIPES, get
from qhat.recipes.presets import NAME as PRESET
from qhat.recipes.presets import preset_of
from qhat.recipes.recipe import AXES, Recipe
from qhat.recipes.upgrades import upgraded
from qhat.system.errors import UsageError, near_miss, require
from qhat.system.files import quote

LONGEST = 100
"""Characters of a label. Beyond, what differs is counted, and a digest tells the compositions apart."""
LABEL = re.compile(r"\w[\w .,:=+~-]{0,99}", re.ASCII)
"""What a label is made of."""
OTHER_PART = 3
"""What a part of another kind counts for, where a part's own number or another setting counts for one."""
PLUS = " + "
SPAN = "schedule_steps"
"""Where config.json has the steps that the schedules were made for: --steps of the run's beginning."""

Value = Mapping[str, Any]
"""A recipe as JSON has it, but for its paper, every default spelled out."""


def label_of(
    recipe: Recipe | Mapping[str, Any],
    env: str | None = None,
    shape: Sequence[int] | None = None,
    layout: Observations | None = None,
    spans: Sequence[int] = (),
) -> str:
    """Return what a composition is called. It follows from the value alone.

    Args:
        recipe: a recipe, or what config.json has of one; parts may be from outside the package.
        env: whose preset is called `preset`.
        shape: of the observations, where it is known: a torso that was chosen by it is the recipe's `auto`.
        layout: what they are made of, which decides whether they are standardised.
        spans: environment steps that the run's schedules were made for, or each length that they may have
            been made for; a schedule without a number follows it.
    """
    preset = None if env is None else preset_of(env)
    near: list[tuple[int, bool, str, Value, Value]] = []
    for span in spans or (None,):
        fit = functools.partial(_fitted, shape=shape, layout=layout)
        value, named = fit(_value(_spanning(recipe, span))), dict(_named(span))
        if preset is not None:
            named[PRESET] = _value(_spanning(preset.recipe, span))
        for name, known in named.items():
            away = _distance(value, fit(known))
            # Of two that are it, the general one; of two that are as near, the environment's own.
            near.append((away, (name == PRESET) == (away == 0), name, value, fit(known)))
    away, _, base, value, known = min(near, key=lambda one: one[:2])
    return _written(base, value, known) if away else base


def label_of_run(config: Mapping[str, Any]) -> str:
    """Return what the composition of a run's config.json is called, whatever name stands there."""
    recipe, env, spec = config.get("recipe"), config.get("env"), config.get("spec")
    spec = spec if isinstance(spec, Mapping) else {}
    shape = spec.get("shape")
    known = isinstance(shape, list | tuple) and all(type(size) is int for size in shape)
    try:
        layout = Observations.from_json(spec["layout"]) if known and spec.get("layout") else None
    except (KeyError, TypeError, ValueError):
        layout = None
    return label_of(
        recipe if isinstance(recipe, Recipe | Mapping) else {},
        env if isinstance(env, str) else None,
        shape if known else None,
        layout,
        spans_of(config),
    )


def spans_of(config: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the steps that the schedules of a run's config.json were made for.

    Where an earlier version did not write them, these are those that they may have been made for.
    """
    recipe = config.get("recipe")
    guesses = [config.get("steps")]
    if isinstance(recipe, Recipe):
        guesses.insert(0, recipe.learning_rate_steps)
    elif isinstance(recipe, Mapping):
        guesses.insert(0, recipe.get("learning_rate_steps"))
    written = [config[SPAN]] if SPAN in config else guesses
    return tuple(dict.fromkeys(span for span in written if type(span) is int and span > 0))


def base_of(label: str) -> str:
    """Return the named recipe that a label begins with."""
    return label.partition(PLUS)[0]


def folder_of(label: str) -> str:
    """Return a label as the name of a folder, on any system and without quotes in a shell."""
    return (
        label.replace(PLUS, "+").replace(", ", "+").replace(" ~", "~").replace(" ", "-").replace(":", ".")
    )


def recipe_of(name: Any, env: str | None) -> Recipe:
    """Return the recipe of a name; `preset` is the environment's.

    Raises:
        UsageError: nothing has this name; the sentence has the near miss.
    """
    require(isinstance(name, str), f"recipe_name is {quote(name)}; expected the name of a recipe.")
    preset = preset_of(env) if isinstance(env, str) else None
    if name == PRESET:
        require(
            preset is not None,
            f"'{env}' has no preset; expected one of {', '.join(RECIPES)}.",
        )
        assert preset is not None
        return preset.recipe
    return get(name)


def require_named(name: Any) -> None:
    """Raise `UsageError` for a name that is given beside a composition, and is no recipe's."""
    require(isinstance(name, str), f"recipe_name is {quote(name)}; expected the name of a recipe.")
    if base_of(name) not in (*RECIPES, PRESET):
        raise UsageError(
            f"recipe_name is {quote(name)}; expected one of {', '.join(RECIPES)}. A composition needs no"
            " name: it is called after the nearest of these and what differs. Leave recipe_name out."
            + near_miss(name, RECIPES)
        )


def chosen(settings: Mapping[str, Any], env: str) -> dict[str, Any]:
    """Return settings of `TrainConfig` in which a recipe that is named is there as a value.

    Raises:
        UsageError: the name is unknown, or another recipe than the value beside it.
    """
    values = dict(settings)
    if isinstance(values.get("recipe"), str):
        values["recipe"] = recipe_of(values["recipe"], env)
    if "recipe_name" not in values:
        return values
    if "recipe" not in values:
        values["recipe"] = recipe_of(values.pop("recipe_name"), env)
    elif isinstance(values["recipe"], Recipe) and not values.get("resume"):
        require_named(values["recipe_name"])
        label, base = label_of(values["recipe"], env), base_of(values["recipe_name"])
        require(
            PLUS in label or base == label,
            f"recipe_name is '{base}', and recipe is the value of '{label}'; expected one of the two: leave"
            " the other out.",
        )
    return values


def require_label(name: Any) -> None:
    """Raise `UsageError` for what no version has written as the name of a run's recipe."""
    good = isinstance(name, str) and LABEL.fullmatch(name) is not None
    require(good, f"recipe_name is {quote(name)}; expected letters and digits.")


@functools.lru_cache(maxsize=16)
def _named(span: int | None) -> dict[str, Value]:
    return {name: _value(_spanning(recipe, span)) for name, recipe in RECIPES.items()}


def _spanning(recipe: Recipe | Mapping[str, Any], span: int | None) -> Recipe | Mapping[str, Any]:
    """Return it with numbers in place of what follows the run, where it can be read."""
    if span is None:
        return recipe
    if not isinstance(recipe, Recipe):
        try:
            recipe = Recipe.from_json(recipe)
        except UsageError:
            return recipe
    try:
        return recipe.validate().scheduled(span)
    except UsageError:
        return recipe


def value_of(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides how a recipe from config.json learns, with every default spelled out.

    Two versions of qhat may write one composition in two ways; this is one.
    """
    return dict(_value(recipe))


def _value(recipe: Recipe | Mapping[str, Any]) -> Value:
    if isinstance(recipe, Recipe):
        # Not yet validated: anything may stand in it.
        parts = {field.name: getattr(recipe, field.name) for field in dataclasses.fields(recipe)}
        written = {
            name: to_json(part) if isinstance(part, AxisValue) else part for name, part in parts.items()
        }
    else:
        written = {**Recipe().to_json(), **upgraded(recipe)}
        for axis, kinds in AXES.items():
            try:
                written[axis] = to_json(from_json(written[axis], kinds))
            except UsageError:
                continue  # A part from outside the package: as it is.
    written.pop("paper", None)
    training = written.get("training")
    if isinstance(training, Mapping) and training.get("name") == Logs.name:
        # Replay has the size of the data, which are no part of the composition.
        written["replay_capacity"] = Recipe.replay_capacity
    return _plain(written)


def _fitted(value: Value, shape: Sequence[int] | None, layout: Observations | None) -> Value:
    """Return it with what `auto` and `none` stand for in front of such observations."""
    if shape is None:
        return value
    if value["normalise"] is None:
        value = {**value, "normalise": layout is not None and layout.standardises}
    if _kind(value, "torso") != Auto.name:
        return value
    torso: Any = from_json(value["torso"], AXES["torso"])
    recipe = Recipe(torso=torso)
    return {**value, "torso": _plain(to_json(recipe.fitted(tuple(shape), layout).torso))}


def _plain(item: Any) -> Any:
    """Write equal values in one way: 1.0 as 1, a tuple as a list."""
    if isinstance(item, Mapping):
        return {str(key): _plain(part) for key, part in item.items()}
    if isinstance(item, list | tuple):
        return [_plain(part) for part in item]
    return int(item) if isinstance(item, float) and item.is_integer() else item


def _distance(value: Value, base: Value) -> int:
    """Count what differs; the kinds of the parts, which make the algorithm, count most."""
    different = [name for name in {**base, **value} if value.get(name) != base.get(name)]
    return sum(OTHER_PART if _kind(value, name) != _kind(base, name) else 1 for name in different)


def _kind(value: Value, name: str) -> Any:
    part = value.get(name)
    return part.get("name") if isinstance(part, Mapping) else None


def _written(base: str, value: Value, began: Value) -> str:
    """Write the base and what differs, in the order of a recipe's fields."""
    different = [name for name in {**began, **value} if value.get(name) != began.get(name)]
    parts = [f"{name} {_spelled(name, value.get(name))}" for name in different]
    whole = base + PLUS + ", ".join(parts)
    if LABEL.fullmatch(whole) and all(_is_known(name, value.get(name)) for name in different):
        return whole
    changes = json.dumps({name: value.get(name) for name in different}, sort_keys=True, default=repr)
    digest = hashlib.sha256(changes.encode()).hexdigest()[:8]
    clean = [re.sub(r"[^\w .,:=+-]", "-", part, flags=re.ASCII) for part in parts]
    for kept in range(len(clean), -1, -1):
        rest = f"{len(clean) - kept} more ~{digest}" if kept < len(clean) else f"~{digest}"
        if len(label := base + PLUS + ", ".join([*clean[:kept], rest])) <= LONGEST:
            return label
    raise AssertionError(base)  # Names of recipes are short.


def _is_known(name: str, item: Any) -> bool:
    """Whether it is a setting of a recipe, and one of qhat's parts or a number: no free text."""
    if name not in (field.name for field in dataclasses.fields(Recipe)) or isinstance(item, str):
        return False
    try:
        return not isinstance(item, Mapping) or bool(from_json(item, AXES[name]))
    except (KeyError, UsageError):
        return False


def _spelled(name: str, item: Any) -> str:
    """Write a setting as the command line reads it."""
    if isinstance(item, Mapping):
        try:
            return spell(from_json(item, AXES[name]))
        except (KeyError, UsageError):
            rest = ",".join(f"{key}={_spelled(key, part)}" for key, part in item.items() if key != "name")
            return f"{item.get('name')}:{rest}" if rest else str(item.get("name"))
    if isinstance(item, list):
        return " ".join(_spelled(name, part) for part in item) or "none"
    if item is None:
        return "none"
    return str(item).lower() if isinstance(item, bool) else str(item)
