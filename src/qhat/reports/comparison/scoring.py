"""One score per seed: from fresh episodes, or from what the runs recorded of themselves."""

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
"""As `qhat evaluate`'s. Seeds of one number play the same episodes in every run, others play others."""


@dataclasses.dataclass(frozen=True)
class Scores:
    """The scores of an environment's groups, and where they come from."""

    by_group: dict[str, np.ndarray]
    """`[seeds]` each: mean undiscounted return."""
    fresh: bool
    source: str
    """The same in words, for a table's title."""


def score(
    task: Task, episodes: int, which: Which, progress: Callable[[str], None]
) -> tuple[Scores, list[str]]:
    """Score every run of an environment in the same way.

    Args:
        episodes: fresh ones per seed; 0 takes the runs' own evaluations.
        which: weights, or evaluations: the best of each seed by the run's own evaluations, or the last.
        progress: told what is being played.

    Returns:
        the scores, and why they are not fresh where they were to be.
    """
    if not episodes:
        return _recorded(task, which), []
    weights: dict[Path, str] = {}
    notes: list[str] = []
    for entrant in task.entrants:
        about = _about(entrant)
        found, reason = _weights(entrant, about, task, which)
        if found is None:
            note = f"{task.env}: no fresh episodes, {reason}; the scores are the runs' own evaluations."
            return _recorded(task, which), [note]
        weights[entrant.path] = found
        halted = [
            seed for seed, row in zip(entrant.seeds, entrant.rows, strict=True) if about["halted"][row]
        ]
        if halted:
            notes.append(
                f"'{entrant.path}': seeds {ranges(halted)} met a number that was not finite and learned no"
                " more; they count as they were."
            )
    by_group = {}
    for label, group in task.groups.items():
        each = []
        for entrant in group:
            progress(f"playing {episodes} episodes per seed of {entrant.path}")
            each.append(_played(entrant, episodes, weights[entrant.path]))
        by_group[label] = np.concatenate(each)
    return Scores(by_group, True, f"{episodes} fresh episodes per seed, {which} weights"), notes


def _about(entrant: Entrant) -> dict[str, Any]:
    """Return the manifest of a run's last checkpoint; an empty one where there is none yet."""
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


def _weights(entrant: Entrant, about: dict[str, Any], task: Task, which: Which) -> tuple[str | None, str]:
    """Return which of a run's weights are of the common part, or None and what is in the way."""
    if not about:
        return None, f"'{entrant.path}' has no checkpoint yet"
    if which == "best":
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


def _recorded(task: Task, which: Which) -> Scores:
    """Take the runs' own evaluations up to the common step."""
    by_group = {}
    for label, group in task.groups.items():
        within = [
            entrant.evaluations.score[list(entrant.rows)][:, entrant.evaluations.step <= task.reach]
            for entrant in group
        ]
        best = which == "best"
        by_group[label] = np.concatenate([own.max(axis=1) if best else own[:, -1] for own in within])
    source = (
        "the best of each seed's own evaluations: selection scores, which are too high"
        if which == "best"
        else "each seed's own evaluation at the common step"
    )
    return Scores(by_group, False, source)
