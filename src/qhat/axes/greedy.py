"""The greedy choice, and choices that are nearly as good."""

from __future__ import annotations

from typing import Any

import numpy as np

from qhat.axes.joint_actions import JointActions
from qhat.system.lazy import Array, Bool, Float, Int, jnp

CLOSED = -1e9
"""Value of an action that is not to be chosen, lower than any return: finite, so that exports and softmaxes
compute with it."""


def best(q: Any, legal: Any, joint: JointActions | None, xp: Any = np) -> Any:
    """Return the choices `[..., F]` with the highest Q.

    Args:
        q: `[..., F, C]`, or of joint actions `[..., 1, J]`.
        legal: `[..., F, C]`, the actions to choose from; `None` is all.
    """
    if legal is not None:
        q = xp.where(legal if joint is None else joint.legal(legal, xp), q, -xp.inf)
    choice = xp.argmax(q, axis=-1)
    return choice if joint is None else joint.choice(choice, xp)


def nearly_greedy(q: Float[Array, "B F C"], action: Int[Array, "B F"], share: float) -> Bool[Array, " B"]:
    """Return whether Q(s, a) falls short of max_a Q(s, a) by no more than a share of the values.

    Of several factors the mean counts, as in their joint Q.

    Args:
        share: what an action may cost, in units of the batch's mean of |max_a Q(s, a)|.
    """
    best = jnp.max(q, axis=-1)
    chosen = jnp.take_along_axis(q, action[..., None], axis=-1)[..., 0]
    return jnp.mean(best - chosen, axis=-1) <= share * jnp.mean(jnp.abs(best))
