"""A run's checkpoints on disk: whole or not at all, and only as many as asked for."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qhat.runs import checkpoint
from qhat.runs.folder import RunFolder
from qhat.system.errors import QhatError, UsageError


def save(
    folder: RunFolder,
    step: int,
    trees: Mapping[str, Any],
    best: Any,
    about: Mapping[str, Any],
    keep: int = 1,
    same: Mapping[str, Path] | None = None,
) -> None:
    """Write the checkpoint of `step` and the best weights, move `last`, and drop what is too old.

    Args:
        same: as `checkpoint.write`'s.
        keep: checkpoints that stay, the newest ones.

    Raises:
        QhatError: the disk took no more; what `last` pointed to before is as it was.
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
    kept = {str(each) for each in [own for own in steps if own <= step][-keep:]}
    for old in folder.checkpoints.iterdir():
        if old.name not in kept:
            checkpoint.remove(old)


def require_space(place: Path, needed: int) -> None:
    """Raise `UsageError`, with both figures, where the disk of `place` has no room for `needed` bytes."""
    place = place.resolve()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed > free:
        raise UsageError(
            f"Checkpoints of this run take {needed / 2**20:,.0f} MiB, and the disk of '{place}' has"
            f" {free / 2**20:,.0f} MiB free; lower --keep, --replay-capacity or --seeds, or name a"
            " --run-dir on another disk."
        )


def _still_there(folder: RunFolder) -> str:
    try:
        last = folder.last()
    except UsageError:
        return "There is no earlier one."
    return f"The one of step {int(last.name):,} is whole: free some space, then go on with --resume."
