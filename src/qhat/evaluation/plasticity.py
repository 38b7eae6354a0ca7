"""Whether a network can still learn: how far its weights have grown, how many directions its features have.

A network that was trained for long, and often on the same data, can lose its plasticity: it fits new
targets slowly. Its weights have grown, so that an update turns them less (Lyle et al. 2024,
arXiv:2407.01800), or its features have collapsed to a few directions (Kumar et al. 2021, arXiv:2010.14498).
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from qhat.engine.calibration import split_trainable
from qhat.engine.learner import Learner

KEY = 0
"""Seed of the fresh network that a trained one is compared with."""


@dataclasses.dataclass(frozen=True)
class Plasticity:
    """Of trained weights, per seed, beside those of a fresh network."""

    growth: list[float]
    """Largest RMS(weights) / RMS(fresh weights) of a layer before the outputs; empty without any."""
    grown: list[str]
    """The layer that has it."""
    rank: list[float]
    """Effective rank of the features before the last layers; empty where observations are too few, or a
    number is not finite."""
    fresh_rank: list[float]
    """The same of a fresh network, on the same observations."""


def measure(learner: Learner, parameters: Any, observations: np.ndarray) -> Plasticity:
    """Compare trained weights with fresh ones.

    Args:
        parameters: leaves `[S, ...]`.
        observations: `[S, N, ...]`, of the trained policies.
    """
    fresh = learner.network.init(jax.random.key(KEY))

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(None, 0))
    def features(parameters: Any, observation: Any) -> Array:
        return learner.network.features(*learner.shown(parameters, observation))

    growth, grown, rank, fresh_rank = [], [], [], []
    for seed, rows in enumerate(observations):
        trained = jax.tree.map(lambda leaf, at=seed: leaf[at], parameters)
        layers = growths(split_trainable(trained)[0], fresh)
        if layers:
            name = max(layers, key=lambda each: layers[each])
            growth.append(layers[name])
            grown.append(name)
        if learner.recipe.memory.remembers:
            # What its last layers see is of whole episodes, not of single observations.
            continue
        both = [np.asarray(features(each, rows), np.float64) for each in (trained, {**trained, **fresh})]
        if len(rows) >= both[0].shape[1] and all(np.isfinite(each).all() for each in both):
            rank.append(effective_rank(both[0]))
            fresh_rank.append(effective_rank(both[1]))
    return Plasticity(growth, grown, rank, fresh_rank)


def growths(trained: dict[str, Any], fresh: dict[str, Any]) -> dict[str, float]:
    """Return RMS(weights) / RMS(fresh weights) of every layer before the outputs, by its name."""
    before = {name: part for name, part in trained.items() if name == "torso" or "hidden" in name}
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(before):
        if leaf.ndim < 2:
            continue
        old: Any = fresh
        for step in path:
            old = old[step.key]
        keys = [str(step.key) for step in path if step.key != "weight"]
        found["/".join(keys)] = float(jnp.sqrt(jnp.mean(leaf**2) / jnp.mean(old**2)))
    return found


def effective_rank(features: np.ndarray) -> float:
    """Return exp(−Σ p log p) of the singular values' shares p of features `[N, units]`.

    Roy & Vetterli 2007, "The effective rank", definition 1: 1 of a single direction, at most the number of
    units.
    """
    singular = np.linalg.svd(features, compute_uv=False)
    total = singular.sum()
    if total <= 0:
        return 0.0
    share = singular[singular > 0] / total
    return float(np.exp(-np.sum(share * np.log(share))))
