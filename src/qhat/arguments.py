"""Reading what callers of `Agent` hand over: spaces, settings, numbers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from qhat import recipes
from qhat.actions import BINS, NUMBERS, Actions
from qhat.axis import AxisValue
from qhat.errors import QhatError, UsageError, near_miss, require
from qhat.masks import read_mask
from qhat.recipe import Recipe


def is_number(value: Any) -> bool:
    """Whether `value` is one real number, finite also as the float32 that it is stored as."""
    try:
        with np.errstate(over="ignore"):
            return np.ndim(value) == 0 and bool(np.isfinite(np.float32(value)))
    except (TypeError, ValueError, OverflowError):
        return False


def require_applied(number: int, metrics: Any) -> None:
    """Raise `QhatError` where gradient update `number` was not applied."""
    if not metrics.finite:
        raise QhatError(
            f"Gradient update {number:,} has loss {metrics.loss:.4g} and gradient norm"
            f" {metrics.gradient_norm:.4g}; expected finite numbers. It was not applied. Smaller rewards or"
            " a lower learning_rate help where values diverge."
        )


def known_settings(settings: dict[str, Any]) -> dict[str, Any]:
    names = [field.name for field in dataclasses.fields(Recipe) if field.name != "num_envs"]
    for name in settings:
        hint = near_miss(name, names) or f" The recipe's fields are settings: {', '.join(names)}."
        require(name in names, f"Agent has no setting '{name}'.{hint}")
    return settings


def read_recipe(recipe: Any, settings: dict[str, Any]) -> Recipe:
    """Read a recipe or its name, with `settings` changed, for one environment."""
    composed = recipes.get(recipe) if isinstance(recipe, str) else recipe
    require(isinstance(composed, Recipe), f"recipe is {recipe!r}; expected a name or a Recipe.")
    return dataclasses.replace(composed, **known_settings(settings), num_envs=1).validate()


def read_observation(observation: Any) -> tuple[tuple[int, ...], str]:
    """Read a size, a shape, a (shape, dtype) pair, or a Box."""
    if type(observation).__name__ in ("Discrete", "MultiDiscrete", "MultiBinary", "Dict", "Tuple"):
        raise UsageError(
            f"observation is {observation!r}; expected a size, a shape or a Gymnasium Box. Wrap the"
            " environment so that it gives numbers, for example one-hot vectors."
        )
    dtype: Any = getattr(observation, "dtype", None) or "float32"
    shape = getattr(observation, "shape", observation)
    if isinstance(shape, tuple) and len(shape) == 2 and isinstance(shape[0], tuple):
        shape, dtype = shape
    if isinstance(shape, int):
        shape = (shape,)
    if not isinstance(shape, tuple) or not all(isinstance(n, int) and n > 0 for n in shape):
        raise UsageError(f"observation is {observation!r}; expected a size, a shape or a Gymnasium Box.")
    name = np.dtype(dtype).name
    return shape, "float32" if name == "float64" else name


def read_space(shape: Any, dtype: Any) -> tuple[tuple[int, ...], str]:
    """Read what a manifest says of observations. Raises `TypeError` or `ValueError` for anything else."""
    good = isinstance(shape, list) and len(shape) <= 32 and isinstance(dtype, str) and dtype in NUMBERS
    if not good or any(type(size) is not int or size < 0 for size in shape):
        raise TypeError
    if math.prod(shape) >= 2**31:
        raise ValueError
    return tuple(shape), dtype


def read_saved(
    about: Mapping[str, Any], parts: Iterable[type[AxisValue]]
) -> tuple[Recipe, tuple[tuple[int, ...], str, Actions, bool], tuple[int, int, int]]:
    """Read the manifest of an agent: its recipe, its spaces, and how much it did.

    Args:
        parts: classes of the recipe's parts from outside the package.

    Raises:
        UsageError: a field is missing, or has no meaning.
    """
    try:
        shape, dtype = read_space(about["observation"]["shape"], about["observation"]["dtype"])
        counts = (about["steps"], about["updates"], about["acts"])
        masked, actions = about.get("masked", False), Actions.from_json(about["actions"])
        flags = (masked, about.get("replay", False), about.get("open", False))
        known = all(type(count) is int and 0 <= count < 2**31 for count in counts)
        if not known or not all(isinstance(flag, bool) for flag in flags):
            raise TypeError
        recipe = Recipe.from_json(about["recipe"], parts)
    except UsageError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        raise UsageError(
            "its manifest lacks fields, or they are damaged. The policy of a run folder is"
            " qhat.Run.open(folder).policy()."
        ) from None
    return dataclasses.replace(recipe, num_envs=1).validate(), (shape, dtype, actions, masked), counts


def read_actions(actions: Any, bins: Sequence[int] = BINS) -> Actions:
    """Read a number of actions, or a Discrete, MultiDiscrete or Box space.

    Args:
        bins: commands of every joint of a Box, or one number for all.
    """
    if isinstance(actions, Actions):
        return actions
    if type(actions).__name__ in ("MultiBinary", "Dict", "Tuple"):
        raise UsageError(f"actions is {actions!r}; expected a Gymnasium Discrete, MultiDiscrete or Box.")
    if type(actions).__name__ == "Box":
        require(
            len(actions.shape) == 1, f"actions is {actions!r}; expected a Box with one axis, the joints."
        )
        dtype = np.dtype(actions.dtype).name
        return Actions.binned(actions.low.tolist(), actions.high.tolist(), bins, "actions", dtype)
    start = np.asarray(getattr(actions, "start", 0))
    require(not start.any(), f"actions is {actions!r}, which starts at {start}; expected a start of 0.")
    counts = getattr(actions, "nvec", None)
    if counts is not None and np.ndim(counts) == 1:
        return Actions(tuple(int(count) for count in counts), listed=True)
    count = getattr(actions, "n", actions)
    if not isinstance(count, int | np.integer) or isinstance(count, bool) or count < 1:
        raise UsageError(
            f"actions is {actions!r}; expected a number of actions, or a Gymnasium Discrete,"
            " MultiDiscrete or Box space."
        )
    return Actions((int(count),))


def read_value(observation: Any, name: str, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Read one observation: a copy of `dtype`. Raises `UsageError`; nothing was stored."""
    try:
        raw = np.asarray(observation)
        numbers = raw if raw.dtype == np.bool_ else raw.astype(np.float64)
    except (TypeError, ValueError):
        raise UsageError(f"{name} is {observation!r}; expected numbers of shape {shape}.") from None
    require(raw.shape == shape, f"{name} has shape {raw.shape}; expected {shape}.")
    largest = np.iinfo(dtype) if np.issubdtype(dtype, np.integer) else np.finfo(np.float32)
    good = np.isfinite(numbers) & (numbers >= largest.min) & (numbers <= largest.max)
    if not (dtype == "bool" or good.all()):
        where = np.argwhere(~good)[0]
        raise UsageError(
            f"{name} is {raw[tuple(where)]} at index {tuple(map(int, where))}; expected finite numbers"
            f" that a {dtype} can hold. Nothing was stored."
        )
    return np.array(raw, dtype=dtype)


def read_action(action: Any, actions: Actions) -> np.ndarray:
    """Read a whole number, or one per factor, or the joints' commands, as choices `[F]`."""
    if actions.commands is not None:
        return _read_command(action, actions)
    if actions.factors == 1:
        choices = actions.width
        number = np.ravel(action)[0] if np.size(action) == 1 else action
        require(
            is_number(number) and int(number) == number and 0 <= int(number) < choices,
            f"action is {action!r}; expected a whole number from 0 to {choices - 1}.",
        )
        return np.array([int(number)])
    try:
        value = np.asarray(action, float)
        good = value.shape == (actions.factors,) and bool(
            np.all((value == np.floor(value)) & (value >= 0) & (value < actions.choices))
        )
    except (TypeError, ValueError):
        good = False
    require(
        good,
        f"action is {action!r}; expected {actions.factors} whole numbers, from 0 to below"
        f" {list(actions.choices)}.",
    )
    return np.asarray(action).astype(int)


def _read_command(action: Any, actions: Actions) -> np.ndarray:
    """Read commands of whoever moved the joints: the nearest ones that there are."""
    low, high = actions.table.astype(float).min(axis=1), actions.table.astype(float).max(axis=1)
    command = np.zeros(0)
    try:
        command = np.asarray(action, float)
        slack = 1e-6 * (high - low)
        good = command.shape == low.shape and bool(
            np.all((command >= low - slack) & (command <= high + slack))
        )
    except (TypeError, ValueError):
        good = False
    require(
        good,
        f"action is {action!r}; expected {actions.factors} numbers, from {low.tolist()} to"
        f" {high.tolist()}.",
    )
    return actions.nearest(command)


def read_masks(
    actions: Actions, masked: bool, choice: np.ndarray, mask: Any, next_mask: Any, terminated: bool
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Read the masks of one transition; both are `None` for an agent that is not masked."""
    if not masked:
        require(
            mask is None and next_mask is None,
            "A mask was given to an agent that stores none; expected Agent(..., masked=True).",
        )
        return None, None
    require(mask is not None, "mask is missing; a masked agent's remember needs it.")
    require(
        next_mask is not None or terminated,
        "next_mask is missing; a masked agent's remember needs it, unless the task terminated.",
    )
    every = np.asarray(actions.all_legal)
    # Nothing is chosen after a terminal state, where many environments give an empty mask.
    after = every if terminated else read_mask(next_mask, actions, "next_mask")
    legal = read_mask(mask, actions, "mask")
    require(
        legal is not None and bool(legal[np.arange(actions.factors), choice].all()),
        f"action is {choice.tolist()}, which its own mask forbids; expected a legal one.",
    )
    return legal, after
