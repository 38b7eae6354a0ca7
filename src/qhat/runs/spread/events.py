"""What a group's task sends to the driver while it trains."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from qhat.runs.progress import Progress

DONE, STOPPED, USAGE, FAILED = "done", "stopped", "usage", "failed"
"""How a task ends."""


@dataclasses.dataclass(frozen=True)
class Started:
    """The group's folder exists."""

    node: str
    """Host name of the machine."""
    config: str
    """Text of the group's config.json."""


@dataclasses.dataclass(frozen=True)
class Shown:
    """The newest progress."""

    progress: Progress


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """An evaluation of the group's seeds."""

    step: int
    scores: tuple[float, ...]
    success_rates: tuple[float, ...]
    """Empty where the environment reports no success."""


@dataclasses.dataclass(frozen=True)
class Warned:
    """A warning of the training."""

    sentence: str


@dataclasses.dataclass(frozen=True)
class File:
    """A file of the next `Saved` that the driver does not have yet."""

    digest: str
    """SHA-256 of `data`."""
    data: bytes


@dataclasses.dataclass(frozen=True)
class Saved:
    """The group's folder after a checkpoint. What it lists was sent before, now or for an earlier one."""

    step: int
    digests: Mapping[str, str]
    """SHA-256 of every file, by its path in the folder."""


@dataclasses.dataclass(frozen=True)
class Ended:
    """The last event of a task."""

    how: str
    """One of `DONE`, `STOPPED`, `USAGE` and `FAILED`."""
    sentence: str = ""
    """What failed, with settings in both spellings."""


Event = Started | Shown | Evaluated | Warned | File | Saved | Ended
