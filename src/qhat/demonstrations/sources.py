"""Transitions that others took, read from files for replay: sources by their words, and the NumPy layout.

A word is the path of an `.npz` file, `minari:` and an id, a folder of LeRobot's (lerobot.py), or a bag of
ROS 2 with a map (bags.py, logged.py).

The NumPy layout is an `.npz` archive with a row per transition, in order of time:

    observation       [T, ...]  what was acted on
    action            [T, ...]  the environment's own action, or `[T, F]`: one number per factor or joint
    reward            [T]
    next_observation  [T, ...]  its true successor, also at an episode's end
    terminated        [T]       the task ended: nothing follows
    truncated         [T]       optional: an operator or a time limit ended the episode
    mask, next_mask   [T, A]    optional: legal actions at each, of a task that masks
    probability       [T]       optional: of the action, by those who acted
    time              [T]       optional: seconds, for `qhat doctor` and errors
    row               [T]       optional: the row's number in what it was made from, for errors

An episode also ends (as truncated) where a row's next observation is not the next row's observation. A
folder with these arrays as `observation.npy` and so on is the same.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qhat.demonstrations import archives, bags, lerobot
from qhat.system.errors import require
from qhat.system.machine import install_command, installed

if TYPE_CHECKING:
    from qhat.environments.base import Spec

MINARI = "minari:"
"""What a dataset's id begins with."""


def require_readable(source: str, rewards: bool = True) -> None:
    """Raise `UsageError` for a source that is not there, before anything slow is loaded.

    Args:
        rewards: whether it needs them; imitation does not. An .npz file always has some.
    """
    if source.startswith(MINARI):
        require(
            installed("minari"),
            f"Demonstrations '{source}' need minari, which is not installed; type:"
            f" {install_command('minari')}",
        )
        return
    if lerobot.names_dataset(source):
        lerobot.opened(source, rewards)
        return
    if bags.names_bag(source):
        bags.opened(source)
        env_of(source)
        return
    require(
        Path(source).is_file() or archives.names_folder(source),
        f"Demonstrations '{source}' are not there; expected an .npz file, a folder of its arrays as .npy"
        f" files, a folder of LeRobot's with {lerobot.INFO}, BAG{bags.SUFFIX}@MAP.yaml, or {MINARI} and a"
        " dataset's id.",
    )
    archives.require_arrays(source)


def is_data(word: str) -> bool:
    """Whether a word names recorded steps, and no environment."""
    others = lerobot.names_dataset(word) or bags.names_bag(word) or archives.names_folder(word)
    return word.startswith(MINARI) or word.endswith(".npz") or others


def env_of(source: str) -> str | None:
    """Return the id of the environment that a source says it was recorded in; `None` where it says none."""
    if bags.names_bag(source):
        from qhat.demonstrations.logged import environment_of

        return environment_of(source)
    if not source.startswith(MINARI):
        return None
    import minari

    found: dict[str, Any] = minari.list_local_datasets().get(source.removeprefix(MINARI), {})
    try:
        return f"gym:{json.loads(found['env_spec'])['id']}"
    except (KeyError, TypeError, ValueError):
        return None


def columns_of(source: str, rewards: bool = True, spec: Spec | None = None) -> dict[str, np.ndarray]:
    """Read the arrays of a source other than Minari's, as an .npz file has them.

    Args:
        rewards: whether it needs them; without, a missing reward is 0.
        spec: of the environment that a bag is read for; `None` is the one that its map names.

    Raises:
        UsageError: they do not fit in memory, hold objects, or are damaged.
    """
    if bags.names_bag(source):
        from qhat.demonstrations import logged

        return logged.columns_of(source, spec, rewards)
    if lerobot.names_dataset(source):
        return lerobot.columns_of(source, rewards)
    return archives.arrays_of(source)
