"""Groups of seeds: how a run is divided, and the folder of each group while the run lasts.

`RUN/groups/<first seed>/` is a run folder of that group alone, with its newest checkpoint; each is complete
and can be resumed. It is removed when the run's own checkpoint has all that the groups have.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
from pathlib import Path

from qhat.runs.folder import RunFolder
from qhat.runs.lock import sole
from qhat.system.errors import UsageError, require, setting
from qhat.system.files import read_json, write_text

FOLDER = "groups"
DIVISION = "groups.json"
"""File in that folder: the first seed and the number of seeds of each group."""
BEFORE = "before.csv"
"""File in that folder: rows of metrics.csv from before the run was divided."""
STATE = "state.safetensors"
"""File of a checkpoint that training can continue from."""


@dataclasses.dataclass(frozen=True)
class Group:
    """Seeds with consecutive numbers, which train in one process."""

    first: int
    count: int

    def __str__(self) -> str:
        last = self.first + self.count - 1
        return f"seed {self.first}" if self.count == 1 else f"seeds {self.first} to {last}"


def divided(first: int, seeds: int, parts: int) -> list[Group]:
    """Divide seeds into at most `parts` groups; their sizes differ by at most 1."""
    parts = max(1, min(parts, seeds))
    size, more = divmod(seeds, parts)
    groups, at = [], first
    for index in range(parts):
        count = size + (index < more)
        groups.append(Group(at, count))
        at += count
    return groups


def folder_of(run: Path, group: Group) -> RunFolder:
    """Return a group's folder within a run's."""
    return RunFolder(run / FOLDER / str(group.first))


def write_division(run: Path, groups: list[Group]) -> None:
    """Record how a run is divided."""
    (run / FOLDER).mkdir(exist_ok=True)
    write_text(run / FOLDER / DIVISION, json.dumps([[each.first, each.count] for each in groups]) + "\n")


def read_division(run: Path) -> list[Group]:
    """Return how a run is divided; empty where it is not.

    Raises:
        UsageError: the file is damaged.
    """
    path = run / FOLDER / DIVISION
    try:
        found = read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        return []
    good = isinstance(found, list) and all(
        isinstance(pair, list) and len(pair) == 2 and all(type(number) is int for number in pair)
        for pair in found
    )
    require(good, f"'{path}' is damaged; expected the first seed and the number of seeds of each group.")
    groups = [Group(*pair) for pair in found]
    chained = all(each.count > 0 for each in groups) and all(
        one.first + one.count == other.first for one, other in itertools.pairwise(groups)
    )
    require(chained, f"'{path}' is damaged: its groups are not consecutive seeds.")
    return groups


def leave_groups(run: Path) -> None:
    """Remove the groups of a run that continues on this machine alone, from its own checkpoint.

    Raises:
        UsageError: its groups have no step in common, so only a cluster can continue it.
    """
    if not (run / FOLDER).is_dir():
        return
    opened = RunFolder.open(run)
    if not _continues(opened):
        raise UsageError(
            f"The groups of run '{run}' stopped at different steps; expected"
            f" {setting('cluster', 'local')}, or another cluster, which continues each from its own step."
        )
    with sole(run):
        shutil.rmtree(run / FOLDER)


def _continues(run: RunFolder) -> bool:
    """Whether a run's last checkpoint is one that training can continue from."""
    try:
        return (run.last() / STATE).exists()
    except UsageError:
        return False
