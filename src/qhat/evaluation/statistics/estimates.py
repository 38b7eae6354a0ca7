"""Point estimates of scores over seeds and tasks (arXiv:2108.13264, section 4)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from qhat.system.errors import require


def iqm(scores: ArrayLike, axis: int | None = None) -> Any:
    """Return the mean of the middle half of the scores (arXiv:2108.13264, section 4.3).

    The lowest and the highest ⌊n/4⌋ of the n scores are left out, so that fewer than four scores
    are simply averaged.

    Args:
        scores: Scores of any shape, in the environment's unit of return.
        axis: The axis to reduce; None takes all the scores as one sample.

    Returns:
        A float when `axis` is None, otherwise an array without that axis. Unit: as the scores.

    Raises:
        UsageError: If there is no score, or one that is not finite.
    """
    values = finite(scores, "scores")
    values = np.sort(values.ravel() if axis is None else values, axis=-1 if axis is None else axis)
    axis = 0 if axis is None else axis
    count = values.shape[axis]
    cut = count // 4
    middle = np.take(values, np.arange(cut, count - cut), axis=axis).mean(axis=axis)
    return float(middle) if middle.ndim == 0 else middle


def mean(scores: ArrayLike) -> float:
    """Return the mean over the tasks of each task's mean over seeds.

    Args:
        scores: `[seeds, tasks]`, or `[seeds]` of one task.
    """
    return float(finite(scores, "scores").mean())


def median(scores: ArrayLike) -> float:
    """Return the median over the tasks of each task's mean over seeds; of one task, the median seed.

    Args:
        scores: `[seeds, tasks]`; or `[seeds]` of one task, whose mean would be no median of anything.
    """
    values = finite(scores, "scores")
    return float(np.median(values if values.ndim == 1 else values.mean(axis=0)))


def optimality_gap(scores: ArrayLike, gamma: float = 1.0) -> float:
    """Return by how much the scores fall short of `gamma` on average; what lies above counts as `gamma`.

    Args:
        scores: Scores of any shape.
        gamma: The score that is good enough, in the scores' unit.
    """
    return float(gamma - np.minimum(finite(scores, "scores"), gamma).mean())


def score_distribution(scores: ArrayLike, thresholds: ArrayLike) -> np.ndarray:
    """Return the performance profile: the share of all runs above each threshold (section 4.2).

    Args:
        scores: Scores of any shape; every one counts the same.
        thresholds: `[T]`, in the scores' unit.

    Returns:
        `[T]`, shares between 0 and 1.
    """
    values = np.sort(finite(scores, "scores").ravel())
    above = values.size - np.searchsorted(values, finite(thresholds, "thresholds"), side="right")
    return above / values.size


def probability_of_improvement(x: ArrayLike, y: ArrayLike) -> float:
    """Return how likely a run of X beats one of Y in a task drawn at random (section 4.3).

    A tie counts as half a win, as in the Mann-Whitney U statistic.

    Args:
        x: `[seeds, tasks]`, scores of X.
        y: The same of Y, with as many tasks; the number of seeds may be another.
    """
    x, y = finite(x, "scores of X"), finite(y, "scores of Y")
    require(
        x.ndim == y.ndim == 2 and x.shape[1] == y.shape[1],
        f"scores have shapes {x.shape} and {y.shape}, expected [seeds, tasks] with the same tasks.",
    )
    # Of every pair of runs in one task: -1, 0 or 1, so that a win is 1, a tie ½ and a loss 0.
    return float((1 + np.sign(x[:, None] - y[None])).mean() / 2)


def finite(values: ArrayLike, name: str) -> np.ndarray:
    """Return `values` as a non-empty, finite float64 array with at least one axis, or refuse."""
    array = np.atleast_1d(np.asarray(values, dtype=np.float64))
    require(array.size > 0, f"{name} is empty, expected at least one number.")
    bad = int(np.count_nonzero(~np.isfinite(array)))
    require(
        bad == 0,
        f"{name} has {bad} of {array.size} numbers that are NaN or infinite, expected finite ones.",
    )
    return array
