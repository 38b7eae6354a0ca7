"""Reading the arguments of `Agent`: spaces, settings, numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qhat import recipes
from qhat.axes.actions import BINS, Actions
from qhat.axes.axis import spell
from qhat.axes.masks import read_mask
from qhat.environments.observations import Observations
from qhat.recipes.recipe import Recipe
from qhat.recipes.settings import NAMES, changed, require_known
from qhat.system.errors import QhatError, UsageError, require, warn
from qhat.system.files import quote

LARGEST = 1e38
"""Rewards below it need no closer look."""


def read_outcome(reward: Any, terminated: Any, truncated: Any) -> tuple[float, bool, bool]:
    """Read reward and flags of a step. Raises `UsageError` unless they are a number and truth values."""
    flags = type(terminated) is bool and type(truncated) is bool
    if flags and isinstance(reward, float) and -LARGEST < reward < LARGEST:
        return float(reward), terminated, truncated
    require(is_number(reward), f"reward is {quote(reward)}; expected a finite number.")
    for value, name in ((terminated, "terminated"), (truncated, "truncated")):
        flag = isinstance(value, bool | int | np.bool_ | np.integer) or (
            isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.kind in "biu"
        )
        require(flag, f"{name} is {quote(value)}; expected True or False, of one robot.")
    return float(reward), bool(terminated), bool(truncated)


def is_number(value: Any) -> bool:
    """Whether `value` is one real number, finite also as the float32 that it is stored as."""
    try:
        with np.errstate(over="ignore"):
            return np.ndim(value) == 0 and bool(np.isfinite(np.float32(value)))
    except (TypeError, ValueError, OverflowError):
        return False


def require_applied(number: int, metrics: Any) -> None:
    """Raise `QhatError` if gradient update `number` was not applied."""
    if not metrics.finite:
        raise QhatError(
            f"Gradient update {number:,} has loss {metrics['loss']:.4g} and gradient norm"
            f" {metrics['gradient_norm']:.4g}; expected finite numbers. It was not applied. If values"
            " diverge, try smaller rewards or a lower learning_rate."
        )


OF_AN_AGENT = ("recipe", "steps", "seed", "masked")
"""Settings of an agent that are not its recipe's."""


def read_recipe(recipe: Any, settings: Mapping[str, Any], steps: Any) -> Recipe:
    """Read a recipe or its name, with `settings` changed, for `steps` steps of one environment."""
    good = isinstance(steps, int | np.integer) and not isinstance(steps, bool)
    wrong = f"steps is {steps!r}; expected a whole number of steps, 1 or more."
    require(good and 0 < int(steps) < 2**31, wrong)
    chosen = recipes.get(recipe) if isinstance(recipe, str) else recipe
    require(isinstance(chosen, Recipe), f"recipe is {recipe!r}; expected a name or a Recipe.")
    require_known(settings, [*OF_AN_AGENT, *(name for name in NAMES if name != "num_envs")], "Agent")
    chosen = dataclasses.replace(changed(chosen, settings), num_envs=1)
    require_replay(chosen)
    chosen = chosen.validate()
    return dataclasses.replace(chosen, reset=chosen.reset.endless()).scheduled(int(steps))


def require_replay(recipe: Recipe) -> None:
    """Raise `UsageError` for rollouts, logs and relabelled steps: an agent acts, and mixes episodes."""
    require(
        (recipe.training.replays and recipe.training.acts) or recipe.training.streams,
        f"training is {spell(recipe.training)}, and an Agent learns from replay; expected it in a run"
        " (qhat train, qhat.train), or 'replay', or 'stream' for one robot.",
    )
    require(
        not recipe.demo_share,
        f"demo_share is {recipe.demo_share:g}, and an Agent has no demonstrations; expected it in a run"
        " (qhat train, qhat.train), or 0.",
    )
    require(
        not recipe.relabel.happens,
        f"relabel is {spell(recipe.relabel)}, and an Agent's replay does not know which steps are of one"
        " episode; expected it in a run (qhat train, qhat.train), or 'none'.",
    )


def require_updates(updates: Any, recipe: Recipe) -> None:
    """Raise `UsageError` unless `updates` is a number of updates that the recipe can do in one call."""
    whole = isinstance(updates, int | np.integer) and not isinstance(updates, bool)
    require(whole and int(updates) >= 1, f"updates is {updates!r}; expected a whole number of 1 or more.")
    require(
        int(updates) == 1 or not recipe.training.streams,
        f"updates is {updates}, and training is {spell(recipe.training)}, which learns once from the step"
        " that was remembered last; expected 1, after each `remember`.",
    )


def read_observation(observation: Any) -> Observations:
    """Read a size, a shape, a (shape, dtype) pair, or a Gymnasium space.

    Raises:
        UsageError: it is none of these, or a space without numbers.
    """
    if any(kind.__module__.startswith("gymnasium.spaces") for kind in type(observation).__mro__):
        return Observations.of(observation, "")
    dtype: Any = getattr(observation, "dtype", None) or "float32"
    shape = getattr(observation, "shape", observation)
    if isinstance(shape, tuple) and len(shape) == 2 and isinstance(shape[0], tuple):
        shape, dtype = shape
    if isinstance(shape, int):
        shape = (shape,)
    if not isinstance(shape, tuple) or not all(isinstance(n, int) and n > 0 for n in shape):
        raise UsageError(f"observation is {observation!r}; expected a size, a shape or a Gymnasium space.")
    name = np.dtype(dtype).name
    return Observations.plain(shape, "float32" if name == "float64" else name)


def read_spaces(observation: Any, actions: Any, recipe: Recipe) -> tuple[Observations, Actions]:
    """Read both spaces of an agent.

    Warns:
        UserWarning: how observations are changed, where their space does not say so.
    """
    layout = read_observation(observation)
    for note in layout.notes("", recipe.normalise):
        warn(note, stacklevel=3)
    return layout, read_actions(actions, recipe.bins)


def read_actions(actions: Any, bins: Sequence[int] = BINS) -> Actions:
    """Read a number of actions, or any Gymnasium action space that `train` accepts.

    Args:
        bins: number of bins of each dimension of a Box, or one number for all.
    """
    if isinstance(actions, Actions):
        return actions
    if hasattr(actions, "sample"):
        require(
            not hasattr(actions, "is_bounded") or actions.is_bounded(),
            f"The agent's actions are {actions!r}, where a joint has no bounds; expected finite ones, to"
            f" cut into bins, as in Box(-1.0, 1.0, {getattr(actions, 'shape', ())}).",
        )
        return Actions.of(actions, "The agent", bins)
    good = isinstance(actions, int | np.integer) and not isinstance(actions, bool)
    require(
        good and int(actions) >= 1,
        f"actions is {actions!r}; expected a number of actions, or a Gymnasium Discrete, MultiDiscrete,"
        " MultiBinary or Box space.",
    )
    return Actions((int(actions),))


def read_action(action: Any, actions: Actions) -> np.ndarray:
    """Read an action of the environment as choices `[F]`; of a Box, the nearest bins."""
    if type(action) is int and not actions.vector:
        choice = action - actions.start[0]
        if 0 <= choice < actions.choices[0]:
            return np.array([choice])
    flat = actions.flat(action)
    if flat is None or not actions.holds(flat).all():
        raise UsageError(f"action is {action!r}; expected {actions.expected}.")
    return actions.nearest(flat)


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
    # No action follows a terminal state, where many environments give an empty mask.
    after = every if terminated else read_mask(next_mask, actions, "next_mask")
    legal = read_mask(mask, actions, "mask")
    require(
        legal is not None and bool(legal[np.arange(actions.factors), choice].all()),
        f"action is {choice.tolist()}, which `mask` forbids; expected a legal action.",
    )
    return legal, after
