"""From run folders to a comparison."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qhat.evaluation.statistics.bootstrap import REPETITIONS
from qhat.reports.comparison.grouping import Task, describe_seeds, group
from qhat.reports.comparison.reading import Entrant, read_entrants
from qhat.reports.comparison.result import (
    X_LABELS,
    Axis,
    Comparison,
    Curves,
    Part,
    Standing,
    improvements,
    standing,
)
from qhat.reports.comparison.scoring import Scores, Which, score
from qhat.system.errors import require

if TYPE_CHECKING:
    from qhat.runs.run import Run

EPISODES = 20
"""Default number of fresh episodes per seed."""
THRESHOLDS = 201
"""Points of a performance profile."""


def compare(
    runs: Run | Path | str | Sequence[Run | Path | str],
    episodes: int = EPISODES,
    checkpoint: Which = "best",
    axis: Axis = "steps",
    repetitions: int = REPETITIONS,
    progress: Callable[[str], None] = lambda _: None,
) -> Comparison:
    """Compare runs: every recipe's score over seeds in each environment, and probabilities of improvement.

    Runs with the same environment, recipe and settings form one group; their seeds are pooled.

    Args:
        runs: runs, or their folders; or one of them.
        episodes: fresh episodes per seed; 0 uses the evaluations during training, by which the best weights
            were chosen.
        checkpoint: weights: `best` (by the evaluations during training) or `last`.
        axis: of the curves: environment `steps` or `seconds` of training.
        repetitions: bootstrap resamples per interval.
        progress: called with the current activity.

    Raises:
        UsageError: a folder is not a run or is damaged, or there is nothing to compare.
    """
    require(episodes >= 0, f"episodes is {episodes}; expected 0 or more.")
    require(checkpoint in ("best", "last"), f"checkpoint is '{checkpoint}'; expected best or last.")
    require(repetitions >= 1, f"repetitions is {repetitions}; expected 1 or more.")
    require(axis in ("steps", "seconds"), f"axis is '{axis}'; expected steps or seconds.")
    several = list(runs) if isinstance(runs, Iterable) and not isinstance(runs, str) else [runs]
    entrants, notes = read_entrants(several, timed=axis == "seconds")
    tasks, more = group(entrants)
    notes += more
    scored: dict[str, Scores] = {}
    for task in tasks:
        scored[task.env], more = score(task, episodes, checkpoint, progress)
        notes += more
    curves = {task.env: _curves(task, axis) for task in tasks}
    environments = tuple(
        _environment(task, scored[task.env], curves[task.env], axis, repetitions) for task in tasks
    )
    scales, aggregate = {}, None
    if len(tasks) > 1:
        scales = {task.env: _scale(task, scored[task.env]) for task in tasks}
        aggregate, more = _aggregate(
            tasks, scored, curves, scales, environments[0].source, axis, repetitions
        )
        notes += more
        # Only the aggregate is scaled.
        scales = scales if aggregate is not None else {}
    if alone := [f"{part.name}: {group.label}" for part in environments for group in part.alone]:
        notes.append(f"Only one seed, so no interval: {'; '.join(alone)}. Try: qhat train --seeds 5.")
    if any(ends is not None and ends[0] == ends[1] for part in environments for ends in _intervals(part)):
        notes.append(
            "An interval of width 0 means that all resamples of these seeds agree, not that other seeds"
            " would; train more seeds."
        )
    notes += describe_seeds(tasks)
    return Comparison(environments, scales, aggregate, axis, tuple(notes))


def _intervals(part: Part) -> list[tuple[float, float] | None]:
    estimates = (*part.improvement.values(), *(group.iqm for group in part.standings))
    return [estimate.ci95 for estimate in estimates]


def _curves(task: Task, axis: Axis) -> dict[str, Curves]:
    return {label: joined([_curve(run, task, axis) for run in runs]) for label, runs in task.groups.items()}


def _curve(run: Entrant, task: Task, axis: Axis) -> Curves:
    """Return a run's evaluations in the common part."""
    within = run.evaluations.step <= task.reach
    x = run.evaluations.step[within]
    if axis == "seconds":
        assert run.clock is not None
        x = run.clock.at(x)
    return Curves(x, run.evaluations.score[list(run.rows)][:, within][..., None])


def joined(curves: Sequence[Curves], tasks: bool = False) -> Curves:
    """Pool the seeds of several curves, at the points of the curve with the fewest.

    Args:
        tasks: whether the curves are tasks of the same seeds, rather than seeds of the same tasks.
    """
    x = min((curve.x for curve in curves), key=len)
    # Only where all curves are defined.
    x = x[(x >= max(curve.x[0] for curve in curves)) & (x <= min(curve.x[-1] for curve in curves))]
    if x.size == 0:
        x = np.array([min(curve.x[-1] for curve in curves)])

    def at(curve: Curves) -> np.ndarray:
        rows = np.moveaxis(curve.scores, 1, 2)
        return np.moveaxis(np.apply_along_axis(lambda row: np.interp(x, curve.x, row), 2, rows), 2, 1)

    return Curves(x, np.concatenate([at(curve) for curve in curves], axis=2 if tasks else 0))


def _environment(
    task: Task, scored: Scores, curves: Mapping[str, Curves], axis: Axis, repetitions: int
) -> Part:
    gamma = None if task.scale is None else task.scale[1]
    scores = {label: group[:, None] for label, group in scored.by_group.items()}
    return Part(
        name=task.env,
        source=scored.source,
        fresh=scored.fresh,
        steps=task.steps,
        gamma=gamma,
        unit="Score (undiscounted return per episode)",
        x_label=X_LABELS[axis],
        standings=_standings([task], scores, curves, gamma, repetitions),
        improvement=improvements(scores, repetitions),
    )


def _standings(
    tasks: Sequence[Task],
    scores: Mapping[str, np.ndarray],
    curves: Mapping[str, Curves],
    gamma: float | None,
    repetitions: int,
) -> tuple[Standing, ...]:
    low, high = min(group.min() for group in scores.values()), max(group.max() for group in scores.values())
    margin = 0.02 * (high - low) or 0.5
    thresholds = np.linspace(low - margin, high + margin, THRESHOLDS)
    return tuple(
        standing(
            label,
            tuple(str(run.path) for task in tasks for run in task.groups[label]),
            tuple(seed for run in tasks[0].groups[label] for seed in run.seeds)[: len(group)],
            group,
            curves[label],
            thresholds,
            gamma,
            repetitions,
        )
        for label, group in scores.items()
    )


def _scale(task: Task, scored: Scores) -> tuple[float, float, str]:
    """Return the scores that 0 and 1 stand for: random and solved, or else the range of the scores."""
    if task.scale is not None:
        return (*task.scale, "0 is chance and 1 is solved")
    every = np.concatenate(list(scored.by_group.values()))
    low, high = float(every.min()), float(every.max())
    if low == high:
        return low, low + 1.0, "all the compared scores are the same"
    return (
        low,
        high,
        "the lowest and the highest of the compared scores, because no reference scores are known",
    )


def _scaled(scores: np.ndarray, scale: tuple[float, float, str]) -> np.ndarray:
    low, high, _ = scale
    return (scores - low) / (high - low)


def _aggregate(
    tasks: Sequence[Task],
    scored: Mapping[str, Scores],
    curves: Mapping[str, Mapping[str, Curves]],
    scales: Mapping[str, tuple[float, float, str]],
    source: str,
    axis: Axis,
    repetitions: int,
) -> tuple[Part | None, list[str]]:
    """Return the aggregate over environments, for the groups that are in all of them."""
    everywhere = [label for label in tasks[0].groups if all(label in task.groups for task in tasks)]
    partial = list(
        dict.fromkeys(label for task in tasks for label in task.groups if label not in everywhere)
    )
    notes = []
    if partial:
        notes.append(f"Not in every environment, so not in the aggregate: {', '.join(partial)}.")
    if not everywhere:
        return None, notes
    scores, drawn = {}, {}
    ends = {task.env: max(curve.x[-1] for curve in curves[task.env].values()) for task in tasks}
    for label in everywhere:
        counts = [len(scored[task.env].by_group[label]) for task in tasks]
        seeds = min(counts)
        if max(counts) > seeds:
            notes.append(f"The aggregate of {label} uses the first {seeds} seeds in each environment.")

        by_task = [_scaled(scored[env].by_group[label][:seeds], scales[env]) for env in ends]
        scores[label] = np.stack(by_task, axis=1)
        shares = [
            Curves(by_label[label].x / ends[env], _scaled(by_label[label].scores[:seeds], scales[env]))
            for env, by_label in curves.items()
        ]
        drawn[label] = joined(shares, tasks=True)
    gamma = 1.0 if all(task.scale for task in tasks) else None
    fresh = all(scores.fresh for scores in scored.values())
    part = Part(
        name=f"all {len(tasks)} environments",
        source=source if fresh else "as in each environment",
        fresh=fresh,
        steps=None,
        gamma=gamma,
        unit="Score on the scale of the table",
        x_label=f"Share of each environment's {axis}",
        standings=_standings(tasks, scores, drawn, gamma, repetitions),
        improvement=improvements(scores, repetitions),
    )
    return part, notes
