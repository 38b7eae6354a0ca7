"""The result of a comparison: estimates with intervals, curves, profiles. Reads no files."""

from __future__ import annotations

import html
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
from qhat.system.display import card

Axis = Literal["steps", "seconds"]
X_LABELS: Mapping[Axis, str] = MappingProxyType(
    {
        "steps": "Environment steps per seed",
        "seconds": "Seconds of compiling and training, all seeds together",
    }
)


@dataclass(frozen=True)
class Estimate:
    """A number and its bootstrap 95% interval over seeds; the interval is None with one seed."""

    value: float
    ci95: tuple[float, float] | None

    @property
    def text(self) -> str:
        """The number with its interval, for people."""
        sure = "" if self.ci95 is None else f" [{self.ci95[0]:.4g}, {self.ci95[1]:.4g}]"
        return f"{self.value:.4g}{sure}"

    def to_json(self) -> dict[str, Any]:
        return {"value": self.value, "ci95": None if self.ci95 is None else list(self.ci95)}


@dataclass(frozen=True)
class Band:
    """A curve over seeds. Every field is `[T]`.

    Attributes:
        x: Steps, seconds, scores, or shares of them.
        value: The estimate at each `x`.
        low: Low end of the 95% interval; None with one seed. `high` likewise.
    """

    x: np.ndarray
    value: np.ndarray
    low: np.ndarray | None
    high: np.ndarray | None


@dataclass(frozen=True)
class Standing:
    """The result of one group.

    Attributes:
        runs: Folders.
        seeds: Its seeds; in an aggregate, those in the first environment.
        scores: `[seeds, tasks]`, returns, or scaled scores in an aggregate.
        gap: Optimality gap to the part's `gamma`; None if `gamma` is unknown.
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
    """The results in one environment, or in all of them together.

    Attributes:
        name: The environment, or the name of the aggregate.
        source: Where the scores come from, as text.
        fresh: Whether they come from fresh episodes.
        steps: Environment steps per seed of the common part; None in an aggregate.
        gamma: The target score of the optimality gap; None if unknown.
        unit: Axis label for scores.
        x_label: Axis label for the curves.
        improvement: Probability that a run of the first group beats one of the second.
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
        """The groups with only one seed, which have no intervals."""
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
    """The comparison of several runs.

    Attributes:
        environments: One part per environment.
        scales: Scores that 0 and 1 of the aggregate stand for in each environment, and why.
        aggregate: All environments together; None with one environment, or if no group is in all.
        axis: Horizontal axis of the curves.
        notes: Sentences about what was left out, merged or unknown, and about the seeds.
    """

    environments: tuple[Part, ...]
    scales: Mapping[str, tuple[float, float, str]]
    aggregate: Part | None
    axis: Axis
    notes: tuple[str, ...]

    @property
    def parts(self) -> tuple[Part, ...]:
        """The environments and the aggregate."""
        return (*self.environments, *([] if self.aggregate is None else [self.aggregate]))

    def __repr__(self) -> str:
        """Return the groups of each environment, with their scores."""
        parts = (
            f"{part.name}: " + ", ".join(f"{each.label} {each.iqm.text}" for each in part.standings)
            for part in self.parts
        )
        return f"Comparison({'; '.join(parts)})"

    def _repr_html_(self) -> str:
        """Return the same as tables, for notebooks."""
        tables = [
            card(f"{part.name}: IQM", {each.label: each.iqm.text for each in part.standings})
            for part in self.parts
        ]
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        return f"<div>{''.join(tables)}{notes}</div>"

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
    """The points of a group's curve.

    Attributes:
        x: `[T]`, increasing.
        scores: `[seeds, T, tasks]`.
    """

    x: np.ndarray
    scores: np.ndarray

    def band(self, repetitions: int) -> Band:
        """Return the IQM over seeds and tasks at every point, with pointwise intervals."""
        seeds, points, tasks = self.scores.shape

        def pointwise(flat: np.ndarray) -> np.ndarray:
            # Every point and task is a stratum: `[seeds, T·tasks]` → `[seeds·tasks, T]`.
            each = flat.reshape(seeds, points, tasks)
            return iqm(np.moveaxis(each, 2, 1).reshape(seeds * tasks, points), axis=0)

        return banded(self.x, self.scores.reshape(seeds, points * tasks), pointwise, repetitions)


def banded(
    x: np.ndarray, scores: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], repetitions: int
) -> Band:
    """Return a statistic of scores `[seeds, ...]`, one value per element of `x`, with its interval."""
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
    """Return the result of a group with scores `[seeds, tasks]`.

    Args:
        thresholds: scores at which its profile is evaluated.
        gamma: target score of the optimality gap, if known.
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
    """Return the probability that each group beats each other one; scores are `[seeds, tasks]` each."""
    chances: dict[tuple[str, str], Estimate] = {}
    labels = list(scores)
    for at, x in enumerate(labels):
        for y in labels[at + 1 :]:
            pair = [scores[x], scores[y]]
            value = probability_of_improvement(*pair)
            chances[x, y], chances[y, x] = Estimate(value, None), Estimate(1 - value, None)
            if min(map(len, pair)) > 1:
                low, high = map(float, bootstrap_ci(pair, probability_of_improvement, repetitions))
                chances[x, y], chances[y, x] = (
                    Estimate(value, (low, high)),
                    Estimate(1 - value, (1 - high, 1 - low)),
                )
    return chances
