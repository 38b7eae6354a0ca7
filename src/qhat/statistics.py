"""Scores over seeds: the interquartile mean and its bootstrap interval.

The definitions are those of Agarwal et al. (2021), "Deep Reinforcement Learning at the Edge of the
Statistical Precipice", arXiv:2108.13264, and of their library, rliable.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from qhat.errors import require
from qhat.outcomes import Played


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
    values = _finite(scores, "scores")
    values = np.sort(values.ravel() if axis is None else values, axis=-1 if axis is None else axis)
    axis = 0 if axis is None else axis
    count = values.shape[axis]
    cut = count // 4
    middle = np.take(values, np.arange(cut, count - cut), axis=axis).mean(axis=axis)
    return float(middle) if middle.ndim == 0 else middle


def stratified_bootstrap_ci(
    scores: ArrayLike,
    statistic: Callable[[np.ndarray], Any],
    repetitions: int = 2000,
    confidence: float = 0.95,
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
    values = _finite(scores, "scores")
    require(values.ndim == 2, f"scores has shape {values.shape}, expected [seeds, tasks].")
    seeds, tasks = values.shape
    # Resampling one seed returns that seed: an interval of width zero, which would claim certainty.
    require(seeds >= 2, "scores holds one seed: an interval over seeds needs at least two.")
    require(repetitions >= 1, f"repetitions is {repetitions}, expected 1 or more.")
    require(0 < confidence < 1, f"confidence is {confidence}, expected a number between 0 and 1.")

    generator = np.random.default_rng(seed)
    column = np.arange(tasks)
    replicates = np.stack(
        [
            np.asarray(statistic(values[generator.integers(seeds, size=(seeds, tasks)), column]))
            for _ in range(repetitions)
        ]
    )
    tail = (1 - confidence) / 2
    return np.quantile(replicates, [tail, 1 - tail], axis=0)


@dataclass(frozen=True)
class Score:
    """How well a set of independently trained seeds does in one environment.

    Attributes:
        env: The environment's id.
        episodes: Evaluation episodes per seed.
        mean_return: Mean undiscounted return over all the episodes of all the seeds.
        std_return: Population standard deviation over the same episodes: the spread of single
            episodes, not the uncertainty of the mean.
        iqm: Interquartile mean of `per_seed` (arXiv:2108.13264).
        ci95: `[low, high]`, the bootstrap 95% interval of `iqm` over seeds; None with one seed,
            which says nothing about how another seed would have done.
        per_seed: Mean undiscounted return of each seed.
        mean_length: Mean number of steps over all the episodes of all the seeds.
        success_rate: Share of all the tries at the task's goal that succeeded; None in a task that does
            not tell.
        success_per_seed: The same of each seed.
        attempts: Number of those tries; None as above.
        saturation: Of each joint, the share of the steps at which its command was one of its bounds; None
            where actions are no commands.
        smoothness: Mean |Δ command| from step to step, in the environment's units; None as above.
        broken: Episodes that broke off because the environment's numbers were not finite.
    """

    env: str
    episodes: int
    mean_return: float
    std_return: float
    iqm: float
    ci95: list[float] | None
    per_seed: list[float]
    mean_length: float | None = None
    success_rate: float | None = None
    success_per_seed: list[float] | None = None
    attempts: int | None = None
    saturation: list[float] | None = None
    smoothness: float | None = None
    broken: int = 0

    @classmethod
    def of(cls, env: str, returns: ArrayLike, **told: Any) -> Score:
        """Summarise evaluation returns.

        Args:
            env: The environment's id.
            returns: Undiscounted returns `[seeds, episodes]`, in the environment's unit of reward.
            told: Further fields, taken as they are.

        Raises:
            UsageError: If the returns are not a finite, non-empty matrix.
        """
        values = _finite(returns, f"returns of {env}")
        require(
            values.ndim == 2,
            f"returns of {env} has shape {values.shape}, expected [seeds, episodes].",
        )
        per_seed = values.mean(axis=1)
        several = len(per_seed) > 1
        return cls(
            env=env,
            episodes=values.shape[1],
            mean_return=float(values.mean()),
            std_return=float(values.std()),
            iqm=iqm(per_seed),
            # One environment is one task, hence one column.
            ci95=stratified_bootstrap_ci(per_seed[:, None], iqm).tolist() if several else None,
            per_seed=per_seed.tolist(),
            **told,
        )

    @classmethod
    def of_played(cls, env: str, played: Played, commanded: bool) -> Score:
        """Summarise episodes `[seeds, episodes]`.

        Args:
            commanded: whether actions are commands of joints.
        """
        told: dict[str, Any] = {"mean_length": float(played.lengths.mean())}
        told["broken"] = int(played.broken.sum())
        if played.attempts.sum():
            told["success_rate"] = float(played.success_rate())
            told["attempts"] = int(played.attempts.sum())
            told["success_per_seed"] = played.success_rate(axis=1).tolist()
        if commanded:
            told["saturation"] = played.saturation().mean(axis=0).tolist()
            told["smoothness"] = float(played.smoothness())
        return cls.of(env, played.returns, **told)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain JSON values, under their own names."""
        return asdict(self)


def _finite(values: ArrayLike, name: str) -> np.ndarray:
    """Return `values` as a non-empty, finite float64 array with at least one axis, or refuse."""
    array = np.atleast_1d(np.asarray(values, dtype=np.float64))
    require(array.size > 0, f"{name} is empty, expected at least one number.")
    bad = int(np.count_nonzero(~np.isfinite(array)))
    require(
        bad == 0,
        f"{name} has {bad} of {array.size} numbers that are NaN or infinite, expected finite ones.",
    )
    return array


def mean_of_finite(values: np.ndarray) -> np.ndarray:
    """Mean over iterations `[S, N] → [S]`, of those that made an update; NaN where none did."""
    finite = np.isfinite(values)
    total = np.where(finite, values, 0.0).sum(axis=1)
    return np.where(finite.any(axis=1), total / np.maximum(finite.sum(axis=1), 1), np.nan)
