"""Human-normalised scores of a suite's games, and their interquartile mean beside that of others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from qhat.evaluation.statistics import iqm, stratified_bootstrap_ci
from qhat.studies.benchmark.results import Row
from qhat.studies.benchmark.tasks import Number, Suite, Task

Rows = Mapping[str, Sequence[Row]]


def normalise(task: Task, score: Number) -> float:
    """Return 0 for the score of a random player, 1 for a human's."""
    assert task.players is not None, "a task without players has no normalised score"
    random, human = task.players
    return (score - random) / (human - random)


def section(suite: Suite, rows: Rows) -> list[str]:
    """Return the lines of a page; none if a task has no players, or nothing was run."""
    done = [task for task in suite.tasks if rows.get(task.env)]
    if not done or any(task.players is None for task in suite.tasks):
        return []
    ours = _matrix(done, rows)
    seeds = len(ours)
    systems = [theirs.system for theirs in done[0].published]
    total = f"{len(done)} of {len(suite.tasks)} games, {seeds} {'seed' if seeds == 1 else 'seeds'} each"
    return [
        "## Human-normalised",
        "",
        "A random player is 0, a human 1. The interquartile mean is that of all runs (Agarwal et al. 2021),"
        f" here of {total}; of the others it is that of their means, in the same games.",
        "",
        f"| game | random | human | qhat, last weights | {' | '.join(systems)} |",
        f"|---|---:|---:|---:|{'---:|' * len(systems)}",
        *(_line(task, rows[task.env], systems) for task in done),
        f"| **interquartile mean** | 0 | 1 | {_aggregate(ours)} | {_others(done, systems)} |",
        "",
    ]


def _matrix(tasks: Sequence[Task], rows: Rows) -> Float[np.ndarray, "S T"]:
    """Return the normalised scores of as many seeds as every task has."""
    scores = [
        [normalise(task, row.mean_return) for row in rows[task.env] if row.which == "last"]
        for task in tasks
    ]
    seeds = min(map(len, scores))
    return np.array([of_task[:seeds] for of_task in scores]).T


def _line(task: Task, rows: Sequence[Row], systems: Sequence[str]) -> str:
    assert task.players is not None, "`section` has asked"
    mean = float(np.mean([row.mean_return for row in rows if row.which == "last"]))
    by_name = {theirs.system: theirs.score for theirs in task.published}
    cells = [f"{player:,g}" for player in task.players]
    cells += [_cell(task, score) for score in (mean, *(by_name[system] for system in systems))]
    return f"| {task.env} | {' | '.join(cells)} |"


def _cell(task: Task, score: Number) -> str:
    return f"{score:,.1f} ({normalise(task, score):.2f})"


def _aggregate(scores: Float[np.ndarray, "S T"]) -> str:
    middle = f"**{float(iqm(scores)):.3f}**"
    if len(scores) < 2:
        return f"{middle} (one seed: no interval)"
    low, high = stratified_bootstrap_ci(scores, iqm)
    return f"{middle} [{low:.3f}, {high:.3f}]"


def _others(tasks: Sequence[Task], systems: Sequence[str]) -> str:
    cells = []
    for system in systems:
        scores = [
            normalise(task, theirs.score)
            for task in tasks
            for theirs in task.published
            if theirs.system == system
        ]
        cells.append(f"{float(iqm(scores)):.3f}")
    return " | ".join(cells)
