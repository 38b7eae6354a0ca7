"""What recorded steps say of a policy beside its value: what it does there, and what its values promise."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from qhat.demonstrations.reading import Demonstrations
from qhat.engine.learner import Learner

ASKED, KNOWN, NEAREST = 1_000, 20_000, 50
"""Observations that are asked about, those that each is compared with, and how many of these are near. They
are samples of the recorded ones, where there are more."""
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
    data: Demonstrations,
    choices: np.ndarray,
    see: Callable[[np.ndarray], np.ndarray],
    widths: tuple[int, ...],
    seed: int = 0,
) -> Coverage:
    """Compare a policy's choices `[N, F]` with those that were recorded.

    Args:
        see: returns features `[M, I]` of observations.
        widths: number of choices of each factor.
    """
    rng, N = np.random.default_rng(seed), len(data)
    known = rng.choice(N, min(N, KNOWN), replace=False)
    features = see(data.observation[known])
    scale = features.std(axis=0)
    shown = features / np.where(scale > 0, scale, 1.0)
    # An observation is no neighbour of its own.
    count = max(1, min(NEAREST, len(known) - 1))
    squares, untried = np.sum(shown**2, axis=1), np.zeros(min(ASKED, len(known)), bool)
    for index in range(len(untried)):
        distance = squares - 2.0 * shown @ shown[index]
        distance[index] = np.inf
        near = known[np.argpartition(distance, count - 1)[:count]]
        untried[index] = not (data.action[near] == choices[known[index]]).any(axis=0).all()
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


def looks(learner: Learner, parameters: Any) -> tuple[Callable[..., np.ndarray], Callable[..., np.ndarray]]:
    """Return functions of observations that give values `[N, F, C]` and features `[N, I]` of one seed."""

    def values(observation: Array) -> Array:
        return learner.q_values(parameters, observation)

    def features(observation: Array) -> Array:
        return learner.network.features(*learner.shown(parameters, observation))

    def in_blocks(one: Callable[[Array], Array]) -> Callable[..., np.ndarray]:
        see = jax.jit(jax.vmap(one))

        def all_of(observations: np.ndarray) -> np.ndarray:
            begins = range(0, len(observations), BLOCK)
            return np.concatenate([np.asarray(see(observations[at : at + BLOCK])) for at in begins])

        return all_of

    return in_blocks(values), in_blocks(features)
