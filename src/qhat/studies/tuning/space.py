"""The search space of `qhat tune`: the most important settings of a recipe, each with its range.

`docs/tuning.md` has the table.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from qhat.axes.axis import parse
from qhat.axes.explore import EpsilonGreedy
from qhat.axes.target import TARGETS
from qhat.recipes.recipe import Recipe
from qhat.system.errors import UsageError, near_miss, require, setting
from qhat.system.files import quote

Value = float | int | str | bool | None
Apply = Callable[[Recipe, Any, int], Recipe]
"""Maps a recipe, a value and the steps of a run to the recipe with that value."""


@dataclasses.dataclass(frozen=True)
class Dimension:
    """One setting: either a list of values, or a range on a logarithmic scale."""

    name: str
    apply: Apply
    values: tuple[Value, ...] = ()
    low: float = 0.0
    high: float = 0.0

    def has(self, value: Any) -> bool:
        """Whether a value belongs to this dimension."""
        if self.values:
            return any(type(value) is type(known) and value == known for known in self.values)
        return type(value) is float and self.low <= value <= self.high

    def describe(self) -> str:
        """Return the range as text."""
        if self.values:
            return ", ".join("none" if value is None else str(value).lower() for value in self.values)
        return f"{self.low:g} to {self.high:g}, on a logarithmic scale"


def _field(name: str) -> Apply:
    return lambda recipe, value, _: dataclasses.replace(recipe, **{name: value})


def _fall(recipe: Recipe, share: float, steps: int) -> Recipe:
    """Set the final step size, as a share of the initial one."""
    end = None if share == 1.0 else share * recipe.learning_rate
    return dataclasses.replace(recipe, learning_rate_end=end, learning_rate_steps=steps)


def _width(recipe: Recipe, width: int, _: int) -> Recipe:
    return dataclasses.replace(recipe, hidden=(width,) * len(recipe.hidden))


def _target(recipe: Recipe, spelled: str, _: int) -> Recipe:
    return dataclasses.replace(recipe, target=parse(spelled, TARGETS))


def _explore(name: str) -> Apply:
    def apply(recipe: Recipe, value: float, steps: int) -> Recipe:
        assert isinstance(recipe.explore, EpsilonGreedy)
        changed = round(value * steps) if name == "steps" else value
        return dataclasses.replace(recipe, explore=dataclasses.replace(recipe.explore, **{name: changed}))

    return apply


OF_HIDDEN = ("width", "layer_norm")
"""What only hidden layers have."""

SPACE: tuple[Dimension, ...] = (
    Dimension("learning_rate", _field("learning_rate"), low=1e-4, high=5e-3),
    Dimension("learning_rate_fall", _fall, (1.0, 0.1)),
    Dimension("n_step", _field("n_step"), (1, 3, 5, 8, 20)),
    Dimension("gamma", _field("gamma"), (0.95, 0.98, 0.99, 0.995)),
    Dimension("target", _target, ("hard:every=100", "hard:every=250", "hard:every=1000", "soft:tau=0.005",
                                  "soft:tau=0.02")),
    Dimension("replay_ratio", _field("replay_ratio"), (0.125, 0.25, 0.5, 1.0)),
    Dimension("batch_size", _field("batch_size"), (32, 64, 128)),
    Dimension("width", _width, (64, 128, 256)),
    Dimension("layer_norm", _field("layer_norm"), (False, True)),
    Dimension("max_gradient_norm", _field("max_gradient_norm"), (None, 10.0)),
    Dimension("epsilon_end", _explore("end"), (0.01, 0.02, 0.05, 0.1)),
    Dimension("epsilon_share", _explore("steps"), (0.05, 0.1, 0.2, 0.4)),
)  # fmt: skip
"""In the order in which they are applied: the final step size is a share of the initial one."""


def space_of(
    recipe: Recipe, steps: int, only: Sequence[str] = (), given: Sequence[str] = ()
) -> tuple[Dimension, ...]:
    """Return the dimensions that apply to a recipe, with their valid values.

    Args:
        only: names of dimensions. Default: all.
        given: axes of which the caller chose the part; it is not searched.

    Raises:
        UsageError: a name is unknown, given, or does not apply to the recipe.
    """
    known = [dimension.name for dimension in SPACE]
    for name in only:
        if name not in known:
            raise UsageError(
                f"{setting('only', name)} is not a dimension; expected"
                f" {', '.join(known)}." + near_miss(name, known)
            )
    found = []
    for dimension in SPACE:
        if only and dimension.name not in only:
            continue
        if (axis := "explore" if dimension.name.startswith("epsilon") else dimension.name) in given:
            require(
                dimension.name not in only,
                f"{setting('only', dimension.name)} searches what {setting(axis)} chooses; expected one of"
                " the two.",
            )
            continue
        if dimension.name.startswith("learning_rate") and recipe.optimiser.takes_traces:
            require(
                dimension.name not in only,
                f"{setting('only', dimension.name)}: {setting('optimiser', recipe.optimiser.name)}"
                " bounds its steps, and its learning rate is 1.",
            )
            continue
        if dimension.name in OF_HIDDEN and not recipe.hidden:
            require(
                dimension.name not in only,
                f"{setting('only', dimension.name)}: the recipe has no hidden layer after its torso.",
            )
            continue
        if dimension.name.startswith("epsilon") and not isinstance(recipe.explore, EpsilonGreedy):
            require(
                dimension.name not in only,
                f"{setting('only', dimension.name)}: the recipe does not use ε-greedy exploration.",
            )
            continue
        if dimension.values:
            fitting = tuple(value for value in dimension.values if _fits(dimension, recipe, value, steps))
            if not fitting:
                require(
                    dimension.name not in only,
                    f"{setting('only', dimension.name)}: no value of it is valid for the recipe.",
                )
                continue
            dimension = dataclasses.replace(dimension, values=fitting)
        found.append(dimension)
    return tuple(found)


def _fits(dimension: Dimension, recipe: Recipe, value: Value, steps: int) -> bool:
    try:
        dimension.apply(recipe, value, steps).validate()
    except UsageError:
        return False
    return True


def applied(space: Sequence[Dimension], recipe: Recipe, params: Mapping[str, Any], steps: int) -> Recipe:
    """Return a recipe with a trial's settings. Raises `UsageError` if they are not in the space."""
    names = [dimension.name for dimension in space]
    require(
        sorted(params) == sorted(names), f"A trial has {quote(sorted(params))}; expected {sorted(names)}."
    )
    for dimension in space:
        value = params[dimension.name]
        require(
            dimension.has(value),
            f"A trial has {dimension.name} {quote(value)}; expected {dimension.describe()}.",
        )
        recipe = dimension.apply(recipe, value, steps)
    return recipe.validate()
