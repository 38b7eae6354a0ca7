"""Computes one score per seed: from fresh episodes, or from the evaluations during training."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from qhat.reports.comparison.grouping import Task
from qhat.reports.comparison.reading import Entrant
from qhat.system.errors import blaming, ranges, require

Which = Literal["best", "last"]

FIRST_EPISODE = 1_000_000
"""As in `qhat evaluate`. Equal seeds play the same episodes in every run; different seeds do not."""


@dataclasses.dataclass(frozen=True)
class Scores:
    """The scores of an environment's groups and their source."""

    by_group: dict[str, np.ndarray]
    """`[seeds]` each: mean undiscounted return."""
    fresh: bool
    source: str
    """The source as text, for a table's title."""


def score(
    task: Task, episodes: int, checkpoint: Which, progress: Callable[[str], None]
) -> tuple[Scores, list[str]]:
    """Score every run of an environment in the same way.

    Args:
        episodes: fresh episodes per seed; 0 uses the evaluations during training.
        which: weights (or evaluations) of each seed: the best or the last.
        progress: called with the current activity.

    Returns:
        the scores, and notes, for example why they are not fresh.
    """
    if not episodes:
        return _recorded(task, checkpoint), []
    weights: dict[Path, str] = {}
    notes: list[str] = []
    for entrant in task.entrants:
        about = _about(entrant)
        found, reason = _weights(entrant, about, task, checkpoint)
        if found is None:
            note = (
                f"{task.env}: no fresh episodes, {reason}; the scores are the evaluations during training."
            )
            return _recorded(task, checkpoint), [note]
        weights[entrant.path] = found
        halted = [
            seed for seed, row in zip(entrant.seeds, entrant.rows, strict=True) if about["halted"][row]
        ]
        if halted:
            notes.append(
                f"'{entrant.path}': seeds {ranges(halted)} stopped at a value that was not finite; they"
                " count with their last weights."
            )
    by_group = {}
    for label, group in task.groups.items():
        each = []
        for entrant in group:
            progress(f"playing {episodes} episodes per seed of {entrant.path}")
            each.append(_played(entrant, episodes, weights[entrant.path]))
        by_group[label] = np.concatenate(each)
    return Scores(by_group, True, f"{episodes} fresh episodes per seed, {checkpoint} weights"), notes


def _about(entrant: Entrant) -> dict[str, Any]:
    """Return the manifest of a run's last checkpoint; empty if there is none yet."""
    from qhat.runs.manifest import read_about

    if not (entrant.path / "last").exists():
        return {}
    about = read_about(entrant.folder.last())
    saved, seeds = len(about["halted"]), len(entrant.evaluations.score)
    require(
        saved == seeds,
        f"'{entrant.path}' is damaged: its checkpoint has {saved} seeds, and config.json {seeds}.",
    )
    return about


def _weights(
    entrant: Entrant, about: dict[str, Any], task: Task, checkpoint: Which
) -> tuple[str | None, str]:
    """Return the weights that belong to the common part, or None and the reason."""
    if not about:
        return None, f"'{entrant.path}' has no checkpoint yet"
    if checkpoint == "best":
        latest = max(about["best_step"])
        if latest <= task.reach:
            return "best", ""
        return None, (
            f"the best weights of '{entrant.path}' are of step {latest:,} and the common part ends at"
            f" {task.steps:,}"
        )
    if about["step"] <= task.reach:
        return "last", ""
    within = [step for step in entrant.folder.steps() if task.steps <= step <= task.reach]
    if within:
        return str(within[0]), ""
    return None, (
        f"'{entrant.path}' has kept no checkpoint of step {task.steps:,}, where the common part ends"
        " (qhat train --save-every, --keep)"
    )


def _played(entrant: Entrant, episodes: int, weights: str) -> np.ndarray:
    from qhat.runs.run import Run

    with blaming(f"'{entrant.path}'"):
        run = entrant.run or Run.open(entrant.path)
        first = FIRST_EPISODE + entrant.first_seed % 10_000 * episodes
        per_seed = np.array(run.evaluate(episodes, weights, first).per_seed)
    return per_seed[list(entrant.rows)]


def _recorded(task: Task, checkpoint: Which) -> Scores:
    """Use the evaluations during training up to the common step."""
    by_group = {}
    for label, group in task.groups.items():
        within = [
            entrant.evaluations.score[list(entrant.rows)][:, entrant.evaluations.step <= task.reach]
            for entrant in group
        ]
        best = checkpoint == "best"
        by_group[label] = np.concatenate(
            [scores.max(axis=1) if best else scores[:, -1] for scores in within]
        )
    source = (
        "the best evaluation of each seed in training: selection scores, which are too high"
        if checkpoint == "best"
        else "each seed's evaluation at the common step"
    )
    return Scores(by_group, False, source)
