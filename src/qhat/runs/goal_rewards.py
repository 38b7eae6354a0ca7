"""Compares an environment's rewards with those that `relabel` computes for other goals."""

from __future__ import annotations

from typing import Any

import numpy as np

from qhat.axes.axis import spell
from qhat.axes.relabel import Hindsight
from qhat.engine.replay.nstep import NOTHING
from qhat.engine.replay.ring import Ring
from qhat.recipes.config import TrainConfig
from qhat.system.errors import UsageError, setting

FEW = 10
"""Steps with another reward that rounding at the goal's edge does not explain."""


def require_rule(config: TrainConfig, ring: Ring) -> None:
    """Raise `UsageError` if the environment's rewards are not those that relabelled steps get.

    Args:
        ring: of all seeds, `[S, ...]`.
    """
    goals = ring.goals
    if goals is None:
        return
    wrong, steps = np.asarray(goals.wrong), np.asarray(goals.steps)
    if not (bad := (wrong >= FEW) & (wrong > goals.rule.differing * steps)).any():
        return
    seed = int(np.argmax(bad))
    distance, reward, rule = np.asarray(goals.example)[seed].tolist()
    distances, rewards = _steps(ring, seed)
    better = None if goals.rewards else _fitting(distances, rewards)
    if better is not None:
        fix = f"Its rewards so far fit {setting('relabel', spell(better))}."
    elif not goals.rewards and rewards.min() == rewards.max():
        fix = (
            f"All of its rewards so far are {rewards[0]:g}: set failure, and success to what a goal is"
            f" worth, for example {setting('relabel', 'hindsight:success=1,failure=0')}."
        )
    else:
        fix = (
            "Derive a class from Hindsight with this task's reward, or allow a share of such steps with its"
            " setting 'differing' (docs/concepts/relabel.md)."
        )
    theirs = "what the wrappers of rewards leave" if goals.rewards else "the environment"
    raise UsageError(
        f"{setting('relabel', spell(config.recipe.relabel))} gives other rewards than '{config.env}': at a"
        f" distance of {distance:.3g} from the goal {rule:.4g}, and {theirs} {reward:.4g};"
        f" {wrong[seed]:,} of {steps[seed]:,} steps differ. {fix}"
    )


def _steps(ring: Ring, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the distance from the goal after every step in replay, and its reward."""
    goals: Any = ring.goals
    slots = np.flatnonzero(np.asarray(ring.kind[seed]) != NOTHING)
    after = slots // ring.rows * ring.rows + (slots % ring.rows + 1) % ring.rows
    rows = np.asarray(ring.observation[seed])
    achieved, desired = rows[after, slice(*goals.achieved)], rows[slots, slice(*goals.desired)]
    return np.linalg.norm(achieved - desired, axis=1), np.asarray(ring.reward[seed])[slots]


def _fitting(distances: np.ndarray, rewards: np.ndarray) -> Hindsight | None:
    """Return settings of `hindsight` that fit, if there are some."""
    if np.allclose(rewards, -distances, atol=1e-3):
        return Hindsight(dense=True)
    values = np.unique(np.round(rewards, 4))
    if len(values) != 2:
        return None
    near = rewards > values.mean()
    inside, outside = distances[near].max(), distances[~near].min()
    if inside > outside + 1e-5:
        return None
    middle = (inside + outside) / 2
    digits = next(n for n in range(12) if inside < round(middle, n) <= outside or n == 11)
    low, high = values.tolist()
    return Hindsight(distance=round(float(middle), digits), success=high, failure=low)
