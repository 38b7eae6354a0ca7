"""What recorded steps say of a policy beside its value: what it does there, and what its values promise."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from qhat.demonstrations.reading import Demonstrations
from qhat.engine.learner import Learner

ASKED, KNOWN, NEAREST = 1_000, 20_000, 50
"""Observations that are asked about, those that are compared with each, and how many of these are near."""
BINS = 10
BLOCK = 4_096
LEFT = 0.05
"""Discount left at the cut end of an episode, up to which a recorded return counts as whole."""


@dataclasses.dataclass(frozen=True)
class Coverage:
    """Which actions were recorded, and which the policy takes in the same observations."""

    recorded: list[list[float]]
    """Of each factor, the share of each choice, in the recorded steps."""
    chosen: list[list[float]]
    """The same of the policy's choices."""
    untried: float
    """Share of the policy's actions that nobody took in the nearest recorded observations: those whose
    features, as the policy's network has them, are nearest. Of several factors one suffices."""
    nearest: int
    """How many these are."""


@dataclasses.dataclass(frozen=True)
class Promise:
    """Recorded steps with similar values: what Q(s, a) says, and what came."""

    promised: float
    """Mean Q of the recorded actions."""
    returned: float
    """Mean discounted return from these steps on, as recorded."""
    steps: int


def covered(
    data: Demonstrations, choices: np.ndarray, features: np.ndarray, widths: tuple[int, ...], seed: int = 0
) -> Coverage:
    """Compare a policy's choices `[N, F]` with those that were recorded, from its features `[N, I]`."""
    rng, N = np.random.default_rng(seed), len(data)
    asked = rng.choice(N, min(N, ASKED), replace=False)
    known = rng.choice(N, min(N, KNOWN), replace=False)
    scale = features[known].std(axis=0)
    shown = features / np.where(scale > 0, scale, 1.0)
    count = min(NEAREST, len(known))
    squares, untried = np.sum(shown[known] ** 2, axis=1), np.zeros(len(asked), bool)
    for index, row in enumerate(asked):
        distance = squares - 2.0 * shown[known] @ shown[row]
        near = known[np.argpartition(distance, count - 1)[:count]]
        untried[index] = not (data.action[near] == choices[row]).any(axis=0).all()
    return Coverage(_shares(data.action, widths), _shares(choices, widths), float(untried.mean()), count)


def _shares(choices: np.ndarray, widths: tuple[int, ...]) -> list[list[float]]:
    counts = [np.bincount(choices[:, f], minlength=width) for f, width in enumerate(widths)]
    return [(each / len(choices)).tolist() for each in counts]


def promises(data: Demonstrations, q: np.ndarray, to_go: np.ndarray, gamma: float) -> list[Promise]:
    """Compare values with recorded returns, in bins of as many steps.

    Args:
        q: of the recorded actions, `[T]`, mean over factors.
        to_go: discounted rewards from each step to its episode's end, `[T]`, as they are learned.

    Returns:
        bins from low values to high; none if no recorded return is nearly whole.
    """
    ends = np.flatnonzero(data.terminated | data.truncated)
    end = ends[np.minimum(np.searchsorted(ends, np.arange(len(q))), len(ends) - 1)]
    left = gamma ** (end - np.arange(len(q)) + 1.0)
    rows = np.flatnonzero(data.terminated[end] | (left <= LEFT))
    if len(rows) < BINS:
        return []
    ordered = rows[np.argsort(q[rows], kind="stable")]
    return [
        Promise(float(q[part].mean()), float(to_go[part].mean()), len(part))
        for part in np.array_split(ordered, BINS)
    ]


def looks(learner: Learner, parameters: Any, observations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return values `[N, F, C]` and features `[N, I]` of observations, by one seed's parameters."""

    def one(observation: Array) -> tuple[Array, Array]:
        shown = learner.shown(parameters, observation)
        return learner.q_values(parameters, observation), learner.network.features(*shown)

    see, parts = jax.jit(jax.vmap(one)), []
    for begin in range(0, len(observations), BLOCK):
        parts.append([np.asarray(each) for each in see(observations[begin : begin + BLOCK])])
    q, features = (np.concatenate(each) for each in zip(*parts, strict=True))
    return q, features
