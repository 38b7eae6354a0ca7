"""Rewards of a size that a network learns badly from, noticed early, and the factor that helps.

Measured on a chain of three states with learning rates of 1e-3 and 2e-3, after 1,000 updates. With
returns of 0.003 the default recipe has Q wrong by a factor of 3: a step of Adam is no smaller for a small
error. With returns of 27,000 `dqn` has half of Q, with 270,000 a twentieth: the Huber loss limits the
gradient. From 0.03 to 2,700 Q is right.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from qhat.system.errors import setting

SMALLEST, LARGEST = 0.01, 1e4
"""Discounted returns between which nothing is said."""
LOOK = 10_000
"""Steps of every copy that are looked at, at most."""


def largest_return(rewards: Any, ends: Any, gamma: float) -> float:
    """Return the largest |Σ γᵏ r_{t+k}| over all t.

    Args:
        rewards: `[T]`, or `[T, E]` of several copies of an environment.
        ends: of the same shape: whether an episode ended with the step.
        gamma: discount.
    """
    rewards = np.asarray(rewards, float)[-LOOK:]
    goes_on = gamma * ~np.asarray(ends, bool)[-LOOK:]
    ahead, largest = np.zeros(rewards.shape[1:]), 0.0
    for reward, discount in zip(rewards[::-1], goes_on[::-1], strict=True):
        ahead = reward + discount * ahead
        largest = max(largest, float(np.max(np.abs(ahead), initial=0.0)))
    return largest


def reward_factor(largest: float) -> float | None:
    """Return the power of ten that rewards should be multiplied by; `None` where they are well as they are.

    Nothing but zeros says nothing, and a task that seldom pays is judged by what it paid.
    """
    if largest == 0.0 or not math.isfinite(largest) or SMALLEST <= largest <= LARGEST:
        return None
    return 10.0 ** -round(math.log10(largest))


def reward_scale_advice(rewards: Any, ends: Any, gamma: float, *, flag: bool = True) -> str | None:
    """Return a sentence that proposes another scale of the rewards; `None` where theirs is fine.

    Args:
        rewards: `[T]` or `[T, E]`, as they are learned from.
        ends: of the same shape: whether an episode ended with the step.
        gamma: discount.
        flag: whether the reader has a command line; to others the sentence speaks of `Agent.remember`.
    """
    largest = largest_return(rewards, ends, gamma)
    factor = reward_factor(largest)
    if factor is None:
        return None
    why = "reaches only after very many updates" if factor < 1 else "cannot tell from its own noise"
    remedy = (
        f"add {setting('wrap', f'reward_scale:factor={factor:g}')}; scores stay in the task's own units"
        if flag
        else f"give `remember` the reward times {factor:g}"
    )
    return (
        f"The largest discounted return so far is {largest:.2g}, which a network {why}; expected"
        f" {SMALLEST:g} to {LARGEST:,.0f}: {remedy}."
    )
