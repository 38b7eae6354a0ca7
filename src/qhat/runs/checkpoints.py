"""A run's checkpoints on disk: each is complete or absent, and only the newest ones stay."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from qhat.engine.state import TrainState
from qhat.runs import checkpoint
from qhat.runs.faults import require_finite
from qhat.runs.folder import RunFolder
from qhat.runs.pieces import Pieces
from qhat.system.errors import QhatError, UsageError, setting


class Checkpoints:
    """Writes a run's checkpoints. Replay is split into pieces; only changed pieces are written again."""

    def __init__(self, folder: RunFolder, state: TrainState, about: Mapping[str, Any], keep: int):
        """Begin with the state that the run starts from.

        Args:
            about: fields of every manifest of the run.
            keep: number of the newest checkpoints that stay.
        """
        self._folder, self._about, self._keep = folder, about, keep
        self._pieces = Pieces(state)

    def resumed(self, state: TrainState) -> None:
        """Record that the last checkpoint in the folder has this state's replay."""
        self._pieces.saved(self._folder.last(), state)

    def save(
        self,
        step: int,
        state: TrainState,
        kept: TrainState,
        best: Mapping[str, Any],
        halted: Any,
        stopped_by: str | None = None,
    ) -> None:
        """Write the checkpoint of `step` and the best weights, and move `last`.

        Args:
            kept: the part of the state that a checkpoint stores.
            best: each seed's best weights, with their scores and steps.
            halted: which seeds have stopped, `[S]`.
            stopped_by: the setting that ends the run here.
        """
        about = {
            "step": step,
            **self._about,
            "best_score": [float(score) if np.isfinite(score) else None for score in best["score"]],
            "best_step": [int(at) for at in best["step"]],
            "halted": [bool(each) for each in halted],
            "stopped_by": stopped_by,
        }
        require_finite(jax.tree.leaves(state.seeds.learner))
        rest, pieces, same = self._pieces.split(kept)
        trees = {"state": rest, "best": best, "weights": state.seeds.learner.online, **pieces}
        save(self._folder, step, trees, best["weights"], about, self._keep, same)
        self._pieces.saved(self._folder.checkpoints / str(step), state)


def save(
    folder: RunFolder,
    step: int,
    trees: Mapping[str, Any],
    best: Any,
    about: Mapping[str, Any],
    keep: int = 1,
    same: Mapping[str, Path] | None = None,
) -> None:
    """Write the checkpoint of `step` and the best weights, move `last`, and remove old checkpoints.

    Args:
        same: as in `checkpoint.write`.
        keep: number of the newest checkpoints that stay.

    Raises:
        QhatError: the disk is full; the checkpoint that `last` points to did not change.
    """
    try:
        checkpoint.write(folder.checkpoints / str(step), trees, about, same)
        checkpoint.write(folder.best, {"weights": best}, about)
        folder.set_last(step)
    except OSError as error:
        raise QhatError(
            f"The checkpoint of step {step:,} cannot be written: {error.strerror or error}."
            f" {_still_there(folder)}"
        ) from error
    steps = folder.steps()
    kept = {str(each) for each in [each for each in steps if each <= step][-keep:]}
    for old in folder.checkpoints.iterdir():
        if old.name not in kept:
            checkpoint.remove(old)


def require_space(place: Path, needed: int) -> None:
    """Raise `UsageError`, with both sizes, if the disk of `place` has no room for `needed` bytes."""
    place = place.resolve()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed > free:
        raise UsageError(
            f"Checkpoints of this run take {needed / 2**20:,.0f} MiB, and the disk of '{place}' has"
            f" {free / 2**20:,.0f} MiB free; lower {setting('keep')}, {setting('replay_capacity')} or"
            f" {setting('seeds')}, or name a"
            f" {setting('run_dir')} on another disk."
        )


def _still_there(folder: RunFolder) -> str:
    try:
        last = folder.last()
    except UsageError:
        return "There is no earlier one."
    how = f"free some space, then continue with {setting('resume', True)}."
    return f"The one of step {int(last.name):,} is whole: {how}"
