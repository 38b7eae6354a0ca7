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

An episode also ends (as truncated) where a row's next observation is not the next row's observation.
"""

from __future__ import annotations

import contextlib
import json
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib import format as npy

from qhat.demonstrations import bags, lerobot
from qhat.system.errors import UsageError, near_miss, require
from qhat.system.machine import install_command, installed

if TYPE_CHECKING:
    from qhat.environments.base import Spec

MINARI = "minari:"
"""What a dataset's id begins with."""
NEEDED = ("observation", "action", "reward", "next_observation", "terminated")
OPTIONAL = ("truncated", "mask", "next_mask", "time", "row",
            "probability")  # fmt: skip

RATIO = 1_100
"""How many bytes one of a deflated archive can stand for, at most (1032, and some for its ends)."""


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
    path = Path(source)
    require(
        path.is_file(),
        f"Demonstrations '{source}' are not there; expected an .npz file, a folder of LeRobot's with"
        f" {lerobot.INFO}, BAG{bags.SUFFIX}@MAP.yaml, or {MINARI} and a dataset's id.",
    )
    with _opened(source) as archive:
        names = [_name(member) for member in archive.infolist()]
    missing = [name for name in NEEDED if name not in names]
    if missing:
        raise UsageError(
            f"Demonstrations '{source}' have no array '{missing[0]}'; expected {', '.join(NEEDED)}"
            f" (docs/demonstrations.md).{near_miss(missing[0], names)}"
        )


def is_data(word: str) -> bool:
    """Whether a word names recorded steps, and no environment."""
    others = lerobot.names_dataset(word) or bags.names_bag(word)
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
    return lerobot.columns_of(source, rewards) if lerobot.names_dataset(source) else _arrays(source)


def _arrays(source: str) -> dict[str, np.ndarray]:
    """Read the arrays that are known from an .npz file, if the sizes that they claim fit."""
    # It imports JAX, and a source is looked for before that.
    from qhat.system.host_memory import require_memory

    with _opened(source) as archive:
        members = {_name(member): member for member in archive.infolist()}
        known = {name: members[name] for name in (*NEEDED, *OPTIONAL) if name in members}
        # Each is in memory twice while its rows are checked.
        needed = 2 * sum(member.file_size for member in known.values())
        require_memory(needed, f"Reading demonstrations '{source}'", "expected fewer rows in a file")
        for member in known.values():
            _require_numbers(archive, member)
        columns = {}
        for name, member in known.items():
            with archive.open(member) as stream:
                columns[name] = npy.read_array(stream, allow_pickle=False)
    return columns


def _require_numbers(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Raise `ValueError` unless an array's header says just what its file unpacks to."""
    ratio = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: RATIO}.get(member.compress_type, 0)
    if member.file_size > ratio * member.compress_size:
        raise ValueError("more is claimed than can be packed in it")
    with archive.open(member) as stream:
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[
            npy.read_magic(stream)
        ]
        shape, _, dtype = read(stream)
        if dtype.hasobject or not dtype.itemsize or any(size < 0 for size in shape):
            raise ValueError("objects, or nothing")
        if stream.tell() + math.prod(shape) * dtype.itemsize != member.file_size:
            raise ValueError("another size than its shape's")


@contextlib.contextmanager
def _opened(source: str) -> Iterator[zipfile.ZipFile]:
    """Open an `.npz` file. Raises `UsageError` for anything else, also for what turns out to be damaged."""
    try:
        archive = zipfile.ZipFile(source)
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        raise UsageError(
            f"Demonstrations '{source}' are no .npz archive; expected what np.savez writes."
        ) from None
    with archive:
        try:
            yield archive
        except UsageError:
            raise
        except Exception:
            # Unpacking what is damaged raises a dozen kinds of errors, of zipfile, zlib and NumPy.
            raise UsageError(
                f"Demonstrations '{source}' hold objects or are damaged; expected arrays of numbers."
            ) from None


def _name(member: zipfile.ZipInfo) -> str:
    return member.filename.removesuffix(".npy")
