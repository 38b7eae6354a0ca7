"""What a comparison comes to: estimates with intervals, curves, profiles. Nothing is read here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from qhat.evaluation.statistics import (
    bootstrap_ci,
    iqm,
    mean,
    median,
    optimality_gap,
    probability_of_improvement,
    score_distribution,
    stratified_bootstrap_ci,
)

Axis = Literal["steps", "seconds"]
X_LABELS: Mapping[Axis, str] = MappingProxyType(
    {
        "steps": "Environment steps per seed",
        "seconds": "Seconds of compiling and training, all seeds together",
    }
)


@dataclass(frozen=True)
class Estimate:
    """A number and its bootstrap 95% interval over seeds; None where there is one seed."""

    value: float
    ci95: tuple[float, float] | None

    def to_json(self) -> dict[str, Any]:
        return {"value": self.value, "ci95": None if self.ci95 is None else list(self.ci95)}


@dataclass(frozen=True)
class Band:
    """A curve over seeds. Every field is `[T]`.

    Attributes:
        x: Where: steps, seconds, scores, or shares of them.
        value: The estimate there.
        low: The low end of its 95% interval; None with one seed. So is `high`.
    """

    x: np.ndarray
    value: np.ndarray
    low: np.ndarray | None
    high: np.ndarray | None


@dataclass(frozen=True)
class Standing:
    """How one group does.

    Attributes:
        runs: Folders.
        seeds: Numbers of its seeds; in an aggregate, those in the first environment.
        scores: `[seeds, tasks]`, in returns, or on the scale of an aggregate.
        gap: How far it falls short of the part's `gamma`; None where that is not known.
    """

    label: str
    runs: tuple[str, ...]
    seeds: tuple[int, ...]
    scores: np.ndarray
    iqm: Estimate
    median: Estimate
    mean: Estimate
    gap: Estimate | None
    curve: Band
    profile: Band

    def to_json(self) -> dict[str, Any]:
        return {
            "runs": list(self.runs),
            "seeds": list(self.seeds),
            "scores": (self.scores[:, 0] if self.scores.shape[1] == 1 else self.scores).tolist(),
            "iqm": self.iqm.to_json(),
            "median": self.median.to_json(),
            "mean": self.mean.to_json(),
            "optimality_gap": None if self.gap is None else self.gap.to_json(),
        }


@dataclass(frozen=True)
class Part:
    """The groups in one environment, or in all of them together.

    Attributes:
        name: The environment, or what the aggregate is called.
        source: Where the scores come from, in words.
        fresh: Whether that is fresh episodes.
        steps: Environment steps per seed of the common part; None in an aggregate.
        gamma: The score of the optimality gap; None where none is known.
        unit: What a score is, for an axis.
        x_label: What the curves are drawn against.
        improvement: How likely a run of the first group beats one of the second.
    """

    name: str
    source: str
    fresh: bool
    steps: int | None
    gamma: float | None
    unit: str
    x_label: str
    standings: tuple[Standing, ...]
    improvement: Mapping[tuple[str, str], Estimate]

    @property
    def alone(self) -> list[Standing]:
        """The groups of one seed, which have no intervals."""
        return [standing for standing in self.standings if len(standing.scores) == 1]

    def to_json(self) -> dict[str, Any]:
        matrix: dict[str, dict[str, Any]] = {standing.label: {} for standing in self.standings}
        for (x, y), estimate in self.improvement.items():
            matrix[x][y] = estimate.to_json()
        return {
            "env": self.name,
            "scores": self.source,
            "fresh": self.fresh,
            "steps": self.steps,
            "gamma": self.gamma,
            "groups": {standing.label: standing.to_json() for standing in self.standings},
            "probability_of_improvement": matrix,
        }


@dataclass(frozen=True)
class Comparison:
    """Several runs side by side.

    Attributes:
        environments: One part each.
        scales: What 0 and 1 of the aggregate are in each environment, and why.
        aggregate: All of them together; None with one environment, or no group in all of them.
        axis: What the curves are drawn against.
        notes: What was left out, merged or not known, and which seeds these are; for people.
    """

    environments: tuple[Part, ...]
    scales: Mapping[str, tuple[float, float, str]]
    aggregate: Part | None
    axis: Axis
    notes: tuple[str, ...]

    @property
    def parts(self) -> tuple[Part, ...]:
        """The environments, and what they come to together."""
        return (*self.environments, *([] if self.aggregate is None else [self.aggregate]))

    def to_json(self) -> dict[str, Any]:
        """Return what `qhat compare --json` prints."""
        scales = {
            env: {"zero": zero, "one": one, "rule": rule} for env, (zero, one, rule) in self.scales.items()
        }
        aggregate = None if self.aggregate is None else self.aggregate.to_json()
        return {
            "axis": self.axis,
            "environments": [part.to_json() for part in self.environments],
            "aggregate": None if aggregate is None else {**aggregate, "scales": scales},
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Curves:
    """What a group's curve is made of.

    Attributes:
        x: `[T]`, rising.
        scores: `[seeds, T, tasks]`.
    """

    x: np.ndarray
    scores: np.ndarray

    def band(self, repetitions: int) -> Band:
        """Return the IQM at every point, over seeds and tasks, each point with its own interval."""
        seeds, points, tasks = self.scores.shape

        def pointwise(flat: np.ndarray) -> np.ndarray:
            # Every point and task is a stratum: `[seeds, T·tasks]` → `[seeds·tasks, T]`.
            each = flat.reshape(seeds, points, tasks)
            return iqm(np.moveaxis(each, 2, 1).reshape(seeds * tasks, points), axis=0)

        return banded(self.x, self.scores.reshape(seeds, points * tasks), pointwise, repetitions)


def banded(
    x: np.ndarray, scores: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], repetitions: int
) -> Band:
    """Return a statistic of scores `[seeds, ...]` that has a number for each of `x`, with its interval."""
    if len(scores) < 2:
        return Band(x, statistic(scores), None, None)
    low, high = stratified_bootstrap_ci(scores, statistic, repetitions)
    return Band(x, statistic(scores), low, high)


def standing(
    label: str,
    runs: tuple[str, ...],
    seeds: tuple[int, ...],
    scores: np.ndarray,
    curves: Curves,
    thresholds: np.ndarray,
    gamma: float | None,
    repetitions: int,
) -> Standing:
    """Return how a group with scores `[seeds, tasks]` does.

    Args:
        thresholds: scores at which its profile is told.
        gamma: the score of the optimality gap, if one is known.
    """

    def estimates(matrix: np.ndarray) -> np.ndarray:
        middle = median(matrix[:, 0] if matrix.shape[1] == 1 else matrix)
        gap = 0.0 if gamma is None else optimality_gap(matrix, gamma)
        return np.array([iqm(matrix), middle, mean(matrix), gap])

    values, ends = estimates(scores), None
    if len(scores) > 1:
        ends = stratified_bootstrap_ci(scores, estimates, repetitions)
    each = [
        Estimate(float(value), None if ends is None else (float(ends[0, at]), float(ends[1, at])))
        for at, value in enumerate(values)
    ]
    curve = curves.band(repetitions)
    profile = banded(thresholds, scores, lambda matrix: score_distribution(matrix, thresholds), repetitions)
    gap = None if gamma is None else each[3]
    return Standing(label, runs, seeds, scores, each[0], each[1], each[2], gap, curve, profile)


def improvements(scores: Mapping[str, np.ndarray], repetitions: int) -> dict[tuple[str, str], Estimate]:
    """Return how likely each group beats each other one; scores are `[seeds, tasks]` each."""
    told: dict[tuple[str, str], Estimate] = {}
    labels = list(scores)
    for at, x in enumerate(labels):
        for y in labels[at + 1 :]:
            pair = [scores[x], scores[y]]
            value = probability_of_improvement(*pair)
            told[x, y], told[y, x] = Estimate(value, None), Estimate(1 - value, None)
            if min(map(len, pair)) > 1:
                low, high = map(float, bootstrap_ci(pair, probability_of_improvement, repetitions))
                told[x, y], told[y, x] = (
                    Estimate(value, (low, high)),
                    Estimate(1 - value, (1 - high, 1 - low)),
                )
    return told
