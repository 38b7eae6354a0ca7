"""Parameters that no gradient moves: statistics of observations, and the support of a head.

The statistics that standardise observations are those of replay. The support of a distributional head is
placed by the returns stored so far. It widens while targets fall beyond it, and doubles its spacing when it
has no atoms left.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from qhat.axes.heads import Head
from qhat.axes.heads import support as supports
from qhat.axes.heads.outlook import Outlook
from qhat.engine.replay.moments import Moments

SUPPORT = "support"
"""Name of the entry that holds the support: the values of a head's K numbers."""

STATISTICS = "observations"
"""Name of the entry that holds the statistics by which observations are normalised."""

Parameters = dict[str, Any]


def split_trainable(parameters: Parameters) -> tuple[Parameters, Parameters]:
    """Split parameters into those that gradients move and the others (none for most recipes)."""
    fixed = {name: parameters[name] for name in (SUPPORT, STATISTICS) if name in parameters}
    return {name: leaf for name, leaf in parameters.items() if name not in fixed}, fixed


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
