"""Parameters that no gradient moves: statistics of observations, the support of a head, open commands.

The statistics that standardise observations are those of replay. The support of a distributional head is
placed by the returns stored so far. It widens while targets fall beyond it, and doubles its spacing when it
has no atoms left.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from qhat.axes.actions import Actions
from qhat.axes.heads import Head
from qhat.axes.heads import support as supports
from qhat.axes.heads.outlook import Outlook
from qhat.engine.replay.moments import Moments
from qhat.engine.replay.reward_scale import RewardScale
from qhat.recipes.recipe import Recipe

SUPPORT = "support"
"""Name of the entry that holds the support: the values of a head's K numbers."""

STATISTICS = "observations"
"""Name of the entry that holds the statistics by which observations are normalised."""

RETURNS = "returns"
"""Name of the entry that holds the spread of returns by which a stream scales rewards."""

OPENED = "opened"
"""Name of the entry that says which commands are in use, 1 or 0, `[F, C]`, where their number grows."""
REMEMBERED = "remembered"
"""Name of the entry that holds the states of a memory after each row of an update's sequences."""

Parameters = dict[str, Any]


def split_trainable(parameters: Parameters) -> tuple[Parameters, Parameters]:
    """Split parameters into those that gradients move and the others (none for most recipes)."""
    names = (SUPPORT, STATISTICS, RETURNS, OPENED, REMEMBERED)
    fixed = {name: parameters[name] for name in names if name in parameters}
    return {name: leaf for name, leaf in parameters.items() if name not in fixed}, fixed


def first(recipe: Recipe, actions: Actions, moments: Moments | None) -> Parameters:
    """Return those of fresh weights.

    Args:
        moments: of no observation, if the recipe normalises.
    """
    fixed: Parameters = {}
    if support := recipe.head.init_support():
        fixed[SUPPORT] = support
    if moments is not None:
        fixed[STATISTICS] = moments
    if (gamma := recipe.training.return_discount(recipe)) is not None:
        fixed[RETURNS] = RewardScale.empty(gamma)
    if recipe.resolution.grows:
        fixed[OPENED] = jnp.asarray(recipe.resolution.opened(actions.choices)[0], jnp.float32)
    return fixed


def standardised(parameters: Parameters, moments: Moments | None) -> Parameters:
    """Return the parameters with replay's statistics, if it keeps any."""
    return parameters if moments is None else {**parameters, STATISTICS: moments}


def placed(head: Head, parameters: Parameters, outlook: Outlook | None) -> Parameters:
    """Place the support by the returns stored so far, unless it was placed before."""
    if not head.calibrates or outlook is None:
        return parameters
    wanted, now = supports.calibrate(outlook, head.outputs), parameters[SUPPORT]
    support = jax.tree.map(lambda new, old: jnp.where(now["placed"] > 0, old, new), wanted, now)
    return {**parameters, SUPPORT: support}


def widened(
    head: Head, fixed: Parameters, overflow: Float[Array, " 2"], moves: Bool[Array, ""]
) -> Parameters:
    """Return the support after an update, wider if targets had mass beyond it; empty for other heads."""
    if not head.calibrates:
        return {}
    wider = supports.widen(fixed[SUPPORT], overflow, head.outputs)
    return {SUPPORT: jax.tree.map(lambda new, old: jnp.where(moves, new, old), wider, fixed[SUPPORT])}


def doubles(
    head: Head, parameters: Parameters, overflow: Float[Array, " 2"], outlook: Outlook
) -> Bool[Array, ""]:
    """Whether the support has to double its spacing now."""
    return supports.doubles(parameters[SUPPORT], overflow, outlook, head.outputs)
