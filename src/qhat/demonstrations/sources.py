"""Transitions that others took, read from files for replay: a NumPy layout, and Minari's datasets.

The NumPy layout is an `.npz` archive with a row per transition, in order of time:

    observation       [T, ...]  what was acted on
    action            [T], [T, F]  the choice from 0, one per factor, or the commands of the joints
    reward            [T]
    next_observation  [T, ...]  its true successor, also at an episode's end
    terminated        [T]       the task ended: nothing follows
    truncated         [T]       optional: an operator or a time limit ended the episode
    mask, next_mask   [T, A]    optional: legal actions at each, of a task that masks

An episode also ends (as truncated) where a row's next observation is not the next row's observation.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from qhat.environments.extras import installed
from qhat.errors import UsageError, near_miss, require

MINARI = "minari:"
"""What a dataset's id begins with."""
NEEDED = ("observation", "action", "reward", "next_observation", "terminated")
OPTIONAL = ("truncated", "mask", "next_mask")


def require_readable(source: str) -> None:
    """Raise `UsageError` for a source that is not there, before anything slow is loaded."""
    if source.startswith(MINARI):
        require(
            installed("minari"),
            f"Demonstrations '{source}' need minari, which is not installed; type:"
            " pip install 'qhat[demos]'",
        )
        return
    path = Path(source)
    require(
        path.is_file(),
        f"Demonstrations '{source}' are not there; expected an .npz file, or {MINARI} and a dataset's id.",
    )
    with archive_of(source) as archive:
        missing = [name for name in NEEDED if name not in archive.files]
        if missing:
            close = near_miss(missing[0], archive.files)
            raise UsageError(
                f"Demonstrations '{source}' have no array '{missing[0]}'; expected {', '.join(NEEDED)}"
                f" (docs/demonstrations.md).{close}"
            )


def archive_of(source: str) -> Any:
    """Open an `.npz` file. Raises `UsageError` for anything else."""
    try:
        archive = np.load(source, allow_pickle=False)
    except (OSError, ValueError, zipfile.BadZipFile):
        archive = None
    if not hasattr(archive, "files"):
        raise UsageError(f"Demonstrations '{source}' are no .npz archive; expected what np.savez writes.")
    return archive
