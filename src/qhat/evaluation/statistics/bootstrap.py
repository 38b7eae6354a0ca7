"""Intervals over seeds by stratified resampling (arXiv:2108.13264, section 4.1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from qhat.evaluation.statistics.estimates import finite
from qhat.system.errors import require

CONFIDENCE = 0.95
REPETITIONS = 2000


def stratified_bootstrap_ci(
    scores: ArrayLike,
    statistic: Callable[[np.ndarray], Any],
    repetitions: int = REPETITIONS,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> np.ndarray:
    """Return the percentile interval of a statistic over seeds (arXiv:2108.13264, section 4.1).

    Each repetition draws, within each task, as many seeds as there are, with replacement and
    independently of the other tasks: the tasks are the strata.

    Args:
        scores: Scores `[seeds, tasks]`, one per independent training run.
        statistic: Maps resampled scores `[seeds, tasks]` to a number, or to an array of numbers
            that each get their own interval.
        repetitions: How many times to resample.
        confidence: The probability that the interval should cover, between 0 and 1.
        seed: Seed of the resampling: the same scores always give the same interval.

    Returns:
        `[2, ...]`: the low and the high end, each of the statistic's shape and unit.

    Raises:
        UsageError: If the scores are not a finite matrix of two seeds or more, or if an option is
            out of range.
    """
    return bootstrap_ci([scores], statistic, repetitions, confidence, seed)


def bootstrap_ci(
    samples: list[Any],
    statistic: Callable[..., Any],
    repetitions: int = REPETITIONS,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> np.ndarray:
    """Return the interval of a statistic of several samples, each of which is resampled by itself.

    Args:
        samples: Of each its scores `[seeds, tasks]`; the numbers of seeds may differ.
        statistic: Maps as many resampled matrices to a number or an array of numbers.
        repetitions: As `stratified_bootstrap_ci`'s, and so are the others.

    Returns:
        `[2, ...]`, the low and the high end.
    """
    matrices = [finite(scores, "scores") for scores in samples]
    for values in matrices:
        require(values.ndim == 2, f"scores has shape {values.shape}, expected [seeds, tasks].")
        # Resampling one seed returns that seed: an interval of width zero, which would claim certainty.
        require(len(values) >= 2, "scores holds one seed: an interval over seeds needs at least two.")
    require(repetitions >= 1, f"repetitions is {repetitions}, expected 1 or more.")
    require(0 < confidence < 1, f"confidence is {confidence}, expected a number between 0 and 1.")
    generator = np.random.default_rng(seed)

    def drawn(values: np.ndarray) -> np.ndarray:
        return resampled(values, generator.integers(len(values), size=values.shape))

    replicates = [np.asarray(statistic(*map(drawn, matrices))) for _ in range(repetitions)]
    return percentile_interval(np.stack(replicates), confidence)


def resampled(values: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Return the scores `[seeds, tasks]` whose seeds `indices` `[seeds, tasks]` name, each of its task."""
    return values[indices, np.arange(values.shape[1])]


def percentile_interval(replicates: np.ndarray, confidence: float = CONFIDENCE) -> np.ndarray:
    """Return `[2, ...]`, the ends between which the middle `confidence` of replicates `[R, ...]` lie."""
    tail = (1 - confidence) / 2
    return np.quantile(replicates, [tail, 1 - tail], axis=0)
